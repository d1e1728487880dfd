"""These studies against the run's own test: two samples of other patients, so neither interval knows of the other.

Gaps are external minus internal, at the same operating points. Those of AUROC, rates and calibration are squares of
both intervals' distances, added (`independent_difference`); those of average precision come from resamples of both
samples, which are drawn apart.
"""

from collections.abc import Sequence

import numpy as np
from scipy.stats import norm

from dualview.evaluation.calibrate import calibration_of, fit_calibration
from dualview.evaluation.document import (
    GAP_VERDICTS,
    DeLong,
    Difference,
    Drift,
    Estimate,
    FindingDrift,
    FindingResult,
    Look,
    Recalibration,
)
from dualview.evaluation.looks import (
    EvaluationSettings,
    MeasuredLook,
    macro_estimate,
    mean_of_defined,
    measure_look,
    metric_estimate,
)
from dualview.evaluation.metrics import METRICS
from dualview.evaluation.operating_points import OperatingPoints, calibrated_scores, choose_operating_points
from dualview.evaluation.prediction_table import PredictionTable
from dualview.evaluation.statistics.bootstrap import Interval, resample_patients, simultaneous_intervals
from dualview.evaluation.statistics.class_patients import JUDGED_FROM, ClassPatients
from dualview.evaluation.statistics.delong import ROUNDING, covariance
from dualview.evaluation.statistics.intervals import exponential_variance, few_patients_factor, independent_difference
from dualview.evaluation.statistics.thresholds import ThresholdRule
from dualview.views import ALL_STUDIES, Availability

INTERNAL_SEED = 1_000_003
"""Added to the seed of the resamples for the run's own test: the two samples are to be drawn apart."""


def drift_from(
    internal: PredictionTable,
    external: PredictionTable,
    *,
    findings: Sequence[str],
    points: OperatingPoints,
    settings: EvaluationSettings,
) -> dict[str, Drift]:
    """Group of `views.GROUPS` with studies in both -> how they differ; studies without a readable image are in none.

    Args:
        internal: predictions of the run's own test; `external` of the other data.
        findings: those that both label.
        points: calibration and thresholds, the same for both.
    """
    inside, outside = (table.select(table.evaluated).with_findings(findings) for table in (internal, external))
    counts_inside = resample_patients(
        inside.patient_ids, num_resamples=settings.num_resamples, seed=settings.seed + INTERNAL_SEED
    )
    counts_outside = resample_patients(outside.patient_ids, num_resamples=settings.num_resamples, seed=settings.seed)
    found = {}
    for group in (ALL_STUDIES, *(kind.key for kind in Availability)):
        rows_inside, rows_outside = (_rows(table, group) for table in (inside, outside))
        if not len(rows_inside) or not len(rows_outside):
            continue
        measured = [
            (part := table.select(rows),
             measure_look(part, score="route", counts=counts[rows], points=points, settings=settings))
            for table, rows, counts in ((inside, rows_inside, counts_inside), (outside, rows_outside, counts_outside))
        ]  # fmt: skip
        found[group] = _drift(*measured, points=points, settings=settings)
    return found


def _rows(table: PredictionTable, group: str) -> np.ndarray:
    if group == ALL_STUDIES:
        return np.arange(len(table))
    return np.flatnonzero(table.availability == next(kind for kind in Availability if kind.key == group))


