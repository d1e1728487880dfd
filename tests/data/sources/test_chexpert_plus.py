"""CheXpert Plus from small tables."""

import json

import pandas as pd
import pytest

from dualview.config import DataConfig
from dualview.data.load import load_data
from dualview.data.sources.readers import read_source
from dualview.data.sources.vocabularies import CHEXPERT
from dualview.errors import UserError
from dualview.views import View


def read(folder, **config):
    data = DataConfig.model_validate({"source": "chexpert_plus", "root": folder, "check_files": False, **config})
    return read_source(data, data=data, seed=0)


IMAGES = [  # path, split, Edema in the impression, in the report
    ("train/patient00001/study1/view1_frontal.jpg", "train", 1.0, 0.0),
    ("train/patient00001/study1/view2_lateral.jpg", "train", 1.0, 0.0),
    ("train/patient00002/study3/view1_frontal.jpg", "train", -1.0, 1.0),
    ("valid/patient00003/study1/view1_frontal.jpg", "valid", None, 1.0),
]


@pytest.fixture
def folder(tmp_path):
    rows = [
        {"path_to_image": path, "path_to_dcm": path.replace("jpg", "dcm"), "frontal_lateral": "", "ap_pa": "AP",
         "deid_patient_id": path.split("/")[1], "age": 60.0, "sex": "Male", "race": "White",
         "insurance_type": "Medicare", "report": "Two lines,\nand a \"quote\"", "split": split}
        for path, split, _, _ in IMAGES
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "df_chexpert_plus_240401.csv", index=False)
    (tmp_path / "chexbert_labels").mkdir()
    for section, at in (("impression", 2), ("report", 3)):
        records = [{"path_to_image": image[0], **dict.fromkeys(CHEXPERT), "Edema": image[at]} for image in IMAGES]
        text = "".join(json.dumps(record) + "\n" for record in records)
        (tmp_path / f"chexbert_labels/{section}_fixed.json").write_text(text)
    return tmp_path


def test_labels_are_those_of_the_section_and_people_are_known(folder):
    table = read(folder, findings=["Edema", "Fracture"]).table
    assert table.study_ids.tolist() == ["patient00001/study1", "patient00002/study3", "patient00003/study1"]
    assert table.num_images.tolist() == [[1, 1], [1, 0], [1, 0]]
    assert table.labels[:, 0].tolist() == [1, 0, 0]
    assert table.label_mask[:, 0].tolist() == [True, False, False]
    assert table.uncertain[:, 0].tolist() == [False, True, False]
    assert table.split.tolist() == ["train", "train", "val"]
    of_report = read(folder, findings=["Edema"], labelled_section="report").table
    assert of_report.labels[:, 0].tolist() == [0, 1, 1] and of_report.label_mask.all()
    assert {name: set(values) for name, values in table.attributes.items() if name != "official_split"} == {
        "sex": {"M"}, "age": {"60"}, "projection": {"AP"}, "race": {"White"}, "insurance": {"Medicare"}
    }  # fmt: skip
    with pytest.raises(UserError, match=r"looked for .*findings_fixed.json.*data.labelled_section"):
        read(folder, labelled_section="findings")


@pytest.mark.parametrize(
    ("within", "extension"), [("", "jpg"), ("PNG/", "png"), ("PNG/PNG/", "png"), ("CheXpert/", "jpg")]
)
def test_images_are_found_where_they_were_unpacked(folder, within, extension):
    paths = [within + path.replace("jpg", extension) for path, *_ in IMAGES]
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    for looks in (True, False):
        table = read(folder, check_files=looks).table
        assert table.images[View.PA].tolist() == [(paths[0],), (paths[2],), (paths[3],)]
        assert table.images[View.LATERAL].tolist() == [(paths[1],), (), ()]
    (folder / paths[2]).unlink()
    with pytest.raises(UserError, match=r"240401.csv:\d+: no image file"):
        read(folder, check_files=True)


def test_labels_without_images_and_images_without_labels_are_counted(folder):
    file = folder / "chexbert_labels/impression_fixed.json"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:3], lines[3].replace("patient00003", "patient00009")]))
    remarks = read(folder, unmentioned="negative").remarks
    assert [(remark.count, remark.kind) for remark in remarks] == [
        (1, "image has no row in the labels of impression"), (1, "row of labels whose image the table does not have")
    ]  # fmt: skip
    table = read(folder, unmentioned="negative").table
    assert table.label_mask.any(axis=1).tolist() == [True, True, False]  # not labelled is never negative


def test_broken_labels_are_one_line_each(folder):
    file = folder / "chexbert_labels/impression_fixed.json"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0].replace("1.0", "7"), lines[1], "{", lines[1]]))
    with pytest.raises(UserError, match=r"json:1: Edema is '7'(.|\n)*json:3: is no JSON object(.|\n)*json:4: .*stands"):
        read(folder)


def test_valid_is_the_test_set_where_val_is_drawn(folder):
    frame = pd.read_csv(folder / "df_chexpert_plus_240401.csv")
    more = [frame[:1].assign(path_to_image=f"train/patient1{n:04}/study1/view1_frontal.jpg",
                             deid_patient_id=f"patient1{n:04}") for n in range(18)]  # fmt: skip
    pd.concat([frame, *more]).to_csv(folder / "df_chexpert_plus_240401.csv", index=False)
    config = DataConfig(source="chexpert_plus", root=folder, check_files=False, split={"official": False})
    data = load_data(config, seed=0)
    assert [len(split) for split in data.splits.values()] == [15, 5, 1]
    assert data.test.attributes["official_split"].tolist() == ["valid"]
