"""The table of a comparison from predictions made by hand."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import logit
from scipy.stats import t as student
from sklearn.metrics import roc_auc_score

from dualview.comparison.intervals import confidence_of_each, interval_over_seeds_and_patients, seed_noise
from dualview.comparison.result import MACRO, compare_predictions
from dualview.errors import UserError
from dualview.evaluation.prediction_table import SCORES, PredictionTable
from dualview.views import Availability

KINDS = np.repeat([Availability.BOTH, Availability.PA_ONLY, Availability.LATERAL_ONLY], 40).astype(np.int8)


def predictions(*, skill: float, seed: int, kinds=KINDS) -> PredictionTable:
    """120 studies of as many patients, two findings; higher skill ranks positives higher."""
    labels = np.random.default_rng(0).integers(0, 2, (len(kinds), 2)).astype(np.float32)
    generator = np.random.default_rng([seed, int(100 * skill)])
    logits = {name: np.full(labels.shape, np.nan) for name in SCORES}
    logits["route"] = generator.normal(size=labels.shape) + skill * labels
    both = kinds == Availability.BOTH
    for hidden in ("lateral_hidden", "pa_hidden"):
        logits[hidden][both] = logit(generator.random((int(both.sum()), 2)))
    names = np.array([f"s{number}" for number in range(len(kinds))], object)
    return PredictionTable(
        findings=("A", "B"), study_ids=names, patient_ids=names, availability=kinds,
        evaluated=np.ones(len(kinds), bool), labels=labels, label_mask=np.ones(labels.shape, bool), logits=logits,
    )  # fmt: skip


def one_view(whole: PredictionTable) -> PredictionTable:
    """What a network of the PA view reports: no lateral-only study, and all others as PA only."""
    seen = whole.select(whole.availability != Availability.LATERAL_ONLY)
    blank = {name: np.full(seen.labels.shape, np.nan) for name in SCORES}
    return replace(
        seen,
        availability=np.full(len(seen), Availability.PA_ONLY, np.int8),
        logits={**blank, "route": seen.logits["route"]},
    )


def row(rows, variant, group, finding=MACRO, metric="auroc"):
    (found,) = [r for r in rows if (r.variant, r.group, r.finding, r.metric) == (variant, group, finding, metric)]
    return found


@pytest.fixture(scope="module")
def rows():
    runs = {
        ("", "good"): [predictions(skill=2.0, seed=seed) for seed in (1, 2, 3)],
        ("", "same"): [predictions(skill=2.0, seed=seed) for seed in (1, 2, 3)],
        ("", "pa"): [one_view(predictions(skill=0.5, seed=seed)) for seed in (1, 2, 3)],
    }
    return compare_predictions(runs, baseline="pa", num_resamples=200)


def test_means_and_deviations_over_seeds_are_those_of_scikit_learn(rows):
    both = KINDS == Availability.BOTH
    aurocs = []
    for seed in (1, 2, 3):
        run = predictions(skill=2.0, seed=seed)
        aurocs.append([roc_auc_score(run.labels[both, k], run.logits["route"][both, k]) for k in range(2)])
    assert row(rows, "good", "both", "A").mean == pytest.approx(np.mean([a for a, _ in aurocs]), abs=1e-12)
    macro = row(rows, "good", "both")
    assert macro.mean == pytest.approx(np.mean(aurocs), abs=1e-12)
    assert macro.sd == pytest.approx(np.std(np.mean(aurocs, axis=1), ddof=1), abs=1e-12)
    assert (macro.num_studies, macro.num_seeds) == (40, 3)


def test_a_network_of_one_view_is_compared_on_the_complete_studies_it_saw_in_part(rows):
    assert row(rows, "pa", "both").num_studies == 40
    assert row(rows, "pa", "both").mean is not None
    for group in ("lateral_only", "all", "lateral_hidden"):
        assert row(rows, "pa", group).mean is None
        assert row(rows, "good", group).mean is not None
        assert row(rows, "good", group).difference is None


def test_differences_are_paired_and_of_a_variant_to_itself_zero(rows):
    good, pa = row(rows, "good", "both"), row(rows, "pa", "both")
    assert good.difference == pytest.approx(good.mean - pa.mean, abs=1e-12)
    assert 0 < good.low < good.difference < good.high  # skill 2 against 0.5
    itself = row(rows, "pa", "both")
    assert (itself.difference, itself.low, itself.high, itself.num_compared) == (0, None, None, None)


def test_the_interval_by_hand():
    """Seeds' differences 0.1, 0.2, 0.3; resampled means with standard deviation 0.05."""
    differences = np.array([0.1, 0.2, 0.3])
    resampled = np.array([[0.15, 0.25]] * 3) + differences[:, None] - 0.2
    patient_variance, seed_variance = np.var([0.15, 0.25], ddof=1), 0.01 / 3
    variance = patient_variance + seed_variance
    reach = student.ppf(0.975, variance**2 / (seed_variance**2 / 2)) * variance**0.5
    interval = interval_over_seeds_and_patients(differences, resampled, confidence=0.95)
    assert interval == pytest.approx((0.2, 0.2 - reach, 0.2 + reach))
    one = interval_over_seeds_and_patients(differences[:1], resampled[:1], confidence=0.95)
    assert one.high - one.value == pytest.approx(1.959964 * patient_variance**0.5, rel=1e-6)


