"""Curves, training and comparison as figures: plotly's `data` and `layout` as plain values, one for each choice of
the page's controls.
"""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from dualview.evaluation.document import Estimate, Look
from dualview.evaluation.statistics.curves import thinned
from dualview.report.curves import Curves
from dualview.report.record import Record
from dualview.report.style import (
    DASHES,
    LINE_STYLES,
    NUM_COLOURS,
    SYMBOLS,
    Figure,
    Variants,
    axis,
    layout,
    reference,
    short,
    unit_axis,
)
from dualview.run import metric_keys
from dualview.views import ALL_STUDIES, GROUPS, MASKINGS, TITLES

# -- curves ----------------------------------------------------------------------------------------


def curve_figures(
    record: Record, *, masked: dict[str, list[Curves]], groups: dict[str, list[Curves]]
) -> dict[str, Variants]:
    """ROC, precision-recall and reliability figures; each by finding and by which studies are looked at."""
    figures: dict[str, Variants] = {"roc": {}, "pr": {}, "reliability": {}}
    shown: dict[str, tuple[dict[str, list[Curves]], dict[str, Look]]] = {"groups": (groups, record.evaluation.groups)}
    if record.evaluation.masked is not None:
        shown = {"masked": (masked, record.evaluation.masked.looks), **shown}
    for studies, (curves, looks) in shown.items():
        for number, finding in enumerate(record.findings):
            for kind, figure in _finding_figures(finding, curves[finding], looks=looks).items():
                figures[kind][f"{number}|{studies}"] = figure
    return figures


def _finding_figures(finding: str, curves: list[Curves], *, looks: dict[str, Look]) -> dict[str, Figure]:
    results = {what: look.findings[finding] for what, look in looks.items()}
    roc: list[dict[str, Any]] = [reference([0, 1], [0, 1])]
    precision_recall: list[dict[str, Any]] = []
    reliability: list[dict[str, Any]] = [reference([0, 1], [0, 1])]
    for curve in curves:
        result, name = results[curve.what], TITLES[curve.what]
        precision_recall.append(reference([0, 1], [curve.prevalence] * 2))
        roc.append(_curve(curve, curve.roc, name=f"{name} {result.auroc.value:.3f}"))
        step = _curve(curve, curve.precision_recall, name=f"{name} {result.average_precision.value:.3f}")
        step["line"]["shape"] = "vh"  # makes the area the average precision
        precision_recall.append(step)
        dots = _curve(curve, [(x, y) for x, y, _ in curve.reliability], name=name)
        dots |= {"mode": "lines+markers", "text": [f"{size} studies" for _, _, size in curve.reliability]}
        dots["marker"] = {"symbol": LINE_STYLES[curve.what][2], "size": 7, "color": LINE_STYLES[curve.what][0]}
        dots["hovertemplate"] = "predicted %{x:.3f}, observed %{y:.3f}, %{text}<extra></extra>"
        reliability.append(dots)
    numbers = [f"{TITLES[curve.what]} {results[curve.what].auroc.value:.3f}" for curve in curves]
    reasons = {what: result.undefined for what, result in results.items() if result.undefined}
    label = f"{finding}. AUROC {', '.join(numbers)}." if numbers else f"{finding}."
    label += "".join(f" {TITLES[what]}: undefined, {reason}." for what, reason in reasons.items())
    axes = {
        "roc": (roc, "1 - specificity", "sensitivity", "ROC curves of "),
        "pr": (precision_recall, "recall (sensitivity)", "precision", "Precision-recall curves of "),
        "reliability": (reliability, "mean predicted probability", "share of positives", "Reliability curves of "),
    }
    return {
        kind: {
            "data": data,
            "layout": layout(x=unit_axis(x), y=unit_axis(y), height=390),
            "label": what + label,
            "text": label,
        }
        for kind, (data, x, y, what) in axes.items()
    }


def _curve(curve: Curves, points: Sequence[tuple[float, float]], *, name: str) -> dict[str, Any]:
    colour, dash, _ = LINE_STYLES[curve.what]
    return {
        "type": "scatter", "mode": "lines", "name": name,
        "x": [x for x, _ in points], "y": [y for _, y in points],
        "line": {"color": colour, "dash": dash, "width": 2},
        "hovertemplate": "%{x:.3f}, %{y:.3f}<extra>" + name + "</extra>",
    }  # fmt: skip


# -- training --------------------------------------------------------------------------------------


