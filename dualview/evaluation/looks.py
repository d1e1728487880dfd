"""One score on some studies: every finding and their mean, each with its interval over resamples of patients."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dualview.evaluation.document import (
    Estimate,
    FindingResult,
    Look,
    MacroEstimate,
    OperatingPointResult,
    Reached,
)
from dualview.evaluation.metrics import METRICS, FindingMetrics, ResampledMetrics, resampled_metrics, why_undefined
from dualview.evaluation.operating_points import OperatingPoints, calibrated_scores
from dualview.evaluation.prediction_table import PredictionTable
from dualview.evaluation.statistics.bootstrap import Interval, percentile_interval, weighted_means
from dualview.evaluation.statistics.calibration import calibration_error
from dualview.evaluation.statistics.thresholds import ThresholdRule, choose
from dualview.views import Availability


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How evaluation measures."""

    num_resamples: int = 2000
    seed: int = 0
    confidence: float = 0.95
    fixed_specificity: float = 0.9
    fixed_sensitivity: float = 0.9


@dataclass(frozen=True, kw_only=True)
class MeasuredLook:
    """One score on some studies: the unit of work."""

    look: Look
    metrics: ResampledMetrics


def measure_look(
    table: PredictionTable, *, score: str, counts: np.ndarray, points: OperatingPoints, settings: EvaluationSettings
) -> MeasuredLook:
    """Measure all studies of the table; `counts` (S, B) are theirs."""
    probabilities = calibrated_scores(table, score=score, points=points)
    known, positive = table.label_mask & np.isfinite(probabilities), table.positive
    by_route = np.stack([points.thresholds(table.findings, route) for route in Availability])  # (3, K)
    thresholds = by_route[table.judged_by(score)]  # (S, K)
    metrics = resampled_metrics(probabilities, positive=positive, known=known, counts=counts)
    findings = {}
    for k, finding in enumerate(table.findings):
        use = known[:, k]
        findings[finding] = _finding_result(
            metrics.findings[k],
            estimates={
                metric: estimate(metrics.values[metric][k], metrics.resampled[metric][k], settings)
                for metric in METRICS
            },
            num_unknown=int(len(table) - use.sum()),
            probabilities=probabilities[use, k],
            positive=positive[use, k],
            thresholds=thresholds[use, k],
            counts=counts[use],
            settings=settings,
        )
    macro = {}
    for metric in METRICS:
        values, resampled = metrics.values[metric], metrics.resampled[metric]
        defined = np.isfinite(values)
        macro[metric] = macro_estimate(
            mean_of_defined(values), mean_of_defined(resampled[defined]), defined=defined, settings=settings
        )
    look = Look(
        num_studies=len(table), num_patients=len(set(table.patient_ids)), macro=macro, findings=findings
    )  # fmt: skip
    return MeasuredLook(look=look, metrics=metrics)


def _finding_result(
    plain: FindingMetrics,
    *,
    estimates: dict[str, Estimate],
    num_unknown: int,
    probabilities: np.ndarray,
    positive: np.ndarray,
    thresholds: np.ndarray,
    counts: np.ndarray,
    settings: EvaluationSettings,
) -> FindingResult:
    """One finding of its N studies with a known label: (N,) each, and counts (N, B)."""
    at_specificity = choose(
        probabilities, positive=positive, rule=ThresholdRule("specificity", settings.fixed_specificity)
    )
    at_sensitivity = choose(
        probabilities, positive=positive, rule=ThresholdRule("sensitivity", settings.fixed_sensitivity)
    )
    return FindingResult(
        num_positive=plain.num_positive,
        num_negative=plain.num_negative,
        num_unknown=num_unknown,
        undefined=why_undefined(num_positive=plain.num_positive, num_negative=plain.num_negative),
        auroc=estimates["auroc"],
        average_precision=estimates["average_precision"],
        brier=estimates["brier"],
        calibration_error=calibration_error(probabilities, positive=positive),
        sensitivity_at_specificity=Reached(
            target=settings.fixed_specificity, value=None if at_specificity is None else at_specificity.sensitivity
        ),
        specificity_at_sensitivity=Reached(
            target=settings.fixed_sensitivity, value=None if at_sensitivity is None else at_sensitivity.specificity
        ),
        operating_point=_at_thresholds(
            probabilities, positive=positive, thresholds=thresholds, counts=counts, settings=settings
        ),
    )


def _at_thresholds(
    probabilities: np.ndarray,
    *,
    positive: np.ndarray,
    thresholds: np.ndarray,
    counts: np.ndarray,
    settings: EvaluationSettings,
) -> OperatingPointResult | None:
    """Counts and rates of the decisions at each study's threshold; None where no study has one."""
    decided = np.isfinite(thresholds)
    if not decided.any():
        return None
    called, truth, counts = probabilities[decided] >= thresholds[decided], positive[decided], counts[decided]
    true_positive, true_negative = called & truth, ~called & ~truth

    def rate(hits: np.ndarray, among: np.ndarray) -> Estimate:
        value = float(hits.sum() / among.sum()) if among.any() else None
        return estimate(value, weighted_means(hits[among], counts=counts[among]), settings)

    distinct = np.unique(thresholds[decided])
    return OperatingPointResult(
        true_positive=int(true_positive.sum()),
        false_positive=int((called & ~truth).sum()),
        true_negative=int(true_negative.sum()),
        false_negative=int((~called & truth).sum()),
        threshold=float(distinct[0]) if len(distinct) == 1 else None,
        sensitivity=rate(true_positive, truth),
        specificity=rate(true_negative, ~truth),
        positive_predictive_value=rate(true_positive, called),
        negative_predictive_value=rate(true_negative, ~called),
    )


# -- plain values ----------------------------------------------------------------------------------


def estimate(value: float | None, resampled: np.ndarray, settings: EvaluationSettings) -> Estimate:
    """A number with the percentile interval of its resampled values (B,)."""
    interval = Interval(None, None, None)
    if value is not None and np.isfinite(value):
        interval = percentile_interval(float(value), np.atleast_1d(resampled), confidence=settings.confidence)
    return Estimate(**interval._asdict())


def macro_estimate(
    value: float, resampled: np.ndarray, *, defined: np.ndarray, settings: EvaluationSettings
) -> MacroEstimate:
    """A mean over findings; `defined` (K,) are those that it is over."""
    return MacroEstimate(**vars(estimate(value, resampled, settings)), num_findings=int(defined.sum()))


def mean_of_defined(values: np.ndarray) -> Any:
    """Mean over the first axis of what is defined; NaN where nothing is."""
    there = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(there, values, 0).sum(axis=0) / np.where(there.sum(axis=0) > 0, there.sum(axis=0), np.nan)
