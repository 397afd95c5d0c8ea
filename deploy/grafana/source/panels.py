"""How a panel of each kind looks, and how panels become a dashboard, so that the pages beside this one say only what is shown.

In expressions `{$$}` stands for the selector of the job and the instances that are chosen on top of the dashboard, and `{$$,a="b"}` for it and more;
`[$$]` is the window of a rate.
"""

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
SELECTOR = 'job="$job",instance=~"$instance"'

#: Begins the sentence in the description of a panel that has no data in healthy operation. Tests know it.
EMPTY = "Empty while "

#: Per group: how many more liars could be corrected, less those that were named in the last five minutes.
MORE_LIARS = """
((solon_group_connected_workers{$$} - on (job, instance) group_left () solon_job_needed_workers{$$}
    <= on (job, instance) group_left () solon_job_adversaries{$$})
  or solon_group_connected_workers{$$} * 0 + on (job, instance) group_left () solon_job_adversaries{$$})
- on (job, instance, group) sum by (job, instance, group) (
    (increase(solon_worker_named_rounds_total{$$}[5m]) > bool 0)
    * on (job, instance, worker) group_left (group) solon_worker_info{$$})
"""

GREEN, YELLOW, RED, BLUE, GREY = "green", "yellow", "red", "blue", "#8e8e8e"


def query(expression, legend="", instant=False, table=False):
    """A query; its legend may hold {{label}}."""
    expression = " ".join(expression.replace("{$$", "{" + SELECTOR).replace("[$$]", "[$__rate_interval]").split())
    return {
        "datasource": DATASOURCE,
        "expr": expression,
        "legendFormat": legend or "__auto",
        "range": not instant,
        "instant": instant,
        "format": "table" if table else "time_series",
    }


def steps(first, *rest):
    """Colours: of what is below the first limit, then of what is from each limit on."""
    return {
        "mode": "absolute",
        "steps": [{"color": first, "value": None}] + [{"color": color, "value": value} for value, color in rest],
    }


def words(values):
    """Texts and colours in place of numbers: {number: (text, colour)}."""
    options = {str(value): {"text": text, "color": color, "index": at} for at, (value, (text, color)) in enumerate(values.items())}
    return [{"type": "value", "options": options}]


def _panel(kind, title, description, unit, queries, options, custom, width, height, defaults):
    return {
        "type": kind,
        "title": title,
        "description": " ".join(description.split()),
        "datasource": DATASOURCE,
        "targets": [dict(one, refId=chr(ord("A") + at)) for at, one in enumerate(queries)],
        "options": options,
        "fieldConfig": {"defaults": {"unit": unit, "custom": custom, **defaults}, "overrides": []},
        "gridPos": {"w": width, "h": height},
    }


def series(title, description, unit, *queries, width=8, height=8, stacked=False, limit=None, below_zero=False, logarithmic=False, **defaults):
    """Lines over time, from 0 unless values may be below it. `limit`: a dashed red line."""
    custom = {
        "drawStyle": "line",
        "lineInterpolation": "linear",
        "lineWidth": 1,
        "fillOpacity": 30 if stacked else 0,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if limit is not None else "off"},
    }
    if logarithmic:
        custom["scaleDistribution"] = {"type": "log", "log": 10}
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    defaults = {"color": {"mode": "palette-classic"}, **defaults}
    if not below_zero and not logarithmic:
        defaults["min"] = 0
    if limit is not None:
        defaults["thresholds"] = steps("transparent", (limit, RED))
    return _panel("timeseries", title, description, unit, queries, options, custom, width, height, defaults)


def number(title, description, unit, expression, legend="", width=4, height=4, colors=None, mappings=None, text="auto", **defaults):
    """The last value, large."""
    options = {
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "percentChangeColorMode": "standard",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "showPercentChange": False,
        "textMode": text,
        "wideLayout": True,
    }
    defaults = {"color": {"mode": "thresholds"}, "thresholds": colors or steps("text"), "mappings": mappings or [], **defaults}
    queries = [query(expression, legend, instant=True)]
    return _panel("stat", title, description, unit, queries, options, {}, width, height, defaults)


