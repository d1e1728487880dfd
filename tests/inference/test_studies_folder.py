"""`dualview predict --folder`: DICOM files by their tags, pictures by their names."""

import os

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

import dualview
from dualview.commands.predict import predict
from dualview.errors import UserError
from dualview.inference.studies_folder import list_studies


def write_dicom(path, pixels, *, study, **tags):
    """A DICOM file of 8 bits without a window, so that its pixels are shown as they are."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = SecondaryCaptureImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.PatientID, data.StudyInstanceUID, data.Modality = "p", study, tags.pop("Modality", "DX")
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
    data.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


def ask(run_dir, folder, out):
    predict(run_dir, folder=folder, out=out, device="cpu", num_workers=0)
    return pd.read_csv(out, dtype=str, keep_default_na=False).set_index("study")


def test_dicom_files_are_grouped_by_their_tags(make_run, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 80, 80), dtype=np.uint8)
    folder = tmp_path / "in"
    write_dicom(folder / "x" / "1", pixels[0], study="1.2", ViewPosition="PA")
    write_dicom(folder / "y" / "2.dcm", pixels[1], study="1.2", ViewPosition="LL")
    write_dicom(folder / "z" / "3", pixels[2], study="1.3", SeriesDescription="Chest lateral")
    write_dicom(folder / "z" / "4", pixels[3], study="1.4", ViewPosition="LLD")
    write_dicom(folder / "z" / "5", pixels[3], study="1.5", ViewPosition="PA", Modality="CT")
    write_dicom(folder / "z" / "6", pixels[4], study="1.6", ViewPosition="AP")
    (folder / "z" / "7.dcm").write_bytes(b"torn")
    (folder / "notes.txt").write_text("not looked at")
    (folder / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    run_dir = make_run()
    rows = ask(run_dir, folder, tmp_path / "out.csv")
    assert rows[["views", "reason"]].reset_index().values.tolist() == [
        ["1.2", "pa+lateral", ""],
        ["1.3", "lateral", ""],
        ["1.4", "", "view is LLD"],
        ["1.5", "", "modality is CT"],
        ["1.6", "pa", ""],
        ["z/7.dcm", "", "is not a DICOM file"],
    ]
    network = dualview.load(run_dir, device="cpu")
    expected = network.predict(pa=[pixels[0], None, pixels[4]], lateral=[pixels[1], pixels[2], None])
    written = rows.loc[["1.2", "1.3", "1.6"], list(network.findings)].astype(float)
    np.testing.assert_allclose(written, expected.probabilities, rtol=1e-5)


def test_pictures_are_grouped_by_their_names(make_run, draw_png, tmp_path):
    folder = tmp_path / "in"
    names = [
        "S1_pa.png", "S1_LATERAL.png", "S2_frontal.png", "S3-Lat.PNG", "S 4 pa.png", "S5/pa.png", "S5/lateral.png",
        "site/S1_pa.png", "site/S6/Frontal.png", "S7.png", "pa.png", "S8_pa_2.png", "spa.png",
    ]  # fmt: skip
    pixels = {name: draw_png(folder / name, seed=seed) for seed, name in enumerate(names)}
    Image.fromarray(pixels["S1_pa.png"]).convert("RGB").save(folder / "S9_lat.jpeg", quality=95)
    (folder / "S10_pa.tif").write_bytes(b"torn")
    (folder / ".hidden_pa.png").write_bytes(b"")
    run_dir = make_run()
    rows = ask(run_dir, folder, tmp_path / "out.csv")
    assert rows["views"].to_dict() == {
        "S1": "pa+lateral", "S2": "pa", "S3": "lateral", "S 4": "pa", "S5": "pa+lateral", "site/S1": "pa",
        "site/S6": "pa", "S9": "lateral", "S10": "", "S7.png": "", "pa.png": "", "S8_pa_2.png": "", "spa.png": "",
    }  # fmt: skip
    for name in ("S7.png", "pa.png", "S8_pa_2.png", "spa.png"):
        assert rows.loc[name, "reason"].startswith("the name does not say study and view; call it STUDY_pa")
    assert rows.loc["S10", "reason"] == "pa: is not an image in a known format"
    network = dualview.load(run_dir, device="cpu")
    expected = network.predict(pa=pixels["S5/pa.png"], lateral=pixels["S5/lateral.png"]).probabilities
    np.testing.assert_allclose(rows.loc[["S5"], list(network.findings)].astype(float), expected, rtol=1e-5)


def test_a_folder_that_changed_is_another_input(draw_png, tmp_path):
    draw_png(tmp_path / "S1_pa.png", seed=0)
    draw_png(tmp_path / "S2_pa.png", seed=1)
    (studies, before), (_, again) = list_studies(tmp_path), list_studies(tmp_path)
    assert [(study.study, study.row) for study in studies] == [("S1", 0), ("S2", 1)]
    assert before == again
    os.utime(tmp_path / "S1_pa.png", ns=(1, 1))
    touched = list_studies(tmp_path)[1]
    (tmp_path / "S2_pa.png").rename(tmp_path / "S2_lat.png")
    assert len({before, touched, list_studies(tmp_path)[1]}) == 3


def test_a_folder_without_images_is_refused(make_run, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("")
    with pytest.raises(UserError, match="holds no DICOM file and no"):
        ask(make_run(), tmp_path / "in", tmp_path / "out.csv")
    with pytest.raises(UserError, match="is not a folder"):
        list_studies(tmp_path / "absent")
