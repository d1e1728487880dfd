"""What several trainings of one network gain by the lateral, over seeds and patients.

The same estimates and verdicts as of one run (evaluation/assess.py), with the intervals of a comparison (intervals.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dualview.comparison.intervals import confidence_of_each, interval_over_seeds_and_patients, seed_noise
from dualview.evaluation.document import Difference, FindingValue, MacroEstimate, ValueOfView
from dualview.evaluation.looks import mean_of_defined
from dualview.evaluation.metrics import METRICS, resampled_metrics
from dualview.evaluation.operating_points import OperatingPoints, calibrated_scores
from dualview.evaluation.prediction_table import PredictionTable, score_of_masking
from dualview.evaluation.statistics.bootstrap import Interval, resample_patients
from dualview.evaluation.statistics.class_patients import JUDGED_FROM, ClassPatients, class_patients_of_each
from dualview.evaluation.statistics.intervals import few_patients_factor
from dualview.views import MASKINGS, Availability, View

COMPARED = (Availability.BOTH.key, View.LATERAL.hidden_key)
"""Maskings whose difference is the gain."""


@dataclass(frozen=True, kw_only=True)
class GainOverSeeds:
    """What n trainings gain by the lateral, on the same complete studies."""

    value: ValueOfView  # gains over seeds and patients, with verdicts by these
    aurocs: dict[str, np.ndarray]  # masking of `views.MASKINGS` -> (n, K) AUROC of each seed, NaN where undefined

    @property
    def gains(self) -> np.ndarray:
        """(n, K) gain of AUROC of each seed, NaN where undefined."""
        both, hidden = (self.aurocs[masking] for masking in COMPARED)
        gained: np.ndarray = both - hidden
        return gained


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """One metric of all seeds and findings: gains as they are and in every resample."""

    gains: np.ndarray  # (n, K)
    resampled: np.ndarray  # (K, B) of their mean over seeds
    macros: np.ndarray  # (n,) mean over findings
    macro_resampled: np.ndarray  # (B,)


def in_one_order(tables: Sequence[PredictionTable]) -> list[PredictionTable] | None:
    """The tables with their studies in the order of the first; None where they hold other studies, views or labels."""
    first = tables[0]
    keys = list(zip(first.patient_ids, first.study_ids, strict=True))
    ordered = []
    for table in tables:
        place = {key: row for row, key in enumerate(zip(table.patient_ids, table.study_ids, strict=True))}
        if table.findings != first.findings or place.keys() != set(keys) or len(table) != len(first):
            return None
        same = table.select(np.array([place[key] for key in keys], int))
        if (
            not np.array_equal(same.availability, first.availability)
            or not np.array_equal(same.label_mask, first.label_mask)
            or not np.array_equal(same.positive, first.positive)
        ):
            return None
        ordered.append(same)
    return ordered


def gain_over_seeds(
    tables: Sequence[PredictionTable],
    *,
    points: Sequence[OperatingPoints],
    num_resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> GainOverSeeds:
    """What the trainings of one network gain by the lateral.

    Args:
        tables: studies that could be evaluated, of each training, as `in_one_order` gives them; some are complete and
            have a score with the lateral withheld.
        points: calibration of each training.
        num_resamples, seed: of the patients, as `dualview evaluate` draws them.
    """
    first = tables[0]
    counts = resample_patients(first.patient_ids, num_resamples=num_resamples, seed=seed)
    both = np.flatnonzero(first.availability == Availability.BOTH)
    complete = [table.select(both) for table in tables]
    known = first.label_mask[both]
    for table in complete:
        known = known & np.isfinite(table.logits["route"]) & np.isfinite(table.logits[View.LATERAL.hidden_key])
    patients = class_patients_of_each(complete[0].patient_ids, positive=complete[0].positive, known=known)
    measured = _measure(complete, points=points, known=known, counts=counts[both])
    differences, macro = {}, {}
    for metric, one in measured.items():
        differences[metric] = _differences(one, patients=patients, confidence=confidence)
        interval = interval_over_seeds_and_patients(one.macros, one.macro_resampled[None], confidence=confidence)
        defined = int(np.isfinite(one.gains).all(axis=0).sum())
        macro[metric] = MacroEstimate(**interval._asdict(), num_findings=defined)
    findings = {
        finding: FindingValue(
            auroc=differences["auroc"][k],
            average_precision=differences["average_precision"][k],
            brier=differences["brier"][k],
            verdict=differences["auroc"][k].verdict,
            delong=None,
        )
        for k, finding in enumerate(first.findings)
    }
    num_judged = sum(value.verdict not in ("undefined", "too_few") for value in findings.values())
    value = ValueOfView.of(
        findings,
        macro=macro,
        num_judged=num_judged,
        correction=(
            f"a finding is helped or hurt where the {100 * confidence:g} % interval over {len(tables)} seeds and all "
            f"patients that holds together for the {num_judged} of {len(findings)} findings that can be judged (at "
            f"least {JUDGED_FROM} patients with the finding and as many without; bootstrap maximum, Student's "
            "quantiles with Satterthwaite's degrees of freedom) leaves 0 out"
        ),
    )
    return GainOverSeeds(value=value, aurocs=_aurocs(complete, points=points))


def _measure(
    complete: Sequence[PredictionTable], *, points: Sequence[OperatingPoints], known: np.ndarray, counts: np.ndarray
) -> dict[str, _Measured]:
    """Gains of every metric."""
    gains: dict[str, list[np.ndarray]] = {metric: [] for metric in METRICS}
    sums: dict[str, np.ndarray | float] = dict.fromkeys(METRICS, 0.0)
    for table, of_run in zip(complete, points, strict=True):
        whole, without = (
            resampled_metrics(
                np.where(known, calibrated_scores(table, score=score_of_masking(masking), points=of_run), 0.5),
                positive=table.positive,
                known=known,
                counts=counts,
            )
            for masking in COMPARED
        )
        for metric in METRICS:
            gains[metric].append(whole.values[metric] - without.values[metric])
            sums[metric] = sums[metric] + whole.resampled[metric] - without.resampled[metric]
    measured = {}
    for metric in METRICS:
        of_seeds, resampled = np.stack(gains[metric]), np.asarray(sums[metric]) / len(complete)
        defined = np.isfinite(of_seeds).all(axis=0)
        measured[metric] = _Measured(
            gains=of_seeds,
            resampled=resampled,
            macros=np.asarray(mean_of_defined(of_seeds[:, defined].T)) if defined.any() else np.full(1, np.nan),
            macro_resampled=np.asarray(mean_of_defined(resampled[defined])),
        )
    return measured


def _differences(one: _Measured, *, patients: Sequence[ClassPatients], confidence: float) -> list[Difference]:
    """The mean gain of each finding, with its own interval and the one that holds for all that can be judged."""
    widened = np.asarray(few_patients_factor(np.array([of_classes.fewer for of_classes in patients])))
    defined = np.isfinite(one.gains).all(axis=0)
    judged = np.flatnonzero(defined & np.array([of_classes.can_be_judged for of_classes in patients]))
    of_each, noise = confidence, None
    if len(judged):
        of_each = confidence_of_each(one.gains[:, judged].mean(axis=0), one.resampled[judged], confidence=confidence)
        noise = seed_noise(one.gains[:, judged].T, num_networks=1)
    found = []
    for k, of_classes in enumerate(patients):
        alone = together = Interval(None, None, None)
        if defined[k]:
            gains, resampled, factor = one.gains[:, k], one.resampled[None, k], float(widened[k])
            alone = interval_over_seeds_and_patients(gains, resampled, confidence=confidence, widened=factor)
            if not of_classes.have_interval:
                alone = Interval(alone.value, None, None)
            if k in judged:
                together = interval_over_seeds_and_patients(
                    gains, resampled, confidence=of_each, widened=factor, at_least=noise
                )
                if together.low is None or together.high is None:  # Nothing was seen to vary.
                    together = Interval(together.value, together.value, together.value)
                elif alone.low is not None and alone.high is not None:
                    together = together._replace(low=min(together.low, alone.low), high=max(together.high, alone.high))
        found.append(
            Difference(**alone._asdict(), simultaneous_low=together.low, simultaneous_high=together.high)
        )  # fmt: skip
    return found


def _aurocs(complete: Sequence[PredictionTable], *, points: Sequence[OperatingPoints]) -> dict[str, np.ndarray]:
    """Masking -> (n, K) AUROC of each seed, NaN where it is undefined or no view is withheld."""
    none = np.zeros((len(complete[0]), 0), np.uint8)
    aurocs = {}
    for masking in MASKINGS:
        of_seeds = []
        for table, of_run in zip(complete, points, strict=True):
            scores = calibrated_scores(table, score=score_of_masking(masking), points=of_run)
            known = table.label_mask & np.isfinite(scores)
            plain = resampled_metrics(scores, positive=table.positive, known=known, counts=none, metrics=("auroc",))
            of_seeds.append(plain.values["auroc"])
        aurocs[masking] = np.stack(of_seeds)
    return aurocs
