"""Study tables from the generic CSV and from the covid-cxr folder."""

import os

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dualview.config import DataConfig
from dualview.data.sources import covid_cxr as covid_source
from dualview.data.sources import csv as csv_source
from dualview.data.sources.readers import read_source
from dualview.errors import UserError
from dualview.views import Availability, View

HEADER = "patient,study,view,path,A,B"


@pytest.fixture
def table(tmp_path):
    """Write rows as images.csv and read it, with an image for every path but those called missing."""

    def read(*rows: str, header: str = HEADER, **data):
        for row in rows:
            for cell in row.split(","):
                if cell.endswith(".png") and "missing" not in cell:
                    Image.new("L", (20, 20)).save(tmp_path / cell)
        (tmp_path / "images.csv").write_text("\n".join([header, *rows]) + "\n")
        config = {"source": "csv", "root": tmp_path, "csv": tmp_path / "images.csv", "findings": ["A", "B"], **data}
        config = DataConfig.model_validate(config)
        return csv_source.read(config, data=config, seed=0).table

    return read


def test_images_become_studies_by_patient_and_study(table):
    studies = table(
        "331a,1,PA,a.png,1,0",
        "331a,1,L,b.png,1,",
        "331b,1,LL,c.png,0,",
        "007,2,AP,d.png,,",
        "007,2,PA,e.png,,",
    )
    assert studies.patient_ids.tolist() == ["331a", "331b", "007"]
    assert studies.images[View.PA].tolist() == [("a.png",), (), ("d.png", "e.png")]
    assert studies.images[View.LATERAL].tolist() == [("b.png",), ("c.png",), ()]
    assert [Availability(kind).name for kind in studies.availability] == ["BOTH", "LATERAL_ONLY", "PA_ONLY"]
    assert studies.label_mask.tolist() == [[True, True], [True, False], [False, False]]
    assert studies.labels[0].tolist() == [1, 0]


def test_identifiers_stay_text(table):
    long = "216840111366964013076187734852011201090749220" + "001"
    studies = table(f"{long},1e5,PA,a.png,1,0", "1.0,E5,PA,b.png,0,1")
    assert studies.patient_ids.tolist() == [long, "1.0"]
    assert studies.study_ids.tolist() == ["1e5", "E5"]


def test_all_row_errors_come_at_once_with_file_and_line(table, tmp_path):
    with pytest.raises(UserError) as caught:
        table(
            "p1,1,PA,a.png,1,0",
            "p2,2,oblique,b.png,1,0",
            "p3,3,PA,missing.png,1,0",
            "p4,4,PA,,1,0",
            "p5,5,PA,e.png,2,-1",
            "p1,1,L,a.png,1,0",
            ",7,PA,g.png,1,0",
            "p1,1,L,h.png,0,0",
        )
    message = str(caught.value)
    file = tmp_path / "images.csv"
    for part in (
        "has 8 problem(s)",
        f"{file}:3: view is 'oblique'; known are ['PA', 'AP']",
        f"{file}:4: no image file",
        f"{file}:5: path is blank",
        f"{file}:6: A is '2'; allowed are 1, 0 and blank",
        f"{file}:6: B is '-1'",
        f"{file}:7: image a.png stands in line 2 already",
        f"{file}:8: patient is blank",
        f"{file}:9: A is 0, but 1 in line 2 of the same study",
    ):
        assert part in message, part


def test_files_that_are_there_and_cannot_be_read_have_a_reason_of_their_own(table, tmp_path):
    (tmp_path / "gone_missing.png").symlink_to("absent")
    os.mkfifo(tmp_path / "pipe_missing.png")
    (tmp_path / "lfs_missing.png").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    rows = [f"p{n},{n},PA,{name},1,0" for n, name in enumerate(("gone", "pipe", "lfs", "not"))]
    rows = [row.replace(",1,0", "_missing.png,1,0") for row in rows]
    with pytest.raises(UserError) as caught:
        table(*rows)
    for part in (
        "gone_missing.png is a link to a file that is not there",
        "pipe_missing.png is a FIFO, not a file",
        "lfs_missing.png is not fetched yet: it is a Git LFS pointer",
        f":5: no image file {tmp_path}/not_missing.png",
    ):
        assert part in str(caught.value), part
    left = table(*rows, "p5,5,PA,good.png,1,0", on_missing_file="drop")
    assert left.study_ids.tolist() == ["5"]


def test_ignored_views_are_left_out(table):
    studies = table("p,1,PA,a.png,1,0", "p,1,oblique,missing.png,1,0", ignored_views=["oblique"])
    assert studies.images[View.PA].tolist() == [("a.png",)]
    with pytest.raises(UserError, match="leaves no study"):
        table("p,1,oblique,a.png,1,0", ignored_views=["oblique"])


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        ((), {}, "has no rows"),
        (
            ("p,1,PA,a.png,1,0",),
            {"header": "patient,study,view,file,A,B"},
            "has no column 'path'; it has patient, study",
        ),
        (("p,1,PA,a.png,1,0",), {"findings": ["A", "C"]}, "has no column 'C'"),
        (("p,1,PA,a.png,1,0",), {"csv": "/nowhere.csv"}, "no such table: /nowhere.csv"),
        (("p,1,PA,a.png,1,0",), {"root": "/nowhere"}, "data.root /nowhere is not a folder"),
        (("p,1,PA,a.png,1,0,3,4",), {}, "more cells than the header"),
    ],
)
def test_unusable_tables_say_what_is_wrong(table, rows, changes, message):
    with pytest.raises(UserError, match=message):
        table(*rows, **changes)


