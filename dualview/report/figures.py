"""Figures of the page: plotly's `data` and `layout` as plain values, one for each choice of the page's controls.

Colours are names such as `@both`, which the page replaces by those of its light or dark theme (page.css). Meaning is
never in the colour alone: lines differ in dash, markers in shape.
"""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from dualview.assessment import Document, verdict
from dualview.report.curves import GROUPS, MASKED, Curves, thinned
from dualview.report.record import Record

Figure = dict[str, Any]  # data, layout, and `label`: what it shows, for those who cannot see it
Variants = dict[str, Figure]  # by the values of the controls, joined by "|"

METRICS = {"auroc": "AUROC", "average_precision": "average precision"}
ORDERS = {"difference": "difference", "name": "name", "prevalence": "prevalence"}
LINES = {  # colour, dash, marker
    "all": ("@all", "dot", "square-open"),
    "both": ("@both", "solid", "circle"),
    "pa_only": ("@pa", "dash", "triangle-up"),
    "lateral_only": ("@lateral", "dashdot", "diamond"),
    "lateral_hidden": ("@pa", "dash", "triangle-up"),  # the PA view is left
    "pa_hidden": ("@lateral", "dashdot", "diamond"),
}
VERDICTS = {"helped": "circle", "hurt": "diamond", "undecided": "square-open"}
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "x", "star", "pentagon")
NUM_COLOURS = 8
MAX_LABEL = 34


def _axis(title: str, **settings: Any) -> dict[str, Any]:
    return {
        "title": {"text": title, "standoff": 8},
        "gridcolor": "@line",
        "linecolor": "@line",
        "zerolinecolor": "@muted",
        "automargin": True,
        **settings,
    }


def _layout(*, x: dict[str, Any], y: dict[str, Any], height: int, **settings: Any) -> dict[str, Any]:
    return {
        "xaxis": x,
        "yaxis": y,
        "height": height,
        "margin": {"l": 48, "r": 12, "t": 12, "b": 44},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": "@ink"},
        "hoverlabel": {"bgcolor": "@raised", "bordercolor": "@line", "font": {"color": "@ink"}},
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": -0.2, "yanchor": "top"},
        "dragmode": "zoom",
        **settings,
    }


def _unit(title: str) -> dict[str, Any]:
    """An axis from 0 to 1 with room for lines that run along its ends."""
    return _axis(title, range=[-0.02, 1.02], tickvals=[0, 0.25, 0.5, 0.75, 1], zeroline=False)


def _reference(x: list[float], y: list[float]) -> dict[str, Any]:
    """A thin line to compare with."""
    line = {"color": "@muted", "width": 1, "dash": "dot"}
    return {"type": "scatter", "x": x, "y": y, "mode": "lines", "line": line, "hoverinfo": "skip", "showlegend": False}


# -- curves ----------------------------------------------------------------------------------------


def curve_figures(
    record: Record, *, masked: dict[str, list[Curves]], groups: dict[str, list[Curves]]
) -> dict[str, Variants]:
    """ROC, precision-recall and reliability figures; each by finding and by which studies are looked at."""
    figures: dict[str, Variants] = {"roc": {}, "pr": {}, "reliability": {}}
    for studies, names, of_all in (("masked", MASKED, masked), ("groups", GROUPS, groups)):
        for number, finding in enumerate(record.findings):
            if of_all:
                key = f"{number}|{studies}"
                looks = record.document[studies]
                drawn = _of_finding(finding, of_all[finding], names=names, looks=looks)
                for kind, figure in drawn.items():
                    figures[kind][key] = figure
    return figures


