// Writes each dashboard as a TypeScript file that claims to be a `Dashboard` of types.ts; and beside them copies with one mistake
// each, which must be noticed.
//
//   node emit.mjs DASHBOARDS OUT      writes OUT/checked/*.ts and OUT/planted/*.ts
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";

const [from, out] = process.argv.slice(2);
const panel = (dashboard, type) => dashboard.panels.find((one) => one.type === type);

const mistakes = {
    "a-number-as-text": (it) => (it.schemaVersion = "41"),
    "an-unknown-kind-of-panel": (it) => (panel(it, "timeseries").type = "graph"),
    "an-unknown-place-of-the-legend": (it) => (panel(it, "timeseries").options.legend.placement = "left"),
    "an-option-that-is-none": (it) => (panel(it, "timeseries").options.legned = true),
    "a-line-as-thick-as-a-word": (it) => (panel(it, "timeseries").fieldConfig.defaults.custom.lineWidth = "thick"),
    "a-custom-field-that-is-none": (it) => (panel(it, "timeseries").fieldConfig.defaults.custom.lineColour = "red"),
    "an-unknown-mode-of-colours": (it) => (panel(it, "stat").fieldConfig.defaults.color.mode = "rainbow"),
    "a-panel-without-its-unit": (it) => delete panel(it, "stat").fieldConfig.defaults.unit,
    "a-panel-without-its-description": (it) => delete panel(it, "timeseries").description,
    "a-query-without-its-expression": (it) => delete panel(it, "timeseries").targets[0].expr,
    "a-data-source-that-is-not-chosen": (it) => (panel(it, "stat").datasource.uid = "mine"),
    "a-variable-of-no-type": (it) => (it.templating.list[1].type = "guess"),
};

rmSync(out, { recursive: true, force: true });
for (const part of ["checked", "planted"]) {
    mkdirSync(join(out, part), { recursive: true });
    writeFileSync(join(out, part, "tsconfig.json"), JSON.stringify({ extends: "../../tsconfig.json" }));
}
const write = (part, name, dashboard) =>
    writeFileSync(
        join(out, part, `${name}.ts`),
        `import type { Dashboard } from "../../types.js";\nexport const dashboard: Dashboard = ${JSON.stringify(dashboard, null, 2)};\n`,
    );
for (const file of readdirSync(from).filter((name) => name.endsWith(".json"))) {
    const text = readFileSync(join(from, file), "utf8");
    write("checked", basename(file, ".json"), JSON.parse(text));
    if (file !== "overview.json") continue;
    for (const [name, make] of Object.entries(mistakes)) {
        const copy = JSON.parse(text);
        make(copy);
        write("planted", name, copy);
    }
}
