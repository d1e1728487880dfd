"""evaluation.json against scikit-learn, hand-made cases and what must not be claimed."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    confusion_matrix,
    precision_score,
    recall_score,
    roc_auc_score,
)

from dualview.evaluation.assess import assess
from dualview.evaluation.calibrate import fit_calibration
from dualview.evaluation.document import Estimate
from dualview.evaluation.looks import EvaluationSettings
from dualview.evaluation.operating_points import (
    choose_operating_points,
    logits_from,
    to_probabilities,
)
from dualview.evaluation.prediction_table import SCORES, PredictionTable
from dualview.evaluation.statistics.thresholds import ThresholdRule
from dualview.evaluation.value_of_lateral import value_of_lateral
from dualview.views import Availability

QUICK = EvaluationSettings(num_resamples=400)


def simulate(*, num_studies=600, lateral_gain=(0.0, 2.0, -1.5), seed=0, per_patient=1) -> PredictionTable:
    """Findings whose lateral view adds nothing, helps and misleads; a third of the studies of each availability."""
    generator = np.random.default_rng(seed)
    num_findings = len(lateral_gain)
    labels = (generator.random((num_studies, num_findings)) < 0.4).astype(np.float32)
    kinds = np.arange(num_studies) % 3
    pa = generator.normal(size=labels.shape) + 1.5 * labels
    gain = np.array(lateral_gain)
    both = pa + gain * (labels - 0.4) + 0.3 * generator.normal(size=labels.shape) * (gain != 0)
    lateral = generator.normal(size=labels.shape) + labels
    is_both, has_pa = (kinds == Availability.BOTH)[:, None], (kinds != Availability.LATERAL_ONLY)[:, None]
    logits = {name: np.full(labels.shape, np.nan) for name in SCORES}
    logits["route"] = np.where(is_both, both, np.where(has_pa, pa, lateral)) - 1
    logits["lateral_hidden"] = np.where(is_both, pa - 1, np.nan)
    logits["pa_hidden"] = np.where(is_both, lateral - 1, np.nan)
    names = np.array([f"s{number}" for number in range(num_studies)], object)
    return PredictionTable(
        findings=tuple(f"F{k}" for k in range(num_findings)),
        study_ids=names,
        patient_ids=np.array([f"p{number // per_patient}" for number in range(num_studies)], object),
        availability=kinds.astype(np.int8),
        evaluated=np.ones(num_studies, bool),
        labels=labels,
        label_mask=generator.random(labels.shape) > 0.1,
        logits=logits,
        attributes={
            "sex": np.array(["F", "M"], object)[np.arange(num_studies) % 2],
            "age": np.array([str(number % 90) for number in range(num_studies)], object),
            "code": names,
        },
    )


@pytest.fixture(scope="module")
def val():
    return simulate(seed=1)


@pytest.fixture(scope="module")
def points(val):
    return choose_operating_points(val)


@pytest.fixture(scope="module")
def assessment(points):
    return assess(simulate(), points=points, train_prevalence=np.full((3, 3), 0.4), settings=QUICK)


def test_points_are_those_of_scikit_learn(assessment, points):
    test = simulate()
    for group, kinds in (("all", {0, 1, 2}), ("both", {0}), ("pa_only", {1}), ("lateral_only", {2})):
        for k, finding in enumerate(test.findings):
            use = np.isin(test.availability, list(kinds)) & test.label_mask[:, k]
            truth, scores = test.labels[use, k], to_probabilities(test.logits["route"][use, k])
            result = assessment.groups[group].findings[finding]
            for metric, function in (
                ("auroc", roc_auc_score), ("average_precision", average_precision_score), ("brier", brier_score_loss),
            ):  # fmt: skip
                estimate = result.metric(metric)
                assert estimate.value == pytest.approx(function(truth, scores), abs=1e-12)
                assert estimate.low <= estimate.value <= estimate.high
            if group == "both":
                called = scores >= points.routes["both"][finding].threshold
                point = result.operating_point
                counts = [point.true_negative, point.false_positive, point.false_negative, point.true_positive]
                assert counts == confusion_matrix(truth, called).ravel().tolist()
                assert point.sensitivity.value == pytest.approx(recall_score(truth, called))
                assert point.positive_predictive_value.value == pytest.approx(precision_score(truth, called))
        macro = assessment.groups[group].macro["auroc"]
        values = [result.auroc.value for result in assessment.groups[group].findings.values()]
        assert macro.value == pytest.approx(np.mean(values), abs=1e-12)


def test_the_lateral_view_helps_hurts_or_stays_undecided_as_it_was_made(assessment):
    value = assessment.masked.value_of_lateral
    assert (value.helped, value.hurt, value.undecided) == (["F1"], ["F2"], ["F0"])
    nothing = value.findings["F0"].auroc
    assert (nothing.value, nothing.low, nothing.high) == (0, None, None)  # the same scores: no chance to measure
    assert value.findings["F0"].delong is None and value.findings["F0"].swap.p_value == 1
    for finding in ("F1", "F2"):
        auroc, check = value.findings[finding].auroc, value.findings[finding].delong
        assert auroc.simultaneous_low <= auroc.low <= auroc.value <= auroc.high <= auroc.simultaneous_high
        assert auroc.value == pytest.approx(check.difference, abs=1e-12)
        assert (auroc.high - auroc.low) / 3.92 == pytest.approx(check.standard_error, rel=0.15)
        assert check.p_value < 0.05


def test_patients_with_several_studies_widen_the_intervals(points):
    """Ten copies of a study are not ten studies."""
    one = simulate(num_studies=300)
    ten = one.select(np.repeat(np.arange(300), 10))
    widths = []
    for predictions in (one, ten):
        auroc = assess(predictions, points=points, settings=QUICK).groups["all"].findings["F0"].auroc
        widths.append(auroc.high - auroc.low)
    assert widths[1] == pytest.approx(widths[0], rel=1e-9)  # the same patients, resampled alike


def test_what_is_undefined_is_null_with_its_reason(points):
    test = simulate(num_studies=60)
    test.labels[:, 0] = 0
    test.label_mask[:, 1] = False
    assessment = assess(test, points=points, settings=QUICK)
    all_studies = assessment.groups["all"]
    assert all_studies.findings["F0"].auroc == Estimate(value=None, low=None, high=None)
    assert all_studies.findings["F0"].undefined.startswith("no positive study among")
    assert all_studies.findings["F0"].brier.value is not None
    assert all_studies.findings["F1"].undefined == "no study with a known label"
    assert all_studies.macro["auroc"].num_findings == 1
    assert assessment.masked.value_of_lateral.undefined == ["F0", "F1"]
    plain = json.loads(json.dumps(asdict(assessment), allow_nan=False))
    assert plain["groups"]["all"]["findings"]["F0"]["auroc"] == {"value": None, "low": None, "high": None}


def test_the_availability_baseline_knows_nothing_but_the_views(points):
    """Positives only among complete studies: availability alone is perfect where those are all positive."""
    test = simulate(num_studies=90)
    test.labels[:] = (test.availability == Availability.BOTH)[:, None]
    prevalence = np.array([[0.9] * 3, [0.1] * 3, [0.2] * 3])
    baseline = assess(test, points=points, train_prevalence=prevalence, settings=QUICK).availability_baseline
    assert all(result.auroc.value == 1 for result in baseline.findings.values())
    assert baseline.macro["auroc"].value == 1


def test_the_baseline_is_undefined_where_training_does_not_know_an_availability(points):
    """Not 0: with 60 % among complete studies and 20 % among others, unknown shares would turn 0.703 into 0.296."""
    test = simulate()
    prevalence = np.array([[0.6] * 3, [0.2] * 3, [np.nan, 0.2, 0.2]])
    baseline = assess(test, points=points, train_prevalence=prevalence, settings=QUICK).availability_baseline
    first, *others = baseline.findings.values()
    assert first.auroc.value is None
    assert first.undefined == "no training study with a known label that came with lateral only"
    assert all(other.auroc.value is not None and other.undefined is None for other in others)
    assert baseline.macro["auroc"].num_findings == 2


def test_subgroups_by_columns_with_few_values_and_ages_in_bands(assessment, points):
    assert set(assessment.subgroups) == {"sex", "age"}
    assert set(assessment.subgroups["sex"]) == {"F", "M"}
    bands = assessment.subgroups["age"]
    assert list(bands) == ["0 to below 18", "18 to below 40", "40 to below 60", "60 to below 80", "80 and more"]
    assert sum(band.num_studies for band in bands.values()) == 600
    test = simulate()
    expected = roc_auc_score(*(values[np.arange(600) % 2 == 0][test.label_mask[::2, 0]]
                               for values in (test.labels[:, 0], test.logits["route"][:, 0])))  # fmt: skip
    assert assessment.subgroups["sex"]["F"].findings["F0"].auroc.value == pytest.approx(expected)
    assert assess(test, points=points, by=[], settings=QUICK).subgroups == {}


def test_thresholds_of_a_view_are_chosen_on_every_val_study_that_has_it(val, points):
    logits = logits_from(Availability.PA_ONLY, val)
    assert np.isfinite(logits).all(axis=1).tolist() == (val.availability != Availability.LATERAL_ONLY).tolist()
    both = val.availability == Availability.BOTH
    assert np.array_equal(logits[both], val.logits["lateral_hidden"][both])
    pa = to_probabilities(logits)
    use = np.isfinite(pa[:, 0]) & val.label_mask[:, 0]
    called = pa[use, 0] >= points.routes["pa_only"]["F0"].threshold
    truth = val.labels[use, 0] > 0.5
    youden = called[truth].mean() - called[~truth].mean()
    every = [(pa[use, 0] >= t)[truth].mean() - (pa[use, 0] >= t)[~truth].mean() for t in pa[use, 0]]
    assert youden == pytest.approx(max(every))
    sensitive = choose_operating_points(val, rule=ThresholdRule.parse("sensitivity=0.95"))
    assert (pa[use, 0] >= sensitive.routes["pa_only"]["F0"].threshold)[truth].mean() >= 0.95


def test_temperatures_undo_overconfidence_route_by_route(val):
    hot = replace(val, logits={name: 3 * values for name, values in val.logits.items()})
    before, after = fit_calibration(val).temperature, fit_calibration(hot).temperature
    for route, temperature in before.items():
        assert after[route] == pytest.approx(3 * temperature, rel=1e-3)
    cooled = choose_operating_points(hot, temperatures=after)
    plain = choose_operating_points(val, temperatures=before)
    for finding in val.findings:  # the same decisions
        pair = [points.routes["both"][finding].threshold for points in (plain, cooled)]
        assert pair[0] == pytest.approx(pair[1], rel=1e-3)


def test_networks_of_one_view_have_nothing_to_withhold(points):
    test = simulate()
    for hidden in ("lateral_hidden", "pa_hidden"):
        test.logits[hidden][:] = np.nan
    assert assess(test, points=points, settings=QUICK).masked is None


def test_studies_without_a_readable_image_take_no_part(points):
    test = simulate()
    test.evaluated[:30] = False
    assert assess(test, points=points, settings=QUICK).num_studies == 570


def test_few_positive_patients_get_no_verdict_and_fewer_still_no_interval(points):
    """F0: 3 positive patients; F1: 9, of 18 studies; F2: 10."""
    test = simulate(num_studies=600, lateral_gain=(3.0, 3.0, 3.0), per_patient=6)
    test.patient_ids[:] = [f"p{number // 6 * 3 + number % 3}" for number in range(600)]  # two studies alike per patient
    both = np.flatnonzero(test.availability == Availability.BOTH)
    test.label_mask[:] = True
    for k, num_patients in enumerate((3, 9, 10)):
        has_it = np.isin(test.patient_ids, np.unique(test.patient_ids[both])[:num_patients])
        test.labels[:, k] = has_it
        test.logits["route"][both, k] = 4 * has_it[both] + np.random.default_rng(k).normal(size=len(both))
    value = assess(test, points=points, settings=QUICK).masked.value_of_lateral
    assert (value.helped, value.too_few, value.num_judged) == (["F2"], ["F0", "F1"], 1)
    assert "for the 1 of 3 findings" in value.correction
    few, some, enough = (value.findings[finding] for finding in ("F0", "F1", "F2"))
    assert few.auroc.low is None and few.auroc.value > 0 and few.brier.low is few.average_precision.low is None
    assert some.auroc.low is not None and some.auroc.simultaneous_low is None
    assert enough.auroc.simultaneous_low > 0 and enough.detectable_gain > 0
    assert few.detectable_gain is some.detectable_gain is None
    assert all(finding.swap.p_value_together >= finding.swap.p_value for finding in (few, some, enough))
    looked_at = assess(test, points=points, settings=QUICK).masked.both.findings
    counts = [(result.num_positive, result.num_positive_patients) for result in looked_at.values()]
    assert counts == [(6, 3), (18, 9), (20, 10)]
    assert looked_at["F0"].auroc.low is None and looked_at["F1"].auroc.low < 1


def test_delong_and_counts_are_by_patient(points):
    """Three copies of every study change no number of DeLong's test."""
    one = simulate(num_studies=300)
    three = one.select(np.repeat(np.arange(300), 3))
    checks = [
        assess(test, points=points, settings=QUICK).masked.value_of_lateral.findings["F1"].delong
        for test in (one, three)
    ]
    assert checks[1].standard_error == pytest.approx(checks[0].standard_error, rel=1e-9)


