"""What a finished run or bench looks like on a terminal."""

from rich.table import Table

from dualview.metrics import GROUPS, FindingMetrics, GroupMetrics


def auroc_table(metrics: dict[str, GroupMetrics], *, split: str) -> Table:
    """AUROC per finding (rows) and availability (columns), with the counts behind it."""
    table = Table(title=f"{split} AUROC (positive / negative studies)")
    table.add_column("finding")
    for group in GROUPS:
        table.add_column(f"{group}\n{metrics[group].num_studies} studies", justify="right")
    for finding in metrics["all"].findings:
        table.add_row(finding, *(_cell(metrics[group].findings[finding]) for group in GROUPS))
    table.add_section()
    table.add_row("macro", *(_number(metrics[group].macro_auroc) for group in GROUPS))
    if any(_cell(f).startswith("undefined") for group in GROUPS for f in metrics[group].findings.values()):
        table.caption = "undefined: positive and negative studies are both needed; macro is over the defined ones"
    return table


def _cell(finding: FindingMetrics) -> str:
    return f"{_number(finding.auroc)} ({finding.num_positive} / {finding.num_negative})"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
