"""Image files written by hand, so that a reader's answer is compared with one that no reader has made."""

import struct
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid


def write_dicom(
    path: Path,
    stored: np.ndarray,
    *,
    bits: int = 12,
    photometric: str = "MONOCHROME2",
    signed: bool = False,
    syntax: UID | None = None,
    raw: dict[int, tuple[str, bytes]] | None = None,
    **tags: object,
) -> Path:
    """A DICOM file of these stored values.

    Args:
        syntax: compress by it.
        raw: tags as they stand in the file, (representation, bytes).
        tags: further tags by keyword, or others than follow from the values.
    """
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.SOPClassUID = SecondaryCaptureImageStorage
    data.PatientID, data.StudyInstanceUID, data.Modality = "p1", "1.2.3", "DX"
    data.Rows, data.Columns = stored.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, photometric
    data.BitsAllocated, data.BitsStored, data.HighBit = (8 if bits <= 8 else 16), bits, bits - 1
    data.PixelRepresentation = int(signed)
    data.PixelData = stored.astype("<u1" if bits <= 8 else "<u2").tobytes()  # Of a negative value its two's complement.
    for name, value in tags.items():
        setattr(data, name, value)
    if syntax is not None:
        data.compress(syntax)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    if raw:
        content = path.read_bytes()
        for tag, (representation, value) in raw.items():
            # Explicit VR little-endian: the tag goes before the first one of a later number.
            element = (
                struct.pack("<HH", tag >> 16, tag & 0xFFFF) + representation.encode() + struct.pack("<H", len(value))
            )
            at = content.index(struct.pack("<HH", 0x7FE0, 0x0010) + b"OW")
            content = content[:at] + element + value + content[at:]
        path.write_bytes(content)
    return path


def lookup_table(first: int, entries: np.ndarray, *, bits: int, packed: bool = False) -> Dataset:
    """An item of a LUT sequence whose data are words (OW), or bytes packed two in a word."""
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries) % 65536, first, bits])
    content = entries.astype("<u1" if packed else "<u2").tobytes()
    item.add_new("LUTData", "OW", content + b"\0" * (len(content) % 2))
    return item


def palette(red: np.ndarray, green: np.ndarray, blue: np.ndarray, *, bits: int, first: int = 0) -> dict[str, object]:
    """Tags of a palette of these entries."""
    tags: dict[str, object] = {}
    for name, entries in (("Red", red), ("Green", green), ("Blue", blue)):
        tags[f"{name}PaletteColorLookupTableDescriptor"] = [len(entries) % 65536, first, bits]
        tags[f"{name}PaletteColorLookupTableData"] = entries.astype("<u1" if bits == 8 else "<u2").tobytes()
    return tags


def packed_bits(values: np.ndarray, bits: int) -> bytes:
    """Rows of numbers of so many bits one after another, each row beginning with a byte (TIFF 6.0, page 39)."""
    rows = []
    for row in values:
        of_16 = np.unpackbits(row.astype(">u2").view(np.uint8).reshape(len(row), 2), axis=1)
        rows.append(np.packbits(of_16[:, 16 - bits :].reshape(-1)).tobytes())
    return b"".join(rows)


def write_tiff(path: Path, pages: list[tuple[np.ndarray, bytes, dict[int, int]]], *, big_endian: bool = False) -> Path:
    """A TIFF of gray pages, uncompressed: (pixels for the size, bytes of the strip, tags that are not as usual)."""
    order = ">" if big_endian else "<"
    out = (b"MM" if big_endian else b"II") + struct.pack(order + "HI", 42, 0)
    link = 4
    for pixels, strip, more in pages:
        height, width = pixels.shape
        strip_at = len(out)
        out += strip + b"\0" * (len(strip) % 2)
        tags = {
            256: width, 257: height, 258: pixels.dtype.itemsize * 8, 259: 1, 262: 1, 273: strip_at, 277: 1, 278: height,
            279: len(strip), **more,
        }  # fmt: skip
        out = out[:link] + struct.pack(order + "I", len(out)) + out[link + 4 :]
        out += struct.pack(order + "H", len(tags))
        for tag, value in sorted(tags.items()):
            long = tag in (254, 273, 279, 330)
            out += struct.pack(order + "HHI", tag, 4 if long else 3, 1)
            out += struct.pack(order + "I", value) if long else struct.pack(order + "HH", value, 0)
        link = len(out)
        out += struct.pack(order + "I", 0)
    path.write_bytes(out)
    return path


def of_page(pixels: np.ndarray, *, big_endian: bool = False, bits: int | None = None, **more: int):
    """A page of `write_tiff`: 12 `bits` are packed; `more` are tags by number, such as t262=0."""
    tags = {int(name[1:]): value for name, value in more.items()}
    if bits is not None:
        return pixels, packed_bits(pixels, bits), {258: bits, **tags}
    return pixels, pixels.astype(pixels.dtype.newbyteorder(">" if big_endian else "<")).tobytes(), tags
