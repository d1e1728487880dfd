"""What a comparison came to, and the table of it: macro AUROC of every variant, as Markdown and cell by cell."""

from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from dualview.comparison.plan import Plan
from dualview.comparison.result import COMPARED_GROUPS, ComparisonRow
from dualview.evaluation.metrics import MACRO
from dualview.files import whole_file, write_whole
from dualview.views import MASKINGS, TITLES, Availability

COMPARED_TITLES = TITLES | {
    masking: f"both, {TITLES[masking]}" for masking in MASKINGS if masking != Availability.BOTH.key
}
"""Titles of `COMPARED_GROUPS`."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a variant costs: parameters, and the median over its runs' logged speeds in training."""

    num_parameters: int
    images_per_second: float | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What came out, row by row, and what it cost: (setting, variant) -> Cost."""

    plan: Plan
    rows: list[ComparisonRow]
    costs: dict[tuple[str, str], Cost]


def write_tables(comparison: Comparison) -> None:
    """Write all rows as CSV and the table as Markdown, each whole or not at all."""
    with whole_file(table_file(comparison.plan, ".csv")) as temporary:
        pd.DataFrame([asdict(row) for row in comparison.rows]).to_csv(temporary, index=False)
    write_whole(table_file(comparison.plan, ".md"), markdown(comparison))


def table_file(plan: Plan, suffix: str) -> Path:
    """Where the table is written; one for each baseline that was asked for."""
    return plan.compare.dir / f"comparison-to-{plan.compare.baseline}{suffix}"


def markdown(comparison: Comparison) -> str:
    """The comparison as Markdown: macro AUROC per group and setting, then complete studies finding by finding."""
    plan = comparison.plan.compare
    level = f"{100 * plan.confidence:g} %"
    parts = [
        f"AUROC on the test split: mean over {len(plan.seeds)} seeds, ± standard deviation. Below it the difference to "
        f"{plan.baseline} on the same patients, with its {level} interval over seeds and patients. - stands where a "
        "network cannot judge these studies.\n"
    ]
    for setting in plan.settings:
        sizes = {row.group: row.num_studies for row in comparison.rows if row.setting == setting}
        columns = {f"{COMPARED_TITLES[group]} ({sizes[group]})": (group, MACRO) for group in COMPARED_GROUPS}
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
            cells.append(cell(row, is_baseline=variant == comparison.plan.compare.baseline))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def find(
    rows: list[ComparisonRow], *, setting: str, variant: str, group: str, finding: str, metric: str = "auroc"
) -> ComparisonRow:
    """The one row of these."""
    wanted = (setting, variant, group, finding, metric)
    return next(row for row in rows if (row.setting, row.variant, row.group, row.finding, row.metric) == wanted)


def cell(row: ComparisonRow, *, is_baseline: bool, newline: str = "<br>") -> str:
    """Mean and spread over seeds, and below them the difference to the baseline."""
    if row.mean is None:
        return "-"
    text = f"{row.mean:.3f}" + ("" if row.sd is None else f" ± {row.sd:.3f}")
    if is_baseline or row.difference is None or row.low is None or row.high is None:
        return text
    return f"{text}{newline}{row.difference:+.3f} [{row.low:+.3f}, {row.high:+.3f}]"
