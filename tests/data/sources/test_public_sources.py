"""PadChest, CheXpert and Open-i from the real tables in torchxrayvision's wheel; MIMIC-CXR and DICOM from small ones.

Expected numbers of PadChest and CheXpert are counted here from the tables with pandas, or stand in the facts of
the paper's cohort; torchxrayvision's tables are read where they are installed and never copied.
"""

import ast
import gzip
import importlib.util
import inspect
import json
import re
import runpy
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dualview.config import DataConfig, SourceConfig, load
from dualview.config.uncertain import UncertainPolicy
from dualview.config.uses import SOURCES
from dualview.data.counts import count_data
from dualview.data.load import load_data, with_policies
from dualview.data.sources.readers import read_source
from dualview.data.sources.vocabularies import CHEXPERT, XRV
from dualview.errors import UserError
from dualview.views import Availability, View
from tests.support import ROOT

CONFIGS = ROOT / "configs"
spec = importlib.util.find_spec("torchxrayvision")
TABLES = Path(spec.origin).parent / "data" if spec and spec.origin else Path("/nowhere")
PADCHEST = TABLES / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz"
needs_tables = pytest.mark.skipif(not TABLES.is_dir(), reason="torchxrayvision, whose wheel has the tables, is absent")


def read(**config):
    config = {"check_files": False, **config}
    data = DataConfig.model_validate(config)
    return read_source(data, data=data, seed=0)


def kinds(table) -> list[int]:
    return np.bincount(table.availability, minlength=3).tolist()


# -- PadChest ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def padchest():
    return read(source="padchest", csv=PADCHEST)


@needs_tables
def test_padchest_studies_by_availability(padchest):
    """47,653 / 42,768 / 1,330: studies of the real table whose projections hold PA and L, PA, L."""
    assert kinds(padchest.table) == [47653, 42768, 1330]
    assert (padchest.table.num_images > 1).sum(axis=0).tolist() == [1173, 524]
    counts = padchest.dropped["reason"].value_counts().to_dict()
    assert counts == {f"view is {view}": n for view, n in
                      {"AP_horizontal": 14346, "AP": 4559, "COSTAL": 630, "EXCLUDE": 11, "UNK": 8}.items()}  # fmt: skip
    assert padchest.num_images_read == 160861 == padchest.table.num_images.sum() + len(padchest.dropped)


@needs_tables
def test_padchest_labels_are_stripped_and_counted_by_whole_name(padchest):
    table = padchest.table
    rows = pd.read_csv(PADCHEST, usecols=["StudyID", "Projection", "Labels"], dtype=str).dropna()
    of_study = rows[rows["Projection"].isin(["PA", "L"])].drop_duplicates("StudyID")["Labels"].map(ast.literal_eval)
    for finding in ("nodule", "pleural effusion", "emphysema", "COPD signs"):
        expected = sum(finding in {name.strip() for name in names} for names in of_study)
        assert table.labels[:, table.findings.index(finding)].sum() == expected, finding
    assert not {"", "exclude", "suboptimal study", "unchanged", "normal"} & set(table.findings)
    assert len(table.findings) == 194 - 8


@needs_tables
def test_padchest_images_known_to_be_bad_are_those_of_torchxrayvision(padchest):
    datasets = (TABLES.parent / "datasets.py").read_text()
    listed = datasets[
        datasets.index('missing = ["') : datasets.index("unique_patients:", datasets.index('missing = ["'))
    ]
    assert set(padchest.known_bad) == set(re.findall(r'"(\d+_[^"]+\.png)"', listed))
    assert len(padchest.known_bad) == 21


@needs_tables
@pytest.mark.parametrize(("kinds_wanted", "expected"), [("[both]", [31614, 0]), ("[both, pa_only]", [31614, 26667])])
def test_the_cohort_of_the_paper(kinds_wanted, expected):
    config = load(
        CONFIGS / "padchest_paper.yaml",
        overrides=[f"data.csv={PADCHEST}", "data.check_files=false", f"data.cohort.availability={kinds_wanted}"],
    )
    data = load_data(config.data, seed=config.run.seed)
    table = data.sources[0].table
    assert kinds(table)[:2] == expected
    assert len(set(table.patient_ids)) == sum(expected)
    assert (table.num_images <= 1).all()
    assert len(table.findings) == 64
    if len(expected) and not expected[1]:
        assert [len(split) for split in data.splits.values()] == [18968, 6323, 6323]
        assert (table.labels.sum(axis=0) > 50).all()
        shares = np.stack([split.labels.mean(axis=0) for split in data.splits.values()])
        rare = table.labels.sum(axis=0) < 200
        assert np.abs(shares[1:, rare] / shares[0, rare] - 1).max() < 0.6  # the rarest finding has 53 patients


