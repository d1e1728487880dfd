"""NIH ChestX-ray14 and VinDr-CXR: real tables of torchxrayvision's wheel counted here with pandas, and small ones."""

import importlib.util
from pathlib import Path

import pandas as pd
import pytest

from dualview.config import DataConfig
from dualview.data.load import load_data
from dualview.data.sources.readers import read_source
from dualview.data.sources.vocabularies import NIH, VINDR, VINDR_BOXES, XRV
from dualview.errors import UserError
from dualview.views import View

spec = importlib.util.find_spec("torchxrayvision")
TABLES = Path(spec.origin).parent / "data" if spec and spec.origin else Path("/nowhere")
needs_tables = pytest.mark.skipif(not TABLES.is_dir(), reason="torchxrayvision, whose wheel has the tables, is absent")


def config(**settings):
    return DataConfig.model_validate({"check_files": False, **settings})


def read(**settings):
    data = config(**settings)
    return read_source(data, data=data, seed=0)


# -- NIH ---------------------------------------------------------------------------------------------


@needs_tables
def test_nih_counts_are_those_of_the_real_table():
    file = TABLES / "Data_Entry_2017_v2020.csv.gz"
    rows = pd.read_csv(file)
    source = read(source="nih", csv=file)
    table = source.table
    assert len(table) == len(rows) == 112120 and source.dropped.empty
    assert len(set(table.patient_ids)) == rows["Patient ID"].nunique() == 30805
    assert table.findings == NIH
    assert table.label_mask.all()
    for k, finding in enumerate(NIH):
        expected = rows["Finding Labels"].str.split("|").map(lambda names, name=finding: name in names)
        assert table.labels[:, k].sum() == expected.sum(), finding
    assert (table.attributes["projection"] == "PA").sum() == (rows["View Position"] == "PA").sum() == 67310


NIH_ROW = {
    "Image Index": "00000001_000.png", "Finding Labels": "Mass|Nodule", "Follow-up #": 0, "Patient ID": 1,
    "Patient Age": "057Y", "Patient Gender": "F", "View Position": "PA",
}  # fmt: skip


def nih_folder(tmp_path, *changes, lists=None):
    pd.DataFrame([NIH_ROW | change for change in changes]).to_csv(tmp_path / "Data_Entry_2017.csv", index=False)
    for name, images in (lists or {}).items():
        (tmp_path / name).write_text("\n".join(images) + "\n")
    return tmp_path


def nih_patients(number, **change):
    return [
        {"Image Index": f"{n:08}_000.png", "Patient ID": n, "Finding Labels": "Mass" if n % 2 else "No Finding"}
        | change
        for n in range(number)
    ]


def test_nih_images_are_found_in_either_layout(tmp_path):
    folder = nih_folder(tmp_path, {}, {"Image Index": "00000002_000.png", "Patient ID": 2, "View Position": "AP"})
    for place in ("images_001/images/00000001_000.png", "images_012/images/00000002_000.png"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).touch()
    source = read(source="nih", root=folder, check_files=True)
    assert source.table.images[View.PA].tolist() == [
        ("images_001/images/00000001_000.png",), ("images_012/images/00000002_000.png",)
    ]  # fmt: skip
    assert source.table.attributes["age"].tolist() == ["57", "57"]
    assert source.table.attributes["sex"].tolist() == ["F", "F"]
    only_pa = read(source="nih", root=folder, frontal_views=["PA"])
    assert only_pa.dropped["reason"].tolist() == ["view is AP"]
    (tmp_path / "images_012/images/00000002_000.png").unlink()
    with pytest.raises(UserError, match=r"csv:3: no image file .*images/00000002_000.png"):
        read(source="nih", root=folder, check_files=True)


def test_nih_official_lists_leave_the_test_patients_and_val_is_drawn(tmp_path):
    rows = nih_patients(50)
    names = [row["Image Index"] for row in rows]
    folder = nih_folder(tmp_path, *rows, lists={"train_val_list.txt": names[:40], "test_list.txt": names[40:49]})
    for official in (True, False):
        data = load_data(config(source="nih", root=folder, split={"official": official}), seed=0)
        assert {len(data.train), len(data.val)} == {30, 10}
        assert sorted(data.test.study_ids) == [f"{n:08}_000" for n in range(40, 49)]
        dropped = data.sources[0].dropped
        assert dropped["reason"].tolist() == ["image is in neither list of the official split"]
    (tmp_path / "test_list.txt").unlink()
    with pytest.raises(UserError, match=r"train_val_list.txt is there and test_list.txt is not"):
        read(source="nih", root=folder)
    (tmp_path / "train_val_list.txt").unlink()
    assert len(load_data(config(source="nih", root=folder), seed=0).test) == 10


def test_nih_labels_that_are_none_are_named_with_their_lines(tmp_path):
    folder = nih_folder(tmp_path, {}, {"Image Index": "b.png", "Finding Labels": "Mas"},
                        {"Image Index": "c.png", "Finding Labels": ""},
                        {"Image Index": "d.png", "Finding Labels": "No Finding|Mass"})  # fmt: skip
    with pytest.raises(UserError, match=r":3: .*\['Mas'\](.|\n)*:4: Finding Labels is blank(.|\n)*:5: .*No Finding"):
        read(source="nih", root=folder)


