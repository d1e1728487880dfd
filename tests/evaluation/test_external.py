"""A second hospital of phantoms whose true drop is known: other contrast, other prevalence, other availability."""

import numpy as np
import pytest
from scipy.special import logit
from scipy.stats import norm

from dualview.config import PhantomConfig
from dualview.data.sources.phantom import BEST_AUROC, FINDINGS, draw
from dualview.evaluation.external import drift_from, points_of_set_aside, recalibrated, set_aside
from dualview.evaluation.looks import EvaluationSettings
from dualview.evaluation.operating_points import choose_operating_points
from dualview.evaluation.prediction_table import SCORES, PredictionTable
from dualview.evaluation.statistics.thresholds import YOUDEN
from dualview.views import ALL_STUDIES, Availability, View

ONE_VIEW = FINDINGS[:3]  # each shows in one view, so what is seen of it is known in closed form
SHARP = 2.0  # distance of the two classes in standard deviations, where a finding shows
SETTINGS = EvaluationSettings(num_resamples=200)
OWN = {"both": 0.6, "pa_only": 0.3, "lateral_only": 0.1}


def observed(*, seed, num_studies=3000, contrast=1.0, assumed=None, mix=None, prevalence=0.4) -> PredictionTable:
    """What an observer says of phantoms, who sees a finding through noise where it shows, and is right of `assumed`.

    Args:
        contrast: makes findings this much less distinct.
        assumed: prevalence that the observer believes in; None: the true one.
    """
    config = PhantomConfig(num_studies=num_studies, prevalence=prevalence, **(mix or OWN))
    table, _ = draw(config, seed=seed, image_size_px=64)
    table = table.with_findings(ONE_VIEW)
    generator = np.random.default_rng([seed, 99])
    believed = logit(prevalence if assumed is None else assumed)
    kinds = np.array([[BEST_AUROC[f][kind.key] == 1 for f in ONE_VIEW] for kind in Availability])

    def seen_by(shows):
        x = SHARP * contrast * table.labels + generator.normal(size=table.labels.shape)
        return np.where(shows, SHARP * x - SHARP**2 / 2, 0) + believed + 0.01 * generator.normal(size=shows.shape)

    route = seen_by(kinds[table.availability])
    logits = {score: np.full(route.shape, np.nan) for score in SCORES} | {"route": route}
    for view in View:
        rows = table.availability == Availability.BOTH
        logits[view.hidden_key][rows] = seen_by(np.broadcast_to(kinds[view.other.alone], route.shape))[rows]
    return PredictionTable(
        findings=ONE_VIEW, study_ids=table.study_ids, patient_ids=table.patient_ids, availability=table.availability,
        evaluated=np.ones(num_studies, bool), labels=table.labels, label_mask=table.label_mask, logits=logits,
    )  # fmt: skip


def auroc_of_mixture(finding, *, contrast, mix):
    """Of all studies: by the scores of many; those that do not show a finding lie at one place among the others."""
    generator = np.random.default_rng(5)
    share = sum(mix[kind] for kind in mix if BEST_AUROC[finding][kind] == 1)
    n = 400_000

    def scores(label):
        shows = generator.random(n) < share
        x = SHARP * contrast * label + generator.normal(size=n)
        return np.where(shows, SHARP * x - SHARP**2 / 2, 0)

    pos, neg = scores(1), np.sort(scores(0))
    return float((np.searchsorted(neg, pos, "left") + np.searchsorted(neg, pos, "right")).mean() / (2 * n))


@pytest.fixture(scope="module")
def own():
    return observed(seed=1)


@pytest.fixture(scope="module")
def points():
    return choose_operating_points(observed(seed=2), log_pos_weight=None)


def drift(own, other, points):
    return drift_from(own, other, findings=ONE_VIEW, points=points, settings=SETTINGS)


def test_the_drop_of_a_shifted_hospital_is_found(own, points):
    mix = {"both": 0.2, "pa_only": 0.6, "lateral_only": 0.2}
    other = observed(seed=3, contrast=0.5, assumed=0.4, prevalence=0.15, mix=mix)
    found = drift(own, other, points)
    for finding in ONE_VIEW:
        # Complete studies: the closed form.
        gap = found["both"].findings[finding].auroc
        true = norm.cdf(SHARP * 0.5 / np.sqrt(2)) - norm.cdf(SHARP / np.sqrt(2))
        assert gap.simultaneous_low < true < gap.simultaneous_high
        assert found["both"].findings[finding].verdict == "lower"
        # All studies: worse by what is seen less often, too.
        gap = found[ALL_STUDIES].findings[finding].auroc
        true = auroc_of_mixture(finding, contrast=0.5, mix=mix) - auroc_of_mixture(finding, contrast=1, mix=OWN)
        assert gap.simultaneous_low < true < gap.simultaneous_high, finding
        assert gap.simultaneous_low <= gap.low < gap.value < gap.high <= gap.simultaneous_high
    assert found[ALL_STUDIES].num_judged == 3
    alone = found["pa_only"].findings["Posterior effusion"]  # which a PA does not show, here or there
    assert alone.verdict == "undecided" and abs(alone.auroc.value) < 0.15


def test_prevalence_alone_moves_calibration_by_what_is_known_and_auroc_by_nothing(own, points):
    other = observed(seed=4, prevalence=0.15, assumed=0.4)
    found = drift(own, other, points)[ALL_STUDIES]
    for finding in ONE_VIEW:
        one = found.findings[finding]
        assert one.verdict == "undecided"
        moved = one.calibration_intercept
        assert moved.low < logit(0.15) - logit(0.4) < moved.high and moved.high - moved.low < 0.7
        assert one.calibration_slope.low < 0 < one.calibration_slope.high
        assert one.sensitivity.low < 0 < one.sensitivity.high
        assert one.average_precision.high < 0  # fewer positives, lower precision


def test_patients_set_aside_bring_the_probabilities_back(points):
    other = observed(seed=4, prevalence=0.15, assumed=0.4, num_studies=4000)
    is_aside = set_aside(other, num_patients=1500, seed=0)
    assert is_aside.sum() == 1500 and (is_aside == set_aside(other, num_patients=1500, seed=0)).all()
    aside, remaining = other.select(is_aside), other.select(~is_aside)
    new, said = points_of_set_aside(aside, points=points, rule=YOUDEN, num_patients=1500)
    made = recalibrated(remaining, points=new, said=said, aside=aside, seed=0, settings=SETTINGS)
    for finding in ONE_VIEW:
        after = made.groups["both"].findings[finding]
        assert abs(after.calibration_intercept.value) < 0.25
        assert after.calibration_error < 0.03
    assert made.num_studies == 1500 and new.origin == "youden, chosen on 1500 patients set aside"


def test_few_patients_on_either_side_give_no_verdict(own, points):
    few = observed(seed=6, num_studies=60, prevalence=0.1)
    one = drift(own, few, points)[ALL_STUDIES].findings["Nodule"]
    assert one.num_positive_patients < 10 and one.verdict == "too_few" and one.auroc.simultaneous_low is None


def test_the_same_number_of_patients_is_resampled_apart(points):
    """Else two hospitals of equal size would share their luck, and a gap would look surer or less sure than it is."""
    one, other = observed(seed=7, num_studies=300), observed(seed=8, num_studies=300)
    found = drift(one, other, points)[ALL_STUDIES].macro["auroc"]
    twice = drift(one, one, points)[ALL_STUDIES].macro["auroc"]
    assert twice.value == 0 and twice.high - twice.low > 0.7 * (found.high - found.low)
