/**
 * What a dashboard of ours is: Grafana's own types, as JSON has them, without the parts that are "anything" there.
 *
 * Grafana types a panel's options and its custom field settings as Record<string, unknown>: they depend on the kind of panel. Here each kind that we use
 * has its own, so that an option that Grafana would silently ignore is an error. What Grafana may leave out and a reader needs
 * (title, description, unit) must be there.
 */
import type { DataQuery, Dashboard as Grafanas } from "@grafana/schema";
import type * as bargauge from "@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen";
import type * as stat from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type * as timeline from "@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen";
import type * as table from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type * as timeseries from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

/** T as it stands in JSON: there an enumeration is one of its values. */
type Json<T> = T extends string
    ? `${T}`
    : T extends readonly (infer U)[]
      ? Json<U>[]
      : T extends object
        ? { [K in keyof T]: Json<T[K]> }
        : T;

type AnyPanel = Exclude<NonNullable<Grafanas["panels"]>[number], { type: "row" } | { panels: unknown[] }>;
type AnyFields = NonNullable<AnyPanel["fieldConfig"]>;

/** The data source that is chosen on top of the dashboard. */
interface Chosen {
    type: "prometheus";
    uid: "${datasource}";
}

/** A query of Grafana's Prometheus data source, whose types are not in the package. */
type Query = Json<Omit<DataQuery, "datasource" | "queryType">> & {
    datasource: Chosen;
    expr: string;
    legendFormat: string;
    range: boolean;
    instant: boolean;
    format: "time_series" | "table";
};

type PanelOf<Type extends string, Options, Custom> = Json<
    Omit<AnyPanel, "type" | "options" | "fieldConfig" | "targets" | "datasource" | "title" | "description" | "gridPos" | "id">
> & {
    type: Type;
    id: number;
    gridPos: Json<NonNullable<AnyPanel["gridPos"]>>;
    title: string;
    description: string;
    datasource: Chosen;
    targets: Query[];
    options: Json<Options>;
    fieldConfig: Json<Omit<AnyFields, "defaults">> & {
        defaults: Json<Omit<AnyFields["defaults"], "custom" | "unit">> & { unit: string; custom: Json<Custom> };
    };
};

type None = Record<string, never>;

type Panel =
    | PanelOf<"timeseries", timeseries.Options, timeseries.FieldConfig>
    | PanelOf<"stat", stat.Options, None>
    | PanelOf<"bargauge", bargauge.Options, None>
    | PanelOf<"table", table.Options, Partial<table.FieldConfig>>
    | PanelOf<"state-timeline", timeline.Options, timeline.FieldConfig>;

type Row = Json<Extract<NonNullable<Grafanas["panels"]>[number], { panels: unknown[] }>>;

/** A dashboard of ours. */
export type Dashboard = Json<Omit<Grafanas, "panels" | "title" | "description" | "uid">> & {
    title: string;
    description: string;
    uid: string;
    panels: (Panel | Row)[];
};