@needs_tables
def test_padchest_on_the_vocabulary_of_torchxrayvision():
    table = read(source="padchest", csv=PADCHEST, vocabulary="xrv").table
    assert set(table.findings) <= set(XRV)
    whole = table.with_findings(XRV)
    unlabelled = {"Lung Lesion", "Lung Opacity", "Enlarged Cardiomediastinum"}
    assert {name for k, name in enumerate(XRV) if not whole.label_mask[:, k].any()} == unlabelled


@needs_tables
def test_each_real_table_takes_less_than_10_s_and_2_gib():
    """One process reads all three, so that what they need together bounds what each needs."""
    files = {"padchest": PADCHEST, "chexpert": TABLES / "chexpert_train.csv.gz",
             "openi": TABLES / "nlmcxr_dicom_metadata.csv.gz"}  # fmt: skip
    program = f"""
import json, re, time
from pathlib import Path
from dualview.config import DataConfig
from dualview.data.sources.readers import read_source
seconds = {{}}
for source, file in {dict(zip(files, map(str, files.values()), strict=True))}.items():
    started = time.process_time()
    data = DataConfig(source=source, csv=file, check_files=False)
    read_source(data, data=data, seed=0)
    seconds[source] = time.process_time() - started
most_kib = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
print(json.dumps({{"seconds": seconds, "gib": most_kib / 2**20}}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    needed = json.loads(done.stdout)
    assert needed["seconds"].keys() == files.keys() and max(needed["seconds"].values()) < 10, needed
    assert needed["gib"] < 2, needed


PADCHEST_ROW = {
    "ImageID": "a.png", "ImageDir": "3", "StudyDate_DICOM": "20100101", "StudyID": "s1", "PatientID": "p1",
    "PatientBirth": "1950", "PatientSex_DICOM": "F", "Projection": "PA", "Pediatric": "No",
    "Manufacturer_DICOM": "X", "Rows_DICOM": "1", "Columns_DICOM": "1", "MethodLabel": "Physician",
    "Labels": "[' nodule', 'pneumonia']",
}  # fmt: skip


def padchest_folder(tmp_path, *changes):
    pd.DataFrame([PADCHEST_ROW | change for change in changes]).to_csv(
        tmp_path / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", index=False
    )
    return tmp_path


def test_padchest_images_are_found_where_they_are_and_known_bad_ones_left_out(tmp_path):
    bad = "216840111366964012819207061112010307142602253_04-014-084.png"
    folder = padchest_folder(tmp_path, {}, {"ImageID": bad, "StudyID": "s2"}, {"ImageID": "l.png", "Projection": "L"})
    (tmp_path / "5").mkdir()
    for place in ("5/a.png", "l.png"):  # neither in folder 3, where ImageDir says
        (tmp_path / place).touch()
    source = read(source="padchest", root=folder, check_files=True)
    assert source.table.images[View.PA].tolist() == [("5/a.png",)]
    assert source.table.images[View.LATERAL].tolist() == [("l.png",)]
    assert source.dropped["reason"].tolist() == ["known to be missing or truncated"]
    assert source.table.attributes["age"].tolist() == ["60"]


def test_padchest_images_are_those_of_the_table_where_others_have_their_names(tmp_path):
    folder = padchest_folder(tmp_path, {}, {"ImageID": "l.png", "Projection": "L"})
    for place in ("3", "masks", "small"):
        (tmp_path / place).mkdir()
    for place in ("3/a.png", "masks/a.png", "l.png", "small/l.png"):
        (tmp_path / place).touch()
    table = read(source="padchest", root=folder, check_files=True).table
    assert [images.tolist() for images in table.images] == [[("3/a.png",)], [("l.png",)]]
    (tmp_path / "3/a.png").rename(tmp_path / "small/a.png")
    with pytest.raises(UserError, match=r":2: image 3/a.png is not in .* others: masks/a.png and small/a.png"):
        read(source="padchest", root=folder, check_files=True)


def test_padchest_labels_of_a_study_that_differ_are_named(tmp_path):
    folder = padchest_folder(tmp_path, {}, {"ImageID": "l.png", "Projection": "L", "Labels": "['nodule']"})
    with pytest.raises(UserError, match=r":3: Labels is \['nodule'\], but another for an image of the same study"):
        read(source="padchest", root=folder)


def test_missing_files_are_all_named_or_left_out(tmp_path):
    folder = padchest_folder(tmp_path, {}, {"ImageID": "l.png", "Projection": "L"})
    with pytest.raises(UserError, match=r"has 2 problem.*\n.*:2: no image file .*3/a.png\n.*:3: no image file"):
        read(source="padchest", root=folder, check_files=True)
    (tmp_path / "a.png").touch()
    source = read(source="padchest", root=folder, check_files=True, on_missing_file="drop")
    assert kinds(source.table) == [0, 1, 0]
    assert source.dropped["reason"].tolist() == ["no such file"]


# -- CheXpert ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chexpert():
    return read(source="chexpert", csv=TABLES / "chexpert_train.csv.gz")


@needs_tables
def test_chexpert_studies_and_uncertain_labels_are_those_of_the_table(chexpert):
    table = chexpert.table
    assert kinds(table) == [31413, 156212, 16]
    assert len(set(table.patient_ids)) == 64540
    rows = pd.read_csv(TABLES / "chexpert_train.csv.gz")
    images = table.num_images.sum(axis=1)
    assert images.sum() == len(rows) == 223414
    for k, finding in enumerate(CHEXPERT):
        assert images[table.uncertain[:, k]].sum() == (rows[finding] == -1).sum(), finding
        positive = table.label_mask[:, k] & (table.labels[:, k] == 1)
        assert images[positive].sum() == (rows[finding] == 1).sum(), finding
    assert images[table.uncertain[:, CHEXPERT.index("Atelectasis")]].sum() == 33739
    assert images[table.uncertain[:, CHEXPERT.index("Consolidation")]].sum() == 27742


@needs_tables
def test_dividing_by_known_labels_weighs_a_positive_up_to_three_times_a_negative(chexpert):
    """By hand of the same table: a label weighs 1 / known labels of its study; by findings all weigh 1 / 14."""
    generator = runpy.run_path(str(ROOT / "docs/generate/loss_weights.py"))
    table = chexpert.table
    assert generator["factors"](table, normalise="findings") == pytest.approx(np.ones(14), rel=1e-9)
    measured = generator["factors"](table, normalise="known")
    of_study = 1 / table.label_mask.sum(axis=1).clip(1)
    for k in range(14):
        positive, negative = table.positive[:, k], table.label_mask[:, k] & ~table.positive[:, k]
        assert measured[k] == pytest.approx(of_study[positive].mean() / of_study[negative].mean(), rel=1e-9)
    assert measured.max() == pytest.approx(2.87, abs=0.01) and np.median(measured) == pytest.approx(1.84, abs=0.01)


@needs_tables
def test_no_finding_makes_pathologies_negative_but_not_devices(chexpert):
    table = chexpert.table
    normal = (table.labels[:, 0] == 1) & table.label_mask[:, 0]
    pathologies = [k for k, name in enumerate(CHEXPERT) if name not in ("No Finding", "Support Devices")]
    assert table.label_mask[normal][:, pathologies].all()
    assert not table.label_mask[normal, CHEXPERT.index("Support Devices")].all()


def chexpert_folder(tmp_path, **tables):
    for name, rows in tables.items():
        frame = pd.DataFrame(
            [{"Path": f"CheXpert-v1.0-small/{name}/{path}", "Sex": "Male", "Age": "60",
              "Frontal/Lateral": "Lateral" if "lateral" in path else "Frontal", "AP/PA": "",
              **dict.fromkeys(CHEXPERT, ""), **labels} for path, labels in rows]
        )  # fmt: skip
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
        for path, _ in rows:
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).touch()


def test_chexpert_split_comes_from_the_paths_and_labels_follow_the_policies(tmp_path):
    study, labels = "patient00001/study1", {"Edema": "-1.0", "Pneumonia": "1.0"}
    chexpert_folder(
        tmp_path,
        train=[(f"{study}/view1_frontal.jpg", labels), (f"{study}/view2_lateral.jpg", labels)],
        valid=[("patient00002/study1/view1_frontal.jpg", {"No Finding": "1.0"})],
    )
    table = read(source="chexpert", root=tmp_path, check_files=True, findings=["Edema", "Pneumonia", "Fracture"]).table
    assert table.split.tolist() == ["train", "val"]
    assert table.images[View.LATERAL].tolist() == [("train/patient00001/study1/view2_lateral.jpg",), ()]
    assert table.uncertain.tolist() == [[True, False, False], [False] * 3]
    assert table.label_mask.tolist() == [[False, True, False], [True, True, True]]
    negative = read(source="chexpert", root=tmp_path, check_files=True, unmentioned="negative").table
    fracture = CHEXPERT.index("Fracture")
    assert negative.label_mask[:, fracture].all() and not negative.labels[:, fracture].any()
    assert negative.uncertain[0, CHEXPERT.index("Edema")]


def test_problems_of_several_chexpert_tables_are_placed_in_their_own(tmp_path):
    chexpert_folder(
        tmp_path,
        train=[(f"patient{n:05}/study1/view1_frontal.jpg", {}) for n in range(5)],
        valid=[
            ("patient90000/study1/view1_frontal.jpg", {"Edema": "2"}),
            ("patient00003/study9/view1_frontal.jpg", {}),
        ],
    )
    with pytest.raises(UserError, match=r"valid.csv has 1 problem\(s\)\n.*valid.csv:2: Edema is '2'"):
        read(source="chexpert", root=tmp_path)
    text = (tmp_path / "valid.csv").read_text().replace(",2,", ",1,")
    (tmp_path / "valid.csv").write_text(text)
    with pytest.raises(UserError, match=r"valid.csv:3: split is val, .* in train in line 5 of train.csv"):
        read(source="chexpert", root=tmp_path)
    (tmp_path / "valid.csv").write_text(text.replace("patient00003", "somebody"))
    with pytest.raises(UserError, match=r"valid.csv:3: Path is CheXpert-v1.0-small/valid/somebody/study9"):
        read(source="chexpert", root=tmp_path)


def test_a_rule_on_dates_needs_dates(tmp_path):
    chexpert_folder(tmp_path, train=[("patient00001/study1/view1_frontal.jpg", {})])
    with pytest.raises(UserError, match="has no dates"):
        read(source="chexpert", root=tmp_path, cohort={"one_study_per_patient": True})
    with pytest.raises(UserError, match="rules on labels, but chexpert has findings in columns"):
        read(source="chexpert", root=tmp_path, cohort={"labelled_only": True})


def test_chexpert_may_stand_in_a_folder_of_its_own_name(tmp_path):
    folder = tmp_path / "CheXpert-v1.0-small"
    folder.mkdir()
    chexpert_folder(folder, train=[("patient00001/study1/view1_frontal.jpg", {})])
    table = read(source="chexpert", root=tmp_path, check_files=True).table
    assert table.images[View.PA].tolist() == [("CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg",)]


def chexpert_patients(first, number):
    return [(f"patient{n:05}/study1/view1_frontal.jpg", {"Edema": str(n % 2)}) for n in range(first, first + number)]


def test_what_radiologists_read_is_never_trained_on(tmp_path):
    """With `official: false` the 20 training patients give 15 and 5; the 4 of valid and 6 of test are test."""
    chexpert_folder(
        tmp_path, train=chexpert_patients(0, 20), valid=chexpert_patients(50, 4), test=chexpert_patients(70, 6)
    )
    config = DataConfig(source="chexpert", root=tmp_path, split={"official": False})
    data = load_data(config, seed=0)
    assert [len(split) for split in data.splits.values()] == [15, 5, 10]
    assert max(*data.train.patient_ids, *data.val.patient_ids) == "patient00019"
    assert data.test.attributes["official_split"].tolist() == ["valid"] * 4 + ["test"] * 6
    official = load_data(DataConfig(source="chexpert", root=tmp_path), seed=0)
    assert [len(split) for split in official.splits.values()] == [20, 4, 6]
    (tmp_path / "valid.csv").unlink()  # no official val: it is drawn, and test stays
    data = load_data(DataConfig(source="chexpert", root=tmp_path), seed=0)
    assert [len(split) for split in data.splits.values()] == [15, 5, 6]


@pytest.mark.parametrize("within", ["", "CheXpert-v1.0-small/"])
def test_chexpert_paths_are_found_row_by_row(tmp_path, within):
    """Stanford's test.csv has no folder before its paths; one row of train.csv lacks it too."""
    folder = tmp_path / within
    folder.mkdir(exist_ok=True)
    chexpert_folder(folder, train=chexpert_patients(0, 3), test=chexpert_patients(70, 2))
    text = (folder / "test.csv").read_text()
    (folder / "test.csv").write_text(text.replace("CheXpert-v1.0-small/", ""))
    lines = (folder / "train.csv").read_text().splitlines()
    lines[2] = lines[2].replace("CheXpert-v1.0-small/", "")
    (folder / "train.csv").write_text("\n".join(lines))
    table = read(source="chexpert", root=tmp_path, check_files=True).table
    assert [path for (path,) in table.images[View.PA]] == [
        *(f"{within}train/patient{n:05}/study1/view1_frontal.jpg" for n in range(3)),
        *(f"{within}test/patient{n:05}/study1/view1_frontal.jpg" for n in (70, 71)),
    ]
    without_looking = read(source="chexpert", root=tmp_path).table
    assert [images.tolist() for images in without_looking.images] == [images.tolist() for images in table.images]


