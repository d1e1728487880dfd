"""What becomes of AUROC when the predictions of several folds are put together: the table of docs/comparison.md.

    python docs/generate/folds.py          3 minutes; prints the table

150 patients in 5 folds, true AUROC 0.85 in each (binormal scores). Networks of different folds have no common scale:
their logits are moved by a normal number with this standard deviation, beside 1 of the scores themselves. AUROC of all
pairs, of pairs within a fold, and how often the interval of the latter over resampled patients holds 0.85; average
precision of all studies, and the mean of the folds' by their number of positives, beside what is true of many studies.
"""

import numpy as np
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from dualview.comparison.intervals import interval_over_seeds_and_patients
from dualview.evaluation.statistics.bootstrap import resample_patients
from dualview.evaluation.statistics.class_patients import ClassPatients
from dualview.evaluation.statistics.intervals import few_patients_factor
from dualview.evaluation.statistics.strata import auroc_within

PATIENTS, FOLDS, AUROC, TIMES, RESAMPLES = 150, 5, 0.85, 500, 300
PREVALENCES, OFFSETS = (0.07, 0.2, 0.4), (0.0, 0.5, 1.0)
SEPARATION = np.sqrt(2) * norm.ppf(AUROC)


def main() -> None:
    print("| positives | folds apart | AUROC, all pairs | AUROC, pairs within a fold | its interval holds 0.85 | "
          "average precision, truth | all studies | mean of folds |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    for prevalence in PREVALENCES:
        truth = true_precision(prevalence)
        for offset in OFFSETS:
            cells = simulate(prevalence, offset=offset)
            print(f"| {round(prevalence * PATIENTS)} | {offset} | {' | '.join(cells[:3])} | {truth:.3f} | "
                  f"{' | '.join(cells[3:])} |")  # fmt: skip


def simulate(prevalence: float, *, offset: float) -> list[str]:
    """Mean ± standard deviation of the estimates over `TIMES` sets of patients."""
    generator = np.random.default_rng([int(100 * prevalence), int(10 * offset)])
    truth = np.arange(PATIENTS) < round(prevalence * PATIENTS)
    folds = np.arange(PATIENTS) % FOLDS  # each fold has as many positives, to within one
    patients = ClassPatients(int(truth.sum()), int((~truth).sum()))
    widened = float(few_patients_factor(patients.fewer))
    found, held = [], 0
    for number in range(TIMES):
        scores = truth * SEPARATION + generator.normal(size=PATIENTS) + offset * generator.normal(size=FOLDS)[folds]
        counts = resample_patients(np.arange(PATIENTS), num_resamples=RESAMPLES, seed=number)
        with_all = np.concatenate([np.ones((PATIENTS, 1), np.uint8), counts], axis=1)
        within, *resampled = auroc_within(scores, positive=truth, counts=with_all, strata=folds)
        interval = interval_over_seeds_and_patients(
            np.array([within]), np.array([resampled]), confidence=0.95, widened=widened
        )
        held += interval.low <= AUROC <= interval.high
        of_folds = [average_precision_score(truth[folds == fold], scores[folds == fold]) for fold in range(FOLDS)]
        positives = [truth[folds == fold].sum() for fold in range(FOLDS)]
        found.append([roc_auc_score(truth, scores), within, average_precision_score(truth, scores),
                      np.average(of_folds, weights=positives)])  # fmt: skip
    means, deviations = np.mean(found, axis=0), np.std(found, axis=0, ddof=1)
    cells = [f"{mean:.3f} ± {deviation:.3f}" for mean, deviation in zip(means, deviations, strict=True)]
    return [*cells[:2], f"{100 * held / TIMES:.0f} %", *cells[2:]]


def true_precision(prevalence: float) -> float:
    """Average precision of 400,000 studies."""
    generator = np.random.default_rng(1)
    truth = generator.random(400_000) < prevalence
    return float(average_precision_score(truth, truth * SEPARATION + generator.normal(size=len(truth))))


if __name__ == "__main__":
    main()
