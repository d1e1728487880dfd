"""AUROC, average precision and Brier score per finding and availability, over known labels only."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from dualview.evaluation.statistics.bootstrap import ranking, weighted_means
from dualview.views import ALL_STUDIES, GROUPS, Availability

METRICS = ("auroc", "average_precision", "brier")
"""Metrics of a finding; fields of `FindingMetrics`."""
MACRO = "macro"
"""The name of the mean over findings where findings have names."""


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
    positive: np.ndarray,
    known: np.ndarray,
    availability: np.ndarray,
    findings: tuple[str, ...],
) -> dict[str, GroupMetrics]:
    """Metrics over all studies and per availability; keys as in `views.GROUPS`.

    Args:
        probabilities: (S, K).
        positive: (S, K) bool, True = known to be there.
        known: (S, K) bool; unknown labels take no part.
        availability: (S,) of `Availability`, as the studies were evaluated.
        findings: K names.
    """
    groups = {}
    for name in GROUPS:
        everyone = np.ones(len(availability), bool)
        chosen = everyone if name == ALL_STUDIES else availability == Availability[name.upper()]
        per_finding = {
            finding: finding_metrics(probabilities[chosen, k], positive=positive[chosen, k], known=known[chosen, k])
            for k, finding in enumerate(findings)
        }
        groups[name] = GroupMetrics(
            num_studies=int(chosen.sum()),
            findings=per_finding,
            macro_auroc=mean_where_defined([metrics.auroc for metrics in per_finding.values()]),
            macro_average_precision=mean_where_defined([metrics.average_precision for metrics in per_finding.values()]),
        )
    return groups


def finding_metrics(probabilities: np.ndarray, *, positive: np.ndarray, known: np.ndarray) -> FindingMetrics:
    """Metrics of one finding from (S,) probabilities, truth and known, both bool; scikit-learn's definitions."""
    truth, scores = positive[known], probabilities[known]
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


@dataclass(frozen=True, kw_only=True)
class ResampledMetrics:
    """K findings in one score on some studies, and in B resamples of these; NaN where undefined."""

    findings: list[FindingMetrics]
    values: dict[str, np.ndarray]  # metric -> (K,)
    resampled: dict[str, np.ndarray]  # metric -> (K, B)


def resampled_metrics(
    probabilities: np.ndarray,
    *,
    positive: np.ndarray,
    known: np.ndarray,
    counts: np.ndarray,
    metrics: Sequence[str] = METRICS,
) -> ResampledMetrics:
    """Metrics of S studies as they are and in every resample.

    Args:
        probabilities: (S, K).
        positive, known: (S, K) bool; `positive` is read where `known` is True.
        counts: (S, B) of `resample_patients`.
        metrics: which; resampling the Brier score takes memory for all S x B counts as float64.
    """
    shape = (probabilities.shape[1], counts.shape[1])
    findings = []
    values = {metric: np.full(shape[0], np.nan) for metric in metrics}
    resampled = {metric: np.full(shape, np.nan) for metric in metrics}
    for k in range(shape[0]):
        use = known[:, k]
        plain = finding_metrics(probabilities[:, k], positive=positive[:, k], known=use)
        findings.append(plain)
        scores, truth = probabilities[use, k], positive[use, k]
        ranks = ranking(scores, positive=truth, counts=counts[use])
        for metric in metrics:
            value = getattr(plain, metric)
            values[metric][k] = np.nan if value is None else value
            resampled[metric][k] = (
                weighted_means((scores - truth) ** 2, counts=counts[use])
                if metric == "brier"
                else getattr(ranks, metric)
            )
    return ResampledMetrics(findings=findings, values=values, resampled=resampled)


def why_undefined(*, num_positive: int, num_negative: int) -> str | None:
    """Why there is no AUROC of so many studies with a known label; None where there is one."""
    if num_positive and num_negative:
        return None
    if not num_positive and not num_negative:
        return "no study with a known label"
    which = "positive" if not num_positive else "negative"
    return f"no {which} study among {num_positive + num_negative} with a known label"


def mean_where_defined(values: list[float | None]) -> float | None:
    """Mean of the numbers there are; None without any."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