def _drift(
    inside: tuple[PredictionTable, MeasuredLook],
    outside: tuple[PredictionTable, MeasuredLook],
    *,
    points: OperatingPoints,
    settings: EvaluationSettings,
) -> Drift:
    """One group: each side's predictions and what is measured of them."""
    findings = outside[0].findings
    (_, here), (_, there) = outside, inside
    patients = [
        min(both, key=lambda of_classes: of_classes.fewer) for both in zip(here.patients, there.patients, strict=True)
    ]
    judged = np.array([of_classes.can_be_judged for of_classes in patients], bool)
    widened = few_patients_factor(np.array([of_classes.fewer for of_classes in patients]))
    gaps: dict[str, list[Difference]] = {}
    macro = {}
    num_judged = 0
    for metric in METRICS:
        values = here.metrics.values[metric] - there.metrics.values[metric]
        resampled = here.metrics.resampled[metric] - there.metrics.resampled[metric]
        together = simultaneous_intervals(
            np.where(judged, values, np.nan), resampled, confidence=settings.confidence, widened=widened,
            # As for groups of patients (gaps.py): a few positives that stand high have a small standard error, too.
            at_least=_expected_errors(here, there) if metric == "auroc" else 0.0,
        )  # fmt: skip
        is_compared = judged & np.isfinite(values) & (together.standard_errors > 0)
        if metric == "auroc":
            num_judged = int(is_compared.sum())
        gaps[metric] = [
            _with_bounds(
                _gap_of_auroc(here, there, finding=finding)
                if metric == "auroc"
                else metric_estimate(
                    values[k], resampled[k], metric=metric, patients=patients[k], settings=settings, is_difference=True
                ),
                low=together.low[k], high=together.high[k], is_there=bool(is_compared[k]),
            )
            for k, finding in enumerate(findings)
        ]  # fmt: skip
        defined = np.isfinite(values)
        macro[metric] = macro_estimate(
            mean_of_defined(values[defined]), mean_of_defined(resampled[defined]), defined=defined, settings=settings
        )
    return Drift(
        internal=there.look,
        findings={
            finding: _finding_drift(
                here.look.findings[finding],
                there.look.findings[finding],
                auroc=gaps["auroc"][k],
                average_precision=gaps["average_precision"][k],
                delong=_unpaired_delong(outside[0], inside[0], k=k, points=points),
                patients=patients[k],
            )
            for k, finding in enumerate(findings)
        },
        macro=macro,
        num_judged=num_judged,
        correction=(
            f"a finding is lower or higher where the {100 * settings.confidence:g} % interval that holds together for "
            f"{num_judged} of {len(findings)} findings (at least {JUDGED_FROM} patients with the finding and as many "
            "without, here and in the run's own test; bootstrap maximum) leaves 0 out"
        ),
    )


def _finding_drift(
    here: FindingResult,
    there: FindingResult,
    *,
    auroc: Difference,
    average_precision: Difference,
    delong: DeLong | None,
    patients: ClassPatients,
) -> FindingDrift:
    nothing = Estimate(value=None, low=None, high=None)
    rates = [
        _gap(getattr(here.operating_point, rate), getattr(there.operating_point, rate))
        if here.operating_point is not None and there.operating_point is not None
        else nothing
        for rate in ("sensitivity", "specificity")
    ]
    errors = (here.calibration_error, there.calibration_error)
    return FindingDrift(
        num_positive_patients=patients.num_positive,
        num_negative_patients=patients.num_negative,
        auroc=auroc,
        average_precision=average_precision,
        delong=delong,
        sensitivity=rates[0],
        specificity=rates[1],
        calibration_intercept=_gap(here.calibration_intercept or nothing, there.calibration_intercept or nothing),
        calibration_slope=_gap(here.calibration_slope or nothing, there.calibration_slope or nothing),
        calibration_error=None if errors[0] is None or errors[1] is None else errors[0] - errors[1],
        verdict=GAP_VERDICTS[auroc.verdict],
    )


def _gap(here: Estimate, there: Estimate) -> Estimate:
    """Here minus there, of two samples that share no patient."""
    intervals = [Interval(one.value, one.low, one.high) for one in (here, there)]
    return Estimate(**independent_difference(*intervals)._asdict())


def _gap_of_auroc(here: MeasuredLook, there: MeasuredLook, *, finding: str) -> Estimate:
    return _gap(here.look.findings[finding].auroc, there.look.findings[finding].auroc)


def _with_bounds(alone: Estimate, *, low: float, high: float, is_there: bool) -> Difference:
    """An estimate with the bounds that hold for all findings, which are never within those for this one alone."""
    if not is_there:
        return Difference(**vars(alone), simultaneous_low=None, simultaneous_high=None)
    if alone.low is not None and alone.high is not None:
        low, high = min(low, alone.low), max(high, alone.high)
    return Difference(**vars(alone), simultaneous_low=float(low), simultaneous_high=float(high))


