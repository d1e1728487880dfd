"""Probabilities of a network that learned perfectly with weighted positives, and what is fitted on val."""

import numpy as np
import pytest
import torch
from scipy.special import expit, logit
from sklearn.metrics import roc_auc_score

from dualview.evaluation.calibrate import FEWEST, calibration_of, fit_calibration
from dualview.evaluation.operating_points import calibrated_scores, choose_operating_points
from dualview.evaluation.prediction_table import SCORES, PredictionTable
from dualview.evaluation.statistics.calibration import calibration_error, fit_platt
from dualview.losses import Criterion, study_losses
from dualview.views import Availability

PREVALENCES = (0.01, 0.03, 0.08, 0.14, 0.23)


def perfect(*, num_studies, pos_weight=1.0, prevalences=PREVALENCES, seed=0, slope=1.0) -> PredictionTable:
    """PA only studies whose logits are the true log odds of each finding, plus log pos_weight, times a slope."""
    generator = np.random.default_rng(seed)
    shape = (num_studies, len(prevalences))
    truth = generator.random(shape) < np.array(prevalences)
    # A shift of 2 between normal scores of variance 1: log odds are 2 x - 2, plus those of the prevalence.
    logits = 2 * (generator.normal(size=shape) + 2 * truth) - 2 + logit(prevalences)
    names = np.array([f"s{number}" for number in range(num_studies)], object)
    nothing = np.full(shape, np.nan)
    return PredictionTable(
        findings=tuple(f"F{k}" for k in range(len(prevalences))), study_ids=names, patient_ids=names,
        availability=np.full(num_studies, Availability.PA_ONLY, np.int8), evaluated=np.ones(num_studies, bool),
        labels=truth.astype(np.float32), label_mask=np.ones(shape, bool),
        logits={**dict.fromkeys(SCORES, nothing), "route": slope * (logits + np.log(pos_weight))},
    )  # fmt: skip


def errors(test, points):
    """Calibration error of each finding."""
    scores = calibrated_scores(test, score="route", points=points)
    return np.array([calibration_error(scores[:, k], positive=test.positive[:, k]) for k in range(len(test.findings))])


@pytest.mark.parametrize("pos_weight", [1.0, 2.0, 5.0])
def test_a_perfect_learner_is_calibrated_whatever_the_weight_of_positives(pos_weight):
    """Prevalences of 1 to 23 %: error at most 0.005 without any fit, and with one on 40,000 studies of val."""
    test, val = (perfect(num_studies=n, pos_weight=pos_weight, seed=n) for n in (200_000, 40_000))
    weights = dict.fromkeys(test.findings, float(np.log(pos_weight)))
    plain = choose_operating_points(val, log_pos_weight=weights)
    assert errors(test, plain).max() <= 0.005
    fitted = fit_calibration(val, log_pos_weight=weights)
    assert set(fitted.platt["pa_only"]) == set(test.findings)
    calibrated = choose_operating_points(val, log_pos_weight=weights, platt=fitted.platt)
    assert errors(test, calibrated).max() <= 0.005
    if pos_weight == 5:  # as it was before: odds five times too high, at every prevalence
        assert errors(test, choose_operating_points(val)).min() > 0.025


