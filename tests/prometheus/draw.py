"""Draws the data of a dashboard's panels as one SVG: what Grafana would have been given, not what it would have made of it.

A panel comes with the answers of Prometheus to its queries. Kinds: timeseries, stat, bargauge, table, state-timeline.
"""

import html
import math
import re

COLUMN, ROW, GAP = 50, 26, 6
PALETTE = ["#2f6fb0", "#d1782b", "#3d9150", "#b64a4a", "#7d5fb2", "#8a6a52", "#c46aa8", "#6f6f6f", "#a3a13a", "#3aa0ab", "#1f3f66", "#e0a060", "#90c49a"]
COLORS = {"green": "#3d9150", "yellow": "#c99400", "red": "#c23b3b", "blue": "#2f6fb0", "text": "#222", "transparent": "#222"}


def name_of(legend, labels):
    """The legend of a series, as Grafana fills it in."""
    if legend == "__auto":
        return ", ".join(value for key, value in labels.items() if key != "__name__") or labels.get("__name__", "value")
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: labels.get(found[1], ""), legend)


def shown(value, unit):
    """A number with its unit."""
    if value is None or math.isnan(value):
        return "-"
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s":
        for factor, name in [(1, "s"), (1e3, "ms"), (1e6, "us")]:
            if abs(value) * factor >= 1 or name == "us":
                return f"{value * factor:.3g} {name}" if value else "0 s"
    if unit == "sci":
        return f"{value:.2e}"
    if unit in ("bytes", "Bps"):
        for power, name in [(3, "GiB"), (2, "MiB"), (1, "KiB")]:
            if abs(value) >= 1024**power:
                return f"{value / 1024**power:.3g} {name}" + ("/s" if unit == "Bps" else "")
        return f"{value:.3g} B" + ("/s" if unit == "Bps" else "")
    if unit == "none" and abs(value) >= 1000:
        text = f"{value:.0f}"
    elif abs(value) < 1000:
        text = f"{value:.0f}" if value == round(value) else f"{value:.3g}"
    else:
        power = min(3, int(math.log10(abs(value)) // 3))
        text = f"{value / 1000**power:.3g} {['', 'K', 'M', 'G'][power]}".strip()
    return text + ("/s" if unit == "ops" else "")


class Picture:
    """Shapes with their coordinates in pixels."""

    def __init__(self, width, height):
        self.width, self.height, self.parts = width, height, []

    def rect(self, x, y, w, h, fill, **more):
        extra = "".join(f' {key.replace("_", "-")}="{value}"' for key, value in more.items())
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(w, 0):.1f}" height="{max(h, 0):.1f}" fill="{fill}"{extra}/>')

    def text(self, x, y, text, size=10, fill="#222", anchor="start", bold=False, width=None):
        if width and len(text) * size * 0.56 > width:
            text = text[: max(1, int(width / size / 0.56) - 1)] + "…"
        weight = ' font-weight="600"' if bold else ""
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" text-anchor="{anchor}"{weight}>{html.escape(text)}</text>')

    def line(self, points, stroke, width=1.2, dash=""):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="{stroke}" stroke-width="{width}"{dashed}/>')

    def area(self, points, fill):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f'<polygon points="{path}" fill="{fill}" fill-opacity="0.3"/>')

    def svg(self):
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width}" height="{self.height}" viewBox="0 0 {self.width} {self.height}" '
            'font-family="system-ui, Helvetica, Arial, sans-serif">\n' + "\n".join(self.parts) + "\n</svg>\n"
        )


def look(panel, value):
    """Text and colour of a number, by the panel's mappings and thresholds."""
    defaults = panel["fieldConfig"]["defaults"]
    for mapping in defaults.get("mappings", []):
        hit = mapping["options"].get(f"{value:.0f}")
        if hit and value == round(value):
            return hit["text"], COLORS.get(hit.get("color", "text"), hit.get("color", "#222"))
    color = "#222"
    for step in defaults.get("thresholds", {}).get("steps", []):
        if step["value"] is None or value >= step["value"]:
            color = COLORS.get(step["color"], step["color"])
    return shown(round(value) if defaults.get("decimals") == 0 else value, defaults["unit"]), color


