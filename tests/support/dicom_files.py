"""DICOM files as a hospital may have them."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from dualview.data.sources.dicom_views import Code


def write_dicom(path: Path, pixels: np.ndarray | None, *, study: str, **tags: object) -> Path:
    """A DICOM file of 8 bits without a window, so that its pixels are shown as they are; None: without pixels."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = tags.pop("SOPClassUID", DigitalXRayImageStorageForPresentation)
    data.SOPInstanceUID = tags.pop("SOPInstanceUID", generate_uid())
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.PatientID, data.StudyInstanceUID, data.Modality = "p", study, tags.pop("Modality", "DX")
    if pixels is not None:
        data.Rows, data.Columns = pixels.shape
        data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
        data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
        data.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def sequence(*codes: Code, modifiers: str = "ViewModifierCodeSequence") -> list[Dataset]:
    """A sequence of these codes, for a tag of `write_dicom`."""
    items = []
    for code in codes:
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, "SCT", code.meaning
        if code.modifiers:
            setattr(item, modifiers, sequence(*code.modifiers))
        items.append(item)
    return items
