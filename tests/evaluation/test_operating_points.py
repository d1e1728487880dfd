"""operating_points.json: read, applied and written."""

import json
import math

import numpy as np
import pytest

from dualview.errors import UserError
from dualview.evaluation.operating_points import (
    OperatingPoint,
    OperatingPoints,
    to_probabilities,
)
from dualview.evaluation.points_file import read_operating_points
from dualview.evaluation.statistics.calibration import Line
from dualview.views import Availability

BOTH, PA_ONLY, LATERAL_ONLY = Availability.BOTH, Availability.PA_ONLY, Availability.LATERAL_ONLY


def content(**changes):
    routes = {
        "both": {"Nodule": {"threshold": 0.25, "reason": None}, "Hernia": {"threshold": None, "reason": "one class"}},
        "pa_only": {"Nodule": {"threshold": 0.75, "reason": None}},
        "lateral_only": {},
    }
    temperature = {"both": 2.0, "pa_only": 1.0, "lateral_only": 0.5}
    return {"format": 1, "rule": "youden", "chosen_on": "val", "temperature": temperature, "routes": routes} | changes


def write(run_dir, value):
    (run_dir / "operating_points.json").write_text(json.dumps(value))
    return run_dir


def test_logits_are_divided_by_the_temperature_of_their_route(tmp_path):
    points = read_operating_points(write(tmp_path, content()) / "operating_points.json")
    logits, findings = np.array([[3.0, -800.0, 0.0]]), ("Nodule", "Hernia", "Mass")
    expected = {BOTH: 1 / (1 + math.exp(-1.5)), PA_ONLY: 1 / (1 + math.exp(-3)), LATERAL_ONLY: 1 / (1 + math.exp(-6))}
    for route, of_first in expected.items():
        np.testing.assert_allclose(
            points.calibrated(logits, route, findings=findings),
            [[of_first, 0, 0.5]],
            rtol=1e-14,
            atol=1e-100,
        )


def test_a_large_logit_is_divided_before_it_becomes_a_probability(tmp_path):
    """Its probability is 1 to the last digit, from which no temperature could bring it back."""
    points = read_operating_points(write(tmp_path, content()) / "operating_points.json")
    assert 1 / (1 + math.exp(-40)) == 1
    assert points.calibrated(np.array([[40.0]]), BOTH, findings=("Nodule",))[0, 0] == 1 / (1 + math.exp(-20)) < 1


def test_a_probability_does_not_depend_on_where_its_logit_stands():
    """A study at its own threshold would otherwise be decided by its neighbours."""
    logits = np.random.default_rng(0).normal(scale=4, size=(1000, 16))
    whole = to_probabilities(logits)
    np.testing.assert_array_equal(to_probabilities(logits[:, 3:4]), whole[:, 3:4])
    np.testing.assert_array_equal(to_probabilities(logits.T[2:5]), whole.T[2:5])
    np.testing.assert_array_equal(np.array([to_probabilities(np.array(row)) for row in logits]), whole)


def test_thresholds_are_in_the_order_of_the_findings_and_nan_where_there_is_none(tmp_path):
    points = read_operating_points(write(tmp_path, content()) / "operating_points.json")
    np.testing.assert_array_equal(points.thresholds(("Mass", "Nodule", "Hernia"), BOTH), [np.nan, 0.25, np.nan])
    np.testing.assert_array_equal(points.thresholds(("Nodule",), PA_ONLY), [0.75])


def test_a_decision_is_one_at_the_threshold_and_unknown_without_one(tmp_path):
    points = read_operating_points(write(tmp_path, content()) / "operating_points.json")
    findings = ("Hernia", "Nodule", "Mass")
    probabilities = np.array([[0.9, 0.25, 0.9], [0.9, 0.2499, 0.9]])
    decisions, known = points.decide(probabilities, BOTH, findings=findings)
    np.testing.assert_array_equal(known, [[False, True, False]] * 2)
    np.testing.assert_array_equal(decisions, [[False, True, False], [False, False, False]])
    assert points.decide(np.array([[0.9, 0.7, 0.9]]), PA_ONLY, findings=findings)[0].tolist() == [[False, False, False]]
    assert not points.decide(probabilities, LATERAL_ONLY, findings=findings)[1].any()


