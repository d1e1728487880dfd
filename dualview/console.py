"""What a finished run or bench looks like on a terminal."""

from typing import Any

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


def account_tables(account: dict[str, Any]) -> list[Table]:
    """What `dualview data` prints: images, studies by split, labels by finding."""
    sources = Table(title="images")
    for column in ("source", "read", "used", "left out because"):
        sources.add_column(column, justify="left" if column in ("source", "left out because") else "right")
    for source in account["sources"]:
        images = source["images"]
        reasons = "\n".join(f"{count:,}  {reason}" for reason, count in images["dropped"].items())
        sources.add_row(source["name"], f"{images['read']:,}", f"{images['used']:,}", reasons or "-")
    if account["known_bad_images"]:
        sources.caption = (
            f"{len(account['known_bad_images'])} images are known to be missing or broken (--json lists them)"
        )

    studies = Table(title="studies")
    columns = ("patients", "studies", "both", "pa_only", "lateral_\nonly", "several\nfrontals", "several\nlaterals")
    for column in ("", *columns):
        studies.add_column(column, justify="right" if column else "left")
    for name, counts in (*account["splits"].items(), ("all", account)):
        if name == "all":
            studies.add_section()
        kinds = counts["studies"]
        numbers = [counts["patients"], kinds["total"], kinds["both"], kinds["pa_only"], kinds["lateral_only"]]
        numbers += [counts["several_frontals"], counts["several_laterals"]]
        studies.add_row(name, *(f"{number:,}" for number in numbers))

    labels = Table(title="labels, studies of all splits")
    for column in ("finding", "positive", "negative", "unknown", "of these uncertain"):
        labels.add_column(column, justify="left" if column == "finding" else "right")
    for finding, of_finding in account["findings"].items():
        counts = (of_finding[key] for key in ("positive", "negative", "unknown", "uncertain"))
        labels.add_row(finding, *(f"{count:,}" for count in counts))
    return [sources, studies, labels]


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
