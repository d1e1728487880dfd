"""Predictions of other software: what is read, and what is refused with its place."""

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest

from dualview.errors import UserError
from dualview.evaluation.prediction_columns import read_prediction_columns, read_train_prevalence

HEADER = "study,patient,availability,label:Nodule,probability:Nodule,probability_lateral_hidden:Nodule"
ROWS = ["007,331a,both,1,0.9,0.5", "8,331a,pa_only,0,1e-3,", "9,5,lateral_only,,+.25,", "10,6,both,0.0,1,0"]


def write(path, *rows, header=HEADER):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def refused(file, **options):
    with pytest.raises(UserError) as error:
        read_prediction_columns(file, **options)
    return str(error.value)


def test_what_is_written_is_what_is_read(tmp_path):
    read = read_prediction_columns(write(tmp_path / "a.csv", *ROWS))
    table = read.table
    assert read.remarks == ()
    assert list(table.study_ids) == ["007", "8", "9", "10"] and table.patient_ids[0] == "331a"
    assert list(table.availability) == [0, 1, 2, 0]
    assert list(table.label_mask[:, 0]) == [True, True, False, True]
    assert list(table.labels[:, 0]) == [1, 0, 0, 0]
    expected = [np.log(9), np.log(0.001 / 0.999), np.log(1 / 3)]
    np.testing.assert_allclose(table.logits["route"][:3, 0], expected, rtol=1e-12)
    assert np.isfinite(table.logits["route"]).all()  # 1 is as near to certain as numbers come
    assert table.logits["lateral_hidden"][0, 0] == 0 and np.isnan(table.logits["lateral_hidden"][1:3, 0]).all()
    assert np.isnan(table.logits["pa_hidden"]).all() and np.isnan(table.logits["joint"]).all()


def test_thresholds_of_each_study_are_read_and_must_be_probabilities(tmp_path):
    header = f"{HEADER},threshold:Nodule,threshold_lateral_hidden:Nodule"
    rows = [f"{row},{end}" for row, end in zip(ROWS, ("0.5,0.25", "0.6,", ",", "1,0"), strict=True)]
    thresholds = read_prediction_columns(write(tmp_path / "a.csv", *rows, header=header)).table.thresholds
    np.testing.assert_array_equal(thresholds["route"][:, 0], [0.5, 0.6, np.nan, 1])
    np.testing.assert_array_equal(thresholds["lateral_hidden"][:, 0], [0.25, np.nan, np.nan, 0])
    assert read_prediction_columns(write(tmp_path / "a.csv", *ROWS)).table.thresholds == {}
    wrong = write(tmp_path / "b.csv", *[*rows[:3], "10,6,both,0,1,0,1.5,high"], header=header)
    message = refused(wrong)
    assert ":5: threshold:Nodule is '1.5'; a threshold is a probability from 0 to 1, or blank" in message
    assert "threshold_lateral_hidden:Nodule is 'high'" in message


def test_types_of_parquet_that_mean_the_same(tmp_path):
    of_csv = read_prediction_columns(write(tmp_path / "a.csv", *ROWS)).table
    frame = pd.read_csv(tmp_path / "a.csv", dtype={"study": str, "patient": "category"})
    frame["label:Nodule"] = frame["label:Nodule"].map({1: True, 0: False}).astype("boolean")
    frame["availability"] = frame["availability"].astype("category")
    frame.to_parquet(tmp_path / "any-name.csv")  # the first bytes say what it is
    table = read_prediction_columns(tmp_path / "any-name.csv").table
    for name in ("study_ids", "patient_ids", "availability", "labels", "label_mask"):
        assert np.array_equal(getattr(table, name), getattr(of_csv, name)), name
    for score, logits in table.logits.items():
        assert np.array_equal(logits, of_csv.logits[score], equal_nan=True), score
    frame["study"] = [7, 8, 9, 10]
    frame.to_parquet(tmp_path / "numbers.parquet")
    assert list(read_prediction_columns(tmp_path / "numbers.parquet").table.study_ids) == ["7", "8", "9", "10"]
    frame["patient"] = [1.0, 2.0, np.nan, 3.0]
    frame.to_parquet(tmp_path / "rounded.parquet")
    assert "'patient' is stored as double, which does not keep" in refused(tmp_path / "rounded.parquet")