def test_chexpert_full_size_parts_have_no_train_folder(tmp_path):
    chexpert_folder(tmp_path, train=chexpert_patients(0, 2))
    part = tmp_path / "CheXpert-v1.0 batch 2 (train 1)"
    (tmp_path / "train").rename(part)
    table = read(source="chexpert", root=tmp_path, check_files=True).table
    assert [path for (path,) in table.images[View.PA]] == [
        f"{part.name}/patient{n:05}/study1/view1_frontal.jpg" for n in range(2)
    ]


@pytest.mark.parametrize(
    ("policy", "low", "high"),
    [("zero", 0, 0), ("one", 1, 1), ("smooth(0.55,0.85)", 0.55, 0.85), ("ignore", None, None)],
)
def test_policies_act_on_uncertain_labels_only(tmp_path, policy, low, high):
    rows = [(f"patient{n:05}/study1/view1_frontal.jpg", {"Edema": "-1" if n % 2 else "0"}) for n in range(200)]
    chexpert_folder(tmp_path, train=rows)
    config = SourceConfig(source="chexpert", root=tmp_path, findings={"Edema": ["Edema"]}, uncertain={"Edema": policy})
    table = with_policies(read_source(config, data=DataConfig(), seed=0).table, source=config, seed=0)
    uncertain = table.labels[1::2, 0][table.label_mask[1::2, 0]]
    assert table.labels[::2].max() == 0 and table.label_mask[::2].all()
    if low is None:
        assert len(uncertain) == 0
        return
    assert len(uncertain) == 100
    assert uncertain.min() >= low and uncertain.max() <= high
    assert len(set(uncertain)) == (1 if low == high else 100)
    again = with_policies(read_source(config, data=DataConfig(), seed=0).table, source=config, seed=0)
    assert np.array_equal(again.labels, table.labels)


