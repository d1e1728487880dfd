"""One score on some studies: every finding and their mean, each with its interval over resamples of patients."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import logit

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
from dualview.evaluation.prediction_table import LARGEST, SMALLEST, PredictionTable
from dualview.evaluation.statistics.bootstrap import Interval, percentile_interval
from dualview.evaluation.statistics.calibration import (
    calibration_error,
    calibration_error_by_chance,
    calibration_line,
)
from dualview.evaluation.statistics.class_patients import ClassPatients, class_patients, class_patients_of_each
from dualview.evaluation.statistics.delong import covariance, error_of_difference
from dualview.evaluation.statistics.intervals import (
    FLOOR_OF_GAINS,
    auroc_interval,
    gain_interval,
    precision_interval,
    symmetric_interval,
)
from dualview.evaluation.statistics.rates import rate_interval
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
    patients: list[ClassPatients]  # of each finding


def measure_look(
    table: PredictionTable, *, score: str, counts: np.ndarray, points: OperatingPoints, settings: EvaluationSettings
) -> MeasuredLook:
    """Measure all studies of the table; `counts` (S, B) are theirs."""
    probabilities = calibrated_scores(table, score=score, points=points)
    known, positive = table.label_mask & np.isfinite(probabilities), table.positive
    by_route = np.stack([points.thresholds(table.findings, route) for route in Availability])  # (3, K)
    thresholds = table.thresholds.get(score, by_route[table.judged_by(score)])  # (S, K)
    metrics = resampled_metrics(probabilities, positive=positive, known=known, counts=counts)
    _, patient_of = np.unique(table.patient_ids.astype(str), return_inverse=True)
    patients = class_patients_of_each(patient_of, positive=positive, known=known)
    findings = {}
    for k, finding in enumerate(table.findings):
        use = known[:, k]
        findings[finding] = _finding_result(
            metrics.findings[k],
            estimates={
                "auroc": auroc_estimate(
                    metrics.values["auroc"][k],
                    probabilities[use, k],
                    positive=positive[use, k],
                    patients=patient_of[use],
                    settings=settings,
                ),
                **{
                    metric: metric_estimate(
                        metrics.values[metric][k],
                        metrics.resampled[metric][k],
                        metric=metric,
                        patients=patients[k],
                        settings=settings,
                    )
                    for metric in ("average_precision", "brier")
                },
            },
            patients=patient_of[use],
            of_classes=patients[k],
            num_unknown=int(len(table) - use.sum()),
            probabilities=probabilities[use, k],
            positive=positive[use, k],
            thresholds=thresholds[use, k],
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
    return MeasuredLook(look=look, metrics=metrics, patients=patients)


def _finding_result(
    plain: FindingMetrics,
    *,
    estimates: dict[str, Estimate],
    patients: np.ndarray,
    of_classes: ClassPatients,
    num_unknown: int,
    probabilities: np.ndarray,
    positive: np.ndarray,
    thresholds: np.ndarray,
    settings: EvaluationSettings,
) -> FindingResult:
    """One finding of its N studies with a known label: (N,) each."""
    intercept, slope = _calibration(
        probabilities, positive=positive, patients=patients, of_classes=of_classes, settings=settings
    )
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
        num_positive_patients=of_classes.num_positive,
        num_negative_patients=of_classes.num_negative,
        undefined=why_undefined(num_positive=plain.num_positive, num_negative=plain.num_negative),
        auroc=estimates["auroc"],
        average_precision=estimates["average_precision"],
        brier=estimates["brier"],
        calibration_error=calibration_error(probabilities, positive=positive),
        calibration_error_by_chance=calibration_error_by_chance(probabilities, positive=positive),
        calibration_intercept=intercept,
        calibration_slope=slope,
        sensitivity_at_specificity=Reached(
            target=settings.fixed_specificity, value=None if at_specificity is None else at_specificity.sensitivity
        ),
        specificity_at_sensitivity=Reached(
            target=settings.fixed_sensitivity, value=None if at_sensitivity is None else at_sensitivity.specificity
        ),
        operating_point=_at_thresholds(
            probabilities, positive=positive, thresholds=thresholds, patients=patients, settings=settings
        ),
    )


def _calibration(
    probabilities: np.ndarray,
    *,
    positive: np.ndarray,
    patients: np.ndarray,
    of_classes: ClassPatients,
    settings: EvaluationSettings,
) -> list[Estimate]:
    """Calibration intercept and slope; intervals where there are enough patients to judge by."""
    line = calibration_line(
        logit(np.clip(probabilities, SMALLEST, LARGEST)),
        positive=positive,
        patients=patients,
        confidence=settings.confidence,
    )
    if of_classes.can_be_judged:
        return [Estimate(**interval._asdict()) for interval in line]
    return [Estimate(value=interval.value, low=None, high=None) for interval in line]


def _at_thresholds(
    probabilities: np.ndarray,
    *,
    positive: np.ndarray,
    thresholds: np.ndarray,
    patients: np.ndarray,
    settings: EvaluationSettings,
) -> OperatingPointResult | None:
    """Counts and rates of the decisions at each study's threshold; None where no study has one."""
    decided = np.isfinite(thresholds)
    if not decided.any():
        return None
    called, truth, patients = probabilities[decided] >= thresholds[decided], positive[decided], patients[decided]
    true_positive, true_negative = called & truth, ~called & ~truth

    def rate(hits: np.ndarray, among: np.ndarray) -> Estimate:
        interval = rate_interval(hits[among], patients=patients[among], confidence=settings.confidence)
        return Estimate(**interval._asdict())

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
    """A number with the percentile interval of its resampled values (B,); none where they do not vary."""
    if value is None or not np.isfinite(value):
        return Estimate(value=None, low=None, high=None)
    interval = Interval(float(value), None, None)
    if standard_error(np.atleast_1d(resampled)) > 0:
        interval = percentile_interval(float(value), np.atleast_1d(resampled), confidence=settings.confidence)
    return Estimate(**interval._asdict())