def test_every_kind_of_wrong_row_is_told_at_once_with_its_place(tmp_path):
    file = write(
        tmp_path / "bad.csv",
        "1,1,both,1,0.9,0.5",
        "1,1,both,1,0.9,0.5",
        ",1,both,1,0.9,0.5",
        "3,,both,1,0.9,0.5",
        "4,1,PA,1,0.9,",
        "5,1,both,-1,0.9,0.5",
        "6,1,both,yes,0.9,0.5",
        "7,1,both,1,1.2,0.5",
        "8,1,both,1,inf,0.5",
        '9,1,both,1,"0,9",0.5',
        "10,1,pa_only,1,0.9,0.5",
        "11,1,both,1,0.9,",
        "12,1,both,1,,0.5",
        "13,nan,both,1,0.9,0.5",
        "14,2.16840E+44,both,1,0.9,0.5",
        "15,1,both,1,0.9",
    )
    message = refused(file)
    for line, said in (
        (3, "study '1' is in line 2 already"),
        (4, "study is blank"),
        (5, "patient is blank"),
        (6, "availability is 'PA'; allowed are both, pa_only, lateral_only"),
        (7, "label:Nodule is '-1'; allowed are 1, 0, and blank"),
        (8, "label:Nodule is 'yes'"),
        (9, "probability:Nodule is '1.2'; a probability is from 0 to 1"),
        (10, "probability:Nodule is 'inf'; it must be a finite number"),
        (11, "probability:Nodule is '0,9'; it must be a finite number"),
        (12, "probability_lateral_hidden:Nodule is '0.5' of a study with one view"),
        (13, "probability_lateral_hidden:Nodule is blank where"),
        (14, "probability_lateral_hidden:Nodule is there where"),
        (15, "patient is 'nan', which stands for nothing"),
        (16, "patient is '2.16840E+44', a number that a spreadsheet has rounded"),
        (17, "row has fewer cells than the header"),
    ):
        assert f"{file}:{line}: {said}" in message, (line, message)
    frame = pd.read_csv(write(tmp_path / "good.csv", *ROWS), dtype={"study": str})
    frame.loc[2, "probability:Nodule"] = -0.5
    frame.to_parquet(tmp_path / "bad.parquet")
    assert f"{tmp_path}/bad.parquet:row 3: probability:Nodule is -0.5; a probability" in refused(
        tmp_path / "bad.parquet"
    )


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ("label:A,logit:A,probability:A", "finding A has logits and probabilities"),
        ("label:A,logit:A,probability_pa_hidden:A", "finding A has logits and probabilities"),
        ("label:A,logit:A,logit:B", "finding B has a score and no label"),
        ("label:A,logit:A,label:B", "finding B has a label and no score"),
        ("label:A,logit_pa_hidden:A", "with a view withheld and none of what is there; add logit:A"),
        ("label:A,logit:A,logits_pa_hidden:A", "column 'logits_pa_hidden:A' is not known"),
        ("label:A,logit:A,Label:B", "column 'Label:B' is not known"),
        ("label:,logit:", "names no finding behind the colon"),
        ("label A,logit A", "There is no finding"),
        ("label:A,label:A,logit:A", "2 columns are called 'label:A'"),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_columns_that_contradict_each_other(tmp_path, columns, said, kind):
    names = ["study", "patient", "availability", *columns.split(",")]
    cells = ["1", "1", "both", *["1"] * (len(names) - 3)]
    file = tmp_path / f"a.{kind}"
    if kind == "csv":
        write(file, ",".join(cells), header=",".join(names))
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_arrays([[cell] for cell in cells], names), file)
    assert said in refused(file)


