"""What a network's predictions are worth: from a table of predictions to what evaluation.json says (document.py).

Four ways of looking at the same predictions, each per finding and macro (the mean over the findings where a metric is
defined):

- groups: all studies, and by availability as it came. These differ in their patients too, so beside them stands
  what the availability alone predicts.
- masked: complete studies scored with both views, with the lateral withheld and with the PA withheld. The same
  patients, so differences between the three are the value of a view.
- subgroups: by columns of the study table (subgroups.py).
- operating points chosen on val (operating_points.py), applied to this split.

Every interval is over resamples of patients, the same ones throughout (statistics/bootstrap.py).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dualview.evaluation.document import (
    EVALUATION_FORMAT,
    Assessment,
    AvailabilityBaseline,
    BaselineFinding,
    DeLong,
    Difference,
    Estimate,
    FindingResult,
    FindingValue,
    Look,
    MacroEstimate,
    Masked,
    OperatingPointResult,
    Reached,
    UsedSettings,
    ValueOfView,
)
from dualview.evaluation.metrics import METRICS, FindingMetrics, ResampledMetrics, resampled_metrics, why_undefined
from dualview.evaluation.operating_points import OperatingPoints, calibrated_scores, to_probabilities
from dualview.evaluation.prediction_table import PredictionTable, score_of_masking
from dualview.evaluation.statistics.bootstrap import (
    Interval,
    percentile_interval,
    resample_patients,
    simultaneous_intervals,
    weighted_means,
)
from dualview.evaluation.statistics.calibration import calibration_error
from dualview.evaluation.statistics.delong import paired_delong
from dualview.evaluation.statistics.thresholds import ThresholdRule, choose
from dualview.evaluation.subgroups import subgroup_rows
from dualview.views import ALL_STUDIES, MASKINGS, Availability, View

Track = Callable[[list[Any]], Iterable[Any]]


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How evaluation measures."""

    num_resamples: int = 2000
    seed: int = 0
    confidence: float = 0.95
    fixed_specificity: float = 0.9
    fixed_sensitivity: float = 0.9


@dataclass(frozen=True, kw_only=True)
class _MeasuredLook:
    """One score on some studies: the unit of work."""

    look: Look
    metrics: ResampledMetrics


def assess(
    table: PredictionTable,
    *,
    points: OperatingPoints,
    train_prevalence: np.ndarray | None = None,
    by: list[str] | None = None,
    settings: EvaluationSettings | None = None,
    track: Track = iter,
) -> Assessment:
    """What the predictions of one split are worth; what is undefined is None, with the reason.

    Args:
        table: predictions of the split; studies without a readable image take no part.
        points: temperatures and thresholds, from val.
        train_prevalence: (3, K) share of positives among known training labels per `Availability`, NaN where
            there are none; what the mask-only baseline predicts.
        by: columns of the study table to divide by; None takes those with few values.
    """
    settings = settings or EvaluationSettings()
    table = table.select(table.evaluated)
    counts = resample_patients(table.patient_ids, num_resamples=settings.num_resamples, seed=settings.seed)
    both = np.flatnonzero(table.availability == Availability.BOTH)
    looks: dict[tuple[str, ...], tuple[str, np.ndarray]] = {("groups", ALL_STUDIES): ("route", np.arange(len(table)))}
    for kind in Availability:
        looks["groups", kind.key] = ("route", np.flatnonzero(table.availability == kind))
    hides_views = all(np.isfinite(table.logits[view.hidden_key][both]).any() for view in View)
    if hides_views:
        looks |= {("masked", masking): (score_of_masking(masking), both) for masking in MASKINGS}
    divisions = subgroup_rows(table, by=by)
    for column, parts in divisions.items():
        looks |= {("subgroups", column, part): ("route", rows) for part, rows in parts.items()}
    measured = {
        key: _measure(table.select(rows), score=score, counts=counts[rows], points=points, settings=settings)
        for key, (score, rows) in track(list(looks.items()))
    }
    by_masking = {key[1]: one for key, one in measured.items() if key[0] == "masked"}
    return Assessment(
        format=EVALUATION_FORMAT,
        settings=UsedSettings(
            resamples=settings.num_resamples,
            seed=settings.seed,
            confidence=settings.confidence,
            resampled="patients",
            operating_points=f"{points.rule}, chosen on {points.chosen_on}",
        ),
        findings=list(table.findings),
        num_patients=len(set(table.patient_ids)),
        num_studies=len(table),
        groups={key[1]: one.look for key, one in measured.items() if key[0] == "groups"},
        availability_baseline=_availability_baseline(table, train_prevalence, counts=counts, settings=settings),
        masked=_masked(table.select(both), by_masking, settings=settings) if hides_views else None,
        subgroups={
            column: {part: measured["subgroups", column, part].look for part in parts}
            for column, parts in divisions.items()
        },
        temperature=points.temperature,
    )


# -- one score on some studies ---------------------------------------------------------------------


def _measure(
    table: PredictionTable, *, score: str, counts: np.ndarray, points: OperatingPoints, settings: EvaluationSettings
) -> _MeasuredLook:
    """Measure all studies of the table; `counts` (S, B) are theirs."""
    probabilities = calibrated_scores(table, score=score, temperature=points.temperature)
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
                metric: _estimate(metrics.values[metric][k], metrics.resampled[metric][k], settings)
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
        macro[metric] = _macro(_nanmean(values), _nanmean(resampled[defined]), defined=defined, settings=settings)
    look = Look(
        num_studies=len(table), num_patients=len(set(table.patient_ids)), macro=macro, findings=findings
    )  # fmt: skip
    return _MeasuredLook(look=look, metrics=metrics)


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
        return _estimate(value, weighted_means(hits[among], counts=counts[among]), settings)

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


