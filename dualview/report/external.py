"""The part of the page that only an evaluation on other data has: against the run's own test, and recalibrated."""

from typing import Any

from dualview.evaluation.document import (
    Difference,
    Drift,
    Estimate,
    Evaluation,
    External,
    FindingDrift,
    FindingResult,
    GapVerdict,
    Look,
)
from dualview.report.record import Record
from dualview.report.tables import Cell, Table, auroc_cell, count, interval, share, text
from dualview.views import ALL_STUDIES, GROUPS, TITLES

VERDICTS: dict[GapVerdict, tuple[str, str]] = {
    "higher": ("● higher", "helped"), "lower": ("◆ lower", "hurt"), "undecided": ("□ undecided", "undecided"),
    "too_few": ("△ too few to judge", "too_few"), "undefined": ("undefined", "undefined"),
}  # fmt: skip
"""Verdict -> its words, and the class of the style sheet that looks like it."""
HOW = {"map": "by --map", "name": "by its name", "vocabulary": "by the common vocabulary"}
NUMBERS = {
    "sensitivity": "sensitivity", "specificity": "specificity", "brier": "Brier score",
    "calibration_error": "calibration error", "calibration_intercept": "calibration intercept",
    "calibration_slope": "calibration slope",
}  # fmt: skip


def external_section(record: Record) -> dict[str, Any] | None:
    """What the template shows of it; None: the data are the run's own."""
    evaluation = record.evaluation
    external = evaluation.external
    if external is None:
        return None
    drift = external.drift
    groups = [] if drift is None else [group for group in GROUPS if group in drift]
    return {
        "matched": _matched(external),
        "unmatched": external.unmatched,
        "patients": external.patients,
        "drift": None if drift is None or ALL_STUDIES not in drift else drift[ALL_STUDIES],
        "gaps": [_gaps(drift[group], evaluation.groups[group], group=group) for group in groups if drift],
        "numbers": [_numbers(drift[group], evaluation.groups[group], group=group) for group in groups if drift],
        "recalibration": external.recalibration,
        "recalibrated": _recalibrated(evaluation, external),
    }


def _matched(external: External) -> Table:
    rows = []
    for finding, match in external.findings.items():
        theirs = " or ".join(match.theirs) or "not labelled: unknown in all studies"
        rows.append([text(finding), text(theirs), text("" if match.by is None else HOW[match.by])])
    return Table(
        caption="Findings of the run in these data", columns=["finding of the run", "here", "found"], rows=rows
    )


def _gaps(drift: Drift, here: Look, *, group: str) -> Table:
    """AUROC and average precision, there and here."""
    columns = [
        "finding", "positive, own test", "positive here", "AUROC, own test", "AUROC here", "gap", "AUROC here is",
        "p, DeLong", "average precision, own test", "average precision here", "gap of average precision",
    ]  # fmt: skip
    rows = []
    for finding, gap in drift.findings.items():
        own, other = drift.internal.findings[finding], here.findings[finding]
        reason = own.undefined or other.undefined
        rows.append([
            text(finding)._replace(kind="behind" if gap.verdict in ("too_few", "undefined") else ""),
            _positives(own), _positives(other), auroc_cell(own), auroc_cell(other),
            _with_simultaneous(gap.auroc, reason=reason), _verdict(gap),
            Cell("-") if gap.delong is None else Cell(f"{gap.delong.p_value:.2g}", gap.delong.p_value),
            interval(own.average_precision, reason=own.undefined),
            interval(other.average_precision, reason=other.undefined),
            _with_simultaneous(gap.average_precision, reason=reason),
        ])  # fmt: skip
    rows.sort(key=lambda row: bool(row[0].kind))
    gap_of = drift.macro
    foot = [
        text("gap of macro", f"mean of {gap_of['auroc'].num_findings} findings"), *[Cell("")] * 4,
        interval(gap_of["auroc"], sign="+"), *[Cell("")] * 4, interval(gap_of["average_precision"], sign="+"),
    ]  # fmt: skip
    return Table(
        caption=f"{TITLES[group][0].upper()}{TITLES[group][1:]}: here against the run's own test",
        columns=columns, rows=rows, foot=[foot], sortable=True, sorted_by=5,
    )  # fmt: skip


def _numbers(drift: Drift, here: Look, *, group: str) -> Table:
    """Rates at the thresholds of the run, and whether its probabilities mean what they say: there, here, difference."""
    columns = ["finding"]
    for title in NUMBERS.values():
        columns += [f"{title}, own test", "here", "difference"]
    rows = []
    for finding, gap in drift.findings.items():
        own, other = drift.internal.findings[finding], here.findings[finding]
        cells = [text(finding)]
        for name in NUMBERS:
            difference = None if name == "brier" else getattr(gap, name)
            cells += [_number(_of(own, name)), _number(_of(other, name)), _number(difference, sign="+")]
            if name == "brier":
                cells[-1] = Cell("-")
        rows.append(cells)
    return Table(
        caption=f"{TITLES[group][0].upper()}{TITLES[group][1:]}: at the thresholds and by the probabilities of the run",
        columns=columns, rows=rows, sortable=True,
    )  # fmt: skip


def _recalibrated(evaluation: Evaluation, external: External) -> list[Table]:
    """Before and after, on the patients who were not set aside; a table per group that has studies."""
    if external.recalibration is None:
        return []
    tables = []
    for group in GROUPS:
        before, after = evaluation.groups[group], external.recalibration.groups[group]
        if not before.num_studies:
            continue
        columns = ["finding"]
        for title in NUMBERS.values():
            columns += [f"{title}, as the run has it", "recalibrated"]
        rows = []
        for finding, match in external.findings.items():
            if match.theirs:
                pairs = [_number(_of(look.findings[finding], name)) for name in NUMBERS for look in (before, after)]
                rows.append([text(finding), *pairs])
        caption = f"{TITLES[group][0].upper()}{TITLES[group][1:]}: before and after"
        tables.append(Table(caption=caption, columns=columns, rows=rows, sortable=True))
    return tables


def _of(result: FindingResult, name: str) -> Estimate | float | None:
    if name in ("sensitivity", "specificity"):
        return None if result.operating_point is None else getattr(result.operating_point, name)
    found: Estimate | float | None = getattr(result, name)
    return found


def _number(value: Estimate | float | None, *, sign: str = "") -> Cell:
    if isinstance(value, Estimate):
        return interval(value, sign=sign)
    return Cell("undefined", None, "", "undefined") if value is None else Cell(f"{value:{sign}.3f}", value)


def _positives(result: FindingResult) -> Cell:
    prevalence = share(result.num_positive, result.num_positive + result.num_negative)
    return count(result.num_positive)._replace(detail=prevalence.text, sort=prevalence.sort)


def _with_simultaneous(difference: Difference, *, reason: str | None) -> Cell:
    cell = interval(difference, reason=reason, sign="+")
    low, high = difference.simultaneous_low, difference.simultaneous_high
    return cell if low is None else cell._replace(detail=f"{cell.detail}\n{low:+.3f} to {high:+.3f}".strip())


def _verdict(gap: FindingDrift) -> Cell:
    words, kind = VERDICTS[gap.verdict]
    detail = ""
    if gap.verdict == "too_few":
        detail = f"{gap.num_positive_patients:,} positive and\n{gap.num_negative_patients:,} negative patients"
    return Cell(words, gap.verdict, detail, kind)
