"""12,000 DICOM files, as a small hospital archive has them, are counted in seconds."""

import json
import os
import subprocess
import sys
import time
from io import BytesIO

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

NUM_STUDIES = 6_000
SECONDS = 15.0


def file_of(view: str) -> bytes:
    """A DICOM file with the elements that X-ray devices write; numbers of its study and image are to be filled in."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = "1.2.3.1888888"
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID, data.SeriesInstanceUID = "1.2.4.1777777", f"1.2.5.1888888.{len(view)}"
    data.PatientID, data.AccessionNumber, data.StudyID = "PP777777", "A777777", "1"
    data.PatientName, data.PatientSex, data.PatientAge, data.PatientBirthDate = "Doe^Jane", "F", "055Y", "19600101"
    data.Modality, data.Manufacturer, data.ManufacturerModelName = "DX", "Siemens", "Ysio"
    data.ImageType, data.PresentationIntentType = ["ORIGINAL", "PRIMARY"], "FOR PRESENTATION"
    data.StudyDate, data.StudyTime, data.ContentDate = "20150101", "101500.000", "20150101"
    data.BodyPartExamined, data.ViewPosition, data.PatientOrientation = "CHEST", view, ["L", "F"]
    data.SeriesDescription, data.StudyDescription, data.ProtocolName = "Thorax", "Thorax in 2 Ebenen", "Thorax"
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = (
        "272479007" if view == "PA" else "399198007",
        "SCT",
        "view",
    )
    data.ViewCodeSequence = [code]
    block = data.private_block(0x0019, "MAKER 1.0", create=True)
    for number in range(40):
        block.add_new(number, "LO", f"private value {number}")
    data.Rows = data.Columns = 64
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.WindowCenter, data.WindowWidth, data.KVP, data.Exposure = 2048, 4096, 125, 2
    data.PixelData = np.random.default_rng(len(view)).integers(0, 4096, (64, 64), dtype=np.uint16).tobytes()
    data.FrameOfReferenceUID = generate_uid(entropy_srcs=["one"])
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, data, enforce_file_format=True)
    return buffer.getvalue()


@pytest.mark.slow
def test_12000_dicom_files_are_counted_in_seconds(tmp_path):
    templates = {"PA": file_of("PA"), "LL": file_of("LL")}
    for study in range(NUM_STUDIES):
        folder = tmp_path / "files" / f"{study // 100:03}" / f"{study:06}"
        folder.mkdir(parents=True)
        for n, (view, template) in enumerate(templates.items()):
            content = template.replace(b"777777", b"%06d" % study).replace(b"888888", b"%06d" % (2 * study + n))
            (folder / f"{view}.dcm").write_bytes(content)
    (tmp_path / "c.yaml").write_text("data: {source: dicom, image_size_px: 64, num_workers: 0}")
    command = ["-m", "dualview", "data", str(tmp_path / "c.yaml"), f"data.root={tmp_path / 'files'}", "--json"]
    started, spent = time.monotonic(), os.times()
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    seconds, now = time.monotonic() - started, os.times()
    cpu = now.children_user + now.children_system - spent.children_user - spent.children_system
    assert done.returncode == 0, done.stderr[-3000:]
    counts = json.loads(done.stdout)
    assert counts["images"] == {"read": 2 * NUM_STUDIES, "used": 2 * NUM_STUDIES, "dropped": {}}
    assert counts["studies"]["both"] == NUM_STUDIES
    print(f"{seconds:.1f} s, of which {cpu:.1f} s of computing")
    assert min(seconds, cpu) < SECONDS  # a busy machine makes a process wait