def _of_finding(
    finding: str, curves: list[Curves], *, names: dict[str, str], looks: Document
) -> dict[str, Figure]:  # fmt: skip
    roc: list[dict[str, Any]] = [_reference([0, 1], [0, 1])]
    precision_recall: list[dict[str, Any]] = []
    reliability: list[dict[str, Any]] = [_reference([0, 1], [0, 1])]
    for curve in curves:
        of_look = looks[curve.what]["findings"][finding]
        name = names[curve.what]
        precision_recall.append(_reference([0, 1], [curve.prevalence] * 2))
        roc.append(_curve(curve, curve.roc, name=f"{name} {of_look['auroc']['value']:.3f}"))
        step = _curve(curve, curve.precision_recall, name=f"{name} {of_look['average_precision']['value']:.3f}")
        step["line"]["shape"] = "vh"  # average precision is the area under these steps
        precision_recall.append(step)
        dots = _curve(curve, [(x, y) for x, y, _ in curve.reliability], name=name)
        dots |= {"mode": "lines+markers", "text": [f"{size} studies" for _, _, size in curve.reliability]}
        dots["marker"] = {"symbol": LINES[curve.what][2], "size": 7, "color": LINES[curve.what][0]}
        dots["hovertemplate"] = "predicted %{x:.3f}, observed %{y:.3f}, %{text}<extra></extra>"
        reliability.append(dots)
    numbers = [
        f"{names[curve.what]} {looks[curve.what]['findings'][finding]['auroc']['value']:.3f}" for curve in curves
    ]
    undefined = [
        f"{name}: undefined, {looks[what]['findings'][finding]['undefined']}"
        for what, name in names.items()
        if looks[what]["findings"][finding]["undefined"]
    ]
    label = f"{finding}. AUROC {', '.join(numbers)}." if numbers else f"{finding}."
    label += "".join(f" {reason}." for reason in undefined)
    axes = {
        "roc": (roc, "1 - specificity", "sensitivity", "ROC curves of "),
        "pr": (precision_recall, "recall (sensitivity)", "precision", "Precision-recall curves of "),
        "reliability": (reliability, "mean predicted probability", "share of positives", "Reliability curves of "),
    }
    return {
        kind: {
            "data": data,
            "layout": _layout(x=_unit(x), y=_unit(y), height=390),
            "label": what + label,
            "text": label,
        }
        for kind, (data, x, y, what) in axes.items()
    }


def _curve(curve: Curves, points: Sequence[tuple[float, float]], *, name: str) -> dict[str, Any]:
    colour, dash, _ = LINES[curve.what]
    return {
        "type": "scatter", "mode": "lines", "name": name,
        "x": [x for x, _ in points], "y": [y for _, y in points],
        "line": {"color": colour, "dash": dash, "width": 2},
        "hovertemplate": "%{x:.3f}, %{y:.3f}<extra>" + name + "</extra>",
    }  # fmt: skip


# -- the forest ------------------------------------------------------------------------------------


def forest(record: Record) -> Variants:
    """What the lateral view is worth per finding, by metric and order; empty for networks of one view."""
    masked = record.document["masked"]
    if masked is None:
        return {}
    value = masked["value_of_lateral"]
    prevalence = {
        name: of_finding["num_positive"] / max(of_finding["num_positive"] + of_finding["num_negative"], 1)
        for name, of_finding in masked["both"]["findings"].items()
    }
    variants = {}
    for metric, title in METRICS.items():
        defined = [name for name in record.findings if verdict(value["findings"][name][metric]) != "undefined"]
        orders = {
            "difference": sorted(defined, key=lambda name: -value["findings"][name][metric]["value"]),
            "name": sorted(defined, key=str.lower),
            "prevalence": sorted(defined, key=lambda name: -prevalence[name]),
        }
        for order, names in orders.items():
            variants[f"{metric}|{order}"] = _forest(value, names=names, metric=metric, title=title)
    return variants


