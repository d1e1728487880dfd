"""The forest plot: what the lateral view is worth per finding, with two intervals for each."""

from html import escape
from typing import Any

from dualview.evaluation.document import Estimate, ValueOfView, Verdict
from dualview.evaluation.value_of_lateral import VERDICT_TITLES, rank_of
from dualview.report.record import Record
from dualview.report.style import Figure, Variants, axis, layout, short

GAIN_TITLES = {"auroc": "AUROC", "average_precision": "average precision"}
FOREST_ORDERS = {"difference": "difference", "name": "name", "prevalence": "prevalence"}
VERDICT_SYMBOLS: dict[Verdict, str] = {
    "helped": "circle",
    "hurt": "diamond",
    "undecided": "square-open",
    "too_few": "triangle-up-open",
}


def forest(record: Record) -> Variants:
    """What the lateral view is worth per finding, by metric and order; empty for networks of one view."""
    masked = record.evaluation.masked
    if masked is None:
        return {}
    value = masked.value_of_lateral
    prevalence = {
        name: result.num_positive / max(result.num_positive + result.num_negative, 1)
        for name, result in masked.both.findings.items()
    }
    variants = {}
    for metric, title in GAIN_TITLES.items():
        differences = {name: value.findings[name].metric(metric) for name in record.findings}
        gains = {
            name: difference.value
            for name, difference in differences.items()
            if difference.value is not None and difference.verdict != "undefined"
        }
        ranks = {name: rank_of(differences[name].verdict) for name in gains}
        for order, names in _orders(gains, prevalence=prevalence).items():
            names.sort(key=lambda name: ranks[name])
            variants[f"{metric}|{order}"] = _forest(value, names=names, metric=metric, title=title)
    return variants


def _orders(gains: dict[str, float], *, prevalence: dict[str, float]) -> dict[str, list[str]]:
    """The findings of `gains` by `FOREST_ORDERS`."""
    return {
        "difference": sorted(gains, key=lambda name: -gains[name]),
        "name": sorted(gains, key=str.lower),
        "prevalence": sorted(gains, key=lambda name: -prevalence[name]),
    }


def _forest(value: ValueOfView, *, names: list[str], metric: str, title: str) -> Figure:
    rows = [value.findings[name].metric(metric) for name in names]
    places = [-number for number in range(1, len(names) + 1)]
    macro = value.macro[metric]
    together = [(row.simultaneous_low, row.simultaneous_high) for row in rows]
    alone = [(row.low, row.high) for row in rows]
    data = [
        _bars(together, places, width=1.2, name="all judged findings together"),
        _bars(alone, places, width=4.5, name="this finding alone"),
    ]
    for what, symbol in VERDICT_SYMBOLS.items():
        named, colour = VERDICT_TITLES[what], "@undecided" if what == "too_few" else f"@{what}"
        at = [number for number, row in enumerate(rows) if row.verdict == what]
        if at:
            data.append(
                {
                    "type": "scatter", "mode": "markers", "name": named, "x": [rows[number].value for number in at],
                    "y": [places[number] for number in at],
                    "text": [_hover(names[number], rows[number], named) for number in at],
                    "marker": {"symbol": symbol, "size": 10, "color": colour},
                    "hovertemplate": "%{text}<extra></extra>",
                }
            )  # fmt: skip
    ticks, labels = places, [short(name) for name in names]
    if macro.value is not None:
        data += [
            {**_bars([(macro.low, macro.high)], [0], width=4.5, name="macro"), "showlegend": False},
            {
                "type": "scatter", "mode": "markers", "name": "macro", "x": [macro.value], "y": [0],
                "text": [_hover("macro", macro, f"mean of {macro.num_findings} findings")], "showlegend": False,
                "marker": {"symbol": "star-diamond", "size": 13, "color": "@ink"},
                "hovertemplate": "%{text}<extra></extra>",
            },
        ]  # fmt: skip
        ticks, labels = [0, *places], ["<b>macro</b>", *labels]
    y = axis(
        "", tickvals=ticks, ticktext=labels, range=[min(places, default=-1) - 0.7, 0.7], zeroline=False, showgrid=False
    )
    height = 24 * (len(names) + 1) + 104
    legend = {"orientation": "h", "x": 0, "xref": "container", "y": 0, "yref": "container", "yanchor": "bottom"}
    values = [(row.value,) for row in (*rows, macro)]  # Few patients have no interval, and are drawn all the same.
    ends = [end for drawn in (*values, *together, *alone, (macro.low, macro.high)) for end in drawn if end is not None]
    least, most = min([0.0, *ends]), max([0.0, *ends])
    margin = 0.04 * (most - least) or 0.05
    x_axis = axis(f"{title} gained with the lateral", range=[least - margin, most + margin], zerolinewidth=1.5)
    verdicts = {
        what: [n for n, row in zip(names, rows, strict=True) if row.verdict == what] for what in VERDICT_SYMBOLS
    }
    said = "; ".join(f"{VERDICT_TITLES[what]}: {', '.join(those) or 'none'}" for what, those in verdicts.items())
    return {
        "data": data,
        "layout": layout(
            x=x_axis, y=y, height=height, legend=legend, margin={"l": 60, "r": 12, "t": 6, "b": 78}, hovermode="closest"
        ),
        "label": f"Forest plot of the {title} gained with the lateral view. {said}. The table below has the numbers.",
    }


def _bars(
    bounds: list[tuple[float | None, float | None]], places: list[int], *, width: float, name: str
) -> dict[str, Any]:
    """A horizontal line per row, from its low to its high bound."""
    x: list[float | None] = []
    y: list[int | None] = []
    for (low, high), place in zip(bounds, places, strict=True):
        if low is not None:
            x += [low, high, None]
            y += [place, place, None]
    line = {"color": "@bar", "width": width}
    return {"type": "scatter", "mode": "lines", "x": x, "y": y, "line": line, "name": name, "hoverinfo": "skip"}


def _hover(name: str, estimate: Estimate, what: str) -> str:
    within = "" if estimate.low is None else f" ({estimate.low:+.3f} to {estimate.high:+.3f})"
    return f"<b>{escape(name)}</b><br>{estimate.value:+.3f}{within}<br>{what}"
