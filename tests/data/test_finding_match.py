"""Which finding is which in other data: names, maps, and the labels of public data sets that together mean the same."""

import numpy as np
import pytest

from dualview.config import SourceConfig
from dualview.data.finding_match import match_findings, parse_maps, with_matched
from dualview.data.table import StudyTable
from dualview.errors import UserError


def table(findings, labels=None, uncertain=None) -> StudyTable:
    """Studies with 1, 0 and NaN for unknown, a row each."""
    rows = np.array(labels if labels is not None else np.zeros((2, len(findings))), float)
    names = np.array([str(n) for n in range(len(rows))], object)
    images = np.empty(len(rows), object)
    images[:] = [("a",)] * len(rows)
    return StudyTable(
        findings=tuple(findings), study_ids=names, patient_ids=names, images=(images, images),
        labels=np.nan_to_num(rows).astype(np.float32), label_mask=np.isfinite(rows), uncertain=uncertain,
    )  # fmt: skip


def source(name="csv", **keys):
    return SourceConfig.model_validate({"source": name, "root": "/nowhere", **keys})


def matched(findings, theirs, *, of=None, maps=None):
    [found] = match_findings(findings, [table(theirs)], sources=[of or source(findings=theirs)], maps=maps or {})
    return {finding: (list(match.theirs), match.by) for finding, match in found.items()}


@pytest.mark.parametrize(
    ("finding", "theirs", "expected"),
    [
        ("Edema", ["Edema", "edema"], (["Edema"], "name")),
        ("Pleural_Thickening", ["pleural thickening"], (["pleural thickening"], "name")),
        ("Lung Opacity", ["lungOpacity"], (["lungOpacity"], "name")),
        ("Effusion", ["Pleural Effusion"], (["Pleural Effusion"], "vocabulary")),
        ("Pleural Effusion", ["Effusion"], (["Effusion"], "vocabulary")),
        ("Fibrosis", ["Pulmonary fibrosis"], (["Pulmonary fibrosis"], "vocabulary")),
        ("Effusion", ["Pericardial Effusion", "Scoliosis", "Edema"], None),
    ],
    ids=str,
)
def test_names_that_mean_the_same(finding, theirs, expected):
    assert matched([finding, "Edema"], [*theirs, "Edema"] if "Edema" not in theirs else theirs).get(finding) == expected


def test_several_labels_of_a_public_data_set_are_taken_together():
    """PadChest has eight labels for Atelectasis, of which these studies have two; hydropneumothorax is both."""
    names = ["atelectasis", "laminar atelectasis", "hydropneumothorax", "pleural effusion", "cardiomegaly"]
    found = matched(["Atelectasis", "Pneumothorax", "Effusion", "Cardiomegaly", "Mass"], names, of=source("padchest"))
    assert found == {
        "Atelectasis": (["atelectasis", "laminar atelectasis"], "vocabulary"),
        "Pneumothorax": (["hydropneumothorax"], "vocabulary"),
        "Effusion": (["hydropneumothorax", "pleural effusion"], "vocabulary"),
        "Cardiomegaly": (["cardiomegaly"], "name"),
    }
    # Where settings have chosen among the labels, studies with the others would be called negative.
    chosen = source("padchest", findings=["laminar atelectasis", "hydropneumothorax"])
    with pytest.raises(UserError, match="no finding of these data is one of the run"):
        matched(["Atelectasis", "Effusion"], ["laminar atelectasis", "hydropneumothorax"], of=chosen)


def test_a_union_is_positive_with_any_and_negative_only_with_all():
    nan = np.nan
    rows = [[1, 0], [0, 1], [0, 0], [nan, 0], [nan, 1], [nan, nan]]
    uncertain = np.isnan(np.array(rows, float)) & [[True, False]]
    other = table(["Clavicle fracture", "Rib fracture"], rows, uncertain)
    [found] = match_findings(["Fracture", "Edema"], [other], sources=[source("vindr")], maps={})
    made = with_matched(other, findings=["Edema", "Fracture"], matches=found)
    assert made.findings == ("Edema", "Fracture") and not made.label_mask[:, 0].any()
    assert made.label_mask[:, 1].tolist() == [True, True, True, False, True, False]
    assert made.labels[made.label_mask[:, 1], 1].tolist() == [1, 1, 0, 1]
    assert made.uncertain[:, 1].tolist() == [False, False, False, True, False, True]


def test_what_could_be_two_is_asked_for():
    with pytest.raises(UserError, match="'Effusion' could be 'EFFUSION' or 'effusion': say which with --map"):
        matched(["Effusion"], ["EFFUSION", "effusion"])
    assert matched(["Effusion"], ["EFFUSION", "effusion"], maps={"Effusion": "effusion"}) == {
        "Effusion": (["effusion"], "map")
    }
    # A map takes the label away from the finding that has its name.
    assert matched(["Mass", "Nodule"], ["Mass"], maps={"Nodule": "Mass"}) == {"Nodule": (["Mass"], "map")}


def test_maps_are_read_with_any_names():
    findings = ["Mass", "Mass=large", "Nodule"]
    assert parse_maps(["Mass = Big one", "Mass=large=x", " Nodule=a=b "], findings=findings) == {
        "Mass": "Big one", "Mass=large": "x", "Nodule": "a=b",
    }  # fmt: skip
    with pytest.raises(UserError) as error:
        parse_maps(["Mass", "Tumour=x", "Nodule=", "Mass=y", "Mass=z"], findings=findings)
    assert str(error.value).splitlines() == [
        "--map 'Mass': write 'Run finding=their finding'",
        "--map 'Tumour=x': the run has no finding 'Tumour'",
        "--map 'Nodule=': write 'Run finding=their finding'",
        "--map 'Mass=z': 'Mass' is mapped to 'y' already",
        "Findings of the run: Mass, Mass=large, Nodule",
    ]


def test_every_source_is_matched_by_itself():
    first, second = table(["Edema"]), table(["pulmonary edema", "Scoliosis"])
    found = match_findings(
        ["Edema"], [first, second], sources=[source(findings=["Edema"]), source("padchest")], maps={}
    )
    assert [match["Edema"].theirs for match in found] == [("Edema",), ("pulmonary edema",)]
