"""What an evaluation on other data looks like on a terminal."""

from collections.abc import Iterator
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from dualview.evaluation.document import Estimate, Evaluation, External, FindingResult, Look
from dualview.evaluation.metrics import MACRO
from dualview.views import ALL_STUDIES

VERDICTS = {
    "higher": "higher", "lower": "lower", "undecided": "undecided", "too_few": "too few to judge",
    "undefined": "undefined",
}  # fmt: skip


NUMBERS = ("brier", "calibration_error", "calibration_intercept", "calibration_slope", "sensitivity", "specificity")


def external_lines(evaluation: Evaluation, *, folder: Path, run: Path) -> Iterator[str]:
    """Which findings were compared, whom the run knows, and where everything is."""
    external, recalibration = _external(evaluation), _external(evaluation).recalibration
    for finding, match in external.findings.items():
        if not match.theirs:
            yield f"finding     {finding}: unknown, these data do not label it (--map '{finding}=THEIRS')"
        elif match.theirs != [finding]:
            how = {"map": "by --map", "name": "by its name", "vocabulary": "by the common vocabulary"}
            yield f"finding     {finding} = {' or '.join(match.theirs)}, {how[match.by or 'name']}"
    if external.unmatched:
        names = _some(external.unmatched)
        yield f"not used    {len(external.unmatched)} finding(s) that the run does not have: {names}"
    known = external.patients
    if known.trained_on or known.chosen_on or known.tested_on:
        same = "are the same people" if known.are_shared else "may or may not be the same people"
        yield (
            f"patients    {known.trained_on} have identifiers of the run's train split, {known.chosen_on} of val, "
            f"{known.tested_on} of test; they {same}"
        )
    if recalibration is not None:
        yield from (f"recalibrated  {sentence}" for sentence in recalibration.said)
    yield f"evaluation  {folder}/evaluation.json, predictions.parquet"
    yield f"thresholds  {evaluation.settings.operating_points}: those of the run, which stay as they are"
    if folder.parent.resolve() == run.resolve():
        yield f"page        dualview report {run} --evaluation {folder.name}"


def drift_table(evaluation: Evaluation) -> Table:
    """AUROC of each finding on these studies against the run's own test; without that, on these studies alone."""
    external, here = _external(evaluation), evaluation.groups[ALL_STUDIES]
    drift = None if external.drift is None else external.drift.get(ALL_STUDIES)
    table = Table(title=f"{here.num_studies:,} studies of {here.num_patients:,} patients of other data")
    table.add_column("finding")
    for column in ("positive\nhere", "AUROC\nown test", "AUROC\nhere", "gap"):
        table.add_column(column, justify="right")
    table.add_column("AUROC\nhere is")
    for finding in matched_findings(external):
        result = here.findings[finding]
        cells = [f"{result.num_positive:,}", "-", number(result.auroc), "-", "-"]
        if drift is not None:
            gap = drift.findings[finding]
            cells[1] = number(drift.internal.findings[finding].auroc)
            cells[3:] = [_difference(gap.auroc), VERDICTS[gap.verdict]]
        table.add_row(escape(finding), *cells)
    if drift is None:
        table.caption = "The run has no predictions of its own test, so nothing is compared with it"
        return table
    table.add_section()
    macros = (number(drift.internal.macro["auroc"]), number(here.macro["auroc"]), _difference(drift.macro["auroc"]))
    table.add_row(MACRO, "", *macros)
    table.caption = f"gap: here minus the run's own test, with its interval, over patients of both. {drift.correction}"
    return table


def thresholds_table(evaluation: Evaluation) -> Table | None:
    """What the thresholds and probabilities of the run do on its own test and here; None: there is no own test."""
    external = _external(evaluation)
    drift = None if external.drift is None else external.drift.get(ALL_STUDIES)
    if drift is None:
        return None
    table = _pairs(
        external, drift.internal, evaluation.groups[ALL_STUDIES], title="thresholds and probabilities: own test, here",
        names=("average_precision", *NUMBERS),
    )  # fmt: skip
    table.caption = (
        "Average precision falls with the share of positives, too. Calibration: an intercept below 0 says that "
        "probabilities are too high, a slope below 1 that they are too extreme"
    )
    return table


def recalibration_table(evaluation: Evaluation) -> Table | None:
    """What patients who were set aside change on the others; None: none were."""
    external = _external(evaluation)
    made = external.recalibration
    if made is None:
        return None
    title = f"recalibrated on {made.num_patients} other patients: before, after"
    return _pairs(external, evaluation.groups[ALL_STUDIES], made.groups[ALL_STUDIES], title=title, names=NUMBERS)


def _pairs(external: External, one: Look, other: Look, *, title: str, names: tuple[str, ...]) -> Table:
    """Two numbers in each cell, one above the other."""
    table = Table(title=title)
    table.add_column("finding")
    for name in names:
        table.add_column(name.replace("calibration_", "calibr.\n").replace("_", "\n"), justify="right")
    for finding in matched_findings(external):
        results = (one.findings[finding], other.findings[finding])
        cells = ("\n".join(number(value_of(result, name)) for result in results) for name in names)
        table.add_row(escape(finding), *cells)
    return table


def _external(evaluation: Evaluation) -> External:
    assert evaluation.external is not None
    return evaluation.external


def matched_findings(external: External) -> list[str]:
    """Findings of the run that these data label."""
    return [finding for finding, match in external.findings.items() if match.theirs]


def value_of(result: FindingResult, name: str) -> Estimate | float | None:
    """A number of a finding by its key, also of its operating point."""
    if name in ("sensitivity", "specificity"):
        return None if result.operating_point is None else getattr(result.operating_point, name)
    found: Estimate | float | None = getattr(result, name)
    return found


def number(value: Estimate | float | None) -> str:
    """Three digits, or that there is no number."""
    plain = value.value if isinstance(value, Estimate) else value
    return "undefined" if plain is None else f"{plain:.3f}"


def _difference(estimate: Estimate) -> str:
    if estimate.value is None:
        return "undefined"
    interval = "" if estimate.low is None else f"\n[{estimate.low:+.3f}, {estimate.high:+.3f}]"
    return f"{estimate.value:+.3f}{interval}"


def _some(names: list[str], *, limit: int = 20) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