def series_of(panel, answers):
    """[(name, [(time, value)])] of all queries, in order; instant ones with one value."""
    found = []
    for target, answer in zip(panel["targets"], answers):
        for one in answer:
            values = one.get("values") or [one["value"]]
            found.append((name_of(target["legendFormat"], one["metric"]), [(float(at), float(value)) for at, value in values]))
    return sorted(found, key=lambda one: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", one[0])])


def draw_timeseries(picture, panel, answers, x, y, w, h, span):
    defaults = panel["fieldConfig"]["defaults"]
    stacked = defaults["custom"]["stacking"]["mode"] == "normal"
    lines = [(name, [(t, v) for t, v in points if math.isfinite(v)]) for name, points in series_of(panel, answers)]
    below = {}
    if stacked:
        for at, (name, points) in enumerate(lines):
            floor = [below.get(t, 0.0) for t, _ in points]
            raised = [(t, v + low) for (t, v), low in zip(points, floor)]
            below.update(raised)
            lines[at] = (name, raised, floor)
    values = [value for line in lines for _, value in line[1]]
    low, high = min(values + [0.0]), max(values + [0.0])
    limit = next((step["value"] for step in defaults.get("thresholds", {}).get("steps", []) if step["value"] is not None), None)
    if limit is not None and high > limit / 4:
        high = max(high, limit * 1.05)
    logarithmic = defaults["custom"].get("scaleDistribution", {}).get("type") == "log"
    scale = (lambda v: math.log10(max(v, 1e-4))) if logarithmic else (lambda v: v)
    if logarithmic:
        low = max(min([value for value in values if value > 0] + [1.0]), 1e-4)
    if high <= low:
        high = low + 1
    left, bottom = x + 58, y + h - 34
    right, top = x + w - 8, y + 6
    across = lambda t: left + (t - span[0]) / (span[1] - span[0]) * (right - left)
    up = lambda v: bottom - (scale(max(v, low)) - scale(low)) / (scale(high) - scale(low)) * (bottom - top)
    for part in range(5):
        value = low + (high - low) * part / 4 if not logarithmic else low * (high / low) ** (part / 4)
        picture.line([(left, up(value)), (right, up(value))], "#e4e4e4", 0.8)
        if part % 2 == 0:
            picture.text(left - 4, up(value) + 3, shown(value, defaults["unit"]), 9, "#666", "end")
    for part in range(3):
        t = span[0] + (span[1] - span[0]) * part / 2
        picture.text(across(t), bottom + 11, f"{t - span[0]:.0f} s", 9, "#666", ["start", "middle", "end"][part])
    if limit is not None and low <= limit <= high:
        picture.line([(left, up(limit)), (right, up(limit))], COLORS["red"], 1, "4 3")
    # The largest ones behind: those below stay to be seen.
    for at in reversed(range(len(lines))):
        points, color = lines[at][1], PALETTE[at % len(PALETTE)]
        if stacked and points:
            edge = [(across(t), up(v)) for t, v in points] + [(across(t), up(v)) for (t, _), v in reversed(list(zip(points, lines[at][2])))]
            picture.area(edge, color)
        pieces, last = [[]], None
        for t, v in points:
            if last is not None and t - last > 3.5:
                pieces.append([])
            pieces[-1].append((across(t), up(v)))
            last = t
        for piece in pieces:
            if len(piece) == 1:
                piece.append((piece[0][0] + 1.5, piece[0][1]))
            picture.line(piece, color)
    along, row = left - 50, 0
    for at, line in enumerate(lines):
        width = min(len(line[0]) * 5.2 + 20, w - 16)
        if along + width > right:
            along, row = left - 50, row + 1
        if row > 1 or (row == 1 and along + 2 * width > right and at + 1 < len(lines)):
            picture.text(along, y + h - 14 + 11 * min(row, 1), f"and {len(lines) - at} more", 9, "#666")
            break
        picture.rect(along, y + h - 20 + 11 * row, 9, 3, PALETTE[at % len(PALETTE)])
        picture.text(along + 12, y + h - 15 + 11 * row, line[0], 9, "#444", width=width - 10)
        along += width


def draw_stat(picture, panel, answers, x, y, w, h, span):
    found = series_of(panel, answers)
    if panel["options"]["textMode"] == "name":
        picture.text(x + w / 2, y + h / 2 + 4, found[0][0], 20, anchor="middle", bold=True, width=w - 10)
        return
    for at, (_, points) in enumerate(found[:3]):
        text, color = look(panel, points[-1][1])
        size = 30 if len(found) == 1 else 16
        picture.text(x + w / 2, y + h * (at + 1) / (len(found[:3]) + 1) + size * 0.35, text, size, color, "middle", bold=True)


def draw_bargauge(picture, panel, answers, x, y, w, h, span):
    found = series_of(panel, answers)
    most = max([points[-1][1] for _, points in found] + [1e-9])
    height = min(22, (h - 8) / max(len(found), 1))
    names = min(max([len(name) for name, _ in found] + [1]) * 5.8 + 10, w / 2)
    full = w - names - 80
    for at, (name, points) in enumerate(found):
        value = points[-1][1]
        text, color = look(panel, value)
        top = y + 4 + at * height
        picture.text(x + names, top + height * 0.7, name, 10, "#444", "end", width=names)
        picture.rect(x + names + 8, top + 2, full, height - 4, "#efefef")
        picture.rect(x + names + 8, top + 2, full * value / most, height - 4, color)
        picture.text(x + w - 66, top + height * 0.7, text, 10, color)


def draw_timeline(picture, panel, answers, x, y, w, h, span):
    found = series_of(panel, answers)
    left, right, bottom = x + 76, x + w - 8, y + h - 34
    height = (bottom - y - 4) / max(len(found), 1)
    across = lambda t: left + (t - span[0]) / (span[1] - span[0]) * (right - left)
    kinds = panel["fieldConfig"]["defaults"]["mappings"][0]["options"]
    for at, (name, points) in enumerate(found):
        top = y + 4 + at * height
        picture.text(left - 6, top + height * 0.7, name, 10, "#444", "end")
        begin = 0
        for end in range(1, len(points) + 1):
            if end == len(points) or points[end][1] != points[begin][1]:
                _, color = look(panel, points[begin][1])
                last = points[end][0] if end < len(points) else points[end - 1][0]
                picture.rect(across(points[begin][0]), top + 1, across(last) - across(points[begin][0]), height - 2, color, fill_opacity="0.75")
                begin = end
    for part in range(3):
        t = span[0] + (span[1] - span[0]) * part / 2
        picture.text(across(t), bottom + 11, f"{t - span[0]:.0f} s", 9, "#666", ["start", "middle", "end"][part])
    along = left
    for kind in kinds.values():
        picture.rect(along, y + h - 17, 10, 8, COLORS.get(kind["color"], kind["color"]), fill_opacity="0.75")
        picture.text(along + 14, y + h - 9, kind["text"], 10, "#444")
        along += len(kind["text"]) * 6 + 40


def draw_table(picture, panel, answers, x, y, w, h, span):
    renamed = next(one for one in panel["transformations"] if one["id"] == "organize")["options"]["renameByName"]
    by = next(one for one in panel["transformations"] if one["id"] == "joinByField")["options"]["byField"]
    units = {one["matcher"]["options"]: one["properties"][0]["value"] for one in panel["fieldConfig"]["overrides"]}
    rows = {}
    for target, answer in zip(panel["targets"], answers):
        for one in answer:
            row = rows.setdefault(one["metric"][by], dict(one["metric"]))
            row.update({key: value for key, value in one["metric"].items() if key not in row})
            row[f"Value #{target['refId']}"] = float(one["value"][1])
    width = (w - 16) / len(renamed)
    height = min(20, (h - 10) / (len(rows) + 1))
    for column, (field, title) in enumerate(renamed.items()):
        right = x + 8 + (column + 1) * width - 12
        picture.text(right, y + height * 0.75, title, 10, "#222", "end", bold=True, width=width)
        for at, key in enumerate(sorted(rows, key=int)):
            value = rows[key].get(field)
            text = value if isinstance(value, str) else shown(value, units.get(title, "none"))
            picture.text(right, y + (at + 1.75) * height, text, 10, "#444", "end")
    for at in range(len(rows)):
        picture.line([(x + 8, y + (at + 1) * height + 2), (x + w - 8, y + (at + 1) * height + 2)], "#e8e8e8", 0.7)


DRAW = {"timeseries": draw_timeseries, "stat": draw_stat, "bargauge": draw_bargauge, "state-timeline": draw_timeline, "table": draw_table}


def draw(dashboard, answers, span, caption):
    """The SVG of a dashboard. `answers`: for each panel's id a list of results, one per query; `span`: first and last second."""
    panels = dashboard["panels"]
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    head = 46
    picture = Picture(24 * COLUMN + GAP, head + bottom * ROW + GAP)
    picture.rect(0, 0, picture.width, picture.height, "#f4f5f5")
    picture.text(10, 20, dashboard["title"], 16, bold=True)
    picture.text(10, 38, caption, 11, "#666")
    for panel in panels:
        place = panel["gridPos"]
        x, y = place["x"] * COLUMN + GAP, place["y"] * ROW + head
        w, h = place["w"] * COLUMN - GAP, place["h"] * ROW - GAP
        if panel["type"] == "row":
            picture.text(x + 4, y + 15, panel["title"], 12, bold=True)
            continue
        picture.rect(x, y, w, h, "#fff", stroke="#dcdcdc")
        picture.text(x + 8, y + 15, panel["title"], 11, bold=True, width=w - 12)
        if any(answers[panel["id"]]):
            DRAW[panel["type"]](picture, panel, answers[panel["id"]], x, y + 20, w, h - 20, span)
        else:
            picture.text(x + w / 2, y + h / 2 + 6, "no data", 11, "#888", "middle")
    return picture.svg()
