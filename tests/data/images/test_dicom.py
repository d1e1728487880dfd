"""DICOM files: pixels by hand-computed values and against PNGs of the same picture; folders of them as a source."""

import shutil
import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels import compress  # noqa: F401 - says that encoders are there
from pydicom.uid import JPEG2000Lossless, RLELossless

from dualview.config import DataConfig
from dualview.data.images import dicom
from dualview.data.images.files import FileImages, decode
from dualview.data.sources.readers import read_source
from dualview.errors import BadImage, UserError
from dualview.views import View
from tests.support.pictures import write_dicom as write

PYDICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"


def shown(path):
    return decode(path, name=path.name)


@pytest.fixture
def ramp():
    """Values 0 .. 4095 of 12 bits over 64 x 64 pixels."""
    return np.arange(4096).reshape(64, 64)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_without_a_window_the_stored_bits_are_the_range(tmp_path, ramp, bits):
    stored = ramp * (2**bits - 1) // 4095
    pixels = shown(write(tmp_path / "a.dcm", stored, bits=bits))
    np.testing.assert_allclose(pixels, stored / (2**bits - 1), atol=1e-6)
    assert pixels.dtype == np.float32


def test_dicom_png_and_jpeg_of_one_picture_agree(tmp_path):
    smooth = np.add.outer(np.arange(96), 2 * np.arange(80)) * 15  # 12 bits
    write(tmp_path / "a.dcm", smooth)
    Image.fromarray((smooth * 65535 // 4095).astype(np.uint16)).save(tmp_path / "a.png")
    Image.fromarray((smooth * 255 // 4095).astype(np.uint8)).save(tmp_path / "a.jpg", quality=100)
    read = FileImages(tmp_path, image_size_px=32)
    np.testing.assert_allclose(read("a.dcm"), read("a.png"), atol=1e-4)
    np.testing.assert_allclose(read("a.dcm"), read("a.jpg"), atol=0.02)


def test_monochrome1_is_inverted(tmp_path, ramp):
    one = shown(write(tmp_path / "1.dcm", ramp, photometric="MONOCHROME1"))
    two = shown(write(tmp_path / "2.dcm", ramp))
    np.testing.assert_allclose(one, 1 - two, atol=1e-6)


def test_a_window_is_applied_as_the_standard_says(tmp_path, ramp):
    """PS3.3 C.11.2.1.2: below c - 0.5 - (w-1)/2 black, above c - 0.5 + (w-1)/2 white, linear between."""
    centre, width = 2048, 1001
    pixels = shown(write(tmp_path / "a.dcm", ramp, WindowCenter=centre, WindowWidth=width))
    expected = np.clip((ramp - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)
    np.testing.assert_allclose(pixels, expected, atol=1e-6)


def test_rescale_moves_the_range_with_the_values(tmp_path, ramp):
    plain = shown(write(tmp_path / "a.dcm", ramp))
    rescaled = shown(write(tmp_path / "b.dcm", ramp, RescaleSlope="2", RescaleIntercept="-1000"))
    np.testing.assert_allclose(rescaled, plain, atol=1e-6)
    windowed = shown(
        write(tmp_path / "c.dcm", ramp, RescaleSlope="2", RescaleIntercept="-1000", WindowCenter=0, WindowWidth=1001)
    )
    np.testing.assert_allclose(windowed, np.clip((ramp * 2 - 1000 + 0.5) / 1000 + 0.5, 0, 1), atol=1e-6)


def test_a_voi_lut_is_applied_and_scaled_by_its_own_bits(tmp_path, ramp):
    lut = Dataset()
    lut.add_new("LUTDescriptor", "US", [4096, 0, 10])
    lut.add_new("LUTData", "US", [1023 - value // 4 for value in range(4096)])
    pixels = shown(write(tmp_path / "a.dcm", ramp, VOILUTSequence=[lut]))
    np.testing.assert_allclose(pixels, (1023 - ramp // 4) / 1023, atol=1e-6)


def test_signed_values_start_below_zero(tmp_path, ramp):
    pixels = shown(write(tmp_path / "a.dcm", ramp - 2048, signed=True))
    np.testing.assert_allclose(pixels, ramp / 4095, atol=1e-6)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_lossless_compression_changes_nothing(tmp_path, ramp, syntax):
    np.testing.assert_array_equal(
        shown(write(tmp_path / "a.dcm", ramp, syntax=syntax)), shown(write(tmp_path / "b.dcm", ramp))
    )


@pytest.mark.parametrize("name", ["RLE", "jp2klossless", "jpeg_ls_lossless", "bigendian", "implicit", "expb", "padded"])
def test_one_picture_in_every_transfer_syntax(name):
    """pydicom's own files: MR_small.dcm as it is, and compressed without loss by other software."""
    other = PYDICOM_FILES / f"MR_small_{name}.dcm"
    np.testing.assert_array_equal(shown(other), shown(PYDICOM_FILES / "MR_small.dcm"))


@pytest.mark.parametrize("name", ["JPGExtended.dcm", "SC_rgb_jpeg.dcm", "JPEGLSNearLossless_16.dcm"])
def test_lossy_and_colour_files_are_read(name):
    pixels = shown(PYDICOM_FILES / name)
    assert pixels.ndim == 2
    assert 0 <= pixels.min() < pixels.max() <= 1


def test_unusable_files_are_refused_before_their_pixels_are_decoded(tmp_path, ramp, monkeypatch):
    refused = {
        PYDICOM_FILES / "SC_rgb_rle_2frame.dcm": "has 2 frames",
        PYDICOM_FILES / "image_dfl.dcm": "deflated",
        PYDICOM_FILES / "rtplan.dcm": "without an image",
        write(tmp_path / "bomb.dcm", ramp, Rows=60000, Columns=60000): "far too many pixels",
    }
    monkeypatch.setattr(pydicom.Dataset, "pixel_array", property(lambda _: pytest.fail("decoded")))
    for path, reason in refused.items():
        with pytest.raises(BadImage, match=reason):
            shown(path)


def test_the_size_of_a_codestream_is_found_in_itself(tmp_path, ramp):
    """A file whose header says 64 x 64 and whose JPEG 2000 codestream says 60,000 x 60,000 is a bomb."""
    data = pydicom.dcmread(write(tmp_path / "a.dcm", ramp, syntax=JPEG2000Lossless))
    code = data.PixelData
    assert dicom._codestream_size(dicom._first_bytes(code)) == (64, 64)
    at = code.index(b"\xff\x4f\xff\x51") + 8
    data.PixelData = code[:at] + struct.pack(">II", 60000, 60000) + code[at + 8 :]
    data.save_as(tmp_path / "b.dcm")
    with pytest.raises(BadImage, match="far too many pixels"):
        shown(tmp_path / "b.dcm")
    jpeg = pydicom.dcmread(PYDICOM_FILES / "JPGExtended.dcm")
    assert dicom._codestream_size(dicom._first_bytes(jpeg.PixelData)) == (jpeg.Rows, jpeg.Columns)


# -- a folder of them --------------------------------------------------------------------------------


@pytest.fixture
def hospital(tmp_path, ramp):
    """Two studies of one patient and one of another, a CT, a text file, and an image of unknown view."""
    root = tmp_path / "dicom"
    tags = {"PatientID": "p1", "StudyInstanceUID": "1.1", "AccessionNumber": "A1", "StudyDate": "20200102"}
    write(root / "a/1.dcm", ramp, ViewPosition="PA", **tags)
    write(root / "a/2.dcm", ramp, SeriesDescription="Thorax lateral", **tags)
    write(root / "b.dcm", ramp, ViewPosition="AP", **{**tags, "StudyInstanceUID": "1.2", "AccessionNumber": "A2"})
    view = Dataset()
    view.CodeValue, view.CodingSchemeDesignator, view.CodeMeaning = "399067008", "SCT", "lateral projection"
    write(root / "c", ramp, ViewCodeSequence=[view], PatientID="p2", StudyInstanceUID="2.1", AccessionNumber="A3")
    write(root / "ct.dcm", ramp, Modality="CT", PatientID="p2", StudyInstanceUID="2.2")
    write(root / "what.dcm", ramp, PatientID="p2", StudyInstanceUID="2.1")
    (root / "readme.txt").write_text("no DICOM")
    return root


def read(root, **config):
    config = {"source": "dicom", "root": root, "columns": {"study": "accession"}, **config}
    data = DataConfig.model_validate(config)
    return read_source(data, data=data, seed=0)


def test_a_folder_becomes_studies_and_what_is_left_out_is_listed(hospital, tmp_path):
    (tmp_path / "labels.csv").write_text("accession,Pneumonia\nA1,1\n2.1,0\n")
    source = read(hospital, csv=tmp_path / "labels.csv", findings=["Pneumonia"])
    table = source.table
    assert table.study_ids.tolist() == ["1.1", "1.2", "2.1"]
    assert table.images[View.PA].tolist() == [("a/1.dcm",), ("b.dcm",), ()]
    assert table.images[View.LATERAL].tolist() == [("a/2.dcm",), (), ("c",)]
    assert table.label_mask[:, 0].tolist() == [True, False, True]
    assert table.labels[[0, 2], 0].tolist() == [1, 0]
    assert dict(zip(source.dropped["path"], source.dropped["reason"], strict=True)) == {
        "readme.txt": "is not a DICOM file", "ct.dcm": "modality is CT", "what.dcm": "view is not given",
    }  # fmt: skip


def test_a_folder_without_labels_is_unlabelled(hospital):
    table = read(hospital).table
    assert len(table) == 3 and not table.label_mask.any()


def test_problems_of_the_table_of_labels_come_together(hospital, tmp_path):
    (tmp_path / "labels.csv").write_text("accession,Pneumonia\nA1,1\nA1,0\nA2,maybe\n")
    with pytest.raises(UserError, match=r"2 problem(.|\n)*:3: accession 'A1' .*twice(.|\n)*:4: Pneumonia is 'maybe'"):
        read(hospital, csv=tmp_path / "labels.csv", findings=["Pneumonia"])


def test_a_folder_without_files_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no file"):
        read(tmp_path)
    shutil.rmtree(tmp_path)
    with pytest.raises(UserError, match="not a folder"):
        read(tmp_path)
