"""Points of ROC, precision-recall and reliability curves, few enough to send along."""

from dataclasses import dataclass

import numpy as np

from dualview.evaluation.prediction_table import score_of_masking
from dualview.evaluation.statistics.calibration import reliability
from dualview.evaluation.statistics.curves import Points, precision_recall_points, roc_points
from dualview.report.record import Record
from dualview.views import ALL_STUDIES, MASKINGS, Availability

MAX_VERTICES = 200


@dataclass(frozen=True, kw_only=True)
class Curves:
    """One finding in one score on some studies."""

    what: str  # name of `views.MASKINGS` or `views.GROUPS`
    roc: Points  # (false positive rate, sensitivity)
    precision_recall: Points  # (recall, precision)
    reliability: list[tuple[float, float, int]]  # (mean probability, share of positives, number of studies)
    prevalence: float


def masked_curves(record: Record) -> dict[str, list[Curves]]:
    """Finding -> complete studies with both views and with each withheld; empty for networks of one view."""
    if record.evaluation.masked is None:
        return {}
    both = record.predictions.availability == Availability.BOTH
    return _by_finding(record, {masking: (score_of_masking(masking), both) for masking in MASKINGS})


def group_curves(record: Record) -> dict[str, list[Curves]]:
    """Finding -> curves of all studies, and of those of each availability."""
    kinds = record.predictions.availability
    rows = {ALL_STUDIES: np.ones(len(kinds), bool), **{kind.key: kinds == kind for kind in Availability}}
    return _by_finding(record, {group: ("route", in_group) for group, in_group in rows.items()})


def _by_finding(record: Record, looks: dict[str, tuple[str, np.ndarray]]) -> dict[str, list[Curves]]:
    found: dict[str, list[Curves]] = {finding: [] for finding in record.findings}
    for what, (score, rows) in looks.items():
        probabilities = record.probabilities(score)[rows]
        for finding, scores, positive in record.predictions.select(rows).with_both_classes(probabilities):
            found[finding].append(curves(scores, positive=positive, what=what))
    return found


def curves(probabilities: np.ndarray, *, positive: np.ndarray, what: str) -> Curves:
    """The curves of N probabilities, both classes among them."""
    return Curves(
        what=what,
        roc=roc_points(probabilities, positive=positive, at_most=MAX_VERTICES),
        precision_recall=precision_recall_points(probabilities, positive=positive, at_most=MAX_VERTICES),
        reliability=[
            (round(predicted, 4), round(observed, 4), int(size))
            for predicted, observed, size in reliability(probabilities, positive=positive).tolist()
        ],
        prevalence=float(positive.mean()),
    )
