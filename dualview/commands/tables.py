"""What a finished run or bench looks like on a terminal."""

from pathlib import Path
from typing import Any

from rich.box import HORIZONTALS
from rich.markup import escape
from rich.table import Table

from dualview.commands.export import ExportedGraph
from dualview.comparison.tables import BEST_NOTE, COMPARED_TITLES, Comparison, cell, find, interval_text
from dualview.data.remarks import Remark
from dualview.evaluation.document import Estimate, Evaluation
from dualview.evaluation.metrics import MACRO, GroupMetrics
from dualview.evaluation.value_of_lateral import (
    UNDER_TRAINED,
    VERDICT_TITLES,
    ValueRow,
    p_value,
    value_of_lateral,
)
from dualview.run.directory import RunDir
from dualview.views import ALL_STUDIES, GROUPS, TITLES

NO_ERROR_MARK = "*"  # beside an AUROC of exactly 1, which less is rounded to as well
MEDIUM, WIDE = 80, 96  # characters of a terminal from which "undefined", and an interval, stand in one line
SUSPECTS_SHOWN = 20  # number of doubtful views that are printed
SHOWN = ("both", "pa_only", "lateral_only")  # groups of a comparison that are printed; the files have all


def auroc_table(metrics: dict[str, GroupMetrics], *, split: str) -> Table:
    """AUROC per finding (rows) and availability (columns)."""
    table = Table(title=f"{split} AUROC (number of studies)")
    table.add_column("finding")
    table.add_column("positive", justify="right")
    for group in GROUPS:
        table.add_column(f"{group}\n({metrics[group].num_studies})", justify="right")
    for finding in metrics[ALL_STUDIES].findings:
        per_group = [metrics[group].findings[finding] for group in GROUPS]
        table.add_row(finding, str(per_group[0].num_positive), *(_number(in_group.auroc) for in_group in per_group))
    table.add_section()
    table.add_row(MACRO, "", *(_number(metrics[group].macro_auroc) for group in GROUPS))
    if any(finding.auroc is None for group in GROUPS for finding in metrics[group].findings.values()):
        table.caption = "undefined: positive and negative studies are both needed; macro is over the defined ones"
    return table


def account_tables(account: dict[str, Any]) -> list[Table]:
    """What `dualview data` prints: images, studies by split, labels by finding."""
    sources = images_table(account["sources"])
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
    for finding, label_counts in account["findings"].items():
        counts = (label_counts[key] for key in ("positive", "negative", "unknown", "uncertain"))
        labels.add_row(finding, *(f"{count:,}" for count in counts))
    return [sources, studies, labels]


def images_table(sources: list[dict[str, Any]]) -> Table:
    """The images of each source: read, used, left out and why, and what is remarkable about those that are used."""
    table = Table(title="images")
    for column in ("source", "read", "used", "left out because"):
        table.add_column(column, justify="left" if column in ("source", "left out because") else "right")
    has_remarks = any(source["remarks"] for source in sources)
    if has_remarks:
        table.add_column("read, but")
    for source in sources:
        images = source["images"]
        reasons = "\n".join(f"{count:,}  {escape(reason)}" for reason, count in images["dropped"].items())
        used = "-" if images["used"] is None else f"{images['used']:,}"
        remarks = "\n".join(escape(str(Remark(**remark))) for remark in source["remarks"])
        cells = [escape(source["name"]), f"{images['read']:,}", used, reasons or "-"]
        table.add_row(*cells, *([remarks or "-"] if has_remarks else []))
    return table


def view_check_table(check: dict[str, Any]) -> Table:
    """The first images whose picture contradicts the view in the table."""
    suspects = check["suspects"]
    table = Table(title=f"{len(suspects):,} image(s) whose picture contradicts the view in the table, worst first")
    table.add_column("", justify="right")
    table.add_column("image", overflow="fold")
    table.add_column("view in\nthe table")
    table.add_column("probability\nof it", justify="right")
    for number, suspect in enumerate(suspects[:SUSPECTS_SHOWN], start=1):
        table.add_row(str(number), escape(suspect["path"]), suspect["view"], f"{suspect['probability']:.3f}")
    if len(suspects) > SUSPECTS_SHOWN:
        table.add_row("...", f"and {len(suspects) - SUSPECTS_SHOWN:,} more (--suspects writes all)", "", "")
    return table


def view_check_sentence(check: dict[str, Any]) -> str:
    """What was looked at, by which classifier, and how well that tells the views of the table apart."""
    sampled = ", drawn at random" if check["num_judged"] + len(check["bad"]) < check["num_images"] else ""
    auroc = "" if check["auroc"] is None else f", AUROC {check['auroc']:.3f}"
    return (
        f"views of {check['num_judged']:,} of {check['num_images']:,} images{sampled}, judged by {check['classifier']}"
        f"{auroc}: it agrees with the table on {100 * check['accuracy']:.1f} %"
    )


