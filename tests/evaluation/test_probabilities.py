"""From a logit to the probability that is shown: the same for studies that are evaluated and that are predicted."""

import math

import numpy as np
import pytest

import dualview
from dualview.data.table import StudyTable
from dualview.evaluation.operating_points import OperatingPoints, calibrated_scores
from dualview.evaluation.prediction_table import HEADS, read_predictions
from dualview.evaluation.split import SplitEvaluation, SplitOutputs, as_predictions
from dualview.views import ROUTES

LOGIT, TEMPERATURE = 40.0, 2.0
"""sigmoid(40) is 1 to the last digit of float64, so that only a logit can be brought to sigmoid(20)."""


@pytest.fixture
def points():
    temperature = dict.fromkeys(ROUTES, 1.0) | {"pa_only": TEMPERATURE}
    return OperatingPoints(rule="youden", chosen_on="val", temperature=temperature, routes={r: {} for r in ROUTES})


def test_a_logit_of_40_at_temperature_2_is_sigmoid_20_by_evaluate(points, tmp_path):
    """From the outputs of an evaluated split, through its file."""
    outputs = SplitOutputs(
        logits=np.full((1, len(HEADS), 1), LOGIT),
        head_mask=np.array([[True, False, True, False]]),
        view_mask=np.array([[True, False]]),
        num_bad_images=0,
    )
    names = np.array(["s"], object)
    images = np.empty(1, object)
    images[:] = [("a.png",)]
    table = StudyTable(
        findings=("Nodule",), study_ids=names, patient_ids=names, images=(images, images),
        labels=np.ones((1, 1), np.float32), label_mask=np.ones((1, 1), bool),
    )  # fmt: skip
    evaluation = SplitEvaluation(name="test", table=table, outputs=outputs, metrics={}, loss=None)
    as_predictions(evaluation).write(tmp_path / "p.parquet")
    read = read_predictions(tmp_path / "p.parquet")
    assert read.logits["route"].tolist() == [[LOGIT]]
    assert np.isnan(read.logits["joint"]).all() and np.isnan(read.logits["lateral_hidden"]).all()
    for score in ("route", "pa"):
        (probability,) = calibrated_scores(read, score=score, points=points)[0]
        assert probability == 1 / (1 + math.exp(-20)) < 1


def test_a_logit_of_40_at_temperature_2_is_sigmoid_20_by_predict(make_run, points):
    """From the bias of a head that looks at nothing."""
    run_dir = make_run()
    points.write(run_dir / "operating_points.json")
    network = dualview.load(run_dir, device="cpu")
    network.model.pa.head.weight.data.zero_()
    network.model.pa.head.bias.data.fill_(LOGIT)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    assert network.predict(pa=pixels).probabilities.tolist() == [[1 / (1 + math.exp(-20))] * 3]
