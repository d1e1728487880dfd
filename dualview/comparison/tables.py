"""What a comparison came to, and the table of it: macro AUROC of every variant, as Markdown and cell by cell."""

from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd

from dualview.comparison.choice import Choice
from dualview.comparison.folds import out_of_fold_file
from dualview.comparison.plan import Plan
from dualview.comparison.result import COMPARED_GROUPS, ComparisonRow
from dualview.evaluation.metrics import MACRO
from dualview.evaluation.statistics.class_patients import ClassPatients
from dualview.files import whole_file, write_whole
from dualview.views import MASKINGS, TITLES, Availability

COMPARED_TITLES = TITLES | {
    masking: f"both, {TITLES[masking]}" for masking in MASKINGS if masking != Availability.BOTH.key
}
"""Titles of `COMPARED_GROUPS`."""
BEST_MARK = "†"
BEST_NOTE = (
    f"{BEST_MARK} highest of its column on test: as a choice it is optimistic, since the same patients would choose "
    "the network and measure it; choose by the line on val."
)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a variant costs: parameters, and the median over its runs' logged speeds in training."""

    num_parameters: int
    images_per_second: float | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What came out on test, row by row, what it cost, and which network val chooses."""

    plan: Plan
    rows: list[ComparisonRow]
    costs: dict[tuple[str, str], Cost]  # (setting, variant) -> Cost
    choices: dict[str, Choice | None]  # setting -> Choice; None: nothing to choose by
    without_val: list[str] = field(default_factory=list)  # names of runs that have no predictions of val

    def is_best(self, row: ComparisonRow) -> bool:
        """Whether a number on test is the highest of several networks', or among the highest."""
        means = self._means[_column(row)]
        return len(means) > 1 and row.mean == max(means)

    @cached_property
    def _means(self) -> dict[tuple[str, ...], list[float]]:
        """Column of a table -> the numbers of its networks."""
        means: dict[tuple[str, ...], list[float]] = {}
        for row in self.rows:
            means.setdefault(_column(row), []).extend([] if row.mean is None else [row.mean])
        return means


def _column(row: ComparisonRow) -> tuple[str, ...]:
    return (row.setting, row.group, row.finding, row.metric)


def write_tables(comparison: Comparison) -> None:
    """Write all rows as CSV and the table as Markdown, each whole or not at all."""
    with whole_file(table_file(comparison.plan, ".csv")) as temporary:
        marks = [
            {"chosen_on_val": is_chosen(row, comparison=comparison), "best_on_test": comparison.is_best(row)}
            for row in comparison.rows
        ]
        rows = [asdict(row) | marked for row, marked in zip(comparison.rows, marks, strict=True)]
        pd.DataFrame(rows).to_csv(temporary, index=False)
    write_whole(table_file(comparison.plan, ".md"), markdown(comparison))


def table_file(plan: Plan, suffix: str) -> Path:
    """Where the table is written; one for each baseline that was asked for."""
    return plan.compare.dir / f"comparison-to-{plan.compare.baseline}{suffix}"


def markdown(comparison: Comparison) -> str:
    """The comparison as Markdown: macro AUROC per group and setting, then complete studies finding by finding."""
    plan = comparison.plan.compare
    trained = f"mean over {len(plan.seeds)} seeds, ± standard deviation" if len(plan.seeds) > 1 else "of one seed"
    parts = [
        f"AUROC on the test split, {trained}. Below it the difference to {plan.baseline} on the same patients, with "
        f"its {interval_text(comparison.plan)}, corrected for all differences of the table. - stands where a network "
        f"cannot judge these studies. {BEST_NOTE}\n"
    ]
    for setting in plan.settings:
        sizes = {row.group: row.num_studies for row in comparison.rows if row.setting == setting}
        columns = {f"{COMPARED_TITLES[group]} ({sizes[group]})": (group, MACRO) for group in COMPARED_GROUPS}
        if (of_folds := folds_line(comparison, setting=setting)) is not None:
            parts.append(f"{of_folds}\n")
        parts.append(f"{choice_line(comparison, setting=setting)}\n")
        parts.append(_table(comparison, setting=setting, columns=columns, with_cost=True, title="macro AUROC"))
        findings = dict.fromkeys(row.finding for row in comparison.rows if row.finding != MACRO)
        by_finding = {finding: ("both", finding) for finding in findings}
        parts.append(_table(comparison, setting=setting, columns=by_finding, with_cost=False, title="both views"))
    return "\n".join(parts)


def _table(
    comparison: Comparison, *, setting: str, columns: dict[str, tuple[str, str]], with_cost: bool, title: str
) -> str:
    head = ["network", *(["parameters", "images/s"] if with_cost else []), *columns]
    lines = [
        f"**{f'{setting}: ' if setting else ''}{title}**\n",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
    ]
    for variant in comparison.plan.compare.variants:
        cost = comparison.costs[setting, variant]
        cells = [variant]
        if with_cost:
            speed = "-" if cost.images_per_second is None else f"{cost.images_per_second:.0f}"
            cells += [f"{cost.num_parameters:,}", speed]
        for group, finding in columns.values():
            row = find(comparison.rows, setting=setting, variant=variant, group=group, finding=finding)
            cells.append(cell(row, comparison=comparison))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def find(
    rows: list[ComparisonRow], *, setting: str, variant: str, group: str, finding: str, metric: str = "auroc"
) -> ComparisonRow:
    """The one row of these."""
    wanted = (setting, variant, group, finding, metric)
    return next(row for row in rows if (row.setting, row.variant, row.group, row.finding, row.metric) == wanted)