def bars(title, description, unit, expression, legend, width=8, height=8, colors=None, **defaults):
    """A bar for each of many: workers, reasons."""
    options = {
        "displayMode": "basic",
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False, "calcs": []},
        "maxVizHeight": 300,
        "minVizHeight": 8,
        "minVizWidth": 8,
        "namePlacement": "auto",
        "orientation": "horizontal",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "showUnfilled": True,
        "sizing": "auto",
        "valueMode": "color",
    }
    defaults = {"color": {"mode": "thresholds"}, "thresholds": colors or steps(BLUE), "min": 0, **defaults}
    queries = [query(expression, legend, instant=True)]
    return _panel("bargauge", title, description, unit, queries, options, {}, width, height, defaults)


def timeline(title, description, expression, legend, values, width=24, height=10):
    """A row for each of many, coloured over time by `values`: {number: (text, colour)}."""
    options = {
        "alignValue": "left",
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "mergeValues": True,
        "rowHeight": 0.9,
        "showValue": "never",
        "tooltip": {"mode": "single", "sort": "none"},
    }
    custom = {"fillOpacity": 80, "lineWidth": 0}
    defaults = {"color": {"mode": "thresholds"}, "mappings": words(values), "thresholds": steps(GREY)}
    return _panel("state-timeline", title, description, "none", [query(expression, legend)], options, custom, width, height, defaults)


def table(title, description, columns, by, width=24, height=9, renamed=None):
    """A row for each value of the label `by`. `columns`: (title, unit, expression)."""
    queries = [query(expression, instant=True, table=True) for _, _, expression in columns]
    panel = _panel("table", title, description, "none", queries, {"frameIndex": 0, "showHeader": True, "cellHeight": "sm"}, {}, width, height, {})
    values = {f"Value #{chr(ord('A') + at)}": name for at, (name, _, _) in enumerate(columns)}
    names = {**(renamed or {by: by}), **values}
    panel["transformations"] = [
        {"id": "joinByField", "options": {"byField": by, "mode": "outer"}},
        {"id": "filterFieldsByName", "options": {"include": {"names": list(names)}}},
        {"id": "organize", "options": {"excludeByName": {}, "indexByName": {name: at for at, name in enumerate(names)}, "renameByName": names}},
    ]
    panel["fieldConfig"]["overrides"] = [
        {"matcher": {"id": "byName", "options": name}, "properties": [{"id": "unit", "value": unit}]} for name, unit, _ in columns
    ]
    return panel


def _variables():
    def values(name, label, description, text, **more):
        return {
            "type": "query",
            "name": name,
            "label": label,
            "description": description,
            "datasource": DATASOURCE,
            "query": {"query": text, "refId": name},
            "refresh": 2,
            "sort": 1,
            "multi": False,
            "includeAll": False,
            "options": [],
            **more,
        }

    everything = {"text": "All", "value": "$__all"}
    return [
        {
            "type": "datasource",
            "name": "datasource",
            "label": "Data source",
            "description": "The Prometheus that scrapes solond.",
            "query": "prometheus",
            "options": [],
        },
        values("job", "Job", "The scrape job of prometheus.yml.", "label_values(solon_build_info, job)"),
        values(
            "instance",
            "Daemon",
            "Which solond.",
            'label_values(solon_build_info{job="$job"}, instance)',
            multi=True,
            includeAll=True,
            allValue=".+",
            current=everything,
        ),
    ]


def dashboard(uid, title, description, *rows):
    """A dashboard out of rows: (title, panels). Panels are laid out from left to right in 24 columns."""
    panels, y = [], 0
    for name, row in rows:
        panels.append({"type": "row", "title": name, "collapsed": False, "panels": [], "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}})
        x, y, height = 0, y + 1, 0
        for panel in row:
            w, h = panel["gridPos"]["w"], panel["gridPos"]["h"]
            if x + w > 24:
                x, y, height = 0, y + height, 0
            panels.append(dict(panel, gridPos={"x": x, "y": y, "w": w, "h": h}))
            x, height = x + w, max(height, h)
        y += height
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["solon"],
        "schemaVersion": 41,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "templating": {"list": _variables()},
        "annotations": {"list": []},
        "links": [
            {
                "type": "dashboards",
                "title": "Solon",
                "tags": ["solon"],
                "asDropdown": False,
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
                "icon": "dashboard",
                "tooltip": "",
            }
        ],
        "panels": [dict(panel, id=at + 1) for at, panel in enumerate(panels)],
    }
