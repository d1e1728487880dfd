"""Rows of the tables and curves that an evaluation has in wandb, and its summary values; wandb itself is not needed."""

from dualview.evaluation.document import Estimate, Evaluation, Look
from dualview.evaluation.metrics import METRICS
from dualview.evaluation.operating_points import to_probabilities
from dualview.evaluation.prediction_table import PredictionTable
from dualview.evaluation.statistics.curves import precision_recall_points, roc_points
from dualview.evaluation.value_of_lateral import value_of_lateral
from dualview.views import ALL_STUDIES, GROUPS, MASKINGS, TITLES

CURVES = {
    "roc": ("ROC", ("false positive rate", "sensitivity")),
    "precision_recall": ("precision and recall", ("recall", "precision")),
}  # beginning of a chart's name -> title, titles of the axes
TableCell = str | float | int | None
TableRows = tuple[list[str], list[list[TableCell]]]  # names of the columns, and rows


def value_of_lateral_rows(evaluation: Evaluation) -> TableRows:
    """Per finding, and macro: complete studies scored three ways, and what they gain by the lateral view."""
    assert evaluation.masked is not None
    value = value_of_lateral(evaluation.masked)
    columns = ["finding", "positive", *(f"AUROC {TITLES[masking]}" for masking in MASKINGS)]
    columns += ["difference", "low", "high", "simultaneous low", "simultaneous high", "lateral"]
    rows: list[list[TableCell]] = []
    for row in value.rows:
        gained = row.auroc_gained
        bounds = [*_bounds(gained), gained.simultaneous_low, gained.simultaneous_high]
        rows.append([row.name, row.num_positive, *(auroc.value for auroc in row.aurocs), *bounds, row.verdict])
    macro = value.macro
    macro_bounds = [*_bounds(macro.auroc_gained), None, None]
    rows.append([macro.name, None, *(auroc.value for auroc in macro.aurocs), *macro_bounds, None])
    return columns, rows


def group_rows(evaluation: Evaluation) -> TableRows:
    """Macro metrics of every way in which a view is missing, and of what knows nothing but that."""
    columns = ["studies are", "number"]
    for title in ("AUROC", "average precision", "Brier"):
        columns += [title, f"{title} low", f"{title} high"]
    rows: list[list[TableCell]] = [
        [title, look.num_studies, *(bound for metric in METRICS for bound in _bounds(look.macro[metric]))]
        for title, look in _titled_looks(evaluation).items()
    ]
    baseline = evaluation.availability_baseline
    if baseline is not None:
        bounds = _bounds(baseline.macro["auroc"])
        rows.append(["all studies, judged by which views exist", evaluation.num_studies, *bounds, *[None] * 6])
    return columns, rows


def operating_point_rows(evaluation: Evaluation) -> TableRows:
    """What the thresholds chosen on val do here; studies of several routes have several, and no one threshold."""
    rates = ("sensitivity", "specificity", "positive_predictive_value", "negative_predictive_value")
    counts = ("true_positive", "false_positive", "true_negative", "false_negative")
    columns = ["studies are", "finding", "threshold"]
    for rate in rates:
        title = rate.replace("_", " ")
        columns += [title, f"{title} low", f"{title} high"]
    columns += [count.replace("_", " ") for count in counts]
    rows: list[list[TableCell]] = []
    for title, look in _titled_looks(evaluation).items():
        for finding, result in look.findings.items():
            point = result.operating_point
            if point is not None:
                bounds = [bound for rate in rates for bound in _bounds(getattr(point, rate))]
                rows.append([title, finding, point.threshold, *bounds, *(getattr(point, count) for count in counts)])
    return columns, rows


def summary_values(evaluation: Evaluation) -> dict[str, float | int]:
    """`evaluation/auroc_macro_both`, ..., `evaluation/num_helped`, ...; what is undefined is left out."""
    masked = evaluation.masked
    looks = evaluation.groups | ({} if masked is None else masked.looks)
    values: dict[str, float | None] = {
        f"evaluation/{metric}_macro_{name}": look.macro[metric].value
        for name, look in looks.items()
        for metric in METRICS
    }
    if masked is not None:
        value = masked.value_of_lateral
        values["evaluation/auroc_macro_value_of_lateral"] = value.macro["auroc"].value
        values |= {
            f"evaluation/num_{verdict}": len(getattr(value, verdict))
            for verdict in ("helped", "hurt", "undecided", "too_few")
        }
    return {key: number for key, number in values.items() if number is not None}


def _titled_looks(evaluation: Evaluation) -> dict[str, Look]:
    """Title -> look: the masked scores of complete studies, then the studies as they came; only those with studies."""
    masked = {} if evaluation.masked is None else evaluation.masked.looks
    looks = {TITLES[name]: look for name, look in masked.items()}
    for group in GROUPS:
        title = TITLES[group] if group == ALL_STUDIES else f"came with {TITLES[group]}"
        looks[title] = evaluation.groups[group]
    return {title: look for title, look in looks.items() if look.num_studies}


def _bounds(estimate: Estimate) -> list[TableCell]:
    return [estimate.value, estimate.low, estimate.high]


def curve_rows(studies: PredictionTable, *, score: str) -> dict[str, list[list[TableCell]]]:
    """Points by `CURVES`, as rows of finding, x and y; findings of one class only have none."""
    rows: dict[str, list[list[TableCell]]] = {key: [] for key in CURVES}
    for finding, scores, positive in studies.with_both_classes(to_probabilities(studies.logits[score])):
        rows["roc"] += [[finding, x, y] for x, y in roc_points(scores, positive=positive)]
        points = precision_recall_points(scores, positive=positive)
        rows["precision_recall"] += [[finding, x, y] for x, y in points]
    return rows