@pytest.mark.parametrize("text", ["half", "smooth(0.9,0.1)", "smooth(0,2)", "smooth(0.1)"])
def test_other_policies_are_refused(text):
    with pytest.raises(ValueError, match="allowed are ignore, zero, one and smooth"):
        UncertainPolicy.parse(text)


# -- MIMIC-CXR-JPG -----------------------------------------------------------------------------------


def mimic_folder(tmp_path, *, version="2.1.0", compress=True, test_labels=False):
    """Four studies: PA + AP + lateral; AP only, uncertain; LL only, in test; one without a view."""
    images = [
        ("d1", 10000032, 50000001, "AP", "train"), ("d2", 10000032, 50000001, "PA", "train"),
        ("d3", 10000032, 50000001, "LATERAL", "train"), ("d4", 10000032, 50000002, "AP", "train"),
        ("d5", 11000000, 50000003, "LL", "test"), ("d6", 12000000, 50000004, "", "validate"),
        ("d7", 12000000, 50000004, "PA", "validate"), ("d8", 12000000, 50000005, "SWIMMERS", "validate"),
    ]  # fmt: skip
    metadata = [
        {"dicom_id": dicom, "subject_id": subject, "study_id": study, "ViewPosition": view, "StudyDate": 21800506,
         "StudyTime": 213014.5, "PerformedProcedureStepDescription": "CHEST (PA AND LAT)"}
        for dicom, subject, study, view, _ in images
    ]  # fmt: skip
    split = [{"dicom_id": d, "study_id": st, "subject_id": su, "split": sp} for d, su, st, _, sp in images]
    blank = dict.fromkeys(CHEXPERT, "")
    labels = [
        {"subject_id": 10000032, "study_id": 50000001, **blank, "Pneumonia": "1.0", "Edema": "0.0"},
        {"subject_id": 10000032, "study_id": 50000002, **blank, "Pneumonia": "-1.0"},
        {"subject_id": 11000000, "study_id": 50000003, **blank, "Lung Opacity": "0.0"},
    ]
    suffix, opened = (".gz", gzip.open) if compress else ("", open)
    for kind, rows in (("metadata", metadata), ("split", split), ("chexpert", labels), ("negbio", labels[:1])):
        with opened(tmp_path / f"mimic-cxr-{version}-{kind}.csv{suffix}", "wt") as file:
            pd.DataFrame(rows).to_csv(file, index=False)
    if test_labels:
        columns = {("Airspace Opacity" if name == "Lung Opacity" else name): 0 for name in CHEXPERT}
        pd.DataFrame([{"study_id": 50000003, **columns, "Airspace Opacity": 1}]).to_csv(
            tmp_path / "mimic-cxr-2.1.0-test-set-labeled.csv", index=False
        )
    return tmp_path


