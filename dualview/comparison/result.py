"""What a comparison came to: means over seeds, and differences to the baseline on the same patients."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student

from dualview.errors import UserError
from dualview.evaluation.metrics import MACRO, resampled_metrics
from dualview.evaluation.operating_points import to_probabilities
from dualview.evaluation.prediction_table import PredictionTable, score_of_masking
from dualview.evaluation.statistics.bootstrap import Interval, resample_patients
from dualview.views import ALL_STUDIES, GROUPS, MASKINGS, Availability, View, availability_of

COMPARED_METRICS = ("auroc", "average_precision")
SCORE_OF_GROUP = dict.fromkeys(GROUPS, "route") | {masking: score_of_masking(masking) for masking in MASKINGS}
COMPARED_GROUPS = tuple(SCORE_OF_GROUP)
"""Test studies that are compared: all, by availability, and complete ones with a view withheld."""
Track = Callable[[list[Any]], Iterable[Any]]


@dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """One number of the comparison, with its difference to the baseline."""

    setting: str
    variant: str
    group: str  # name in COMPARED_GROUPS
    finding: str  # name of the finding, or MACRO
    metric: str
    num_studies: int
    num_seeds: int
    mean: float | None
    sd: float | None  # standard deviation over seeds; None with one seed
    difference: float | None  # difference to the baseline; None where either cannot judge these studies
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class _Scores:
    """Metrics of one run on one group: macro first, then findings."""

    values: np.ndarray  # (metrics, 1 + K)
    resampled: np.ndarray  # (metrics, 1 + K, B)


def compare_predictions(
    runs: dict[tuple[str, str], list[PredictionTable]],
    *,
    baseline: str,
    num_resamples: int = 2000,
    confidence: float = 0.95,
    track: Track = iter,
) -> list[ComparisonRow]:
    """Compare variants within each setting, on the test studies that all of them were given.

    Args:
        runs: (setting, variant) -> predictions of each seed, in the order of the seeds.
        baseline: the variant that differences are taken to.

    Raises:
        UserError: runs that do not have the same patients or labels.
    """
    rows: list[ComparisonRow] = []
    keys = list(runs)
    for setting in dict.fromkeys(setting for setting, _ in keys):
        variants = {variant: runs[setting, variant] for its_setting, variant in keys if its_setting == setting}
        test = _test_studies([predictions for seeds in variants.values() for predictions in seeds])
        counts = resample_patients(test.patient_ids, num_resamples=num_resamples)
        scores = {
            (variant, group): [_score(table, test=test, group=group, counts=counts) for table in variants[variant]]
            for variant, group in track([(variant, group) for variant in variants for group in COMPARED_GROUPS])
        }
        for (variant, group), seed_scores in scores.items():
            rows += _rows(
                seed_scores,
                baseline_scores=scores[baseline, group],
                setting=setting,
                variant=variant,
                group=group,
                test=test,
                confidence=confidence,
            )
    return rows


def difference_over_seeds_and_patients(
    differences: np.ndarray, resampled: np.ndarray, *, confidence: float
) -> Interval:
    """Interval of a mean difference that would come out otherwise with other seeds and with other patients.

    The variance is s^2 / n of the n seeds' differences, plus that of their mean over resamples of patients; Student's
    quantile takes the degrees of freedom of Satterthwaite (Biometrics Bulletin 1946), n - 1 for the seeds and no end of
    them for the resamples. With one seed it says nothing of seeds.

    Args:
        differences: (n,), paired by seed.
        resampled: (n, B), the same resamples in all.
    """
    value = float(differences.mean())
    if not np.isfinite(value):
        return Interval(None, None, None)
    mean_resampled = resampled.mean(axis=0)
    mean_resampled = mean_resampled[np.isfinite(mean_resampled)]
    if len(mean_resampled) < 2:
        return Interval(value, None, None)
    patient_variance = float(mean_resampled.var(ddof=1))
    seed_variance = float(differences.var(ddof=1) / len(differences)) if len(differences) > 1 else 0.0
    variance = patient_variance + seed_variance
    freedom = variance**2 * (len(differences) - 1) / seed_variance**2 if seed_variance > 0 else np.inf
    reach = float(student.ppf((1 + confidence) / 2, freedom)) * variance**0.5 if variance > 0 else 0.0
    return Interval(value, value - reach, value + reach)


def _test_studies(everyones: list[PredictionTable]) -> PredictionTable:
    """The studies that occur in any run; each with the views that any network saw of it.

    A network of one view reports its studies as having that view only.
    """
    findings = everyones[0].findings
    known: dict[str, int] = {}
    parts: list[PredictionTable] = []
    views = np.zeros((0, len(View)), bool)
    for predictions in everyones:
        if predictions.findings != findings:
            raise UserError(f"runs of one comparison have other findings: {findings} and {predictions.findings}")
        keys = list(map(_key, predictions.patient_ids, predictions.study_ids))
        new = np.array([key not in known for key in keys], bool)
        if new.any():
            parts.append(predictions.select(new))
            known |= {key: len(known) + number for number, key in enumerate(np.array(keys, object)[new])}
            views = np.concatenate([views, np.zeros((int(new.sum()), len(View)), bool)])
        at = np.array([known[key] for key in keys])
        views[at, View.PA] |= predictions.availability != Availability.LATERAL_ONLY
        views[at, View.LATERAL] |= predictions.availability != Availability.PA_ONLY
    joined = PredictionTable(
        findings=findings,
        study_ids=np.concatenate([part.study_ids for part in parts]),
        patient_ids=np.concatenate([part.patient_ids for part in parts]),
        availability=availability_of(views),
        evaluated=np.concatenate([part.evaluated for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        label_mask=np.concatenate([part.label_mask for part in parts]),
        logits={},
    )
    for predictions in everyones:
        at = np.array([known[key] for key in map(_key, predictions.patient_ids, predictions.study_ids)])
        same_mask = np.array_equal(joined.label_mask[at], predictions.label_mask)
        if not same_mask or not np.array_equal(joined.labels[at][joined.label_mask[at]],
                                               predictions.labels[predictions.label_mask]):  # fmt: skip
            raise UserError("runs of one comparison have other labels for the same studies; train them on one table")
    return joined


def _studies_of(group: str, *, test: PredictionTable) -> np.ndarray:
    """Rows of the test studies of a group."""
    if group == ALL_STUDIES:
        return np.flatnonzero(test.evaluated)
    kind = Availability.BOTH if group in MASKINGS else Availability[group.upper()]
    return np.flatnonzero(test.evaluated & (test.availability == kind))


def _key(patient: str, study: str) -> str:
    return f"{patient}\0{study}"


def _score(predictions: PredictionTable, *, test: PredictionTable, group: str, counts: np.ndarray) -> _Scores | None:
    """Metrics of a run on a group; None where it did not judge all of the group's studies."""
    rows = _studies_of(group, test=test)
    place = {key: row for row, key in enumerate(map(_key, predictions.patient_ids, predictions.study_ids))}
    at = np.array([place.get(_key(test.patient_ids[row], test.study_ids[row]), -1) for row in rows], int)
    if not len(rows) or (at < 0).any():
        return None
    probabilities = to_probabilities(predictions.logits[SCORE_OF_GROUP[group]][at])
    if not np.isfinite(probabilities).all():
        return None
    metrics = resampled_metrics(
        probabilities,
        positive=test.positive[rows],
        known=test.label_mask[rows],
        counts=counts[rows],
        metrics=COMPARED_METRICS,
    )
    values = np.stack([metrics.values[metric] for metric in COMPARED_METRICS])
    resampled = np.stack([metrics.resampled[metric] for metric in COMPARED_METRICS])
    defined = np.isfinite(values[0])
    if not defined.any():
        return None
    there = np.isfinite(resampled)
    number = np.where(there.any(axis=1), there.sum(axis=1), np.nan)  # number of findings defined in each resample
    macro_resampled = np.where(there, resampled, 0).sum(axis=1) / number
    macro = values[:, defined].mean(axis=1)
    return _Scores(
        values=np.concatenate([macro[:, None], values], axis=1),
        resampled=np.concatenate([macro_resampled[:, None], resampled], axis=1),
    )