def test_rows_longer_than_the_header_do_not_shift_cells(table):
    with pytest.raises(UserError, match="more cells than the header"):
        table("x,p,1,PA,a.png,1,0")
    with pytest.raises(UserError, match=r":3: row has more cells than the header \(9 instead of 6\)"):
        table("p,1,PA,a.png,1,0", "x,p,1,PA,b.png,1,0,1,1")


def test_a_byte_order_mark_and_blank_lines_do_not_matter(table):
    studies = table("p,1,PA,a.png,1,0", "", "q,2,PA,b.png,0,1", header="\ufeff" + HEADER)
    assert studies.patient_ids.tolist() == ["p", "q"]


def test_cohort_and_rare_findings_act_on_every_source(tmp_path):
    rows = ["p1,1,PA,a.png,1,1", "p1,1,L,b.png,1,1", "p2,2,PA,c.png,1,0", "p3,3,L,d.png,0,0"]
    (tmp_path / "images.csv").write_text("\n".join([HEADER, *rows]))
    config = {"source": "csv", "csv": tmp_path / "images.csv", "findings": ["A", "B"], "check_files": False,
              "cohort": {"availability": ["both", "pa_only"]}, "min_positive_patients": 2}  # fmt: skip
    data = DataConfig.model_validate(config)
    source = read_source(data, data=data, seed=0)
    assert source.table.study_ids.tolist() == ["1", "2"]
    assert source.table.findings == ("A",)
    assert source.dropped.to_dict("records") == [{"path": "d.png", "reason": "study is not both or pa_only"}]


def test_columns_and_findings_can_be_mapped(table):
    studies = table(
        "p,1,PA,a.png,1",
        header="pid,sid,proj,file,pneu",
        columns={"patient": "pid", "study": "sid", "view": "proj", "path": "file"},
        findings={"Pneumonia": ["pneu"]},
    )
    assert studies.findings == ("Pneumonia",)
    assert studies.labels.tolist() == [[1]]


def test_the_split_column_is_read_and_checked(table):
    rows = ["p1,1,PA,a.png,1,0,train", "p2,2,PA,b.png,1,0,validate", "p3,3,PA,c.png,1,0,test"]
    split = {"column": "split"}
    assert table(*rows, header=HEADER + ",split", split=split).split.tolist() == ["train", "val", "test"]
    with pytest.raises(UserError, match="split is 'holdout'"):
        table("p1,1,PA,a.png,1,0,holdout", header=HEADER + ",split", split=split)
    with pytest.raises(UserError, match="split is test, but the same patient is in train in line 2"):
        table(rows[0], "p1,9,PA,d.png,1,0,test", header=HEADER + ",split", split=split)


def test_covid_cxr_counts_are_those_of_its_readme(covid_cxr):
    """255 studies of 152 patients: 35 both, 219 frontal only, 1 lateral only; 11 with several frontals."""
    config = DataConfig(
        source="covid_cxr",
        root=covid_cxr,
        findings={"COVID-19": ["COVID-19"]},
        frontal_views=["PA", "AP", "AP Supine"],
        lateral_views=["L"],
    )
    table = covid_source.read(config, data=config, seed=0).table
    assert np.bincount(table.availability).tolist() == [35, 219, 1]
    assert len(set(table.patient_ids)) == 152
    assert sum(len(paths) > 1 for paths in table.images[View.PA]) == 11
    assert sum(map(len, table.images[View.PA])) + sum(map(len, table.images[View.LATERAL])) == 306
    rows = pd.read_csv(covid_cxr / "metadata.csv", dtype=str)
    with_covid = rows[rows["finding"].str.contains("COVID-19")].fillna("").groupby(["patientid", "offset"]).ngroups
    assert table.labels.sum() == with_covid
    assert table.label_mask.all()


def test_covid_cxr_refuses_diagnoses_that_are_not_there(covid_cxr):
    config = DataConfig(source="covid_cxr", root=covid_cxr, findings={"X": ["Covid"]})
    with pytest.raises(UserError, match=r"names 'Covid'.*COVID-19"):
        covid_source.read(config, data=config, seed=0)


def test_covid_cxr_needs_every_view_to_be_named(covid_cxr):
    config = DataConfig(source="covid_cxr", root=covid_cxr, findings={"X": ["COVID-19"]}, frontal_views=["PA", "AP"])
    with pytest.raises(UserError, match=r"metadata\.csv: 73 rows \(lines 32, 33, 34, \.\.\.\): view is 'AP Supine'"):
        covid_source.read(config, data=config, seed=0)