def _forest(value: Document, *, names: list[str], metric: str, title: str) -> Figure:
    rows = [value["findings"][name][metric] for name in names]
    places = [-number for number in range(1, len(names) + 1)]
    macro = value["macro"][metric]
    data = [
        _bars(rows, places, low="simultaneous_low", high="simultaneous_high", width=1.2, name="all findings together"),
        _bars(rows, places, low="low", high="high", width=4.5, name="this finding alone"),
    ]
    for what, symbol in VERDICTS.items():
        at = [number for number, row in enumerate(rows) if verdict(row) == what]
        if at:
            data.append(
                {
                    "type": "scatter", "mode": "markers", "name": what, "x": [rows[number]["value"] for number in at],
                    "y": [places[number] for number in at],
                    "text": [_hover(names[number], rows[number], what) for number in at],
                    "marker": {"symbol": symbol, "size": 10, "color": f"@{what}"},
                    "hovertemplate": "%{text}<extra></extra>",
                }
            )  # fmt: skip
    ticks, labels = places, [_short(name) for name in names]
    if macro["value"] is not None:
        data += [
            {**_bars([macro], [0], low="low", high="high", width=4.5, name="macro"), "showlegend": False},
            {
                "type": "scatter", "mode": "markers", "name": "macro", "x": [macro["value"]], "y": [0],
                "text": [_hover("macro", macro, f"mean of {macro['num_findings']} findings")], "showlegend": False,
                "marker": {"symbol": "star-diamond", "size": 13, "color": "@ink"},
                "hovertemplate": "%{text}<extra></extra>",
            },
        ]  # fmt: skip
        ticks, labels = [0, *places], ["<b>macro</b>", *labels]
    y = _axis(
        "", tickvals=ticks, ticktext=labels, range=[min(places, default=-1) - 0.7, 0.7], zeroline=False, showgrid=False
    )
    height = 24 * (len(names) + 1) + 104
    legend = {"orientation": "h", "x": 0, "xref": "container", "y": 0, "yref": "container", "yanchor": "bottom"}
    ends = [row[end] for row in [*rows, macro] for end in ("low", "high", "simultaneous_low", "simultaneous_high")
            if row.get(end) is not None]  # fmt: skip
    least, most = min([0.0, *ends]), max([0.0, *ends])
    margin = 0.04 * (most - least) or 0.05
    x_axis = _axis(f"{title} gained with the lateral", range=[least - margin, most + margin], zerolinewidth=1.5)
    verdicts = {what: [n for n, row in zip(names, rows, strict=True) if verdict(row) == what] for what in VERDICTS}
    said = "; ".join(f"{what}: {', '.join(of_verdict) or 'none'}" for what, of_verdict in verdicts.items())
    return {
        "data": data,
        "layout": _layout(
            x=x_axis, y=y, height=height, legend=legend, margin={"l": 60, "r": 12, "t": 6, "b": 78}, hovermode="closest"
        ),
        "label": f"Forest plot of the {title} gained with the lateral view. {said}. The table below has the numbers.",
    }


def _bars(rows: list[Document], places: list[int], *, low: str, high: str, width: float, name: str) -> dict[str, Any]:
    """A horizontal line per row, from low to high."""
    x: list[float | None] = []
    y: list[int | None] = []
    for row, place in zip(rows, places, strict=True):
        if row[low] is not None:
            x += [row[low], row[high], None]
            y += [place, place, None]
    line = {"color": "@bar", "width": width}
    return {"type": "scatter", "mode": "lines", "x": x, "y": y, "line": line, "name": name, "hoverinfo": "skip"}


def _hover(name: str, row: Document, what: str) -> str:
    within = "" if row["low"] is None else f" ({row['low']:+.3f} to {row['high']:+.3f})"
    return f"<b>{escape(name)}</b><br>{row['value']:+.3f}{within}<br>{what}"


def _short(name: str) -> str:
    return escape(name if len(name) <= MAX_LABEL else name[: MAX_LABEL - 1] + "…")


# -- training --------------------------------------------------------------------------------------


def training_figures(record: Record) -> dict[str, Figure]:
    """Loss, validation, rows and idle micro-batches per branch, and speed over steps; what was logged of them."""
    loss = {"total": "all", "joint": "both", "pa": "pa_only", "lateral": "lateral_only"}
    branches = {"pa": ("PA branch", "pa_only"), "lateral": ("lateral branch", "lateral_only")}
    rows = {**branches, "both": ("both views", "both")}
    groups = {f"val/auroc_macro_{group}": (name, group) for group, name in GROUPS.items()}
    idle = {f"routing/idle_micro_batches_{branch}": line for branch, line in branches.items()}
    figures = {
        "loss": _over_steps(record, {f"loss/{head}": (head, like) for head, like in loss.items()}, y="loss"),
        "val": _over_steps(record, groups, y="validation macro AUROC", markers=True),
        "rows": _over_steps(record, {f"routing/rows_{name}": line for name, line in rows.items()}, y="rows per step"),
        "idle": _over_steps(record, idle, y="idle micro-batches per step"),
    }
    return {name: figure for name, figure in figures.items() if figure is not None}


def _over_steps(record: Record, lines: dict[str, tuple[str, str]], *, y: str, markers: bool = False) -> Figure | None:
    """Lines over steps; None where none of the keys was logged."""
    data, last = [], []
    for key, (name, like) in lines.items():
        steps, values = record.series(key)
        if any(value is not None for value in values):
            colour, dash, symbol = LINES[like]
            data.append(_line(steps, values, name=name, colour=colour, dash=dash, symbol=symbol, markers=markers))
            last.append(f"{name} ends at {_last(values)}")
    if not data:
        return None
    settings = {"rangemode": "tozero"} if not markers else {}
    layout = _layout(x=_axis("step", zeroline=False), y=_axis(y, **settings), height=300)
    return {"data": data, "layout": layout, "label": f"{y} over steps: {'; '.join(last)}."}