def _rows(
    seed_scores: list[_Scores | None],
    *,
    baseline_scores: list[_Scores | None],
    setting: str,
    variant: str,
    group: str,
    test: PredictionTable,
    confidence: float,
) -> list[ComparisonRow]:
    there = [scores for scores in seed_scores if scores is not None]
    baseline = [scores for scores in baseline_scores if scores is not None]
    paired = len(there) == len(seed_scores) and len(baseline) == len(baseline_scores) and len(there) == len(baseline)
    num_studies = len(_studies_of(group, test=test))
    rows = []
    for place, finding in enumerate((MACRO, *test.findings)):
        for number, metric in enumerate(COMPARED_METRICS):
            values = np.array([scores.values[number, place] for scores in there])
            known = np.isfinite(values).all() and len(values) == len(seed_scores)
            difference = Interval(None, None, None)
            if paired:
                differences = values - np.array([scores.values[number, place] for scores in baseline])
                resampled = np.stack(
                    [one.resampled[number, place] - other.resampled[number, place]
                     for one, other in zip(there, baseline, strict=True)]
                )  # fmt: skip
                difference = difference_over_seeds_and_patients(differences, resampled, confidence=confidence)
            rows.append(
                ComparisonRow(
                    setting=setting,
                    variant=variant,
                    group=group,
                    finding=finding,
                    metric=metric,
                    num_studies=num_studies,
                    num_seeds=len(seed_scores),
                    mean=float(values.mean()) if known else None,
                    sd=float(values.std(ddof=1)) if known and len(values) > 1 else None,
                    difference=difference.value,
                    low=difference.low,
                    high=difference.high,
                )
            )
    return rows