@pytest.mark.parametrize(("version", "compress"), [("2.0.0", True), ("2.1.0", False)])
def test_mimic_pairs_prefer_pa_and_keep_the_official_split(tmp_path, version, compress):
    source = read(source="mimic_cxr", root=mimic_folder(tmp_path, version=version, compress=compress))
    table = source.table
    assert table.study_ids.tolist() == ["50000001", "50000002", "50000003", "50000004"]
    assert table.split.tolist() == ["train", "train", "test", "val"]
    folder = "files/p10/p10000032/s50000001"
    assert table.images[View.PA][0] == (f"{folder}/d2.jpg", f"{folder}/d1.jpg")
    assert [Availability(kind).name for kind in table.availability] == ["BOTH", "PA_ONLY", "LATERAL_ONLY", "PA_ONLY"]
    pneumonia, edema = table.findings.index("Pneumonia"), table.findings.index("Edema")
    assert table.label_mask[:, pneumonia].tolist() == [True, False, False, False]
    assert table.uncertain[:, pneumonia].tolist() == [False, True, False, False]
    assert table.label_mask[:, edema].tolist() == [True, False, False, False]
    assert sorted(source.dropped["reason"]) == ["view is SWIMMERS", "view is not given"]


def test_mimic_radiologists_labels_replace_the_labelers(tmp_path):
    def opacity(table):
        k = table.findings.index("Lung Opacity")
        return table.labels[2, k], table.attributes["labelled_by"][2]

    assert opacity(read(source="mimic_cxr", root=mimic_folder(tmp_path)).table) == (0, "chexpert")
    assert opacity(read(source="mimic_cxr", root=mimic_folder(tmp_path, test_labels=True)).table) == (1, "radiologists")


