"""The file of predictions gives back what was written."""

import numpy as np
import pandas as pd
import pytest

from dualview.errors import UserError
from dualview.evaluation.prediction_table import SCORES, PredictionTable, read_predictions
from dualview.views import Availability


@pytest.fixture
def predictions():
    generator = np.random.default_rng(0)
    logits = {name: 10 * generator.normal(size=(4, 2)) for name in SCORES}
    logits["joint"][1:] = np.nan
    return PredictionTable(
        findings=("Mass", "A/B"),
        study_ids=np.array(["007", "1", "2", "3"], object),
        patient_ids=np.array(["01", "01", "x", "y"], object),
        availability=np.array([0, 1, 2, 1], np.int8),
        evaluated=np.array([True, True, True, False]),
        labels=np.array([[1, 0], [0, 1], [1, 1], [0, 0]], np.float32),
        label_mask=np.array([[1, 1], [1, 0], [0, 1], [1, 1]], bool),
        logits=logits,
        attributes={"sex": np.array(["F", "M", "", "F"], object)},
    )


def test_written_and_read_is_the_same(predictions, tmp_path):
    predictions.write(tmp_path / "p.parquet")
    read = read_predictions(tmp_path / "p.parquet")
    assert read.findings == predictions.findings
    for name in ("study_ids", "patient_ids", "evaluated", "label_mask"):
        assert np.array_equal(getattr(read, name), getattr(predictions, name)), name
    assert np.array_equal(read.availability[:3], predictions.availability[:3])
    assert np.array_equal(read.labels[read.label_mask], predictions.labels[read.label_mask])
    for name in SCORES:
        assert np.array_equal(read.logits[name], predictions.logits[name], equal_nan=True), name
    assert read.attributes["sex"].tolist() == ["F", "M", "", "F"]


def test_a_file_of_probabilities_is_read_as_the_logits_that_they_came_from(predictions, tmp_path):
    """As earlier versions wrote it; beyond the last digit of a probability a logit is the largest that it tells."""
    predictions.logits["pa"][0] = [40, -800]
    predictions.write(tmp_path / "new.parquet")
    frame = pd.read_parquet(tmp_path / "new.parquet")
    for column in [column for column in frame.columns if column.endswith("_logit")]:
        frame[column.removesuffix("_logit")] = 1 / (1 + np.exp(-frame.pop(column)))
    frame.to_parquet(tmp_path / "old.parquet")
    read = read_predictions(tmp_path / "old.parquet")
    assert read.logits["pa"][0] == pytest.approx([36.7, -690.8], abs=0.1)
    predictions.logits["pa"][0] = read.logits["pa"][0]
    for name in SCORES:
        np.testing.assert_allclose(read.logits[name], predictions.logits[name], rtol=1e-6, err_msg=name)
    assert np.isnan(read.logits["joint"][1:]).all()


def test_what_is_positive_is_known(predictions):
    assert predictions.positive.tolist() == [[True, False], [False, False], [False, True], [False, False]]


def test_a_write_that_fails_leaves_the_file_as_it_was(predictions, tmp_path, monkeypatch):
    predictions.write(tmp_path / "p.parquet")
    before = (tmp_path / "p.parquet").read_bytes()

    def fail(_frame, path, **_settings):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", fail)
    with pytest.raises(OSError, match="disk full"):
        predictions.write(tmp_path / "p.parquet")
    assert (tmp_path / "p.parquet").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["p.parquet"]


def test_unknown_labels_and_unseen_studies_are_null_in_the_file(predictions, tmp_path):
    predictions.write(tmp_path / "p.parquet")
    frame = pd.read_parquet(tmp_path / "p.parquet")
    assert frame["A/B/label"].isna().tolist() == [False, True, False, False]
    assert frame["availability"].fillna("null").tolist() == ["both", "pa_only", "lateral_only", "null"]
    assert frame["Mass/joint_logit"].isna().tolist() == [False, True, True, True]


def test_the_views_by_which_a_score_judges(predictions):
    assert predictions.judged_by("route").tolist() == [0, 1, 2, 1]
    assert set(predictions.judged_by("lateral_hidden")) == {Availability.PA_ONLY}
    assert set(predictions.judged_by("pa_hidden")) == {Availability.LATERAL_ONLY}


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_predictions(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("no")
    with pytest.raises(UserError, match="no parquet file"):
        read_predictions(tmp_path / "text.parquet")
    pd.DataFrame({"study": ["1"]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(UserError, match="holds no predictions"):
        read_predictions(tmp_path / "other.parquet")