def test_what_is_written_is_read_back(tmp_path):
    points = OperatingPoints(
        rule="youden",
        chosen_on="val",
        temperature={"both": 1.5, "pa_only": 1.0, "lateral_only": 1.0},
        routes={
            "both": {"Nodule": OperatingPoint(threshold=0.5, platt=Line(0.8, -0.1))}, "pa_only": {}, "lateral_only": {}
        },
        log_pos_weight={"Nodule": 1.5},
    )  # fmt: skip
    points.write(tmp_path / "operating_points.json")
    assert read_operating_points(tmp_path / "operating_points.json") == points
    assert [path.name for path in tmp_path.iterdir()] == ["operating_points.json"]


def test_the_weight_of_positives_is_subtracted_before_anything_is_divided(tmp_path):
    """By hand: (3 - log 5) / 2 by the temperature of both; 0.8 (3 - log 5) - 0.1 by Platt; other findings untouched."""
    routes = content()["routes"] | {
        "pa_only": {"Nodule": {"threshold": 0.5, "platt": {"slope": 0.8, "intercept": -0.1}}}
    }
    value = content(format=2, routes=routes, log_pos_weight={"Nodule": math.log(5), "Mass": 0.0})
    points = read_operating_points(write(tmp_path, value) / "operating_points.json")
    for route, expected in ((BOTH, (3 - math.log(5)) / 2), (PA_ONLY, 0.8 * (3 - math.log(5)) - 0.1)):
        of_nodule, of_mass = points.calibrated(np.array([[3.0, 3.0]]), route, findings=("Nodule", "Mass"))[0]
        assert of_nodule == pytest.approx(1 / (1 + math.exp(-expected)), rel=1e-14)
        assert of_mass == pytest.approx(1 / (1 + math.exp(-3 / points.temperature[route.key])), rel=1e-14)
    methods = [points.method(route, "Nodule") for route in (BOTH, PA_ONLY, LATERAL_ONLY)]
    assert methods == ["temperature", "platt", "temperature"]


def test_an_earlier_file_undoes_no_weight_and_a_wrong_one_is_refused(tmp_path):
    assert read_operating_points(write(tmp_path, content()) / "operating_points.json").log_pos_weight is None
    wrong = content(
        format=2, log_pos_weight={"Nodule": "5", "Mass": True},
        routes=content()["routes"] | {"both": {"Nodule": {"threshold": 0.5, "platt": {"slope": -1, "intercept": 0}}}},
    )  # fmt: skip
    with pytest.raises(UserError, match="3 problem") as caught:
        read_operating_points(write(tmp_path, wrong) / "operating_points.json")
    for part in ("log_pos_weight.Nodule is '5'", "log_pos_weight.Mass is True", "routes.both.Nodule.platt is"):
        assert part in str(caught.value)


def test_a_run_without_the_file_has_none(tmp_path):
    assert read_operating_points(tmp_path / "operating_points.json") is None


def test_all_problems_of_the_file_are_reported_together(tmp_path):
    wrong = content(
        temperature={"both": 0, "pa_only": True, "lateral_only": 1},
        routes={"both": {"Nodule": {"threshold": 1.5}, "Mass": 0.5}, "pa_only": []},
    )
    with pytest.raises(UserError, match="6 problem") as caught:
        read_operating_points(write(tmp_path, wrong) / "operating_points.json")
    for part in ("temperature.both is 0", "temperature.pa_only is True", "routes.both.Nodule.threshold is 1.5",
                 "routes.both.Mass", "routes.pa_only is list", "routes.lateral_only is NoneType"):  # fmt: skip
        assert part in str(caught.value)
    for other, match in ((content(format=3), "format 3"), ([], "format 'list'")):
        with pytest.raises(UserError, match=match):
            read_operating_points(write(tmp_path, other) / "operating_points.json")
    (tmp_path / "operating_points.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        read_operating_points(tmp_path / "operating_points.json")