def value_of_lateral_table(evaluation: Evaluation, *, width: int = WIDE) -> Table | None:
    """What the lateral view is worth per finding, on complete studies; None where the network takes one view.

    Args:
        width: characters of the terminal, at least 60; no number is cut in so many.
    """
    masked = evaluation.masked
    if masked is None:
        return None
    value = value_of_lateral(masked)
    table = Table(
        title=f"{evaluation.split}: {masked.num_studies:,} studies with both views, scored three ways",
        box=HORIZONTALS,
        padding=0,
        show_edge=False,
    )
    # Numbers have columns of fixed width, in which texts wrap between them; names of findings have the rest.
    is_tight, is_wide = width < MEDIUM, width >= WIDE
    table.add_column("finding", overflow="fold")
    heads = ["lat.\nwith-\nheld", "PA\nwith-\nheld"] if is_tight else ["lateral\nwithheld", "PA\nwithheld"]
    for column in ("AUROC\nboth\nviews", *heads):
        table.add_column(column, justify="right", overflow="fold", width=6 if is_tight else len("undefined"))
    table.add_column("gained by\nlateral", justify="right", width=len("[+0.000, +0.000]") if is_wide else 9)
    table.add_column("lateral", width=len("(from 0.000)") if is_wide else 9)
    table.add_column("p swapped\np DeLong", justify="right", width=9)
    was_judged = True
    for row in value.rows:
        if was_judged and not row.is_judged:
            table.add_section()
        was_judged = row.is_judged
        aurocs = [_auroc(auroc) for auroc in row.aurocs]
        name = f"{escape(row.name)}\n{row.num_positive:,} positive"
        table.add_row(name, *aurocs, _difference(row.auroc_gained), _verdict(row), _checks(row))
    table.add_section()
    macro_aurocs = [_number(auroc.value) for auroc in value.macro.aurocs]
    table.add_row(value.macro.name, *macro_aurocs, _difference(value.macro.auroc_gained), "")
    correction = masked.value_of_lateral.correction
    gains = "these networks together gain" if evaluation.members else "this trained network gains"
    table.caption = (
        f"gained: difference of AUROC with its interval, over patients. {correction}. Beneath too few: patients. "
        "Beneath undecided: the smallest gain that would be found with 80 % power. p: of swapped scores for all "
        f"findings together, of DeLong for one. It is what {gains}; intervals are over patients, "
        "not over trainings: `dualview compare` with 3 or more seeds is"
    )
    if value.without_error:
        table.caption += f"\n{NO_ERROR_MARK} {escape('; '.join(value.without_error))}"
    if value.shortfalls:
        said = "AUROC of the joint head minus the better branch head's, which chance explains"
        table.caption += f"\n{said}: {escape('; '.join(value.shortfalls))}"
    if value.warnings:
        table.caption += f"\nWARNING {UNDER_TRAINED}: {escape('; '.join(value.warnings))}"
    return table


def assessment_table(evaluation: Evaluation) -> Table:
    """AUROC of each finding with its interval, for predictions without a view withheld."""
    look = evaluation.groups[ALL_STUDIES]
    table = Table(title=f"{look.num_studies:,} studies of {look.num_patients:,} patients")
    table.add_column("finding", overflow="fold")
    for column in ("positive", "negative", "AUROC"):
        table.add_column(column, justify="right", no_wrap=True)
    for finding, result in look.findings.items():
        auroc = result.auroc
        interval = "" if auroc.low is None else f" [{auroc.low:.3f}, {auroc.high:.3f}]"
        counts = (f"{result.num_positive:,}", f"{result.num_negative:,}")
        table.add_row(escape(finding), *counts, _auroc(auroc) + interval)
    table.caption = (
        "No study has a score with a view withheld (logit_lateral_hidden:F and its like), so the value of the lateral "
        "is not measured"
    )
    if any(result.auroc.value == 1 for result in look.findings.values()):
        table.caption += f"\n{NO_ERROR_MARK} no error among any pair of a positive and a negative study"
    return table


def calibration_table(evaluation: Evaluation) -> Table:
    """Per route and finding, what calibrates it and the calibration error before and after."""
    table = Table(title=f"{evaluation.split}: calibration, fitted on val")
    for column in ("studies with", "finding", "by"):
        table.add_column(column)
    for column in ("slope", "intercept", "error\nbefore", "error\nafter"):
        table.add_column(column, justify="right")
    for route, findings in evaluation.calibration.items():
        for finding, one in findings.items():
            errors = (_number(one.error_before), _number(one.error_after))
            table.add_row(
                TITLES[route], escape(finding), one.method, f"{one.slope:.3f}", f"{one.intercept:+.3f}", *errors
            )
    return table


