"""Points of ROC, precision-recall and reliability curves, few enough to send along."""

from dataclasses import dataclass

import numpy as np

from dualview.evaluation.prediction_table import HIDDEN, ROUTES
from dualview.evaluation.statistics.calibration import reliability
from dualview.evaluation.statistics.curves import Points, precision_recall_points, roc_points
from dualview.report.record import Record
from dualview.views import Availability, View

MAX_POINTS = 200
MASKED = {
    "both": "both views",
    "lateral_hidden": "lateral withheld",
    "pa_hidden": "PA withheld",
}
GROUPS = {"all": "all studies", "both": "both views", "pa_only": "PA only", "lateral_only": "lateral only"}


@dataclass(frozen=True, kw_only=True)
class Curves:
    """One finding in one score on some studies."""

    what: str  # key of MASKED or GROUPS
    roc: Points  # false positive rate, sensitivity
    precision_recall: Points  # recall, precision
    reliability: list[tuple[float, float, int]]  # mean probability, share of positives, studies
    prevalence: float


def masked_curves(record: Record) -> dict[str, list[Curves]]:
    """By finding: complete studies with both views and with each withheld; empty for networks of one view."""
    if record.document["masked"] is None:
        return {}
    both = record.predictions.availability == Availability.BOTH
    scores = {"both": "route", **{score: score for score in (HIDDEN[View.LATERAL], HIDDEN[View.PA])}}
    return _by_finding(record, {what: (score, both) for what, score in scores.items()})


def group_curves(record: Record) -> dict[str, list[Curves]]:
    """By finding: all studies, and those of each availability."""
    kinds = record.predictions.availability
    rows = {"all": np.ones(len(kinds), bool), **{ROUTES[kind]: kinds == kind for kind in Availability}}
    return _by_finding(record, {what: ("route", of_group) for what, of_group in rows.items()})


def _by_finding(record: Record, looks: dict[str, tuple[str, np.ndarray]]) -> dict[str, list[Curves]]:
    probabilities = {score: record.probabilities(score) for score in {score for score, _ in looks.values()}}
    found: dict[str, list[Curves]] = {finding: [] for finding in record.findings}
    for what, (score, rows) in looks.items():
        for k, finding in enumerate(record.findings):
            known = rows & record.predictions.label_mask[:, k] & np.isfinite(probabilities[score][:, k])
            positive = record.predictions.labels[known, k] > 0.5
            if positive.any() and not positive.all():
                found[finding].append(curves(probabilities[score][known, k], positive=positive, what=what))
    return found


def curves(probabilities: np.ndarray, *, positive: np.ndarray, what: str) -> Curves:
    """The curves of N probabilities, both classes among them."""
    return Curves(
        what=what,
        roc=roc_points(probabilities, positive=positive, at_most=MAX_POINTS),
        precision_recall=precision_recall_points(probabilities, positive=positive, at_most=MAX_POINTS),
        reliability=[
            (round(predicted, 4), round(observed, 4), int(size))
            for predicted, observed, size in reliability(probabilities, positive=positive).tolist()
        ],
        prevalence=float(positive.mean()),
    )
