"""A folder of DICOM files as a source: which images, which of several, and the account of the rest."""

import os
import warnings

import numpy as np
import pydicom
import pytest
from pydicom.uid import SecondaryCaptureImageStorage

from dualview.config import DataConfig
from dualview.data.counts import count_source
from dualview.data.sources.dicom_headers import READ_BYTES, kind_of_warning, read_headers
from dualview.data.sources.dicom_views import Code
from dualview.data.sources.readers import read_source
from dualview.errors import UserError
from dualview.views import View
from tests.support.dicom_files import sequence, write_dicom

PIXELS = np.arange(400, dtype=np.uint8).reshape(20, 20)
RAW = {"PresentationIntentType": "FOR PROCESSING"}
CAPTURE = {"SOPClassUID": SecondaryCaptureImageStorage}
DERIVED = {"ImageType": ["DERIVED", "PRIMARY"]}


def read(root, **config):
    data = DataConfig.model_validate({"source": "dicom", "root": root, **config})
    return read_source(data, data=data, seed=0)


def reasons(source):
    return dict(zip(source.dropped["path"], source.dropped["reason"], strict=True))


def remarks(source):
    return {remark.kind: (remark.count, remark.example) for remark in source.remarks}


def test_other_parts_of_the_body_and_other_views_are_left_out_and_counted(tmp_path):
    write_dicom(tmp_path / "1.dcm", PIXELS, study="1", ViewPosition="POSTEROANTERIOR", BodyPartExamined="CHEST")
    write_dicom(tmp_path / "2.dcm", PIXELS, study="1", ViewPosition="LAT", BodyPartExamined="THX")
    write_dicom(tmp_path / "3.dcm", PIXELS, study="1", ViewPosition="AP", BodyPartExamined="CSPINE")
    write_dicom(tmp_path / "4.dcm", PIXELS, study="1", ViewPosition="LL", SeriesDescription="HWS seitlich")
    write_dicom(tmp_path / "5.dcm", PIXELS, study="1", ViewPosition="AP", SeriesDescription="Chest AP LLD")
    ap, lateral = sequence(Code("399348003", "AP")), sequence(Code("399067008", "", (Code("111069", "Cross-table"),)))
    write_dicom(tmp_path / "6.dcm", PIXELS, study="2", ViewCodeSequence=ap, SeriesDescription="Chest lat")
    write_dicom(tmp_path / "7.dcm", PIXELS, study="2", ViewCodeSequence=lateral)
    write_dicom(tmp_path / "8.dcm", PIXELS, study="2", ViewPosition="LATERAL", BodyPartExamined="OPACITY")
    source = read(tmp_path)
    assert source.table.images[View.PA].tolist() == [("1.dcm",), ("6.dcm",)]
    assert source.table.images[View.LATERAL].tolist() == [("2.dcm",), ()]
    assert reasons(source) == {
        "3.dcm": "body part is CSPINE", "4.dcm": "the description names another body part (spine)",
        "5.dcm": "view is LLD", "7.dcm": "view is XTABLE", "8.dcm": "body part is OPACITY",
    }  # fmt: skip
    assert remarks(source) == {
        "ViewCodeSequence and the description say frontal and lateral; ViewCodeSequence is taken": (1, "6.dcm")
    }
    chosen = read(tmp_path, frontal_views=["PA", "AP", "LLD"], body_parts=["Opacity"])
    assert chosen.table.images[View.PA].tolist() == [("1.dcm", "5.dcm"), ("6.dcm",)]
    assert chosen.table.images[View.LATERAL].tolist() == [("2.dcm",), ("8.dcm",)]


