"""The file of predictions gives back what was written."""

import numpy as np
import pandas as pd
import pytest

from dualview.errors import UserError
from dualview.evaluation.prediction_table import SCORES, Predictions, read_predictions
from dualview.views import Availability


@pytest.fixture
def predictions():
    generator = np.random.default_rng(0)
    scores = {name: generator.random((4, 2)) for name in SCORES}
    scores["joint"][1:] = np.nan
    return Predictions(
        findings=("Mass", "A/B"),
        study_ids=np.array(["007", "1", "2", "3"], object),
        patient_ids=np.array(["01", "01", "x", "y"], object),
        availability=np.array([0, 1, 2, 1], np.int8),
        evaluated=np.array([True, True, True, False]),
        labels=np.array([[1, 0], [0, 1], [1, 1], [0, 0]], np.float32),
        label_mask=np.array([[1, 1], [1, 0], [0, 1], [1, 1]], bool),
        scores=scores,
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
        assert np.array_equal(read.scores[name], predictions.scores[name], equal_nan=True), name
    assert read.attributes["sex"].tolist() == ["F", "M", "", "F"]


def test_unknown_labels_and_unseen_studies_are_null_in_the_file(predictions, tmp_path):
    predictions.write(tmp_path / "p.parquet")
    frame = pd.read_parquet(tmp_path / "p.parquet")
    assert frame["A/B/label"].isna().tolist() == [False, True, False, False]
    assert frame["availability"].fillna("null").tolist() == ["both", "pa_only", "lateral_only", "null"]
    assert frame["Mass/joint"].isna().tolist() == [False, True, True, True]


def test_the_views_by_which_a_score_judges(predictions):
    assert predictions.route_of("route").tolist() == [0, 1, 2, 1]
    assert set(predictions.route_of("lateral_hidden")) == {Availability.PA_ONLY}
    assert set(predictions.route_of("pa_hidden")) == {Availability.LATERAL_ONLY}


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_predictions(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("no")
    with pytest.raises(UserError, match="no parquet file"):
        read_predictions(tmp_path / "text.parquet")
    pd.DataFrame({"study": ["1"]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(UserError, match="holds no predictions"):
        read_predictions(tmp_path / "other.parquet")