def test_a_joint_head_below_a_branch_head_is_told_with_the_vote_beside_it(points):
    test = simulate()
    both = test.availability == Availability.BOTH
    test.logits["joint"] = np.where(both[:, None], test.logits["route"], np.nan)
    test.logits["pa"], test.logits["lateral"] = test.logits["lateral_hidden"], test.logits["pa_hidden"]
    masked = assess(test, points=points, settings=QUICK).masked
    for k, finding in enumerate(test.findings):
        use = both & test.label_mask[:, k]
        heads = [test.logits[head][use, k] for head in ("joint", "pa", "lateral")]
        expected = [roc_auc_score(test.labels[use, k], logits) for logits in (*heads, np.mean(heads, axis=0))]
        told = masked.heads[finding]
        assert [told.joint, told.pa, told.lateral, told.vote] == pytest.approx(expected, abs=1e-12)
    assert [masked.heads[finding].is_under_trained for finding in test.findings] == [False, False, True]
    (warning,) = value_of_lateral(masked).warnings
    worst = masked.heads["F2"]
    assert warning == f"F2 {worst.joint:.3f} (PA head {worst.pa:.3f}, vote {worst.vote:.3f})"
    assert assess(simulate(), points=points, settings=QUICK).masked.heads is None


def test_what_does_not_vary_has_no_interval_of_no_width(points):
    """One patient alone: every resample is the same, and the mean over findings is as unsure as each of them."""
    table = simulate(num_studies=60)
    alone = assess(replace(table, patient_ids=np.full(60, "p0", object)), points=points, settings=QUICK)
    for macro in (alone.groups["all"].macro["auroc"], alone.masked.value_of_lateral.macro["auroc"]):
        assert macro.value is not None
        assert (macro.low, macro.high) == (None, None)
    assert set(alone.masked.value_of_lateral.too_few) == set(table.findings)


def test_scores_without_an_error_against_scores_without_any_order_have_a_wide_interval(points):
    """AUROC 1 against 0.5: no resample varies, and yet 60 patients are not certainty; no gain at all has none."""
    table = simulate(num_studies=180)
    both = table.availability == Availability.BOTH
    table.logits["route"][both, :2] = 9 * (table.labels[both, :2] - 0.5)
    table.logits["lateral_hidden"][both, :2] = [0.0, np.nan]
    table.logits["lateral_hidden"][both, 1] = table.logits["route"][both, 1]
    gains = assess(table, points=points, settings=QUICK).masked.value_of_lateral.findings
    certain, none = (gains[finding].auroc for finding in table.findings[:2])
    assert certain.value == 0.5
    assert certain.simultaneous_low <= certain.low < 0.45
    assert 0.55 < certain.high <= certain.simultaneous_high
    assert (none.value, none.low, none.verdict) == (0.0, None, "undecided")