def test_an_image_made_to_be_looked_at_comes_before_all_others(tmp_path):
    write_dicom(tmp_path / "1.dcm", PIXELS, study="1", ViewPosition="PA", **RAW)
    write_dicom(tmp_path / "2.dcm", PIXELS, study="1", ViewPosition="PA", **CAPTURE)
    write_dicom(tmp_path / "3.dcm", PIXELS, study="1", ViewPosition="PA", **DERIVED)
    write_dicom(tmp_path / "4.dcm", PIXELS, study="1", ViewPosition="PA", SeriesNumber=2)
    write_dicom(tmp_path / "5.dcm", PIXELS, study="1", ViewPosition="PA", SeriesNumber=1, InstanceNumber=11)
    write_dicom(tmp_path / "6.dcm", PIXELS, study="1", ViewPosition="PA", SeriesNumber=1, InstanceNumber=9)
    write_dicom(tmp_path / "7.dcm", PIXELS, study="1", ViewPosition="LL", **RAW)
    write_dicom(tmp_path / "8.dcm", PIXELS, study="1", ViewPosition="PA", ImageType=["ORIGINAL", "SECONDARY"])
    source = read(tmp_path)
    assert source.table.images[View.PA].tolist() == [("6.dcm", "5.dcm", "4.dcm", "3.dcm", "8.dcm", "2.dcm", "1.dcm")]
    assert source.table.images[View.LATERAL].tolist() == [("7.dcm",)]
    only = "raw data FOR PROCESSING is used, as the study has no better image of the view"
    assert remarks(source) == {only: (1, "7.dcm")}
    # Where any of several images may be drawn, those that are not as good are not among them.
    several = read(tmp_path, several_images="random")
    at_test = read(tmp_path, several_images_at_test="mean")
    assert at_test.table.images[View.PA].tolist() == [("6.dcm", "5.dcm", "4.dcm")]
    assert several.table.images[View.PA].tolist() == [("6.dcm", "5.dcm", "4.dcm")]
    assert several.table.images[View.LATERAL].tolist() == [("7.dcm",)]
    assert reasons(several)["3.dcm"] == "a derived image, and there is a better image of the view"
    assert remarks(several) == remarks(source)


def test_objects_without_pixels_and_copies_are_left_out(tmp_path):
    whole = write_dicom(tmp_path / "b.dcm", PIXELS, study="1", ViewPosition="PA")
    (tmp_path / "a.dcm").write_bytes(whole.read_bytes()[:-100])  # a torn copy, first by name
    (tmp_path / "c.dcm").write_bytes(whole.read_bytes())
    write_dicom(tmp_path / "report.dcm", None, study="1", Modality="SR")
    write_dicom(tmp_path / "header.dcm", None, study="1", ViewPosition="LL", Rows=20, Columns=20)
    write_dicom(tmp_path / "cine.dcm", np.stack([PIXELS] * 2)[0], study="1", ViewPosition="LL", NumberOfFrames=2)
    source = read(tmp_path)
    assert source.table.images[View.PA].tolist() == [("b.dcm",)]
    copy = "is a copy of another file (equal SOPInstanceUID)"
    assert reasons(source) == {
        "a.dcm": copy, "c.dcm": copy, "report.dcm": "holds no image", "header.dcm": "holds no image",
        "cine.dcm": "has several frames; one is needed",
    }  # fmt: skip


def test_one_identifier_in_two_studies_is_no_copy_but_is_told(tmp_path):
    for number in "12":
        write_dicom(tmp_path / number, PIXELS, study=number, ViewPosition="PA", SOPInstanceUID="1.2.3")
    source = read(tmp_path)
    assert len(source.table) == 2
    assert remarks(source) == {"SOPInstanceUID stands in another study or view as well": (1, "2")}


def test_a_study_of_two_patients_is_named(tmp_path):
    write_dicom(tmp_path / "1.dcm", PIXELS, study="1", ViewPosition="PA", PatientID="A7")
    write_dicom(tmp_path / "2.dcm", PIXELS, study="1", ViewPosition="LL", PatientID="KH-A7")
    with pytest.raises(UserError, match=r"2.dcm: is of patient 'KH-A7', but 1.dcm of the same study is of 'A7'"):
        read(tmp_path)
    assert read(tmp_path, identifiers="exact").table.patient_ids.tolist() == ["A7", "KH-A7"]


def test_files_that_cannot_be_opened_are_an_error_or_are_counted(tmp_path):
    write_dicom(tmp_path / "1.dcm", PIXELS, study="1", ViewPosition="PA")
    (tmp_path / "gone.dcm").symlink_to("absent")
    os.mkfifo(tmp_path / "1.2.3")
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "done.flag").touch()  # no image by its name
    (tmp_path / "picture.dcm").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "torn.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 9)
    left_out = {
        "gone.dcm": "is a link to a file that is not there", "1.2.3": "is a FIFO, not a file",
        "empty.dcm": "is empty (0 bytes)", "done.flag": "is empty (0 bytes)",
        "picture.dcm": "is a PNG picture, not a DICOM file",
        "torn.dcm": "is a DICOM file whose header cannot be read: it is damaged or cut off",
    }  # fmt: skip
    with pytest.raises(UserError) as caught:
        read(tmp_path)
    text = str(caught.value)
    assert "3 file(s) or folder(s) cannot be read" in text and "data.on_missing_file=drop" in text
    assert all(f"{name}: {left_out[name]}" in text for name in ("gone.dcm", "1.2.3", "empty.dcm"))
    source = read(tmp_path, on_missing_file="drop")
    assert source.num_images_read == 7 and reasons(source) == left_out
    assert count_source(source)["images"]["dropped"]["is empty (0 bytes)"] == 2


