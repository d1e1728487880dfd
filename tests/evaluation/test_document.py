"""evaluation.json: what is written is read back to the byte, and what is no evaluation is refused in one sentence."""

import json
from pathlib import Path

import numpy as np
import pytest

from dualview.errors import UserError
from dualview.evaluation.assess import assess
from dualview.evaluation.document import Difference, EvaluatedCheckpoint, Evaluation, Provenance
from dualview.evaluation.looks import EvaluationSettings
from dualview.evaluation.operating_points import choose_operating_points
from dualview.evaluation.prediction_table import SCORES, PredictionTable


@pytest.fixture(scope="module")
def evaluation():
    """Of 90 studies; the second finding has no positive study, and sex divides them."""
    generator = np.random.default_rng(0)
    kinds = (np.arange(90) % 3).astype(np.int8)
    labels = (generator.random((90, 2)) < 0.5).astype(np.float32)
    labels[:, 1] = 0
    logits = {score: generator.normal(size=(90, 2)) for score in SCORES}
    for hidden in ("lateral_hidden", "pa_hidden"):
        logits[hidden][kinds != 0] = np.nan
    names = np.array([f"s{number}" for number in range(90)], object)
    table = PredictionTable(
        findings=("Mass", "A/B"),
        study_ids=names,
        patient_ids=names,
        availability=kinds,
        evaluated=np.ones(90, bool),
        labels=labels,
        label_mask=np.ones((90, 2), bool),
        logits=logits,
        attributes={"sex": np.array(["F", "M"] * 45, object)},
    )
    provenance = Provenance(
        run="pilot",
        split="test",
        checkpoint=EvaluatedCheckpoint(name="best", step=40),
        model="auxloss",
        backbone="densenet121",
        num_parameters=14157504,
        versions=["python 3"],
        data={"images": {"read": 20, "dropped": {}}, "share": 0.1},
    )
    points = choose_operating_points(table)
    settings = EvaluationSettings(num_resamples=100)
    return Evaluation.of(
        provenance, assess(table, points=points, train_prevalence=np.full((3, 2), 0.4), settings=settings)
    )


def test_what_is_written_is_read_back_to_the_byte(evaluation, tmp_path):
    evaluation.write(tmp_path / "evaluation.json")
    text = (tmp_path / "evaluation.json").read_bytes()
    read = Evaluation.from_json(text)
    assert read == evaluation
    assert read.to_json().encode() == text
    assert json.loads(text)["masked"]["both"]["findings"]["A/B"]["auroc"]["value"] is None
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation.json"]


def test_the_keys_are_in_the_order_that_files_have_always_had(evaluation):
    content = json.loads(evaluation.to_json())
    assert list(content) == [
        "run", "split", "checkpoint", "model", "backbone", "num_parameters", "versions", "data",
        "several_images_at_test", "members", "account", "format", "settings", "findings", "num_patients", "num_studies",
        "groups", "availability_baseline", "masked", "subgroups", "temperature", "calibration", "subgroup_gaps",
        "external",
    ]  # fmt: skip
    assert list(content["masked"]["value_of_lateral"]["findings"]["Mass"]["auroc"]) == [
        "value", "low", "high", "simultaneous_low", "simultaneous_high",
    ]  # fmt: skip
    assert evaluation.to_json().startswith('{\n "run": "pilot",\n')
    assert evaluation.to_json().endswith("}\n")


def test_what_is_not_a_number_cannot_be_written(evaluation):
    evaluation.data["share"] = float("nan")
    with pytest.raises(ValueError, match="Out of range float values"):
        evaluation.to_json()
    evaluation.data["share"] = 0.1


def test_keys_of_a_later_version_are_left_out(evaluation):
    content = json.loads(evaluation.to_json())
    content["new"] = content["settings"]["new"] = 1
    assert Evaluation.from_json(json.dumps(content)) == evaluation


def test_a_file_of_an_earlier_dualview_is_read_and_tells_that_it_counted_no_patients(evaluation):
    content = json.loads(evaluation.to_json())
    for value in ("value_of_lateral", "value_of_pa"):
        for key in ("too_few", "num_judged"):
            del content["masked"][value][key]
        for finding in content["masked"][value]["findings"].values():
            del finding["swap"], finding["detectable_gain"]
    del content["groups"]["all"]["findings"]["Mass"]["num_positive_patients"]
    read = Evaluation.from_json(json.dumps(content))
    assert read.masked.value_of_lateral.num_judged is None
    assert read.groups["all"].findings["Mass"].num_positive_patients is None
    assert (
        read.masked.value_of_lateral.findings["Mass"].auroc == evaluation.masked.value_of_lateral.findings["Mass"].auroc
    )


def without_finding(content):
    del content["groups"]["all"]["findings"]["Mass"]["brier"]


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda content: content.pop("findings"), "is damaged (findings: Field required)"),
        (without_finding, "is damaged (groups.all.findings.Mass.brier: Field required)"),
        (lambda content: content["settings"].update(seed="zero"), "is damaged (settings.seed: "),
        (lambda content: content["groups"].clear() or content.update(masked=3, groups=[]), "groups: "),
        (lambda content: content.update(format=2), "is not of format 1, which this dualview reads. Do this"),
        (lambda content: content.pop("format"), "is not of format 1"),
    ],
)
def test_what_is_damaged_or_of_another_format_is_one_clear_message(evaluation, damage, expected):
    content = json.loads(evaluation.to_json())
    damage(content)
    with pytest.raises(UserError) as error:
        Evaluation.from_json(json.dumps(content), file=Path("there/evaluation.json"), remedy="Do this")
    message = str(error.value)
    assert expected in message
    assert message.startswith("there/evaluation.json is ") and message.endswith(". Do this")
    assert "\n" not in message


def test_text_that_is_no_json_and_many_problems(evaluation):
    for text in (b"{", b"", b"[1]", b"3", b"\xff"):
        with pytest.raises(UserError, match=r"is not JSON|is not of format 1"):
            Evaluation.from_json(text)
    with pytest.raises(UserError, match=r"run: Field required; .*; and \d+ more"):
        Evaluation.from_json('{"format": 1}')


def test_a_verdict_is_by_the_interval_that_holds_for_all_findings():
    def verdict(low, high):
        return Difference(value=0.1, low=0.05, high=0.2, simultaneous_low=low, simultaneous_high=high).verdict

    assert [verdict(0.01, 0.3), verdict(-0.3, -0.01), verdict(-0.1, 0.3), verdict(None, None)] == [
        "helped", "hurt", "undecided", "too_few",
    ]  # fmt: skip
