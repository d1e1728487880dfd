"""What a network's predictions are worth: from a table of predictions to what evaluation.json says (document.py).

Four ways of looking at the same predictions, each per finding and macro (the mean over the findings where a metric is
defined):

- groups: all studies, and by availability as it came. These differ in their patients too, so beside them stands
  what the availability alone predicts.
- masked: complete studies scored with both views, with the lateral withheld and with the PA withheld. The same
  patients, so differences between the three are the value of a view.
- subgroups: by columns of the study table (subgroups.py), and how far each is from the rest (gaps.py).
- operating points chosen on val (evaluation/operating_points.py), applied to this split.

Every interval is over resamples of patients, the same ones throughout (statistics/bootstrap.py).
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np
from scipy.stats import norm

from dualview.evaluation.calibrate import calibration_of
from dualview.evaluation.document import (
    EVALUATION_FORMAT,
    Assessment,
    AvailabilityBaseline,
    BaselineFinding,
    DeLong,
    Difference,
    Estimate,
    FindingValue,
    Masked,
    SwapTestResult,
    UsedSettings,
    ValueOfView,
)
from dualview.evaluation.gaps import subgroup_gaps
from dualview.evaluation.heads import head_aurocs
from dualview.evaluation.looks import (
    EvaluationSettings,
    MeasuredLook,
    auroc_estimate,
    auroc_gain_estimate,
    macro_estimate,
    mean_of_defined,
    measure_look,
    metric_estimate,
    precision_gain_estimate,
)
from dualview.evaluation.metrics import METRICS, resampled_metrics, why_undefined
from dualview.evaluation.operating_points import OperatingPoints, to_probabilities
from dualview.evaluation.prediction_table import PredictionTable, score_of_masking
from dualview.evaluation.statistics.bootstrap import Simultaneous, resample_patients, simultaneous_intervals
from dualview.evaluation.statistics.class_patients import JUDGED_FROM, ClassPatients
from dualview.evaluation.statistics.delong import paired_delong
from dualview.evaluation.statistics.intervals import POWER, few_patients_factor
from dualview.evaluation.statistics.permutation import swap_test
from dualview.evaluation.subgroups import subgroup_rows
from dualview.views import ALL_STUDIES, MASKINGS, TITLES, Availability, View

Track = Callable[[list[Any]], Iterable[Any]]


def assess(
    table: PredictionTable,
    *,
    points: OperatingPoints,
    points_of: Literal["run", "evaluation"] = "evaluation",
    train_prevalence: np.ndarray | None = None,
    by: list[str] | None = None,
    settings: EvaluationSettings | None = None,
    track: Track = iter,
) -> Assessment:
    """What the predictions of one split are worth; what is undefined is None, with the reason.

    Args:
        table: predictions of the split; studies without a readable image take no part.
        points: calibration and thresholds, from val.
        points_of: whose they are.
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
    hides_views = any(np.isfinite(table.logits[view.hidden_key][both]).any() for view in View)
    if hides_views:
        looks |= {("masked", masking): (score_of_masking(masking), both) for masking in MASKINGS}
    divisions = subgroup_rows(table, by=by)
    for column, parts in divisions.items():
        looks |= {("subgroups", column, part): ("route", rows) for part, rows in parts.items()}
    measured = {
        key: measure_look(table.select(rows), score=score, counts=counts[rows], points=points, settings=settings)
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
            operating_points=points.origin,
            operating_points_of=points_of,
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
        calibration=calibration_of(table, points=points),
        subgroup_gaps={
            column: gaps
            for column, parts in divisions.items()
            if (
                gaps := subgroup_gaps(
                    table,
                    parts=parts,
                    measured={part: measured["subgroups", column, part] for part in parts},
                    counts=counts,
                    points=points,
                    settings=settings,
                )
            )
        },
    )


# -- comparisons -----------------------------------------------------------------------------------


def _masked(complete: PredictionTable, by_masking: dict[str, MeasuredLook], *, settings: EvaluationSettings) -> Masked:
    """Complete studies with and without each view."""

    def value_of(view: View) -> ValueOfView:
        return _value_of(view, complete, by_masking, settings=settings)

    return Masked(
        num_studies=len(complete),
        num_patients=len(set(complete.patient_ids)),
        **{masking: one.look for masking, one in by_masking.items()},
        value_of_lateral=value_of(View.LATERAL),
        value_of_pa=value_of(View.PA),
        heads=head_aurocs(complete, settings=settings),
    )


