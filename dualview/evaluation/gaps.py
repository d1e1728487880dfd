"""How far each group of patients is from the rest, finding by finding: differences of AUROC within one column."""

import numpy as np

from dualview.evaluation.document import Difference, FindingGaps, Gap, SubgroupGaps
from dualview.evaluation.looks import EvaluationSettings, MeasuredLook, metric_estimate
from dualview.evaluation.metrics import resampled_metrics
from dualview.evaluation.operating_points import OperatingPoints, calibrated_scores
from dualview.evaluation.prediction_table import PredictionTable
from dualview.evaluation.statistics.bootstrap import simultaneous_intervals
from dualview.evaluation.statistics.class_patients import JUDGED_FROM, ClassPatients, class_patients_of_each
from dualview.evaluation.statistics.intervals import exponential_variance, few_patients_factor
from dualview.evaluation.subgroups import NOT_KNOWN


def subgroup_gaps(
    table: PredictionTable,
    *,
    parts: dict[str, np.ndarray],
    measured: dict[str, MeasuredLook],
    counts: np.ndarray,
    points: OperatingPoints,
    settings: EvaluationSettings,
) -> SubgroupGaps | None:
    """AUROC of each group minus that of the rest of those whose value is known; None with fewer than two groups.

    Args:
        parts: value -> rows of one column (subgroups.py).
        measured: value -> its look, of the same resamples.
        counts: (S, B) of the table.
    """
    groups = [part for part in parts if part != NOT_KNOWN]
    if len(groups) < 2:
        return None
    shape = (len(groups), len(table.findings))
    values, rest_values = np.full(shape, np.nan), np.full(shape, np.nan)
    resampled = np.full((*shape, counts.shape[1]), np.nan)
    patients: list[list[ClassPatients]] = []
    expected_errors = np.full(shape, np.nan)
    for place, group in enumerate(groups):
        others = [other for other in groups if other != group]
        auroc, of_resamples, of_rest = (
            _aurocs(measured[others[0]])
            if len(others) == 1
            else _of_rest(table, rows=np.concatenate([parts[other] for other in others]), counts=counts, points=points)
        )
        rest_values[place] = auroc
        values[place] = measured[group].metrics.values["auroc"] - auroc
        resampled[place] = measured[group].metrics.resampled["auroc"] - of_resamples
        sides = list(zip(measured[group].patients, of_rest, strict=True))
        patients.append([min(both, key=lambda of_classes: of_classes.fewer) for both in sides])
        for k, both in enumerate(sides):
            aurocs = (float(measured[group].metrics.values["auroc"][k]), float(auroc[k]))
            expected_errors[place, k] = _expected_error(aurocs, sides=both)
    judged = np.array([[of_classes.can_be_judged for of_classes in of_group] for of_group in patients])
    fewer = np.array([[of_classes.fewer for of_classes in of_group] for of_group in patients])
    together = simultaneous_intervals(
        np.where(judged, values, np.nan).ravel(),
        resampled.reshape(-1, counts.shape[1]),
        confidence=settings.confidence,
        widened=np.ravel(few_patients_factor(fewer)),
        # A small group whose few positives happen to stand high has a high AUROC and a small standard error at once: it
        # would be called higher too often. So no standard error is below that of the AUROC which group and rest share,
        # neither here nor in the interval of one difference alone.
        at_least=expected_errors.ravel(),
    )
    low, high, errors = (each.reshape(shape) for each in (together.low, together.high, together.standard_errors))
    is_compared = judged & np.isfinite(values) & (errors > 0)

    def gap(place: int, k: int) -> Gap:
        estimate = metric_estimate(
            values[place, k],
            resampled[place, k],
            metric="auroc",
            patients=patients[place][k],
            settings=settings,
            is_difference=True,
            at_least=expected_errors[place, k],
        )
        is_there = is_compared[place, k]
        bounds = (low[place, k], high[place, k])
        if estimate.low is not None and estimate.high is not None:
            bounds = (np.fmin(bounds[0], estimate.low), np.fmax(bounds[1], estimate.high))
        return Gap(
            num_positive_patients=patients[place][k].num_positive,
            num_negative_patients=patients[place][k].num_negative,
            rest=None if np.isnan(rest_values[place, k]) else float(rest_values[place, k]),
            auroc=Difference(
                **vars(estimate),
                simultaneous_low=float(bounds[0]) if is_there else None,
                simultaneous_high=float(bounds[1]) if is_there else None,
            ),
        )

    findings = {}
    for k, finding in enumerate(table.findings):
        compared = [place for place in range(len(groups)) if is_compared[place, k]]
        worst = min(compared, key=lambda place: values[place, k] + rest_values[place, k]) if compared else None
        findings[finding] = FindingGaps(
            groups={group: gap(place, k) for place, group in enumerate(groups)},
            worst=None if worst is None else groups[worst],
        )
    return SubgroupGaps(
        findings=findings,
        num_compared=int(is_compared.sum()),
        correction=(
            f"a group is lower or higher where the {100 * settings.confidence:g} % interval that holds together for "
            f"{int(is_compared.sum())} of {is_compared.size} differences of this column (at least {JUDGED_FROM} "
            "patients with the finding and as many without, in group and rest; bootstrap maximum) leaves 0 out"
        ),
    )


def _expected_error(aurocs: tuple[float, float], *, sides: tuple[ClassPatients, ClassPatients]) -> float:
    """Standard error of the difference if both sides had the same AUROC; NaN where it cannot be told."""
    weights = [of_classes.fewer for of_classes in sides]
    if not np.isfinite(aurocs).all() or not all(weights):
        return np.nan
    common = float(np.average(aurocs, weights=weights))
    variances = [exponential_variance(common, num_pos=side.num_positive, num_neg=side.num_negative) for side in sides]
    return float(sum(variances) ** 0.5)


_Aurocs = tuple[np.ndarray, np.ndarray, list[ClassPatients]]


def _aurocs(look: MeasuredLook) -> _Aurocs:
    """AUROC (K,), the same in each resample (K, B), and the patients of each finding."""
    return look.metrics.values["auroc"], look.metrics.resampled["auroc"], look.patients


def _of_rest(table: PredictionTable, *, rows: np.ndarray, counts: np.ndarray, points: OperatingPoints) -> _Aurocs:
    """What `_aurocs` has, of the studies at `rows`."""
    rest = table.select(rows)
    probabilities = calibrated_scores(rest, score="route", points=points)
    known = rest.label_mask & np.isfinite(probabilities)
    metrics = resampled_metrics(
        probabilities, positive=rest.positive, known=known, counts=counts[rows], metrics=("auroc",)
    )
    patients = class_patients_of_each(rest.patient_ids, positive=rest.positive, known=known)
    return metrics.values["auroc"], metrics.resampled["auroc"], patients
