"""What a finished run or bench looks like on a terminal."""

from rich.table import Table

from dualview.metrics import GROUPS, GroupMetrics


def auroc_table(metrics: dict[str, GroupMetrics], *, split: str) -> Table:
    """AUROC per finding (rows) and availability (columns)."""
    table = Table(title=f"{split} AUROC (number of studies)")
    table.add_column("finding")
    table.add_column("positive", justify="right")
    for group in GROUPS:
        table.add_column(f"{group}\n({metrics[group].num_studies})", justify="right")
    for finding in metrics["all"].findings:
        per_group = [metrics[group].findings[finding] for group in GROUPS]
        table.add_row(finding, str(per_group[0].num_positive), *(_number(of_group.auroc) for of_group in per_group))
    table.add_section()
    table.add_row("macro", "", *(_number(metrics[group].macro_auroc) for group in GROUPS))
    if any(finding.auroc is None for group in GROUPS for finding in metrics[group].findings.values()):
        table.caption = "undefined: positive and negative studies are both needed; macro is over the defined ones"
    return table


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