def _value_of(
    view: View, complete: PredictionTable, by_masking: dict[str, MeasuredLook], *, settings: EvaluationSettings
) -> ValueOfView:
    """What complete studies lose without a view: differences, both views minus the view withheld."""
    whole, without = by_masking[Availability.BOTH.key].metrics, by_masking[view.hidden_key].metrics
    differences: dict[str, list[Difference]] = {}
    macro = {}
    patients = [
        min(pair, key=lambda of_classes: of_classes.fewer)
        for pair in zip(by_masking[Availability.BOTH.key].patients, by_masking[view.hidden_key].patients, strict=True)
    ]
    judged = np.array([of_classes.can_be_judged for of_classes in patients])
    widened = few_patients_factor(np.array([of_classes.fewer for of_classes in patients]))
    together = {}
    for metric in METRICS:
        values = whole.values[metric] - without.values[metric]
        resampled = whole.resampled[metric] - without.resampled[metric]
        together[metric] = simultaneous_intervals(
            np.where(judged, values, np.nan), resampled, confidence=settings.confidence, widened=widened
        )
        alone = [
            _gain(view, complete, by_masking, k=k, metric=metric, patients=patients[k], settings=settings)
            for k in range(len(complete.findings))
        ]
        differences[metric] = [
            _difference(estimate, low=low, high=high)
            for estimate, low, high in zip(alone, together[metric].low, together[metric].high, strict=True)
        ]
        defined = np.isfinite(whole.values[metric]) & np.isfinite(without.values[metric])
        macro_resampled = mean_of_defined(whole.resampled[metric][defined]) - mean_of_defined(
            without.resampled[metric][defined]
        )
        macro[metric] = macro_estimate(
            mean_of_defined(values[defined]), macro_resampled, defined=defined, settings=settings
        )
    swaps = _swap_tests(view, complete, settings=settings)
    detectable = _detectable_gains(together["auroc"])
    findings = {
        finding: FindingValue(
            auroc=differences["auroc"][k],
            average_precision=differences["average_precision"][k],
            brier=differences["brier"][k],
            verdict=differences["auroc"][k].verdict,
            delong=_delong(view, complete, k=k),
            swap=swaps[k],
            detectable_gain=detectable[k],
        )
        for k, finding in enumerate(complete.findings)
    }
    percent = f"{100 * settings.confidence:g} %"

    return ValueOfView.of(
        findings,
        macro=macro,
        num_judged=int(judged.sum()),
        correction=(
            f"a finding is helped or hurt where the {percent} interval that holds together for the "
            f"{int(judged.sum())} of {len(findings)} findings that can be judged (at least {JUDGED_FROM} patients with "
            "the finding and as many without; bootstrap maximum, Westfall & Young 1993) leaves 0 out"
        ),
    )


def _gain(
    view: View,
    complete: PredictionTable,
    by_masking: dict[str, MeasuredLook],
    *,
    k: int,
    metric: str,
    patients: ClassPatients,
    settings: EvaluationSettings,
) -> Estimate:
    """What a metric of a finding gains by a view, with the interval of this finding alone."""
    whole, without = by_masking[Availability.BOTH.key].metrics, by_masking[view.hidden_key].metrics
    values = (float(whole.values[metric][k]), float(without.values[metric][k]))
    resampled = (whole.resampled[metric][k], without.resampled[metric][k])
    if metric == "average_precision":
        return precision_gain_estimate(values, resampled, patients=patients, settings=settings)
    if metric == "brier":
        difference, spread = values[0] - values[1], resampled[0] - resampled[1]
        return metric_estimate(
            difference, spread, metric=metric, patients=patients, settings=settings, is_difference=True
        )
    scores = np.stack([complete.logits["route"][:, k], complete.logits[view.hidden_key][:, k]])
    known = complete.label_mask[:, k] & np.isfinite(scores).all(axis=0)
    return auroc_gain_estimate(
        values,
        to_probabilities(scores[:, known]),
        positive=complete.positive[known, k],
        patients=complete.patient_ids[known].astype(str),
        settings=settings,
    )