def test_mimic_other_labeler_and_unlabelled_studies(tmp_path):
    table = read(source="mimic_cxr", root=mimic_folder(tmp_path), labeler="negbio", unmentioned="negative").table
    assert table.label_mask.any(axis=1).tolist() == [True, False, False, False]  # not labelled is never negative


def test_mimic_problems_of_labels_are_placed_in_the_table_of_labels(tmp_path):
    file = mimic_folder(tmp_path, compress=False) / "mimic-cxr-2.1.0-chexpert.csv"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:2], lines[2].replace("-1.0", "maybe"), lines[1], *lines[3:]]))
    with pytest.raises(UserError, match=r"chexpert.csv:3: Pneumonia is 'maybe'(.|\n)*chexpert.csv:4: study_id 500"):
        read(source="mimic_cxr", root=tmp_path)


def test_mimic_without_tables_says_what_it_looked_for(tmp_path):
    with pytest.raises(UserError, match=r"looked for mimic-cxr-2.1.0-metadata.csv.gz"):
        read(source="mimic_cxr", root=tmp_path)


@pytest.mark.parametrize(
    ("description", "view"),
    [
        ("CHEST (PORTABLE AP)", "AP"), ("CHEST (LATERAL)", "LATERAL"), ("Chest PA only", "PA"), ("CXR AP PORT", "AP"),
        ("CHEST (PA AND LAT)", ""), ("CHEST (AP AND LAT)", ""), ("CHEST (SINGLE VIEW)", ""), ("CHEST PORT", ""),
        ("TRAUMA #2 (AP CXR AND PELVIS PORT)", ""), ("CHEST (LAT DECUB ONLY)", ""), ("PELVIS (AP ONLY)", ""),
        ("R RIB UNILAT, W/ AP CHEST RIGHT", ""), ("CHEST (PA, LAT AND OBLIQUES)", ""), ("CHEST (APICAL LORDOTIC)", ""),
        ("AP/PA SINGLE VIEW EXPIRATORY CHEST", ""), ("", ""),
    ],
)  # fmt: skip
def test_mimic_takes_a_blank_view_from_a_procedure_that_names_one(tmp_path, description, view):
    folder = mimic_folder(tmp_path, compress=False)
    file = folder / "mimic-cxr-2.1.0-metadata.csv"
    metadata = pd.read_csv(file, dtype=str)
    metadata["PerformedProcedureStepDescription"] = description
    metadata.to_csv(file, index=False)
    source = read(source="mimic_cxr", root=folder)
    used = {Path(path).stem: at for at in View for images in source.table.images[at] for path in images}
    expected = {"PA": View.PA, "AP": View.PA, "LATERAL": View.LATERAL}.get(view)
    assert used.get("d6") == expected  # its ViewPosition is blank
    assert used["d5"] == View.LATERAL and used["d1"] == View.PA  # what ViewPosition says stays
    kind = "ViewPosition is blank, the view is that of the procedure's description"
    assert [remark.count for remark in source.remarks if remark.kind == kind] == ([1] if view else [])