def test_the_weight_that_the_loss_adds_to_logits_is_its_logarithm_exactly():
    """Two groups of 5 and 40 % that a bias each tells apart, learned by the loss itself with weights 1, 2 and 5."""
    labels = torch.tensor([1.0] * 5 + [0.0] * 95 + [1.0] * 40 + [0.0] * 60, dtype=torch.float64)[:, None].expand(-1, 3)
    group = torch.tensor([0] * 100 + [1] * 100)
    weights = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    bias = torch.full((2, 3), -1.0, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [bias], max_iter=200, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        known = torch.ones(200, 3, dtype=torch.bool)
        loss = study_losses(
            bias[group], labels=labels, label_mask=known, criterion=Criterion(pos_weight=weights)
        ).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    undone = (bias.detach() - weights.log()).sigmoid()
    torch.testing.assert_close(
        undone, torch.tensor([[0.05], [0.4]], dtype=torch.float64).expand(-1, 3), atol=1e-6, rtol=0
    )


def test_overconfidence_is_taken_back_by_platt_and_the_errors_are_told():
    """Logits three times too large: slope 1/3, and the order of studies stays, so that AUROC and decisions do."""
    test, val = (perfect(num_studies=n, slope=3.0, seed=n) for n in (50_000, 40_000))
    weights = dict.fromkeys(test.findings, 0.0)
    fitted = fit_calibration(val, log_pos_weight=weights)
    assert [line.slope for line in fitted.platt["pa_only"].values()] == pytest.approx([1 / 3] * 5, rel=0.1)
    plain = choose_operating_points(val, log_pos_weight=weights)
    points = choose_operating_points(val, log_pos_weight=weights, temperatures=fitted.temperature, platt=fitted.platt)
    of_route = calibration_of(test, points=points)["pa_only"]
    before, after = errors(test, plain), errors(test, points)
    for k, finding in enumerate(test.findings):
        one = of_route[finding]
        assert (one.method, one.log_pos_weight) == ("platt", 0)
        assert (one.error_before, one.error_after) == pytest.approx((before[k], after[k]))
    assert after.max() < 0.006 and before[-1] > 0.02
    scores = [calibrated_scores(test, score="route", points=each) for each in (plain, points)]
    for k in range(5):
        aurocs = [roc_auc_score(test.positive[:, k], score[:, k]) for score in scores]
        assert aurocs[0] == pytest.approx(aurocs[1], abs=1e-12)
    decided = [
        each.decide(score, Availability.PA_ONLY, findings=test.findings)[0]
        for each, score in zip((plain, points), scores, strict=True)
    ]
    assert (decided[0] != decided[1]).mean() < 1e-3


def with_labels(table, *, num_positive, num_negative):
    """The table with so many labels of each kind known of its first finding, and none of another."""
    table.label_mask[:] = False
    truth = table.labels[:, 0] > 0.5
    table.label_mask[np.flatnonzero(truth)[:num_positive], 0] = True
    table.label_mask[np.flatnonzero(~truth)[:num_negative], 0] = True
    return table


@pytest.mark.parametrize(
    ("counts", "prevalences", "methods"),
    [
        ((FEWEST, FEWEST), (0.3, 0.3), {"F0": "platt", "F1": "temperature"}),
        ((FEWEST - 1, 500), (0.3, 0.3), {"F0": "none", "F1": "none"}),
        ((500, FEWEST - 1), (0.3, 0.3), {"F0": "none", "F1": "none"}),
    ],
)
def test_few_labels_are_not_fitted(counts, prevalences, methods):
    table = perfect(num_studies=3000, prevalences=prevalences, seed=3)
    val = with_labels(table, num_positive=counts[0], num_negative=counts[1])
    fitted = fit_calibration(val)
    points = choose_operating_points(val, temperatures=fitted.temperature, platt=fitted.platt)
    assert {finding: points.method(Availability.PA_ONLY, finding) for finding in val.findings} == methods
    (said,) = (sentence for sentence in fitted.said if sentence.startswith("PA only"))
    assert ("Platt for 1 finding(s), temperature" if methods["F0"] == "platt" else "nothing for 2 (F0, F1)") in said


def test_findings_with_few_labels_share_the_temperature_of_their_route():
    table = perfect(num_studies=1500, prevalences=(0.01, 0.012, 0.011), seed=4, slope=2.0)
    assert (table.positive.sum(axis=0) < FEWEST).all() and table.positive.sum() > FEWEST
    fitted = fit_calibration(table)
    assert fitted.platt["pa_only"] == {} and fitted.temperature["pa_only"] == pytest.approx(2, rel=0.3)
    assert fitted.temperature["both"] == 1


def test_a_line_that_has_no_use_is_not_fitted():
    generator = np.random.default_rng(5)
    z = generator.normal(size=2000)
    truth = generator.random(2000) < expit(1.5 * z - 1)
    line = fit_platt(z, positive=truth)
    assert (line.slope, line.intercept) == pytest.approx((1.5, -1), abs=0.2)
    assert fit_platt(-z, positive=truth) is None  # it would turn the order around
    assert fit_platt(z, positive=z > 0) is None  # no slope is steep enough
    assert fit_platt(z, positive=np.zeros(2000, bool)) is None