# -- comparisons -----------------------------------------------------------------------------------


def _masked(complete: PredictionTable, by_masking: dict[str, _MeasuredLook], *, settings: EvaluationSettings) -> Masked:
    """Complete studies with and without each view."""

    def value_of(view: View) -> ValueOfView:
        return _value_of(view, complete, by_masking, settings=settings)

    return Masked(
        num_studies=len(complete),
        num_patients=len(set(complete.patient_ids)),
        **{masking: one.look for masking, one in by_masking.items()},
        value_of_lateral=value_of(View.LATERAL),
        value_of_pa=value_of(View.PA),
    )


def _value_of(
    view: View, complete: PredictionTable, by_masking: dict[str, _MeasuredLook], *, settings: EvaluationSettings
) -> ValueOfView:
    """What complete studies lose without a view: differences, both views minus the view withheld."""
    whole, without = by_masking[Availability.BOTH.key].metrics, by_masking[view.hidden_key].metrics
    differences: dict[str, list[Difference]] = {}
    macro = {}
    for metric in METRICS:
        values = whole.values[metric] - without.values[metric]
        resampled = whole.resampled[metric] - without.resampled[metric]
        low, high = simultaneous_intervals(values, resampled, confidence=settings.confidence)
        differences[metric] = [
            Difference(
                **vars(_estimate(values[k], resampled[k], settings)),
                simultaneous_low=_number(low[k]),
                simultaneous_high=_number(high[k]),
            )
            for k in range(len(complete.findings))
        ]
        defined = np.isfinite(whole.values[metric]) & np.isfinite(without.values[metric])
        macro_resampled = _nanmean(whole.resampled[metric][defined]) - _nanmean(without.resampled[metric][defined])
        macro[metric] = _macro(_nanmean(values[defined]), macro_resampled, defined=defined, settings=settings)
    findings = {
        finding: FindingValue(
            auroc=differences["auroc"][k],
            average_precision=differences["average_precision"][k],
            brier=differences["brier"][k],
            verdict=differences["auroc"][k].verdict,
            delong=_delong(view, complete, k=k),
        )
        for k, finding in enumerate(complete.findings)
    }
    percent = f"{100 * settings.confidence:g} %"

    def with_verdict(verdict: str) -> list[str]:
        return [finding for finding, value in findings.items() if value.verdict == verdict]

    return ValueOfView(
        findings=findings,
        macro=macro,
        helped=with_verdict("helped"),
        hurt=with_verdict("hurt"),
        undecided=with_verdict("undecided"),
        undefined=with_verdict("undefined"),
        correction=(
            f"a finding is helped or hurt where the {percent} interval that holds for all {len(findings)} findings "
            "together (bootstrap maximum, Westfall & Young 1993) leaves 0 out"
        ),
    )


def _delong(view: View, complete: PredictionTable, *, k: int) -> DeLong | None:
    """DeLong's test of a finding with and without a view; temperatures change no order, so none is applied."""
    whole, without = complete.logits["route"][:, k], complete.logits[view.hidden_key][:, k]
    known = complete.label_mask[:, k] & np.isfinite(without)
    check = paired_delong(
        to_probabilities(whole[known]), to_probabilities(without[known]), positive=complete.positive[known, k]
    )
    return None if check is None else DeLong(**check._asdict())


def _availability_baseline(
    table: PredictionTable, train_prevalence: np.ndarray | None, *, counts: np.ndarray, settings: EvaluationSettings
) -> AvailabilityBaseline | None:
    """AUROC, over all studies, of a score that knows nothing but which views exist."""
    if train_prevalence is None:
        return None
    scores = np.nan_to_num(train_prevalence)[table.availability]  # (S, K)
    metrics = resampled_metrics(
        scores, positive=table.positive, known=table.label_mask, counts=counts, metrics=("auroc",)
    )
    values, resampled = metrics.values["auroc"], metrics.resampled["auroc"]
    defined = np.isfinite(values)
    return AvailabilityBaseline(
        macro={"auroc": _macro(_nanmean(values), _nanmean(resampled[defined]), defined=defined, settings=settings)},
        findings={
            finding: BaselineFinding(auroc=_estimate(values[k], resampled[k], settings))
            for k, finding in enumerate(table.findings)
        },
        score="share of positives among the training studies of the same availability",
    )


# -- plain values ----------------------------------------------------------------------------------


def _estimate(value: float | None, resampled: np.ndarray, settings: EvaluationSettings) -> Estimate:
    interval = Interval(None, None, None)
    if value is not None and np.isfinite(value):
        interval = percentile_interval(float(value), np.atleast_1d(resampled), confidence=settings.confidence)
    return Estimate(**interval._asdict())


def _macro(value: float, resampled: np.ndarray, *, defined: np.ndarray, settings: EvaluationSettings) -> MacroEstimate:
    """A mean over findings; `defined` (K,) are those that it is over."""
    return MacroEstimate(**vars(_estimate(value, resampled, settings)), num_findings=int(defined.sum()))


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _nanmean(values: np.ndarray) -> Any:
    """Mean over the first axis of what is defined; NaN where nothing is."""
    there = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(there, values, 0).sum(axis=0) / np.where(there.sum(axis=0) > 0, there.sum(axis=0), np.nan)
