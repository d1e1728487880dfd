"""One patient written in two ways, one file reached by two paths, one name for two things: said, with both lines."""

import os

import pandas as pd
import pytest
from PIL import Image

from dualview.config import DataConfig, SourceConfig
from dualview.data.load import load_data
from dualview.data.sources.identifiers import form_of
from dualview.data.sources.readers import read_source
from dualview.errors import UserError
from dualview.inference.studies_csv import RequestCsv
from dualview.views import View
from tests.data.sources.test_public_sources import TABLES, needs_tables

HEADER = "patient,study,view,path,A"


@pytest.fixture
def read(tmp_path):
    def read(*rows: str, header: str = HEADER, **data):
        (tmp_path / "images.csv").write_text("\n".join([header, *rows]), encoding="utf-8")
        config = {"source": "csv", "csv": tmp_path / "images.csv", "findings": ["A"], "check_files": False, **data}
        config = DataConfig.model_validate(config)
        return read_source(config, data=config, seed=0)

    return read


ALIKE = [
    ("1001", "1001.0"), ("1001", "01001"), ("1001", "1,001"), ("m\u00fcller", "mu\u0308ller"), ("Abc-1", "aBC-1"),
    ("a b", "ab"), ("a b", "a\u00a0b"), ("a\u200bb", "ab"), ("P007", "P7"), ("\uff11\uff12", "12"), ("'12", "12"),
    ("p-1", "p\u20131"), ("stra\u00dfe", "STRASSE"), ("hosp/0012", "hosp/12"), ("a\u00adb", "ab"),
]  # fmt: skip
DIFFERENT = [
    ("1001", "10010"), ("1.2.840", "1.2.84"), ("331a", "331b"), ("P1", "P10"), ("a-b", "a_b"), ("10.5", "105"),
    ("0", "00a"), ("1e5", "100000"), ("s1/2", "s12"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_what_differs_only_in_form_is_an_error_with_both_lines(read, one, other):
    one, other = (f'"{text}"' if "," in text else text for text in (one, other))
    rows = [f"{one},s1,PA,a.png,1", "q,s1,PA,b.png,0", f"{other},s2,L,c.png,1"]
    with pytest.raises(UserError, match=r"images.csv:4: patient .* differs only in form from .* in line 2; .*exact"):
        read(*rows)
    assert read(*rows, identifiers="exact").table.patient_ids.tolist() == [one.strip('"'), "q", other.strip('"')]
    with pytest.raises(UserError, match=r":4: study .* differs only in form from .* of the same patient in line 2"):
        read(f"p,{one},PA,a.png,1", "q,s1,PA,b.png,0", f"p,{other},L,c.png,1")
    assert len(read(f"p,{one},PA,a.png,1", f"q,{other},L,c.png,1").table) == 2  # studies of two patients


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_what_differs_in_more_than_form_is_two_patients(read, one, other):
    assert form_of(one) != form_of(other)
    assert read(f"{one},s1,PA,a.png,1", f"{other},s2,L,c.png,1").table.patient_ids.tolist() == [one, other]


def test_many_of_a_kind_are_one_line(read):
    rows = [f"{n},s{n},PA,{n}.png,1" for n in range(24)] + [f"{n}.0,s{n},L,{n}l.png,1" for n in range(24)]
    with pytest.raises(UserError, match="24 problem") as caught:
        read(*rows)
    assert len(str(caught.value).splitlines()) == 2 and len(caught.value.details) == 24


@pytest.mark.parametrize("name", ["nan", "None", "NULL", "N/A", "#N/A", "#REF!", "-", "?", "unknown", "NaT"])
def test_words_for_nothing_are_no_identifiers(read, name):
    for row, column in ((f"{name},s1,PA,a.png,1", "patient"), (f"p,{name},PA,a.png,1", "study")):
        with pytest.raises(UserError, match=rf":2: {column} is '.*', which stands for nothing \(image a.png\)"):
            read(row)
        assert len(read(row, identifiers="exact").table) == 1


@pytest.mark.parametrize("number", ["2.16840E+44", "1E+05", '"1,23E+05"', "2.1684e44", "1.0e+02"])
def test_numbers_that_excel_has_rounded_are_no_identifiers(read, number):
    with pytest.raises(UserError, match=r":2: patient is .* a spreadsheet has rounded .* with the column as text"):
        read(f"{number},s1,PA,a.png,1")


@needs_tables
@pytest.mark.parametrize("table", ["Data_Entry_2017_v2020.csv.gz", "vinbigdata-train.csv.gz"])
def test_no_two_real_identifiers_are_alike(table):
    """PadChest, CheXpert and Open-i are read whole in test_public_sources.py; these are further real identifiers."""
    cells = pd.read_csv(TABLES / table, dtype=str).iloc[:, 0].drop_duplicates()
    assert not cells.map(form_of).duplicated().any()


def test_a_split_file_with_other_forms_says_so(read, tmp_path):
    (tmp_path / "split.csv").write_text("patient,split\n1,train\n02,val\n3.0,test\n")
    rows = [f"{n},s{n},PA,{n}.png,1" for n in (1, 2, 3)]
    read(*rows)
    config = DataConfig(source="csv", csv=tmp_path / "images.csv", findings={"A": ["A"]}, check_files=False,
                        split={"file": tmp_path / "split.csv"})  # fmt: skip
    with pytest.raises(UserError) as caught:
        load_data(config, seed=0)
    text = str(caught.value)
    assert "split.csv: 2 patient(s) of the data are not in it" in text
    assert "split.csv:3: patient '2' of the data is in it as '02'" in text
    assert "split.csv:4: patient '3' of the data is in it as '3.0'" in text


# -- files --


@pytest.fixture
def images(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        Image.new("L", (20, 20)).save(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("other", ["./a.png", "x/../a.png", ".//a.png", "{root}/a.png", "link.png", "folder/a.png"])
def test_one_file_by_two_paths_is_listed_twice(read, images, other):
    (images / "x").mkdir()
    (images / "link.png").symlink_to("a.png")
    (images / "folder").symlink_to(images, target_is_directory=True)
    rows = ["p,1,PA,a.png,1", "p,1,L,b.png,1", f"q,2,PA,{other.format(root=images)},0"]
    with pytest.raises(UserError, match=r":4: image .* is the same file as a.png in line 2; list each image once"):
        read(*rows, root=images, check_files=True)
    if "/" in other and "folder" not in other:  # the paths alone show it
        with pytest.raises(UserError, match=r":4: image .* is the same file as a.png in line 2"):
            read(*rows, root=images)


def test_hard_links_are_counted(read, images):
    os.link(images / "a.png", images / "hard.png")
    source = read("p,1,PA,a.png,1", "q,2,PA,hard.png,0", "r,3,PA,b.png,0", root=images, check_files=True)
    assert [(remark.count, remark.example) for remark in source.remarks] == [(1, "hard.png")]
    assert len(source.table) == 3


# -- names of columns --


NAMES = ["line", "path", "patient", "view", "split", "date", "labelled_by", "index", "frame", "rank"]


@pytest.mark.parametrize("name", NAMES)
def test_a_finding_and_an_attribute_may_have_the_name_of_any_inner_column(read, name):
    """The table's own columns are called otherwise, so that the name is free."""
    columns = {"patient": "who", "study": "exam", "view": "side", "path": "file"}
    table = read(
        "p,1,PA,a.png,1,x,train", "q,2,L,b.png,0,y,val", "r,3,PA,c.png,,z,test",
        header=f"who,exam,side,file,{name},{name}2,part",
        columns=columns, findings={"Finding": [name]}, attributes=[name], split={"column": "part"},
    ).table  # fmt: skip
    assert table.patient_ids.tolist() == ["p", "q", "r"]
    assert table.images[View.PA].tolist() == [("a.png",), (), ("c.png",)]
    assert table.label_mask[:, 0].tolist() == [True, True, False] and table.labels[0, 0] == 1
    assert table.attributes[name].tolist() == ["1", "0", ""]
    assert table.split.tolist() == ["train", "val", "test"]


@pytest.mark.parametrize("name", ["study", "views", "reason", "patient"])
def test_a_finding_cannot_be_called_like_another_column_of_the_answers(name):
    with pytest.raises(ValueError, match=f"finding '{name}' has the name of another column"):
        SourceConfig(source="csv", root="/x", findings={name: ["A"]})
    with pytest.raises(ValueError, match="finding 'A_decision' has the name"):
        SourceConfig(source="csv", root="/x", findings={"A": ["A"], "A_decision": ["B"]})


# -- prediction --


def test_studies_to_predict_that_differ_only_in_form_are_refused(tmp_path):
    file = tmp_path / "t.csv"
    rows = [f"p,{n},PA,{n}.png" for n in range(1, 3000)]
    file.write_text("\n".join(["patient,study,view,path", *rows, "P,0007,L,l.png"]))
    with pytest.raises(UserError, match=r":3001: study 'P/0007' differs only in form from 'p/7' in line 8"):
        RequestCsv(file, source=SourceConfig()).check()
    assert RequestCsv(file, source=SourceConfig(identifiers="exact")).check() == 3000
    file.write_text("\n".join(["patient,study,view,path", "p,nan,PA,1.png", "q,nan,L,2.png"]))
    with pytest.raises(UserError, match=r":2: study is 'nan', which stands for nothing"):
        RequestCsv(file, source=SourceConfig()).check()
    file.write_text("study,pa,lateral\n1,a.png,\n01,b.png,\n")  # a row is a study, whatever it is called
    assert RequestCsv(file, source=SourceConfig()).check() == 2
