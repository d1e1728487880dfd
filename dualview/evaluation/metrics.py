"""AUROC, average precision and Brier score per finding and availability, over known labels only."""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from dualview.views import Availability

GROUPS = ("all", *(kind.name.lower() for kind in Availability))


@dataclass(frozen=True, kw_only=True)
class FindingMetrics:
    """One finding over one group of studies. A metric is None where it is undefined: one class only."""

    num_positive: int
    num_negative: int
    auroc: float | None
    average_precision: float | None
    brier: float | None  # mean of (probability - label)^2, defined with one class too


@dataclass(frozen=True, kw_only=True)
class GroupMetrics:
    """All findings over one group; macro = mean over the findings where the metric is defined."""

    num_studies: int
    findings: dict[str, FindingMetrics]
    macro_auroc: float | None
    macro_average_precision: float | None


def by_availability(
    probabilities: np.ndarray,
    *,
    labels: np.ndarray,
    label_mask: np.ndarray,
    availability: np.ndarray,
    findings: tuple[str, ...],
) -> dict[str, GroupMetrics]:
    """Metrics over all studies and per availability; keys as in `GROUPS`.

    Args:
        probabilities, labels: (S, K).
        label_mask: (S, K) bool, True = known; unknown labels take no part.
        availability: (S,) of `Availability`, as the studies were evaluated.
        findings: K names.
    """
    groups = {}
    for name in GROUPS:
        chosen = np.ones(len(availability), bool) if name == "all" else availability == Availability[name.upper()]
        per_finding = {
            finding: finding_metrics(probabilities[chosen, k], labels=labels[chosen, k], known=label_mask[chosen, k])
            for k, finding in enumerate(findings)
        }
        groups[name] = GroupMetrics(
            num_studies=int(chosen.sum()),
            findings=per_finding,
            macro_auroc=_mean([metrics.auroc for metrics in per_finding.values()]),
            macro_average_precision=_mean([metrics.average_precision for metrics in per_finding.values()]),
        )
    return groups


def finding_metrics(probabilities: np.ndarray, *, labels: np.ndarray, known: np.ndarray) -> FindingMetrics:
    """Metrics of one finding from (S,) probabilities, labels and known bool; scikit-learn's definitions."""
    truth, scores = labels[known] > 0.5, probabilities[known]
    num_positive = int(truth.sum())
    num_negative = len(truth) - num_positive
    defined = num_positive > 0 and num_negative > 0
    return FindingMetrics(
        num_positive=num_positive,
        num_negative=num_negative,
        auroc=float(roc_auc_score(truth, scores)) if defined else None,
        average_precision=float(average_precision_score(truth, scores)) if defined else None,
        brier=float(np.square(scores - truth).mean()) if len(truth) else None,
    )


def _mean(values: list[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
