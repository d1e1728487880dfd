"""What a comparison came to: means over seeds, and differences to the baseline on the same patients."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dualview.comparison.folds import FOLD
from dualview.comparison.intervals import confidence_of_each, interval_over_seeds_and_patients, seed_noise
from dualview.errors import UserError
from dualview.evaluation.metrics import MACRO, resampled_metrics
from dualview.evaluation.operating_points import to_probabilities
from dualview.evaluation.prediction_table import PredictionTable, score_of_masking
from dualview.evaluation.statistics.bootstrap import Interval, resample_patients
from dualview.evaluation.statistics.class_patients import ClassPatients, class_patients_of_each
from dualview.evaluation.statistics.intervals import few_patients_factor
from dualview.evaluation.statistics.strata import aurocs_within
from dualview.views import ALL_STUDIES, GROUPS, MASKINGS, Availability, View, availability_of

COMPARED_METRICS = ("auroc", "average_precision")
FOLD_METRICS = (*COMPARED_METRICS, "auroc_pooled")
"""Of the studies of all folds: `auroc` of pairs within a fold, `auroc_pooled` of all pairs, of two networks too."""
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
    metric: str  # one of COMPARED_METRICS, with folds of FOLD_METRICS
    num_studies: int
    num_positive_patients: int | None  # None for MACRO
    num_negative_patients: int | None  # None for MACRO
    num_seeds: int
    mean: float | None
    mean_low: float | None  # interval of the mean, over seeds and patients; over patients only with one seed
    mean_high: float | None
    sd: float | None  # standard deviation over seeds; None with one seed
    difference: float | None  # difference to the baseline; None where either cannot judge these studies
    low: float | None  # its own interval; None below 5 positive or negative patients, and where nothing varies
    high: float | None
    simultaneous_low: float | None  # interval that holds together for all differences of the table
    simultaneous_high: float | None  # None below 10 positive or negative patients too
    num_compared: int | None  # number of differences of the table that hold together; None where this is none of them


@dataclass(frozen=True, kw_only=True)
class _Compared:
    """A row before correction, and what its difference is made of."""

    row: ComparisonRow
    differences: np.ndarray  # (n,) one for each seed
    mean_resampled: np.ndarray  # (B,) their mean in each resample
    widened: float
    can_be_judged: bool  # by its number of patients


@dataclass(frozen=True, kw_only=True)
class _Scores:
    """Metrics of one run on one group: macro first, then findings."""

    values: np.ndarray  # (metrics, 1 + K)
    resampled: np.ndarray  # (metrics, 1 + K, B)


@dataclass(frozen=True, kw_only=True)
class _GroupStudies:
    """The test studies of a group, whichever variant judges them."""

    findings: tuple[str, ...]
    metrics: tuple[str, ...]
    number: int
    patients: list[ClassPatients]  # those of macro first, then of each finding


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
        runs: (setting, variant) -> predictions of each seed, in the order of the seeds; with folds, of all of them
            together.
        baseline: the variant that differences are taken to.

    Differences are corrected over a table: macro numbers of all variants and groups are one, and all findings of all
    variants in a group are one, each for a setting and a metric.

    Raises:
        UserError: runs that do not have the same patients, labels or folds.
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
        groups = {group: _group_studies(group, test=test) for group in COMPARED_GROUPS}
        compared: list[_Compared] = []
        for (variant, group), seed_scores in scores.items():
            compared += _compare(
                seed_scores,
                baseline_scores=scores[baseline, group],
                setting=setting,
                variant=variant,
                group=group,
                studies=groups[group],
                confidence=confidence,
            )
        rows += _corrected(compared, baseline=baseline, confidence=confidence)
    return rows


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
        attributes={FOLD: np.concatenate([part.attributes[FOLD] for part in parts])} if _has_folds(parts[0]) else {},
    )
    for predictions in everyones:
        at = np.array([known[key] for key in map(_key, predictions.patient_ids, predictions.study_ids)])
        same_mask = np.array_equal(joined.label_mask[at], predictions.label_mask)
        if not same_mask or not np.array_equal(joined.labels[at][joined.label_mask[at]],
                                               predictions.labels[predictions.label_mask]):  # fmt: skip
            raise UserError("runs of one comparison have other labels for the same studies; train them on one table")
        if _has_folds(joined) and not np.array_equal(joined.attributes[FOLD][at], predictions.attributes[FOLD]):
            raise UserError(
                "runs of one comparison test the same studies in other folds; folds follow from the table, its labels "
                "and data.seed, so give all variants of a setting the same"
            )
    return joined


def _has_folds(table: PredictionTable) -> bool:
    return FOLD in table.attributes


def _studies_of(group: str, *, test: PredictionTable) -> np.ndarray:
    """Rows of the test studies of a group."""
    if group == ALL_STUDIES:
        return np.flatnonzero(test.evaluated)
    kind = Availability.BOTH if group in MASKINGS else Availability[group.upper()]
    return np.flatnonzero(test.evaluated & (test.availability == kind))


def _group_studies(group: str, *, test: PredictionTable) -> _GroupStudies:
    """Count a group, once for all variants."""
    studies = test.select(_studies_of(group, test=test))
    by_finding = class_patients_of_each(studies.patient_ids, positive=studies.positive, known=studies.label_mask)
    # A mean over findings rests on the one with most patients, if on any.
    most = max(by_finding, key=lambda of_classes: of_classes.fewer)
    metrics = FOLD_METRICS if _has_folds(test) else COMPARED_METRICS
    return _GroupStudies(findings=test.findings, metrics=metrics, number=len(studies), patients=[most, *by_finding])


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
    if _has_folds(test):
        within, within_resampled = aurocs_within(
            probabilities,
            positive=test.positive[rows],
            known=test.label_mask[rows],
            counts=counts[rows],
            strata=test.attributes[FOLD][rows],
        )
        values = np.stack([within, *values[1:], values[0]])
        resampled = np.stack([within_resampled, *resampled[1:], resampled[0]])
    defined = np.isfinite(values[0])
    if not defined.any():
        return None
    there = np.isfinite(resampled) & defined[:, None]
    number = np.where(there.any(axis=1), there.sum(axis=1), np.nan)  # number of findings defined in each resample
    macro_resampled = np.where(there, resampled, 0).sum(axis=1) / number
    macro = values[:, defined].mean(axis=1)
    return _Scores(
        values=np.concatenate([macro[:, None], values], axis=1),
        resampled=np.concatenate([macro_resampled[:, None], resampled], axis=1),
    )


def _compare(
    seed_scores: list[_Scores | None],
    *,
    baseline_scores: list[_Scores | None],
    setting: str,
    variant: str,
    group: str,
    studies: _GroupStudies,
    confidence: float,
) -> list[_Compared]:
    there = [scores for scores in seed_scores if scores is not None]
    baseline = [scores for scores in baseline_scores if scores is not None]
    paired = len(there) == len(seed_scores) and len(baseline) == len(baseline_scores) and len(there) == len(baseline)
    patients = studies.patients
    compared = []
    for place, finding in enumerate((MACRO, *studies.findings)):
        widened = 1.0 if finding == MACRO else float(few_patients_factor(patients[place].fewer))
        for number, metric in enumerate(studies.metrics):
            values = np.array([scores.values[number, place] for scores in there])
            known = bool(len(values)) and np.isfinite(values).all() and len(values) == len(seed_scores)
            mean, difference = Interval(None, None, None), Interval(None, None, None)
            differences, mean_resampled = np.zeros(0), np.zeros(0)
            if known:
                resampled = np.stack([scores.resampled[number, place] for scores in there])
                mean = interval_over_seeds_and_patients(values, resampled, confidence=confidence, widened=widened)
            if known and paired:
                others = np.array([scores.values[number, place] for scores in baseline])
                differences = values - others
                mean_resampled = (resampled - np.stack([scores.resampled[number, place] for scores in baseline])).mean(
                    axis=0
                )
                difference = interval_over_seeds_and_patients(
                    differences, mean_resampled[None], confidence=confidence, widened=widened
                )
            if not patients[place].have_interval:
                mean, difference = Interval(mean.value, None, None), Interval(difference.value, None, None)
            compared.append(
                _Compared(
                    row=ComparisonRow(
                        setting=setting,
                        variant=variant,
                        group=group,
                        finding=finding,
                        metric=metric,
                        num_studies=studies.number,
                        num_positive_patients=None if finding == MACRO else patients[place].num_positive,
                        num_negative_patients=None if finding == MACRO else patients[place].num_negative,
                        num_seeds=len(seed_scores),
                        mean=mean.value,
                        mean_low=mean.low,
                        mean_high=mean.high,
                        sd=float(values.std(ddof=1)) if known and len(values) > 1 else None,
                        difference=difference.value,
                        low=difference.low,
                        high=difference.high,
                        simultaneous_low=None,
                        simultaneous_high=None,
                        num_compared=None,
                    ),
                    differences=differences,
                    mean_resampled=mean_resampled,
                    widened=widened,
                    can_be_judged=patients[place].can_be_judged,
                )
            )
    return compared


def _corrected(compared: list[_Compared], *, baseline: str, confidence: float) -> list[ComparisonRow]:
    """Rows with the intervals that hold together for all differences of a table."""
    tables: dict[tuple[str, str], list[_Compared]] = {}
    for one in compared:
        if one.row.variant != baseline and one.row.low is not None and one.can_be_judged:
            tables.setdefault((one.row.metric, MACRO if one.row.finding == MACRO else one.row.group), []).append(one)
    together = {}
    for table in tables.values():
        values = np.array([one.differences.mean() for one in table])
        resampled = np.stack([one.mean_resampled for one in table])
        of_each = confidence_of_each(values, resampled, confidence=confidence)
        noise = seed_noise(
            np.stack([one.differences for one in table]), num_networks=len({one.row.variant for one in table})
        )
        for one in table:
            _, low, high = interval_over_seeds_and_patients(
                one.differences, one.mean_resampled[None], confidence=of_each, widened=one.widened, at_least=noise
            )
            together[id(one)] = replace(one.row, simultaneous_low=low, simultaneous_high=high, num_compared=len(table))
    return [together.get(id(one), one.row) for one in compared]