def _difference(alone: Estimate, *, low: float, high: float) -> Difference:
    """An estimate with the bounds that hold for all findings, which are never within those for this one alone."""
    if alone.low is not None and alone.high is not None:
        low, high = np.minimum(low, alone.low), np.maximum(high, alone.high)
    return Difference(**vars(alone), simultaneous_low=_number(low), simultaneous_high=_number(high))


def _delong(view: View, complete: PredictionTable, *, k: int) -> DeLong | None:
    """DeLong's test of a finding with and without a view; calibration changes no order, so none is applied."""
    whole, without = complete.logits["route"][:, k], complete.logits[view.hidden_key][:, k]
    known = complete.label_mask[:, k] & np.isfinite(without)
    check = paired_delong(
        to_probabilities(whole[known]),
        to_probabilities(without[known]),
        positive=complete.positive[known, k],
        patients=complete.patient_ids[known].astype(str),
    )
    return None if check is None else DeLong(**check._asdict())


def _swap_tests(view: View, complete: PredictionTable, *, settings: EvaluationSettings) -> list[SwapTestResult | None]:
    """The permutation test of every finding."""
    whole, without = complete.logits["route"], complete.logits[view.hidden_key]
    test = swap_test(
        whole,
        without,
        positive=complete.positive,
        known=complete.label_mask & np.isfinite(whole) & np.isfinite(without),
        patients=complete.patient_ids,
        seed=settings.seed,
    )
    return [
        SwapTestResult(p_value=float(alone), p_value_together=float(together)) if np.isfinite(alone) else None
        for alone, together in zip(*test, strict=True)
    ]


def _detectable_gains(together: Simultaneous) -> list[float | None]:
    """The smallest true gain that such a test would call helped with a chance of `POWER`; None: not judged."""
    gains = (together.multiplier + norm.ppf(POWER)) * together.standard_errors
    return [float(gain) if np.isfinite(gain) and gain > 0 else None for gain in gains]


def _availability_baseline(
    table: PredictionTable, train_prevalence: np.ndarray | None, *, counts: np.ndarray, settings: EvaluationSettings
) -> AvailabilityBaseline | None:
    """AUROC, over all studies, of a score that knows nothing but which views exist."""
    if train_prevalence is None:
        return None
    scores = train_prevalence[table.availability]  # (S, K)
    reasons = [_why_no_baseline(table, scores=scores[:, k], k=k) for k in range(len(table.findings))]
    known = table.label_mask & np.array([reason is None for reason in reasons], bool)
    metrics = resampled_metrics(
        np.nan_to_num(scores), positive=table.positive, known=known, counts=counts, metrics=("auroc",)
    )
    values, resampled = metrics.values["auroc"], metrics.resampled["auroc"]
    defined = np.isfinite(values)
    patients = np.unique(table.patient_ids.astype(str), return_inverse=True)[1]
    return AvailabilityBaseline(
        macro={
            "auroc": macro_estimate(
                mean_of_defined(values), mean_of_defined(resampled[defined]), defined=defined, settings=settings
            )
        },
        findings={
            finding: BaselineFinding(
                auroc=auroc_estimate(
                    values[k],
                    scores[known[:, k], k],
                    positive=table.positive[known[:, k], k],
                    patients=patients[known[:, k]],
                    settings=settings,
                ),
                undefined=reasons[k],
            )
            for k, finding in enumerate(table.findings)
        },
        score="share of positives among the training studies of the same availability",
    )


def _why_no_baseline(table: PredictionTable, *, scores: np.ndarray, k: int) -> str | None:
    """Why the baseline of a finding, of (S,) scores, is undefined; None: it is defined."""
    known = table.label_mask[:, k]
    unknown = known & np.isnan(scores)
    if unknown.any():
        kinds = [TITLES[kind.key] for kind in Availability if (table.availability[unknown] == kind).any()]
        return f"no training study with a known label that came with {' or '.join(kinds)}"
    num_positive = int(table.positive[known, k].sum())
    return why_undefined(num_positive=num_positive, num_negative=int(known.sum()) - num_positive)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
