"""Decoding one DICOM file into gray pixels (optional extra `dualview[dicom]`).

Stored values go through the modality LUT or rescale, then through the file's first VOI LUT or window
(DICOM PS3.3, C.11.1 and C.11.2), as a viewer shows them; without either, the whole range that the stored
bits can hold is used. The result is scaled from that range to [0, 1], and MONOCHROME1 is inverted.
"""

import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from dualview.errors import BadImage, UserError

MAX_PIXELS = 100_000_000  # a 14 x 17 inch film at 0.05 mm has 60 million
DEFLATED = "1.2.840.10008.1.2.1.99"
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # weights of red, green and blue, ITU-R 601


def decode(file: Path, *, name: str) -> np.ndarray:
    """Gray pixels (height, width) float32 in [0, 1].

    Raises:
        BadImage: no single-frame image, far too large, or pixels that cannot be decoded.
        UserError: pydicom is not installed.
    """
    try:
        import pydicom  # noqa: PLC0415 - an extra
    except ImportError:
        raise UserError(f"{name} is a DICOM file, which needs pydicom: pip install 'dualview[dicom]'") from None
    try:
        syntax = pydicom.filereader.read_file_meta_info(file).get("TransferSyntaxUID", "")
        if syntax == DEFLATED:
            # A deflated file unpacks to any size before a single tag can be checked.
            raise BadImage(name, reason="is deflated as a whole, which is refused as unsafe; store it uncompressed")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom warns about oddities that it copes with
            data = pydicom.dcmread(file)
            _refuse_unusable(data, name=name)
            return _shown(data.pixel_array, data).clip(0, 1)
    except BadImage:
        raise
    except Exception as error:  # A broken file makes pydicom and the decoders raise anything.
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BadImage(name, reason=f"cannot be decoded ({reason})") from None


def _refuse_unusable(data: Any, *, name: str) -> None:
    """Raises: BadImage, before any pixel is decoded."""
    if "PixelData" not in data:
        raise BadImage(name, reason="is a DICOM file without an image")
    if (num_frames := int(data.get("NumberOfFrames") or 1)) > 1:
        raise BadImage(name, reason=f"has {num_frames} frames; one is needed")
    sizes = [(int(data.Rows), int(data.Columns))]
    if data.file_meta.TransferSyntaxUID.is_encapsulated:
        sizes.append(_codestream_size(_first_bytes(data.PixelData)) or sizes[0])
    if max(height * width for height, width in sizes) > MAX_PIXELS:
        raise BadImage(name, reason="has far too many pixels for an X-ray and is refused as unsafe")


def _shown(stored: np.ndarray, data: Any) -> np.ndarray:
    """Stored values as a viewer shows them, in [0, 1] but for rounding: (height, width) float32."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut  # noqa: PLC0415 - an extra

    if stored.ndim == 3:  # colour of 8 or 16 bits
        luma: np.ndarray = stored.astype(np.float32) @ LUMA
        colour: np.ndarray = luma / np.float32(2 ** int(data.BitsStored) - 1)
        return colour
    low, high = _range(data)
    shown = apply_voi_lut(apply_modality_lut(stored, data), data, index=0)
    if lut := data.get("VOILUTSequence"):
        low, high = 0.0, 2.0 ** int(lut[0].LUTDescriptor[2]) - 1
    unit = ((shown.astype(np.float64) - low) / (high - low)).astype(np.float32)
    return 1 - unit if data.PhotometricInterpretation == "MONOCHROME1" else unit


def _range(data: Any) -> tuple[float, float]:
    """What stored bits can hold, after the modality transform; windows end there too (PS3.3 C.11.2.1.2)."""
    if lut := data.get("ModalityLUTSequence"):
        return 0.0, 2.0 ** int(lut[0].LUTDescriptor[2]) - 1
    bits = int(data.BitsStored)
    is_signed = int(data.get("PixelRepresentation", 0)) == 1
    ends = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if is_signed else (0.0, 2.0**bits - 1)
    slope, intercept = float(data.get("RescaleSlope") or 1), float(data.get("RescaleIntercept") or 0)
    low, high = sorted(end * slope + intercept for end in ends)
    return low, high


def _first_bytes(pixel_data: bytes) -> bytes:
    """The beginning of the first frame's codestream: what follows the offset table (PS3.5 A.4)."""
    (length,) = struct.unpack_from("<I", pixel_data, 4)
    return pixel_data[8 + length + 8 :]


def _codestream_size(code: bytes) -> tuple[int, int] | None:
    """(height, width) that a JPEG, JPEG-LS or JPEG 2000 codestream says of itself; None where it says nothing.

    A header of 10 x 10 pixels may hold a codestream of 60,000 x 60,000, and decoders believe the latter.
    """
    if (start := code.find(b"\xff\x4f\xff\x51", 0, 4096)) >= 0:  # JPEG 2000: SOC, SIZ
        width, height = struct.unpack_from(">II", code, start + 8)
        return height, width
    position = 2
    while position + 9 <= len(code) and code[position] == 0xFF:  # JPEG: segments up to the frame header
        marker = code[position + 1]
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            height, width = struct.unpack_from(">HH", code, position + 5)
            return height, width
        position += 2 + struct.unpack_from(">H", code, position + 2)[0]
    return None
