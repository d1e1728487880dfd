"""Labels that match no study, and cells that are no list of labels."""

from pathlib import Path

import pandas as pd
import pytest

from dualview.config import SourceConfig
from dualview.data.remarks import Remark
from dualview.data.sources.label_join import NO_ROW, NO_STUDY, rows_of_labels
from dualview.errors import UserError
from tests.data.sources.test_public_sources import mimic_folder, padchest_folder, read


def join(studies, labelled, *, others=None, **source):
    names = [pd.Series(studies, dtype=object), *([pd.Series(others, dtype=object)] if others else [])]
    config = SourceConfig(source="dicom", root="/x", **source)
    return rows_of_labels(names, labelled=pd.Series(labelled, dtype=object), file=Path("labels.csv"), source=config)


def test_each_image_finds_the_row_of_its_study_and_the_rest_is_counted():
    row, remarks = join(["u1", "u1", "u2", "u3", "u4"], ["a3", "u2", "u1", "x"], others=["", "", "a2", "a3", ""])
    assert row.tolist() == [2, 2, 1, 0, -1]
    assert remarks == (Remark(NO_ROW, 1, "u4"), Remark(NO_STUDY, 1, "x"))
    assert join(["u1"], ["u1"])[1] == ()
    assert join(["u1"], ["", "u1", ""])[0].tolist() == [1]
    with pytest.raises(UserError, match=r"labels.csv: 1 rows are of a study that has a row already, such as 'u1'"):
        join(["u1", "u2"], ["u1", "u2", "u1"])


@pytest.mark.parametrize(("images", "table"), [("0012", "12"), ("A12", "a12"), ("12", "12.0"), ("a\u00e9", "ae\u0301")])
def test_studies_that_match_but_for_the_form_of_their_names_are_an_error(images, table):
    studies, labelled = ["u1", "u2", images], ["u1", "u2", table]
    with pytest.raises(UserError, match=r"labels.csv: 1 of the studies .* but for the form .*leading zeros.*=exact"):
        join(studies, labelled)
    with pytest.raises(UserError, match="but for the form"):
        join(["1.2", "1.3", "1.4"], labelled, others=studies)
    assert join(studies, labelled, identifiers="exact")[0].tolist() == [0, 1, -1]


def test_fewer_than_half_is_an_error_and_a_part_of_a_table_is_not():
    studies = [f"u{n}" for n in range(10)]
    for labelled in ([f"x{n}" for n in range(10)], studies[:4] + [f"x{n}" for n in range(6)]):
        with pytest.raises(UserError, match=r"10 rows have labels for [04] of 10 studies. The images say 'u.', "):
            join(studies, labelled)
    assert join(studies, studies[:5] + [f"x{n}" for n in range(5)])[1][0].count == 5
    assert join(studies, studies[:1])[1] == (Remark(NO_ROW, 9, "u1"),)  # labels of a part of the images
    assert join(studies[:1], studies)[1] == (Remark(NO_STUDY, 9, "u1"),)  # images of a part of the labels


def test_labels_of_mimic_and_openi_that_match_no_study_are_counted(tmp_path):
    folder = mimic_folder(tmp_path, compress=False)
    assert [(remark.kind, remark.count) for remark in read(source="mimic_cxr", root=folder).remarks] == [(NO_ROW, 2)]
    labels = folder / "mimic-cxr-2.1.0-chexpert.csv"
    labels.write_text(labels.read_text().replace(",5000000", ",00005000000"))
    with pytest.raises(UserError, match=r"chexpert.csv: 3 of the studies without labels .* form .*'50000001'"):
        read(source="mimic_cxr", root=folder)
    pd.DataFrame({"uid": [1, 2, 3], "filename": ["1.png", "2.png", "3.png"], "projection": ["Frontal"] * 3}).to_csv(
        tmp_path / "indiana_projections.csv", index=False
    )
    reports = pd.DataFrame({"uid": [1, 2, 9], "MeSH": ["Cardiomegaly", "normal", "normal"]})
    reports.to_csv(tmp_path / "indiana_reports.csv", index=False)
    kinds = {remark.kind: remark.count for remark in read(source="openi", root=tmp_path).remarks}
    assert kinds[NO_ROW] == kinds[NO_STUDY] == 1


def test_the_earliest_study_of_mimic_is_earliest_by_its_time(tmp_path):
    """StudyTime is a number: 21:30 is 213014.5, and 08:05 is 80556.875."""
    file = mimic_folder(tmp_path, compress=False) / "mimic-cxr-2.1.0-metadata.csv"
    table = pd.read_csv(file, dtype=str)
    table.loc[table["study_id"] == "50000002", "StudyTime"] = "80556.875"
    table.to_csv(file, index=False)
    source = read(
        source="mimic_cxr", root=tmp_path, cohort={"one_study_per_patient": True, "availability": ["pa_only"]}
    )
    first = source.table.patient_ids.tolist().index("10000032")
    assert source.table.study_ids[first] == "50000002"
    assert source.table.attributes["date"][first] == "21800506 080556.875"


@pytest.mark.parametrize(
    "cell", ["['nodule' 'pneumonia']", "nodule|pneumonia", "['nodule|pneumonia']", "['nodule', nan]", "nodule", "['a"]
)
def test_cells_of_padchest_that_are_no_list_of_labels_are_named(tmp_path, cell):
    folder = padchest_folder(tmp_path, {}, {"ImageID": "l.png", "StudyID": "s2", "Labels": cell})
    with pytest.raises(UserError, match=r":3: Labels is .*, not a list such as \['nodule', 'pneumonia'\]"):
        read(source="padchest", root=folder)