def _expected_errors(here: MeasuredLook, there: MeasuredLook) -> np.ndarray:
    """(K,) standard error of each gap of AUROC if both sides had the same; NaN where it cannot be told."""
    errors = []
    for k, sides in enumerate(zip(here.patients, there.patients, strict=True)):
        aurocs = [float(look.metrics.values["auroc"][k]) for look in (here, there)]
        weights = [of_classes.fewer for of_classes in sides]
        if not np.isfinite(aurocs).all() or not all(weights):
            errors.append(np.nan)
            continue
        common = float(np.average(aurocs, weights=weights))
        variances = [exponential_variance(common, num_pos=side.num_positive, num_neg=side.num_negative)
                     for side in sides]  # fmt: skip
        errors.append(float(sum(variances) ** 0.5))
    return np.array(errors)


def _unpaired_delong(
    here: PredictionTable, there: PredictionTable, *, k: int, points: OperatingPoints
) -> DeLong | None:
    """DeLong's test of two AUROCs of other patients; None with fewer than two patients of a class, or an error of 0."""
    aurocs, variances = [], []
    for table in (here, there):
        scores = calibrated_scores(table, score="route", points=points)[:, k]
        known = table.label_mask[:, k] & np.isfinite(scores)
        positive, patients = table.positive[known, k], table.patient_ids[known].astype(str)
        if min(len(set(patients[positive])), len(set(patients[~positive]))) < 2:
            return None
        auroc, variance = covariance(scores[None, known], positive=positive, patients=patients)
        aurocs.append(float(auroc[0]))
        variances.append(float(variance[0, 0]))
    error = float(np.sqrt(max(sum(variances), 0.0)))
    if error < ROUNDING:
        return None
    difference = aurocs[0] - aurocs[1]
    return DeLong(difference=difference, standard_error=error, p_value=float(2 * norm.sf(abs(difference) / error)))


# -- patients set aside ----------------------------------------------------------------------------


def set_aside(table: PredictionTable, *, num_patients: int, seed: int) -> np.ndarray:
    """(S,) bool: the studies of so many patients, drawn at random; those without a readable image are not drawn."""
    patients = np.unique(table.patient_ids[table.evaluated].astype(str))
    drawn = np.random.default_rng([seed, 11]).permutation(patients)[:num_patients]
    return np.isin(table.patient_ids.astype(str), drawn)


def points_of_set_aside(
    aside: PredictionTable, *, points: OperatingPoints, rule: ThresholdRule, num_patients: int
) -> tuple[OperatingPoints, list[str]]:
    """Calibration and thresholds from patients who were set aside, and which finding is calibrated by what."""
    fitted = fit_calibration(aside, log_pos_weight=points.log_pos_weight)
    return choose_operating_points(
        aside,
        rule=rule,
        log_pos_weight=points.log_pos_weight,
        temperatures=fitted.temperature,
        platt=fitted.platt,
        chosen_on=f"{num_patients} patients set aside",
    ), list(fitted.said)


def recalibrated(
    table: PredictionTable, *, points: OperatingPoints, said: list[str], aside: PredictionTable, seed: int,
    settings: EvaluationSettings,
) -> Recalibration:  # fmt: skip
    """What the remaining studies look like by the new operating points.

    Args:
        table: the remaining studies; `aside` those of the patients who were set aside.
        points: of `points_of_set_aside`, as `said` is.
        seed: that the patients were drawn by.
    """
    table = table.select(table.evaluated)
    counts = resample_patients(table.patient_ids, num_resamples=settings.num_resamples, seed=settings.seed)
    groups: dict[str, Look] = {}
    for group in (ALL_STUDIES, *(kind.key for kind in Availability)):
        rows = _rows(table, group)
        measured = measure_look(
            table.select(rows), score="route", counts=counts[rows], points=points, settings=settings
        )
        groups[group] = measured.look
    return Recalibration(
        num_patients=len(set(aside.patient_ids)),
        num_studies=len(aside),
        seed=seed,
        operating_points=points.origin,
        said=said,
        calibration=calibration_of(table, points=points),
        groups=groups,
    )