def cell(row: ComparisonRow, *, comparison: Comparison, newline: str = "<br>") -> str:
    """Mean and spread over seeds, and below them the difference to the baseline."""
    if row.mean is None:
        return "-"
    text = f"{row.mean:.3f}" + ("" if row.sd is None else f" ± {row.sd:.3f}")
    text += f" {BEST_MARK}" if comparison.is_best(row) else ""
    if row.variant == comparison.plan.compare.baseline or row.difference is None:
        return text
    if row.simultaneous_low is not None and row.simultaneous_high is not None:
        interval = f"[{row.simultaneous_low:+.3f}, {row.simultaneous_high:+.3f}]"
    else:
        interval = f"({why_no_interval(row)})"
    return f"{text}{newline}{row.difference:+.3f} {interval}"


def why_no_interval(row: ComparisonRow) -> str:
    """Why a difference is in no correction."""
    positive, negative = row.num_positive_patients, row.num_negative_patients
    is_few = positive is not None and negative is not None and not ClassPatients(positive, negative).can_be_judged
    return "too few to judge" if is_few or row.low is not None else "no interval"


def interval_text(plan: Plan) -> str:
    """What intervals are over, such as `95 % interval over seeds and patients`."""
    over = (
        "seeds and patients" if len(plan.compare.seeds) > 1 else "patients only (one seed: nothing of other trainings)"
    )
    return f"{100 * plan.compare.confidence:g} % interval over {over}"


def is_chosen(row: ComparisonRow, *, comparison: Comparison) -> bool:
    """Whether val chooses the row's network in its setting."""
    choice = comparison.choices.get(row.setting)
    return choice is not None and choice.variant == row.variant


def choice_line(comparison: Comparison, *, setting: str) -> str:
    """One line: which network val chooses and why, what it reaches on test, and which one test would choose."""
    choice = comparison.choices.get(setting)
    start = f"{setting}: " if setting else ""
    if comparison.without_val:
        return f"{start}no network is chosen: no predictions of val in {', '.join(comparison.without_val)}."
    if choice is None:
        return f"{start}no network is chosen: no val study with a finding beside one without it."
    first, title = choice.ranked[0], COMPARED_TITLES[choice.group]
    has_folds = comparison.plan.num_folds(setting) is not None
    of_val = f"the folds' val ({first.num_studies} predictions)" if has_folds else f"val ({first.num_studies})"
    why = f"macro AUROC {first.mean:.3f} on {title} of {of_val}"
    if len(choice.ranked) > 1:
        second = choice.ranked[1]
        why += f", the highest of {len(choice.ranked)} networks (next {second.variant} {second.mean:.3f})"
    if choice.others:
        why += f"; {', '.join(choice.others)} cannot judge these studies"
    on_test = find(comparison.rows, setting=setting, variant=choice.variant, group=choice.group, finding=MACRO)
    text = f"{start}chosen on val: {choice.variant} ({why}). On test: {_with_interval(on_test)}"
    text += f", {interval_text(comparison.plan)}." if on_test.mean_low is not None else "."
    best = [
        row
        for row in comparison.rows
        if _column(row) == (setting, choice.group, MACRO, "auroc") and comparison.is_best(row)
    ]
    if not best or on_test in best:
        return text
    return f"{text} Highest on test: {best[0].variant} {best[0].mean:.3f}, optimistic, chosen by the test patients."


def folds_line(comparison: Comparison, *, setting: str) -> str | None:
    """What folds mean for the numbers of a setting, and where the predictions lie; None: there are no folds."""
    num_folds = comparison.plan.num_folds(setting)
    if num_folds is None:
        return None
    start = f"{setting}: " if setting else ""
    first = next(run for run in comparison.plan.runs if run.setting == setting)
    return (
        f"{start}{num_folds} folds: every patient is tested once, by the network of the fold that did not train on "
        "them. AUROC counts the pairs of a study with and one without the finding that one network has judged; pairs "
        "of two networks, whose scores have no common scale, are in auroc_pooled of the CSV, and in average precision. "
        f"Intervals are over all patients, for these networks. Predictions of all patients: {out_of_fold_file(first)} "
        "and its like; `dualview assess FILE` makes a page of one"
    )


def _with_interval(row: ComparisonRow) -> str:
    if row.mean is None:
        return "it cannot judge all of these studies there"
    if row.mean_low is None or row.mean_high is None:
        return f"{row.mean:.3f}"
    return f"{row.mean:.3f} [{max(row.mean_low, 0):.3f}, {min(row.mean_high, 1):.3f}]"
