"""By what a checkpoint is chosen as the best (`train.best_metric`, `train.best_findings`)."""

from collections.abc import Collection, Mapping

from dualview.config.sections import BestMetric
from dualview.evaluation.metrics import GroupMetrics, mean_where_defined
from dualview.views import ALL_STUDIES, Availability

MEAN = "mean"
"""Which studies: the mean over the availabilities that have any, each judged by itself.

How many of a kind there are, and whether patients with one view are healthier, does not enter: AUROC over all studies
rises where a network only tells availabilities apart.
"""


def value_of(
    metrics: Mapping[str, GroupMetrics], *, best_metric: BestMetric, findings: Collection[str] = ()
) -> float | None:
    """The number by which checkpoints are compared: higher is better; None where it is undefined.

    Args:
        metrics: group of `views.GROUPS` -> metrics of val.
        findings: those that count; none: all.
    """
    metric, _, which = best_metric.rpartition("_")
    groups = (
        [kind.key for kind in Availability]
        if which == MEAN
        else [Availability.BOTH.key if which == "both" else ALL_STUDIES]
    )
    return mean_where_defined([_macro(metrics[group], metric=metric, findings=findings) for group in groups])


def _macro(group: GroupMetrics, *, metric: str, findings: Collection[str]) -> float | None:
    return mean_where_defined(
        [getattr(one, metric) for name, one in group.findings.items() if not findings or name in findings]
    )


def in_words(best_metric: BestMetric, *, findings: Collection[str] = ()) -> str:
    """The metric as a reader knows it, such as "macro AUROC, mean over availabilities"."""
    metric, _, which = best_metric.rpartition("_")
    name = {"auroc": "macro AUROC", "average_precision": "macro average precision"}[metric]
    studies = {MEAN: "mean over availabilities", "all": "all studies", "both": "studies with both views"}[which]
    return f"{name}, {studies}" + (f", of {', '.join(findings)}" if findings else "")
