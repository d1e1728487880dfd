"""Decision curves: net benefit over thresholds, as figures, and at one threshold as a table."""

from html import escape
from typing import Any

import numpy as np

from dualview.evaluation.prediction_table import score_of_masking
from dualview.evaluation.statistics.class_patients import class_patients
from dualview.evaluation.statistics.net_benefit import NetBenefit, gain_of_net_benefit, net_benefit, thresholds_for
from dualview.report.record import Record
from dualview.report.style import LINE_STYLES, Variants, axis, layout, reference
from dualview.report.tables import Cell, Table, count, text
from dualview.views import ALL_STUDIES, TITLES, Availability, View

NORMAL_QUANTILE = 1.96


def _scores(record: Record) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Rows that are looked at, and what is drawn -> their (N, K) probabilities."""
    if record.evaluation.masked is None:
        return np.arange(len(record.predictions)), {ALL_STUDIES: record.probabilities("route")}
    rows = np.flatnonzero(record.predictions.availability == Availability.BOTH)
    drawn = (Availability.BOTH.key, View.LATERAL.hidden_key)
    return rows, {what: record.probabilities(score_of_masking(what))[rows] for what in drawn}


def decision_figures(record: Record) -> Variants:
    """Finding's number -> its decision curve, of complete studies with and without the lateral where there is that.

    {} where no finding has both classes.
    """
    rows, scores = _scores(record)
    table = record.predictions.select(rows)
    figures: Variants = {}
    is_any = False
    for k, finding in enumerate(table.findings):
        known = table.label_mask[:, k] & np.all([np.isfinite(each[:, k]) for each in scores.values()], axis=0)
        positive = table.positive[known, k]
        if not positive.any() or positive.all():
            figures[str(k)] = _nothing(finding, why="no study without it" if positive.any() else "no study with it")
            continue
        is_any = True
        thresholds = thresholds_for(float(positive.mean()))
        curves = {
            what: net_benefit(each[known, k], positive=positive, thresholds=thresholds) for what, each in scores.items()
        }
        figures[str(k)] = _figure(
            finding,
            curves,
            prevalence=float(positive.mean()),
            patients=len(set(table.patient_ids[known])),
            can_be_judged=class_patients(table.patient_ids[known], positive=positive).can_be_judged,
        )
    return figures if is_any else {}


def _nothing(finding: str, *, why: str) -> dict[str, Any]:
    """An empty figure that says why: a finding whose curve is undefined must not show that of another."""
    label = f"{finding}: undefined, {why} among these."
    drawn_on = layout(x=axis("threshold of the probability"), y=axis("net benefit per study"), height=380)
    return {"data": [], "layout": drawn_on, "label": label, "text": label}


def _figure(
    finding: str, curves: dict[str, NetBenefit], *, prevalence: float, patients: int, can_be_judged: bool
) -> dict[str, Any]:
    first = next(iter(curves.values()))
    x = first.thresholds.round(4).tolist()
    nobody = reference([x[0], x[-1]], [0, 0]) | {"showlegend": True, "name": "act on nobody"}
    everybody = reference(x, first.everybody.round(5).tolist()) | {"showlegend": True, "name": "act on everybody"}
    everybody["line"] = {"color": "@undecided", "width": 1.5, "dash": "longdash"}
    data: list[dict[str, Any]] = [nobody, everybody]
    said = []
    for what, curve in curves.items():
        colour, dash, _ = LINE_STYLES[what]
        data.append({
            "type": "scatter", "mode": "lines", "name": TITLES[what], "x": x, "y": curve.model.round(5).tolist(),
            "line": {"color": colour, "dash": dash, "width": 2},
            "hovertemplate": "threshold %{x:.3f}: %{y:.4f}<extra>" + escape(TITLES[what]) + "</extra>",
        })  # fmt: skip
        said.append(f"{TITLES[what]}, highest {curve.model.max():.3f}")
    lowest = min(-0.15 * prevalence, *(max(float(curve.model.min()), -0.5 * prevalence) for curve in curves.values()))
    y = axis("net benefit per study", range=[lowest, 1.08 * prevalence], zeroline=False)
    label = f"{finding}: decision curve of {patients:,} patients, prevalence {prevalence:.1%}. {'; '.join(said)}."
    if not can_be_judged:
        label += " Too few patients to judge by."
    drawn_on = layout(x=axis("threshold of the probability", zeroline=False, tickformat=".0%"), y=y, height=380)
    return {"data": data, "layout": drawn_on, "label": label, "text": label}


def decision_table(record: Record) -> Table | None:
    """Net benefit per 1,000 studies where the threshold is the prevalence; None where no finding has both classes."""
    rows, scores = _scores(record)
    table = record.predictions.select(rows)
    has_two = len(scores) > 1
    shown = []
    for k, finding in enumerate(table.findings):
        known = table.label_mask[:, k] & np.all([np.isfinite(each[:, k]) for each in scores.values()], axis=0)
        positive, patients = table.positive[known, k], table.patient_ids[known]
        if not positive.any() or positive.all():
            continue
        threshold = float(positive.mean())
        worth = [net_benefit(each[known, k], positive=positive, thresholds=np.array([threshold])).model[0]
                 for each in scores.values()]  # fmt: skip
        counted = class_patients(patients, positive=positive)
        cells = [count(len(set(patients))), count(counted.num_positive), Cell(f"{threshold:.1%}", threshold)]
        cells += [Cell(f"{1000 * value:.1f}", float(value)) for value in worth]
        if has_two:
            with_both, without = (each[known, k] for each in scores.values())
            gain, error = gain_of_net_benefit(
                with_both, without, positive=positive, patients=patients, threshold=threshold
            )
            low, high = (1000 * (gain + sign * NORMAL_QUANTILE * error) for sign in (-1, 1))
            has_interval = counted.can_be_judged and error > 0
            cells.append(Cell(f"{1000 * gain:+.1f}", gain, f"{low:+.1f} to {high:+.1f}" if has_interval else ""))
        name = text(finding)
        if not counted.can_be_judged:
            name = name._replace(kind="behind", detail="too few patients to judge")
        shown.append([name, *cells])
    if not shown:
        return None
    shown.sort(key=lambda row: bool(row[0].kind))
    columns = ["finding", "patients", "with the finding", "threshold", *(TITLES[what] for what in scores)]
    if has_two:
        columns.append("gained with the lateral")
    caption = "Net benefit per 1,000 studies at one threshold, the prevalence, where acting on everybody is worth 0"
    return Table(caption=caption, columns=columns, rows=shown, sortable=True)