def test_an_age_of_414_years_is_not_known(tmp_path):
    source = read(source="nih", root=nih_folder(tmp_path, {"Patient Age": "414"}))
    assert source.table.attributes["age"].tolist() == [""]
    assert [(remark.count, remark.kind) for remark in source.remarks] == [
        (1, "age is below 0 or above 120 and is taken as not known")
    ]


# -- VinDr-CXR ---------------------------------------------------------------------------------------


@needs_tables
def test_vindr_majorities_are_those_of_the_real_boxes():
    file = TABLES / "vinbigdata-train.csv.gz"
    boxes = pd.read_csv(file)
    table = read(source="vindr", csv=file).table
    assert len(table) == boxes["image_id"].nunique() == 15000
    assert table.findings == tuple(sorted(set(VINDR_BOXES) - {"No finding"}))
    for k, finding in enumerate(table.findings):
        readers = boxes[boxes["class_name"] == finding].groupby("image_id")["rad_id"].nunique()
        assert table.labels[:, k].sum() == (readers >= 2).sum(), finding
    assert table.label_mask.all()
    xrv = read(source="vindr", csv=file, vocabulary="xrv").table.with_findings(XRV)
    is_known = dict(zip(XRV, xrv.label_mask.any(axis=0), strict=True))
    assert is_known["Effusion"] and is_known["Lung Lesion"]
    # Nobody drew boxes of these, and nobody said which of nodule and mass it is.
    assert not any(
        is_known[name] for name in ("Edema", "Emphysema", "Fracture", "Pneumonia", "Nodule", "Mass", "Hernia")
    )


def vindr_row(image, reader, *findings):
    return {"image_id": image, "rad_id": reader, **{name: int(name in findings) for name in VINDR}}


def vindr_folder(tmp_path, train, test=()):
    (tmp_path / "annotations").mkdir(exist_ok=True)
    pd.DataFrame(train).to_csv(tmp_path / "annotations/image_labels_train.csv", index=False)
    if test:
        frame = pd.DataFrame(test).drop(columns="rad_id").rename(columns={"Other diseases": "Other disease"})
        frame.to_csv(tmp_path / "annotations/image_labels_test.csv", index=False)
    return tmp_path


def three(image, *sets):
    return [vindr_row(image, f"R{n}", *findings) for n, findings in enumerate(sets, start=1)]


def test_vindr_takes_what_two_of_three_readers_say(tmp_path):
    folder = vindr_folder(
        tmp_path,
        [*three("a", ["COPD", "Rib fracture"], ["COPD"], ["Tuberculosis"]),
         *three("b", ["COPD"], ["Tuberculosis"], ["No finding"]), *three("c", *[["No finding"]] * 3),
         *three("d", *[["Rib fracture", "Tuberculosis"]] * 3)],
    )  # fmt: skip
    table = read(source="vindr", root=folder).table
    assert table.findings == ("COPD", "Rib fracture", "Tuberculosis")
    assert table.labels.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 1, 1]]
    assert table.label_mask.all()  # three who disagree have not left an image unlabelled
    fracture = read(source="vindr", root=folder, vocabulary="xrv", findings=["Fracture", "Edema"]).table
    assert fracture.labels.tolist() == [[0, 0], [0, 0], [0, 0], [1, 0]]


def test_vindr_official_test_and_files_of_either_kind(tmp_path):
    train = [row for n in range(8) for row in three(f"t{n}", ["COPD"] if n % 2 else [], ["COPD"] if n % 2 else [], [])]
    folder = vindr_folder(tmp_path, train, [vindr_row("x", "", "COPD", "Other diseases")])
    for name in (*(f"train/t{n}.dicom" for n in range(7)), "train/t7.png", "test/x.dicom"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    data = load_data(config(source="vindr", root=folder, check_files=True, findings=["COPD"]), seed=0)
    assert [len(split) for split in data.splits.values()] == [6, 2, 1]
    assert data.test.images[View.PA].tolist() == [("test/x.dicom",)]
    assert data.test.labels.tolist() == [[1]]
    trained = [path for table in (data.train, data.val) for (path,) in table.images[View.PA]]
    assert sorted(trained) == [*(f"train/t{n}.dicom" for n in range(7)), "train/t7.png"]


def test_vindr_wrong_cells_and_repeated_readers_are_named(tmp_path):
    rows = three("a", ["COPD"], [], [])
    rows[1]["COPD"] = 2
    rows[2]["rad_id"] = "R1"
    with pytest.raises(UserError, match=r":3: COPD is '2'(.|\n)*:4: image a has been read by this reader above"):
        read(source="vindr", root=vindr_folder(tmp_path, rows))
    with pytest.raises(UserError, match=r"has no column 'COPD'; is it VinDr-CXR's own table"):
        read(source="vindr", root=vindr_folder(tmp_path, [{k: v for k, v in rows[0].items() if k != "COPD"}]))