def test_few_seeds_that_scatter_give_no_bound_that_a_difference_cannot_reach():
    scattering, resampled = np.array([-0.6, 0.9, 0.9]), np.array([[0.1, 0.3]] * 3)
    assert interval_over_seeds_and_patients(scattering, resampled, confidence=0.99)[1:] == (-1, 1)


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Two variants without a difference, 300 times: seeds and patients both vary."""
    generator = np.random.default_rng(0)
    inside = 0
    for _ in range(300):
        patient_effect = generator.normal(scale=0.02)  # shared by the seeds, and resampled around
        differences = patient_effect + generator.normal(scale=0.03, size=3)
        resampled = differences[:, None] + generator.normal(scale=0.02, size=400)[None]
        _, low, high = interval_over_seeds_and_patients(differences, resampled, confidence=0.95)
        inside += low <= 0 <= high
    assert inside / 300 == pytest.approx(0.95, abs=0.04)


def test_runs_on_other_labels_or_findings_are_refused():
    run = predictions(skill=1.0, seed=1)
    other = replace(run, labels=1 - run.labels)
    with pytest.raises(UserError, match="other labels for the same studies"):
        compare_predictions({("", "a"): [run], ("", "b"): [other]}, baseline="a", num_resamples=100)
    other = replace(run, findings=("A", "C"))
    with pytest.raises(UserError, match="other findings"):
        compare_predictions({("", "a"): [run], ("", "b"): [other]}, baseline="a", num_resamples=100)


def test_differences_are_corrected_over_the_rows_of_a_table():
    """More networks, wider intervals: each is corrected for all macro differences, or all findings of a group."""
    runs = {("", str(skill)): [predictions(skill=skill, seed=1)] for skill in (0.5, 1.0, 1.5)}
    many = compare_predictions(runs, baseline="0.5", num_resamples=500)
    few = compare_predictions({key: runs[key] for key in list(runs)[:2]}, baseline="0.5", num_resamples=500)
    num_groups = 6
    assert (row(many, "1.0", "both").num_compared, row(few, "1.0", "both").num_compared) == (2 * num_groups, num_groups)
    assert (row(many, "1.0", "all", "A").num_compared, row(few, "1.0", "all", "A").num_compared) == (4, 2)
    for group in ("all", "both"):
        wide, narrow = row(many, "1.0", group), row(few, "1.0", group)
        assert wide.low == pytest.approx(narrow.low, abs=1e-12)
        assert wide.simultaneous_low < narrow.simultaneous_low < narrow.low
        assert wide.simultaneous_high > narrow.simultaneous_high > narrow.high


def test_the_confidence_of_each_is_that_of_sidak_for_independent_and_its_own_for_equal_differences():
    generator = np.random.default_rng(0)
    independent = generator.normal(size=(10, 20_000))
    each = confidence_of_each(np.zeros(10), independent, confidence=0.95)
    assert 1 - each == pytest.approx(1 - 0.95 ** (1 / 10), rel=0.1)
    equal = np.repeat(independent[:1], 10, axis=0)
    assert 1 - confidence_of_each(np.zeros(10), equal, confidence=0.95) == pytest.approx(0.05, rel=0.05)


@pytest.mark.parametrize("num_seeds", [2, 3])
def test_intervals_of_a_table_hold_together_as_often_as_they_say(num_seeds):
    """Six networks without a difference to the baseline, on five correlated findings, 150 times."""
    generator = np.random.default_rng(0)
    false, times, shape = 0, 150, (6, 5)
    for _ in range(times):
        truth = np.zeros(shape)
        patients = generator.normal(scale=0.02, size=shape) + generator.normal(scale=0.02, size=5)
        seeds = generator.normal(scale=0.02, size=(num_seeds, *shape)) - generator.normal(
            scale=0.02, size=(num_seeds, 1, 5)
        )  # The baseline's own seeds are in every difference.
        differences = (truth + patients + seeds).reshape(num_seeds, -1)
        others = generator.normal(scale=0.02, size=(*shape, 200)) + generator.normal(scale=0.02, size=(5, 200))
        resampled = differences.mean(axis=0)[:, None] + others.reshape(-1, 200)
        noise = seed_noise(differences.T, num_networks=shape[0])
        each = confidence_of_each(differences.mean(axis=0), resampled, confidence=0.95)
        for one, of_patients in zip(differences.T, resampled, strict=True):
            interval = interval_over_seeds_and_patients(one, of_patients[None], confidence=each, at_least=noise)
            if interval.low > 0 or interval.high < 0:
                false += 1
                break
    assert false / times <= 0.05 + 2 * (0.05 * 0.95 / times) ** 0.5