def operating_points_line(evaluation: Evaluation, *, folder: Path, run: Path) -> str:
    """Which thresholds and calibration were used, and whether `dualview predict` uses them too."""
    used = evaluation.settings
    if used.operating_points_of == "run":
        whose = "of the runs together" if evaluation.members else "of the run"
        return f"thresholds  {used.operating_points}: those {whose}, {run}/operating_points.json"
    return f"thresholds  {used.operating_points}, for this evaluation: {folder}/operating_points.json. " + (
        _what_predict_uses(evaluation, folder=folder, run=RunDir(run))
    )


def _what_predict_uses(evaluation: Evaluation, *, folder: Path, run: RunDir) -> str:
    """Which thresholds `dualview predict` has for the checkpoint of an evaluation that has its own."""
    step = None if evaluation.checkpoint is None else evaluation.checkpoint.step
    if step is None or run.checkpoint("best").resolve() == run.checkpoint(step).resolve():
        return "`dualview predict` goes on with those of the run"
    if folder.resolve() == run.evaluation(evaluation.split, checkpoint=str(step)).path.resolve():
        return f"`dualview predict --checkpoint {step}` uses them, as step {step} is not the best"
    return f"`dualview predict` does not know them; it has those of `dualview evaluate {run} --checkpoint {step}`"


def comparison_tables(comparison: Comparison) -> list[Table]:
    """Macro AUROC of every variant per group, one table for each setting."""
    plan = comparison.plan.compare
    tables = []
    means = ", mean ± sd over seeds" if len(plan.seeds) > 1 else " of one seed"
    for setting in plan.settings:
        table = Table(title=f"{setting + ': ' if setting else ''}test macro AUROC{means}")
        table.add_column("network")
        table.add_column("parameters\nimages/s", justify="right")
        for group in SHOWN:
            table.add_column(COMPARED_TITLES[group].replace(", ", ",\n"), justify="right")
        for variant in plan.variants:
            cost = comparison.costs[setting, variant]
            speed = "-" if cost.images_per_second is None else f"{cost.images_per_second:.0f}"
            rows = [
                find(comparison.rows, setting=setting, variant=variant, group=group, finding=MACRO) for group in SHOWN
            ]
            cells = [cell(row, comparison=comparison, newline="\n") for row in rows]
            table.add_row(variant, f"{cost.num_parameters:,}\n{speed}", *cells)
        table.caption = (
            f"below: difference to {plan.baseline} on the same patients, {interval_text(comparison.plan)}, corrected "
            f"for all macro differences\n{BEST_NOTE}"
        )
        tables.append(table)
    return tables


def _auroc(auroc: Estimate) -> str:
    return _number(auroc.value) + (NO_ERROR_MARK if auroc.value == 1 else "")


def _verdict(row: ValueRow) -> str:
    if row.verdict == "undecided" and row.checks is not None and row.checks.detectable_gain is not None:
        return f"undecided\n(from {row.checks.detectable_gain:.3f})"
    if row.verdict == "too_few":
        return f"too few:\n{row.patients.removesuffix(' patients').replace(' and ', chr(10))}".rstrip(":\n")
    return VERDICT_TITLES[row.verdict]


def _checks(row: ValueRow) -> str:
    if row.checks is None:
        return "-"
    swap, delong = row.checks.swap, row.checks.delong
    values = [None if swap is None else swap.p_value_together, None if delong is None else delong.p_value]
    return "\n".join("undefined" if value is None else p_value(value) for value in values)


def _difference(estimate: Estimate) -> str:
    if estimate.value is None:
        return "undefined"
    if estimate.low is None:
        return f"{estimate.value:+.3f}"
    return f"{estimate.value:+.3f}\n[{estimate.low:+.3f}, {estimate.high:+.3f}]"


def export_table(graphs: list[ExportedGraph]) -> Table:
    """Every written graph: its file, size, and how far its logits are from the network's."""
    table = Table(title="largest difference of a logit from the network")
    sizes = list(graphs[0].differences)
    for column in ("graph", "MB", *(f"{size} studies" if size > 1 else "1 study" for size in sizes)):
        table.add_column(column, justify="left" if column == "graph" else "right")
    for graph in graphs:
        megabytes = f"{graph.file.stat().st_size / 1e6:.1f}"
        table.add_row(graph.file.name, megabytes, *(f"{graph.differences[size]:.1e}" for size in sizes))
    return table


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