def test_mimic_patients_are_those_of_mimic_iv(tmp_path):
    """The study of 2180-05-06: 52 in 2172 makes 60; of three stays the one that holds the day."""
    folder = mimic_folder(tmp_path)
    assert "sex" not in read(source="mimic_cxr", root=folder).table.attributes
    pd.DataFrame({"subject_id": [10000032, 11000000], "gender": ["F", "M"], "anchor_age": [52, 91],
                  "anchor_year": [2172, 2181]}).to_csv(folder / "patients.csv.gz", index=False)  # fmt: skip
    stays = [
        (10000032, "2180-05-06 22:23:00", "2180-05-07 17:15:00", "Medicaid", "WHITE"),
        (10000032, "2180-05-01 01:00:00", "2180-05-02 17:15:00", "Other", "UNKNOWN"),
        (10000032, "2180-06-26 18:27:00", "2180-06-27 18:49:00", "Medicare", "BLACK"),
        (11000000, "2179-01-01 01:00:00", "2179-02-01 01:00:00", "Private", "ASIAN"),
        (11000000, "2178-01-01 01:00:00", "2178-02-01 01:00:00", "Self", "OTHER"),
        (12000000, "2181-01-01 01:00:00", "2181-02-01 01:00:00", "Private", "ASIAN"),
    ]
    names = ["subject_id", "admittime", "dischtime", "insurance", "race"]
    pd.DataFrame(stays, columns=names).to_csv(folder / "admissions.csv", index=False)
    source = read(source="mimic_cxr", root=folder)
    attributes = source.table.attributes
    assert attributes["sex"].tolist() == ["F", "F", "M", ""]
    assert attributes["age"].tolist() == ["60", "60", "90", ""]
    assert attributes["insurance"].tolist() == ["Medicaid", "Medicaid", "Private", ""]
    assert attributes["race"].tolist() == ["WHITE", "WHITE", "ASIAN", ""]
    kind = "subject is not in patients.csv: sex and age are not known"
    assert [remark.example for remark in source.remarks if remark.kind == kind] == [
        "files/p12/p12000000/s50000004/d7.jpg"
    ]


CXR_LT_2023 = {"train.csv": ["d1", "d2", "d3", "d4"], "development.csv": ["d6", "d7", "d8"], "test.csv": ["d5"]}


def cxr_lt_folder(folder, tables, *, findings=("Emphysema", "Pleural Effusion", "No Finding"), **columns):
    folder.mkdir(exist_ok=True)
    studies = {"d1": 1, "d2": 1, "d3": 1, "d4": 2, "d5": 3, "d6": 4, "d7": 4, "d8": 5, "d99": 9}
    for name, images in tables.items():
        rows = [
            {"dicom_id": image, "subject_id": 1, "study_id": studies[image], "ViewPosition": "PA", "path": "x",
             **{finding: (studies[image] + k) % 2 for k, finding in enumerate(findings)},
             **{column: values[image] for column, values in columns.items()}}
            for image in images
        ]  # fmt: skip
        pd.DataFrame(rows).to_csv(folder / name, index=False)


def test_mimic_with_labels_and_split_of_cxr_lt(tmp_path):
    folder = mimic_folder(tmp_path)
    with pytest.raises(UserError, match=r"no labels of CXR-LT in .*: looked for labels.csv; or train_labeled.csv"):
        read(source="mimic_cxr", root=folder, labeler="cxr_lt")
    cxr_lt_folder(tmp_path / "cxr-lt-2023", CXR_LT_2023)
    table = read(source="mimic_cxr", root=folder, labeler="cxr_lt").table
    assert table.findings == ("Emphysema", "Pleural Effusion", "No Finding")
    assert table.split.tolist() == ["train", "train", "test", "val"]
    assert table.labels.tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1], [0, 1, 0]] and table.label_mask.all()
    assert set(table.attributes["labelled_by"]) == {"cxr_lt"}
    xrv = read(source="mimic_cxr", root=folder, labeler="cxr_lt", vocabulary="xrv").table
    assert xrv.findings == ("Emphysema", "Effusion") and xrv.labels[0].tolist() == [1, 0]
    with pytest.raises(UserError, match="names Emphysem; this release of CXR-LT has Emphysema, Pleural"):
        read(source="mimic_cxr", root=folder, labeler="cxr_lt", findings=["Emphysem"])