def training_figures(record: Record) -> dict[str, Figure]:
    """Loss, validation, rows and idle micro-batches per branch, and speed over steps; what was logged of them."""
    loss = {"total": "all", "joint": "both", "pa": "pa_only", "lateral": "lateral_only"}
    branches = {"pa": ("PA branch", "pa_only"), "lateral": ("lateral branch", "lateral_only")}
    rows = {**branches, "both": ("both views", "both")}
    groups = {metric_keys.macro("val", metric="auroc", group=group): (TITLES[group], group) for group in GROUPS}
    idle = {metric_keys.idle_micro_batches(branch): line for branch, line in branches.items()}
    figures = {
        "loss": _over_steps(record, {metric_keys.loss(head): (head, like) for head, like in loss.items()}, y="loss"),
        "val": _over_steps(record, groups, y="validation macro AUROC", markers=True),
        "rows": _over_steps(record, {metric_keys.rows(name): line for name, line in rows.items()}, y="rows per step"),
        "idle": _over_steps(record, idle, y="idle micro-batches per step"),
    }
    return {name: figure for name, figure in figures.items() if figure is not None}


def _over_steps(record: Record, lines: dict[str, tuple[str, str]], *, y: str, markers: bool = False) -> Figure | None:
    """Lines over steps; None where none of the keys was logged."""
    data, last = [], []
    for key, (name, like) in lines.items():
        steps, values = record.series(key)
        if any(value is not None for value in values):
            colour, dash, symbol = LINE_STYLES[like]
            data.append(_line(steps, values, name=name, colour=colour, dash=dash, symbol=symbol, markers=markers))
            last.append(f"{name} ends at {_last(values)}")
    if not data:
        return None
    settings = {"rangemode": "tozero"} if not markers else {}
    drawn_on = layout(x=axis("step", zeroline=False), y=axis(y, **settings), height=300)
    return {"data": data, "layout": drawn_on, "label": f"{y} over steps: {'; '.join(last)}."}


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
        ("compare-loss", metric_keys.LOSS_TOTAL, "training loss", False),
        ("compare-val", metric_keys.macro("val", metric="auroc", group=ALL_STUDIES), "validation macro AUROC", True),
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
            drawn_on = layout(x=axis("step", zeroline=False), y=axis(y), height=320)
            figures[name] = {"data": data, "layout": drawn_on, "label": f"{y} over steps: {'; '.join(last)}."}
    return figures


def _macros(records: list[Record]) -> Figure:
    data, said = [], []
    for what, shift in zip((ALL_STUDIES, *MASKINGS), (0.27, 0.09, -0.09, -0.27), strict=True):
        x, y, low, high, text = [], [], [], [], []
        for number, record in enumerate(records):
            estimate = _macro_auroc(record, what)
            if estimate is not None and estimate.value is not None:
                x.append(estimate.value)
                y.append(shift - number)
                low.append(0.0 if estimate.low is None else estimate.value - estimate.low)
                high.append(0.0 if estimate.high is None else estimate.high - estimate.value)
                text.append(escape(f"{record.name}, {TITLES[what]}"))
                said.append(f"{record.name}, {TITLES[what]} {estimate.value:.3f}")
        if x:
            colour, _, symbol = LINE_STYLES[what]
            bars = {"type": "data", "symmetric": False, "array": high, "arrayminus": low, "color": colour, "width": 0}
            data.append(
                {
                    "type": "scatter", "mode": "markers", "name": TITLES[what], "x": x, "y": y, "error_x": bars,
                    "marker": {"symbol": symbol, "size": 9, "color": colour}, "text": text,
                    "hovertemplate": "%{text}: %{x:.3f}<extra></extra>",
                }
            )  # fmt: skip
    y_axis = axis(
        "", tickvals=[-number for number in range(len(records))], ticktext=[short(record.name) for record in records],
        range=[0.6 - len(records), 0.6], zeroline=False, showgrid=False,
    )  # fmt: skip
    legend = {"orientation": "h", "x": 0, "xref": "container", "y": 0, "yref": "container", "yanchor": "bottom"}
    drawn_on = layout(
        x=axis("test macro AUROC", zeroline=False), y=y_axis, height=70 * len(records) + 120, legend=legend,
        margin={"l": 48, "r": 12, "t": 6, "b": 90},
    )  # fmt: skip
    return {"data": data, "layout": drawn_on, "label": f"Macro AUROC of the runs: {'; '.join(said)}."}


def _macro_auroc(record: Record, what: str) -> Estimate | None:
    """Macro AUROC of all studies, or of complete ones in a masking; None: the network takes one kind of study only."""
    if what == ALL_STUDIES:
        return record.evaluation.groups[what].macro["auroc"]
    masked = record.evaluation.masked
    return None if masked is None else masked.looks[what].macro["auroc"]
