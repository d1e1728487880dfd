"""The views of Open-i's NLM form against indiana_projections.csv, which is the truth and is not in the repository."""

import importlib.util
import os
from pathlib import Path

import pandas as pd
import pytest

from dualview.config import DataConfig
from dualview.data.sources.readers import read_source
from dualview.errors import UserError
from dualview.views import View

spec = importlib.util.find_spec("torchxrayvision")
TABLES = Path(spec.origin).parent / "data" if spec and spec.origin else Path("/nowhere")
TRUTH = Path(os.environ.get("OPENI_DATA", "/work/shared/data/openi")) / "indiana_projections.csv"
needs_tables = pytest.mark.skipif(not TABLES.is_dir(), reason="torchxrayvision, whose wheel has the tables, is absent")
needs_truth = pytest.mark.skipif(not TRUTH.is_file(), reason=f"views of Open-i: {TRUTH} is absent")


def read(folder, **config):
    data = DataConfig.model_validate({"source": "openi", "root": folder, "check_files": False, **config})
    return read_source(data, data=data, seed=0)


def linked(folder, *files):
    for file in (TABLES / "nlmcxr_dicom_metadata.csv.gz", TABLES / "NLMCXR_reports.tgz", *files):
        (folder / file.name).symlink_to(file)
    return folder


def frontal_of(source) -> dict[str, bool]:
    """Image -> whether it takes the PA branch."""
    return {Path(path).stem: view == View.PA for view in View for paths in source.table.images[view] for path in paths}


@needs_tables
@needs_truth
@pytest.mark.parametrize(("has_list", "num_decided", "share"), [(True, 7159, 0.991), (False, 6607, 0.967)])
def test_the_rule_agrees_with_the_projections(tmp_path, has_list, num_decided, share):
    source = read(linked(tmp_path, *([TABLES / "nlmcxr_tsne_pa.csv.gz"] if has_list else [])))
    truth = pd.read_csv(TRUTH, dtype=str)
    is_frontal = dict(zip("CXR" + truth["filename"].str.removesuffix(".dcm.png"), truth["projection"] == "Frontal",
                          strict=True))  # fmt: skip
    decided = {image: is_pa for image, is_pa in frontal_of(source).items() if image in is_frontal}
    assert len(decided) == num_decided
    agreement = sum(is_pa == is_frontal[image] for image, is_pa in decided.items()) / num_decided
    assert share < agreement < share + 0.002
    metadata = pd.read_csv(TABLES / "nlmcxr_dicom_metadata.csv.gz", usecols=["imageid", "View Position"])
    by_position = metadata[metadata["View Position"] == "PA"]["imageid"]
    wrong = sum(not is_frontal[image] for image in by_position if image in is_frontal)
    assert wrong == 1368  # what trusting View Position would send to the PA branch


@needs_tables
@needs_truth
def test_projections_beside_are_followed_to_the_letter(tmp_path):
    source = read(linked(tmp_path, TRUTH))
    truth = pd.read_csv(TRUTH, dtype=str)
    frontal = set("CXR" + truth["filename"][truth["projection"] == "Frontal"].str.removesuffix(".dcm.png"))
    used = frontal_of(source)
    assert {image for image, is_pa in used.items() if is_pa} == frontal & set(used)
    assert len(used) == 7463
    assert source.remarks == ()


@needs_tables
def test_the_list_of_the_wheel_is_followed_for_its_images():
    """2 of its 3,851 images are in no report."""
    used = frontal_of(read(None, csv=TABLES / "nlmcxr_dicom_metadata.csv.gz"))
    listed = pd.read_csv(TABLES / "nlmcxr_tsne_pa.csv.gz")
    there = listed[listed["imageid"].isin(used)]
    assert len(listed) == 3851 and len(there) == 3849
    assert (there["imageid"].map(used) == (there["tsne-view"] == "PA")).all()


@pytest.fixture
def nlm(tmp_path):
    """Reports 1 (two images, both called PA), 2 (one, PA), 3 (two, PA and LL), 4 (three: AP, blank, blank)."""
    images = [("CXR1_a-1001", "PA"), ("CXR1_a-2001", "PA"), ("CXR2_a-1001", "PA"), ("CXR3_a-1001", "PA"),
              ("CXR3_a-2001", "LL"), ("CXR4_a-1", "AP"), ("CXR4_a-2", ""), ("CXR4_a-3", "")]  # fmt: skip
    pd.DataFrame(images, columns=["imageid", "View Position"]).assign(**{"Patient's Sex": "F"}).to_csv(
        tmp_path / "nlmcxr_dicom_metadata.csv", index=False
    )
    (tmp_path / "ecgen-radiology").mkdir()
    for uid in range(1, 5):
        of_report = "".join(f'<parentImage id="{image}"/>' for image, _ in images if image[3] == str(uid))
        (tmp_path / f"ecgen-radiology/{uid}.xml").write_text(
            f'<r><uId id="CXR{uid}"/><MeSH><major>normal</major></MeSH>{of_report}</r>'
        )
    return tmp_path


def test_without_a_source_of_truth_what_is_guessed_is_said(nlm):
    source = read(nlm)
    images = [[Path(path).stem for paths in source.table.images[view] for path in paths] for view in View]
    assert images == [["CXR1_a-1001", "CXR3_a-1001", "CXR4_a-1"], ["CXR1_a-2001", "CXR3_a-2001"]]
    assert source.dropped["path"].tolist() == ["CXR2_a-1001.png", "CXR4_a-2.png", "CXR4_a-3.png"]
    assert set(source.dropped["reason"]) == {"view is not known: View Position is not to be trusted here"}
    counts = {remark.kind[:42]: remark.count for remark in source.remarks}
    assert counts == {"view is not known: that which the other im": 1, "view is not known: that of the image's num": 2,
                      "view is only what View Position says; nlmc": 2}  # fmt: skip


def test_a_list_beside_is_believed_before_the_number(nlm):
    (nlm / "nlmcxr_tsne_pa.csv").write_text("imageid,tsne-view\nCXR1_a-1001,L\nCXR2_a-1001,PA\n")
    source = read(nlm)
    images = [[Path(path).stem for paths in source.table.images[view] for path in paths] for view in View]
    assert images == [["CXR1_a-2001", "CXR2_a-1001", "CXR3_a-1001", "CXR4_a-1"], ["CXR1_a-1001", "CXR3_a-2001"]]
    (nlm / "nlmcxr_tsne_pa.csv").write_text("imageid,tsne-view\nCXR1_a-1001,oblique\n")
    with pytest.raises(UserError, match="has the views 'oblique'; known are PA, L"):
        read(nlm)


def test_frontals_can_be_chosen_by_their_view_position(nlm):
    source = read(nlm, frontal_views=["PA"])
    assert "view is AP" in set(source.dropped["reason"])


def test_ages_are_those_of_birth_and_study(nlm):
    file = nlm / "nlmcxr_dicom_metadata.csv"
    born = {"Patient's Birth Date": "19550820", "Study Date": "20110819"}
    pd.read_csv(file).assign(**born).to_csv(file, index=False)
    attributes = read(nlm).table.attributes
    assert set(attributes["age"]) == {"55"} and set(attributes["sex"]) == {"F"}
    assert set(attributes["date"]) == {"20110819"}