@pytest.mark.parametrize("missing", ["study", "patient", "availability"])
def test_columns_that_every_file_must_have(tmp_path, missing):
    frame = pd.read_csv(write(tmp_path / "a.csv", *ROWS), dtype=str).drop(columns=missing)
    frame.to_csv(tmp_path / "b.csv", index=False)
    frame.to_parquet(tmp_path / "b.parquet")
    for file in (tmp_path / "b.csv", tmp_path / "b.parquet"):
        assert f"{file} has no column '{missing}'; it has " in refused(file)


def test_files_that_are_no_predictions(tmp_path):
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    assert "cannot be read" in refused(tmp_path / "cut.parquet")
    assert "no such table" in refused(tmp_path)
    assert "has no rows" in refused(write(tmp_path / "a.csv"))
    pd.DataFrame(columns=HEADER.split(",")).to_parquet(tmp_path / "a.parquet")
    assert "has no rows" in refused(tmp_path / "a.parquet")
    assert "no study has a score" in refused(write(tmp_path / "b.csv", "1,1,both,1,,", "2,2,both,0,,"))
    assert "has no column 'label:Mass'" in refused(write(tmp_path / "c.csv", *ROWS), findings=["Nodule", "Mass"])


def test_what_should_be_known_is_said(tmp_path):
    file = write(tmp_path / "a.csv", "1,P1,both,1,0.9,0.5,x", "2,P01,pa_only,0,,,x", header=f"{HEADER},note")
    read = read_prediction_columns(file)
    said = "\n".join(read.remarks)
    assert "1 column(s) are not used: note" in said
    assert "studies without a score, which take no part: Nodule 1 of 2" in said
    assert "1 patient(s) differ only in form from another, such as 'P01' from 'P1'" in said
    assert list(read.table.evaluated) == [True, False]


def test_logits_whose_probabilities_are_all_1_are_said_to_be_ties(tmp_path):
    header = "study,patient,availability,label:Nodule,logit:Nodule,label:Mass,logit:Mass"
    rows = ["1,1,both,1,80,1,-900", "2,2,both,0,60,0,29.5", "3,3,both,0,-50,1,45"]  # one large Mass ties with none
    said = "\n".join(read_prediction_columns(write(tmp_path / "a.csv", *rows, header=header)).remarks)
    assert "logits above 30 have the same probability" in said and "Nodule (up to 80)." in said and "Mass" not in said


@pytest.mark.parametrize("by", ["patient", "study", "note+patient"])
def test_identifiers_are_no_groups(tmp_path, by):
    file = write(tmp_path / "a.csv", "1,P1,both,1,0.9,0.5,x", "2,P2,pa_only,0,0.1,,x", header=f"{HEADER},note")
    assert "identifiers divide nobody into groups" in refused(file, by=[by])
    assert list(read_prediction_columns(file, by=["availability+note"]).table.attributes) == ["availability", "note"]


def test_shares_of_training(tmp_path):
    table = read_prediction_columns(write(tmp_path / "a.csv", *ROWS)).table
    header = "availability,prevalence:Nodule"
    file = write(tmp_path / "train.csv", "lateral_only,0.25", "both,0.5", "pa_only,", header=header)
    np.testing.assert_array_equal(read_train_prevalence(file, table=table), [[0.5], [np.nan], [0.25]])
    write(file, "both,1.5", "both,0.5", "PA,0.1", header=header)
    with pytest.raises(UserError) as error:
        read_train_prevalence(file, table=table)
    for said in (
        "train.csv:2: prevalence:Nodule is '1.5'; a share", "train.csv:3: both is in line 2 already",
        "train.csv:4: availability is 'PA'", "has no row for lateral_only, which there are studies of",
    ):  # fmt: skip
        assert said in str(error.value)