def auroc_estimate(
    value: float,
    scores: np.ndarray,
    *,
    positive: np.ndarray,
    patients: np.ndarray,
    settings: EvaluationSettings,
) -> Estimate:
    """AUROC of (N,) scores with its interval, none where there are too few of the (N,) patients."""
    of_classes = class_patients(patients, positive=positive)
    if not np.isfinite(value) or not of_classes.have_interval:
        return _bare(value)
    _, variance = covariance(scores[None], positive=positive, patients=patients)
    interval = auroc_interval(
        float(value), variance=float(variance[0, 0]), patients=of_classes, confidence=settings.confidence
    )
    return Estimate(**interval._asdict())


def auroc_gain_estimate(
    aurocs: tuple[float, float],
    scores: np.ndarray,
    *,
    positive: np.ndarray,
    patients: np.ndarray,
    settings: EvaluationSettings,
) -> Estimate:
    """The difference of two AUROCs with its interval, none where patients are too few or scores do not differ at all.

    Two AUROCs that differ and do not vary, as of scores without an error and of scores that are all the same, have the
    interval of two that are independent.

    Args:
        scores: (2, N) of both, on the same studies; `positive` and `patients` are theirs.
    """
    difference = aurocs[0] - aurocs[1]
    of_classes = class_patients(patients, positive=positive)
    if not np.isfinite(difference) or not of_classes.have_interval:
        return _bare(difference)
    _, covariances = covariance(scores, positive=positive, patients=patients)
    if difference == 0 and error_of_difference(covariances) == 0:
        return _bare(difference)
    errors = np.sqrt(np.diag(covariances))
    correlation = float(covariances[0, 1] / errors.prod()) if errors.prod() > 0 else 0.0
    intervals = [
        auroc_interval(
            float(auroc),
            variance=float(error**2),
            patients=of_classes,
            confidence=settings.confidence,
            floor=FLOOR_OF_GAINS,
        )
        for auroc, error in zip(aurocs, errors, strict=True)
    ]
    return Estimate(**gain_interval(*intervals, correlation=correlation)._asdict())


def precision_gain_estimate(
    values: tuple[float, float],
    resampled: tuple[np.ndarray, np.ndarray],
    *,
    patients: ClassPatients,
    settings: EvaluationSettings,
) -> Estimate:
    """The difference of two average precisions with its interval, none where no chance is seen in it.

    Args:
        resampled: (B,) values of each in the same resamples.
    """
    difference = values[0] - values[1]
    if not np.isfinite(difference) or not patients.have_interval or standard_error(resampled[0] - resampled[1]) == 0:
        return _bare(difference)
    errors = [standard_error(of_one) for of_one in resampled]
    defined = np.isfinite(resampled[0]) & np.isfinite(resampled[1])
    covered = float(np.cov(resampled[0][defined], resampled[1][defined])[0, 1])
    correlation = covered / (errors[0] * errors[1]) if all(errors) else 0.0
    intervals = [
        precision_interval(
            float(value),
            standard_error=error,
            fewest=patients.fewer,
            confidence=settings.confidence,
            is_for_gain=True,
        )
        for value, error in zip(values, errors, strict=True)
    ]
    if any(interval.low is None for interval in intervals):
        return _bare(difference)
    return Estimate(**gain_interval(*intervals, correlation=correlation)._asdict())


def metric_estimate(
    value: float,
    resampled: np.ndarray,
    *,
    metric: str,
    patients: ClassPatients,
    settings: EvaluationSettings,
    is_difference: bool = False,
    at_least: float = 0.0,
) -> Estimate:
    """A metric of a finding, or a difference, with an interval by the spread of its resampled values (B,).

    Args:
        is_difference: of the Brier score, or of a metric of different patients.
        at_least: what that spread is raised to where it is smaller and not 0; NaN: nothing.
    """
    if not np.isfinite(value) or not patients.have_interval:
        return _bare(value)
    error, fewest, confidence = standard_error(resampled), patients.fewer, settings.confidence
    is_precision = metric == "average_precision"
    if is_precision and not is_difference:
        interval = precision_interval(float(value), standard_error=error, fewest=fewest, confidence=confidence)
    else:
        interval = symmetric_interval(
            float(value),
            standard_error=error,
            fewest=fewest,
            confidence=confidence,
            is_heavy=is_precision,
            at_least=at_least,
        )
    if metric == "brier" and not is_difference and interval.low is not None:
        interval = interval._replace(low=max(interval.low, 0.0))
    return Estimate(**interval._asdict())


def standard_error(resampled: np.ndarray) -> float:
    """Standard deviation of what is defined of (B,) resampled values; 0 where only rounding makes them differ."""
    defined = resampled[np.isfinite(resampled)]
    spread = float(defined.std(ddof=1)) if len(defined) > 1 else 0.0
    return spread if spread >= 1e-12 else 0.0


def _bare(value: float) -> Estimate:
    """A number without an interval."""
    return Estimate(value=float(value) if np.isfinite(value) else None, low=None, high=None)


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