def test_headers_without_preamble_and_long_headers_are_read(tmp_path):
    path = write_dicom(tmp_path / "bare", PIXELS, study="1", ViewPosition="PA")
    data = pydicom.dcmread(path)
    data.preamble, data.file_meta = None, pydicom.dataset.FileMetaDataset()
    data.save_as(path, implicit_vr=True, little_endian=True)
    assert path.read_bytes()[128:132] != b"DICM"
    long = pydicom.dcmread(write_dicom(tmp_path / "long", PIXELS, study="2", ViewPosition="PA"))
    long.add_new((0x0009, 0x0010), "LO", "VENDOR")
    long.add_new((0x0009, 0x1001), "OB", b"\0" * (2 * READ_BYTES))
    long.save_as(tmp_path / "long")
    assert read(tmp_path).table.images[View.PA].tolist() == [("bare",), ("long",)]


def test_oddities_of_headers_are_counted_and_not_shown(tmp_path, capfd, recwarn):
    for number in "123":
        path = write_dicom(tmp_path / number, PIXELS, study="1.2", ViewPosition="PA", AccessionNumber="A" * 16)
        path.write_bytes(path.read_bytes().replace(b"1.2\0", b"1.x "))  # a UID that is none
    frame, found = read_headers(tmp_path, ["1", "2", "3"])
    assert frame["study"].tolist() == ["1.x"] * 3
    assert [(remark.kind, remark.count, remark.example) for remark in found] == [
        ("pydicom: Invalid value for VR UI", 3, "1")
    ]
    assert not recwarn and capfd.readouterr() == ("", "")
    with pytest.warns(UserWarning, match="heard"):
        warnings.warn("heard again after", stacklevel=1)


def test_the_kind_of_a_warning_holds_no_value():
    for message, kind in {
        "Invalid value for VR UI: '1.2.x'. Please see <https://dicom.nema.org>": "pydicom: Invalid value for VR UI",
        "The value length (20) exceeds the maximum length of 16": "pydicom: The value length",
        "Unknown encoding 'Jane' - using default": "pydicom: Unknown encoding",
        "'Jane' is odd": "pydicom warns",
    }.items():
        assert kind_of_warning(message) == kind


def test_no_header_however_broken_ends_the_reading(tmp_path):
    """Bytes are changed, cut out and put in at random: every file is used or has a reason."""
    whole = write_dicom(
        tmp_path / "whole", PIXELS, study="1.2.3", ViewPosition="PA", SeriesDescription="Chest PA", SeriesNumber=3,
        SpecificCharacterSet="ISO_IR 192", AnatomicRegionSequence=sequence(Code("816094009", "Chest")),
        ViewCodeSequence=sequence(Code("272479007", "PA", (Code("1", "erect"),))),
    ).read_bytes()  # fmt: skip
    generator = np.random.default_rng(0)
    for number in range(400):
        content = bytearray(whole)
        for _ in range(generator.integers(1, 6)):
            at = generator.integers(0, len(content))
            content[at : at + generator.integers(0, 20)] = generator.bytes(generator.integers(0, 20))
        length = len(content) if number % 10 else generator.integers(1, len(content))
        (tmp_path / f"{number}.dcm").write_bytes(content[:length])
    source = read(tmp_path)
    assert source.num_images_read == 401 == len(source.dropped) + int(source.table.num_images.sum())
    assert (source.dropped["reason"] != "").all()


def test_sex_and_age_are_those_of_the_headers_or_of_the_birth(tmp_path):
    for n, tags in enumerate([
        {"PatientSex": "F", "PatientAge": "061Y"}, {"PatientSex": "M", "PatientAge": "018M"},
        {"PatientBirthDate": "19550820", "StudyDate": "20110819"}, {"PatientAge": "200Y"},
        {"PatientAge": "030Y", "PatientBirthDate": "19000101", "StudyDate": "20110819"},
    ]):  # fmt: skip
        write_dicom(tmp_path / f"{n}.dcm", PIXELS, study=str(n), ViewPosition="PA", **tags)
    source = read(tmp_path)
    assert source.table.attributes["sex"].tolist() == ["F", "M", "", "", ""]
    assert source.table.attributes["age"].tolist() == ["61", "1", "55", "", "30"]
    assert remarks(source)["age is below 0 or above 120 and is taken as not known"] == (1, "3.dcm")
    assert [step.left.studies for step in source.flow] == [5]
