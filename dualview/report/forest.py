"""The forest plot: what the lateral view is worth per finding, with two intervals for each."""

from html import escape
from typing import Any

from dualview.evaluation.assess import Document, verdict
from dualview.report.record import Record
from dualview.report.style import Figure, Variants, axis, layout, short

METRICS = {"auroc": "AUROC", "average_precision": "average precision"}
ORDERS = {"difference": "difference", "name": "name", "prevalence": "prevalence"}
VERDICTS = {"helped": "circle", "hurt": "diamond", "undecided": "square-open"}


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
    ticks, labels = places, [short(name) for name in names]
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
    y = axis(
        "", tickvals=ticks, ticktext=labels, range=[min(places, default=-1) - 0.7, 0.7], zeroline=False, showgrid=False
    )
    height = 24 * (len(names) + 1) + 104
    legend = {"orientation": "h", "x": 0, "xref": "container", "y": 0, "yref": "container", "yanchor": "bottom"}
    ends = [row[end] for row in [*rows, macro] for end in ("low", "high", "simultaneous_low", "simultaneous_high")
            if row.get(end) is not None]  # fmt: skip
    least, most = min([0.0, *ends]), max([0.0, *ends])
    margin = 0.04 * (most - least) or 0.05
    x_axis = axis(f"{title} gained with the lateral", range=[least - margin, most + margin], zerolinewidth=1.5)
    verdicts = {what: [n for n, row in zip(names, rows, strict=True) if verdict(row) == what] for what in VERDICTS}
    said = "; ".join(f"{what}: {', '.join(of_verdict) or 'none'}" for what, of_verdict in verdicts.items())
    return {
        "data": data,
        "layout": layout(
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