def test_the_newer_release_of_cxr_lt_comes_first_and_what_it_lacks_is_said(tmp_path):
    folder = mimic_folder(tmp_path)
    cxr_lt_folder(tmp_path / "cxr-lt-2023", CXR_LT_2023)
    split = {"d1": "test", "d2": "test", "d3": "test", "d4": "test", "d5": "development", "d7": "train", "d99": "train"}
    cxr_lt_folder(tmp_path / "cxr-lt-2024", {"labels.csv": list(split)}, findings=("Adenopathy", "Normal"), split=split)
    source = read(source="mimic_cxr", root=folder, labeler="cxr_lt")
    assert source.table.findings == ("Adenopathy", "Normal")
    assert source.table.split.tolist() == ["test", "test", "val", "train"]
    assert [(remark.count, remark.example) for remark in source.remarks] == [(1, "d99")]
    wrong = (tmp_path / "cxr-lt-2024/labels.csv").read_text().replace(",train", ",training")
    (tmp_path / "cxr-lt-2024/labels.csv").write_text(wrong)
    with pytest.raises(UserError, match=r"labels.csv:7: split of image d7 is none of"):
        read(source="mimic_cxr", root=folder, labeler="cxr_lt")


# -- Open-i ------------------------------------------------------------------------------------------


@needs_tables
def test_openi_reports_are_studies_and_headings_labels():
    source = read(source="openi", csv=TABLES / "nlmcxr_dicom_metadata.csv.gz")
    assert source.num_images_read == 7469
    reasons = source.dropped["reason"].value_counts().to_dict()
    table = source.table
    assert kinds(table) == [3254, 414, 181]
    assert table.num_images.sum() + sum(reasons.values()) == 7469
    normal = ~table.labels.any(axis=1) & table.label_mask.any(axis=1)
    assert normal.sum() > 800  # reports whose only heading is "normal" are negative, not unknown
    assert "cardiomegaly" in table.findings and "normal" not in table.findings


def test_openi_as_csv(tmp_path):
    pd.DataFrame({"uid": [1, 1, 2], "filename": ["1_a.png", "1_b.png", "2_a.png"],
                  "projection": ["Frontal", "Lateral", "Frontal"]}).to_csv(
        tmp_path / "indiana_projections.csv", index=False)  # fmt: skip
    pd.DataFrame({"uid": [1, 2], "MeSH": ["Cardiomegaly/borderline;Opacity/lung/base", "normal"]}).to_csv(
        tmp_path / "indiana_reports.csv", index=False
    )
    table = read(source="openi", root=tmp_path).table
    assert table.findings == ("cardiomegaly", "opacity")
    assert table.labels.tolist() == [[1, 1], [0, 0]] and table.label_mask.all()
    assert table.images[View.LATERAL].tolist() == [("images/images_normalized/1_b.png",), ()]


# -- several sources ---------------------------------------------------------------------------------


def test_what_a_source_does_not_label_is_unknown_there(tmp_path):
    for name, finding in (("one", "A"), ("two", "B")):
        rows = "".join(f"p{n},s{n},PA,{n}.png,{n % 2}\n" for n in range(20))
        (tmp_path / f"{name}.csv").write_text(f"patient,study,view,path,{finding}\n{rows}")
    config = {
        "sources": [
            {"source": "csv", "name": name, "csv": tmp_path / f"{name}.csv", "findings": [finding], "weight": weight}
            for name, finding, weight in (("one", "A", 1), ("two", "B", 0.5))
        ],
        "check_files": False,
    }
    config["sources"][0]["check_files"] = config["sources"][1]["check_files"] = False
    data = load_data(DataConfig.model_validate(config), seed=0)
    train = data.train
    assert train.findings == ("A", "B")
    of_one = np.array([patient.startswith("one:") for patient in train.patient_ids])
    assert train.label_mask[of_one].tolist() == [[True, False]] * 12
    assert train.label_mask[~of_one].tolist() == [[False, True]] * 12
    assert train.weight.tolist() == [1.0] * 12 + [0.5] * 12
    assert len(set(train.patient_ids) & set(data.val.patient_ids)) == 0
    assert train.images[View.PA][0][0].startswith("one:")
    counts = count_data(data)
    assert counts["findings"]["A"] == {"positive": 10, "negative": 10, "unknown": 20, "uncertain": 0}
    assert [source["name"] for source in counts["sources"]] == ["one", "two"]
    assert counts["patients"] == 40


def test_every_reader_says_what_it_raises():
    for source in SOURCES:
        reader = import_module(f"dualview.data.sources.{source}").read
        assert source == "phantom" or "Raises" in inspect.getdoc(reader)