def _last(values: list[float | None]) -> str:
    return f"{[value for value in values if value is not None][-1]:.3f}"


def _line(
    steps: list[int], values: list[float | None], *, name: str, colour: str, dash: str, symbol: str, markers: bool
) -> dict[str, Any]:
    kept = [(step, value) for step, value in zip(steps, values, strict=True) if value is not None]
    points = thinned(*np.array(kept, float).T, at_most=500)
    return {
        "type": "scatter", "mode": "lines+markers" if markers else "lines", "name": escape(name),
        "x": [int(x) for x, _ in points], "y": [value for _, value in points],
        "line": {"color": colour, "dash": dash, "width": 2}, "marker": {"symbol": symbol, "size": 7, "color": colour},
        "hovertemplate": "step %{x}: %{y:.4f}<extra>" + escape(name) + "</extra>",
    }  # fmt: skip


# -- several runs ----------------------------------------------------------------------------------


def comparison_figures(records: list[Record]) -> dict[str, Figure]:
    """Macro AUROC of every run by masking, and the runs' loss and validation curves in one plot each."""
    figures: dict[str, Figure] = {"compare-auroc": _macros(records)}
    for name, key, y, markers in (
        ("compare-loss", "loss/total", "training loss", False),
        ("compare-val", "val/auroc_macro_all", "validation macro AUROC", True),
    ):
        data, last = [], []
        for number, record in enumerate(records):
            steps, values = record.series(key)
            if any(value is not None for value in values):
                data.append(
                    _line(
                        steps, values, name=record.name, colour=f"@c{number % NUM_COLOURS}",
                        dash=DASHES[number % len(DASHES)], symbol=SYMBOLS[number % len(SYMBOLS)], markers=markers,
                    )
                )  # fmt: skip
                last.append(f"{record.name} ends at {_last(values)}")
        if data:
            layout = _layout(x=_axis("step", zeroline=False), y=_axis(y), height=320)
            figures[name] = {"data": data, "layout": layout, "label": f"{y} over steps: {'; '.join(last)}."}
    return figures


def _macros(records: list[Record]) -> Figure:
    data, said = [], []
    shifts = {"all": 0.27, "both": 0.09, "lateral_hidden": -0.09, "pa_hidden": -0.27}
    names = {"all": GROUPS["all"], **MASKED}
    for what, shift in shifts.items():
        x, y, low, high, text = [], [], [], [], []
        for number, record in enumerate(records):
            looks = record.document["groups"] if what == "all" else record.document["masked"]
            interval = {"value": None} if looks is None else looks[what]["macro"]["auroc"]
            if interval["value"] is not None:
                x.append(interval["value"])
                y.append(shift - number)
                low.append(interval["value"] - (interval["low"] or interval["value"]))
                high.append((interval["high"] or interval["value"]) - interval["value"])
                text.append(escape(f"{record.name}, {names[what]}"))
                said.append(f"{record.name}, {names[what]} {interval['value']:.3f}")
        if x:
            colour, _, symbol = LINES[what]
            bars = {"type": "data", "symmetric": False, "array": high, "arrayminus": low, "color": colour, "width": 0}
            data.append(
                {
                    "type": "scatter", "mode": "markers", "name": names[what], "x": x, "y": y, "error_x": bars,
                    "marker": {"symbol": symbol, "size": 9, "color": colour}, "text": text,
                    "hovertemplate": "%{text}: %{x:.3f}<extra></extra>",
                }
            )  # fmt: skip
    y_axis = _axis(
        "", tickvals=[-number for number in range(len(records))], ticktext=[_short(record.name) for record in records],
        range=[0.6 - len(records), 0.6], zeroline=False, showgrid=False,
    )  # fmt: skip
    legend = {"orientation": "h", "x": 0, "xref": "container", "y": 0, "yref": "container", "yanchor": "bottom"}
    layout = _layout(
        x=_axis("test macro AUROC", zeroline=False), y=y_axis, height=70 * len(records) + 120, legend=legend,
        margin={"l": 48, "r": 12, "t": 6, "b": 90},
    )  # fmt: skip
    return {"data": data, "layout": layout, "label": f"Macro AUROC of the runs: {'; '.join(said)}."}
