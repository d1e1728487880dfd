"""Decoding one DICOM file into gray pixels (optional extra `dualview[dicom]`).

Stored values (dicom_stored.py) go through the modality LUT or rescale, then through the file's first usable VOI LUT or
window, as a viewer shows them (gray_scale.py); without either, the whole range that the stored bits can hold is
used. MONOCHROME1 is inverted after that, padding is black, and a palette is applied before colour becomes gray.
"""

import re
import struct
from pathlib import Path
from typing import Any

import numpy as np

from dualview.data.images import dicom_tags, gray_scale
from dualview.data.images.dicom_palette import palette_gray
from dualview.data.images.dicom_stored import LUMA, Stored, read_stored
from dualview.data.images.picture import (
    ABOVE_INTENSITY_MAX,
    MOST_PIXELS,
    TOO_LARGE,
    Picture,
    Unclear,
    quiet_decoders,
)
from dualview.errors import BadImage, UserError, one_line

DEFLATED = "1.2.840.10008.1.2.1.99"
GRAYS = ("MONOCHROME1", "MONOCHROME2")
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")  # colours that pydicom makes RGB of
COUNTED = 1_000_000  # number of pixels, spread over the picture, that say whether a window shows it
UNUSED_BITS = 2  # number of bits that must be unused before LargestImagePixelValue decides what is white

CONTRADICTING_SHAPE = "has a PresentationLUTShape that contradicts PhotometricInterpretation, which is followed"
LARGEST_IS_WHITE = "has no window, and LargestImagePixelValue says how many of its bits are used"


def decode(file: Path, *, name: str, intensity_max: float | None = None) -> Picture:
    """The picture of a file.

    Args:
        intensity_max: the stored value that is white where the file has no usable window or VOI LUT and can hold it.

    Raises:
        BadImage: no single-frame image, far too large, pixels that cannot be decoded, or of uncertain meaning.
        UserError: pydicom is not installed.
    """
    try:
        import pydicom  # noqa: PLC0415 - an extra
    except ImportError:
        raise UserError(f"{name} is a DICOM file, which needs pydicom: pip install 'dualview[dicom]'") from None
    try:
        with quiet_decoders() as warned:
            if _is_deflated(file):
                # A deflated file unpacks to any size before a single tag can be checked.
                raise BadImage(name, reason="is deflated as a whole, which is refused as unsafe; store it uncompressed")
            data = pydicom.dcmread(file, force=True)
            _add_transfer_syntax(data)
            _refuse_unusable(data, name=name)
            picture = _picture(data, intensity_max=intensity_max)
        kinds = [*picture.remarks, *(warning_kind(str(warning.message)) for warning in warned)]
        return picture._replace(pixels=picture.pixels.clip(0, 1), remarks=tuple(dict.fromkeys(kinds)))
    except BadImage:
        raise
    except Unclear as error:
        raise BadImage(name, reason=str(error)) from None
    except Exception as error:  # A broken file makes pydicom and the decoders raise anything.
        raise BadImage(name, reason=f"cannot be decoded ({one_line(error)})") from None


def warning_kind(text: str) -> str:
    """A warning of pydicom without the values in it, so that warnings can be counted by kind.

    >>> warning_kind("Invalid value for VR UI: '1.2.x'. Please see <https://dicom.nema.org/UI> for more.")
    'pydicom: Invalid value for VR UI: …'
    """
    first_sentence = " ".join(text.split()).partition(". ")[0]
    return "pydicom: " + re.sub(r"'[^']*'?|\"[^\"]*\"?|\b\d[\w.]*", "…", first_sentence)[:120]


def _is_deflated(file: Path) -> bool:
    from pydicom.filereader import read_file_meta_info  # noqa: PLC0415 - an extra

    with file.open("rb") as opened:
        head = opened.read(2048)
    if head[128:132] == b"DICM":
        return bool(read_file_meta_info(file).get("TransferSyntaxUID", "") == DEFLATED)
    return DEFLATED.encode() in head


def _add_transfer_syntax(data: Any) -> None:
    """Say how a file without meta information is encoded, as its data set has been read."""
    from pydicom.dataset import FileMetaDataset  # noqa: PLC0415 - an extra
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian  # noqa: PLC0415

    if not getattr(data, "file_meta", None):
        data.file_meta = FileMetaDataset()
    if not data.file_meta.get("TransferSyntaxUID"):
        is_implicit, is_little = data.original_encoding
        explicit = ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian
        data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit else explicit


def _refuse_unusable(data: Any, *, name: str) -> None:
    """Raises: BadImage, before any pixel is decoded."""
    if "PixelData" not in data:
        if "FloatPixelData" in data or "DoubleFloatPixelData" in data:
            raise BadImage(name, reason="has floating-point pixels, and nothing says which of them are white")
        raise BadImage(name, reason="is a DICOM file without an image")
    num_frames = max(dicom_tags.numbers(data, "NumberOfFrames"), default=1)
    if num_frames > 1:
        raise BadImage(name, reason=f"has {num_frames:.0f} frames; one is needed")
    sizes = [(int(data.Rows), int(data.Columns))]
    if data.file_meta.TransferSyntaxUID.is_encapsulated:
        sizes.append(_codestream_size(_first_bytes(data.PixelData)) or sizes[0])
    if max(height * width for height, width in sizes) > MOST_PIXELS:
        raise BadImage(name, reason=TOO_LARGE)


def _picture(data: Any, *, intensity_max: float | None) -> Picture:
    """The picture of a data set, in [0, 1] but for rounding.

    Raises:
        Unclear: of uncertain meaning.
    """
    photometric = str(data.get("PhotometricInterpretation") or "").strip().upper()
    samples = int(data.get("SamplesPerPixel") or 1)
    if samples == 3 and photometric in COLOURS:
        luma: np.ndarray = data.pixel_array.astype(np.float32) @ LUMA
        return Picture(luma / np.float32(2 ** int(data.BitsStored) - 1), None)
    if samples != 1 or photometric not in (*GRAYS, "PALETTE COLOR"):
        raise Unclear(f"has PhotometricInterpretation {photometric or 'blank'} with {samples} samples per pixel")
    stored = read_stored(data)
    if photometric == "PALETTE COLOR":
        return Picture(palette_gray(stored.values, data, ends=stored.ends), None, stored.remarks)
    return _gray(stored, data, is_inverted=photometric == "MONOCHROME1", intensity_max=intensity_max)


def _gray(stored: Stored, data: Any, *, is_inverted: bool, intensity_max: float | None) -> Picture:
    """The picture of MONOCHROME1 or MONOCHROME2 stored values.

    Raises:
        Unclear: of uncertain meaning.
    """
    remarks = list(stored.remarks)
    shape = str(data.get("PresentationLUTShape") or "").strip().upper()
    if shape == "INVERSE" and not is_inverted:
        raise Unclear("is MONOCHROME2 with PresentationLUTShape INVERSE, so that black may be white")
    if shape == "IDENTITY" and is_inverted:
        remarks.append(CONTRADICTING_SHAPE)
    seen = stored.values[~stored.is_padding] if stored.is_padding is not None else stored.values
    if not seen.size:
        return Picture(np.zeros(stored.values.shape, np.float32), None, tuple(remarks))
    low, high = int(seen.min()), int(seen.max())
    modality, more = dicom_tags.modality(
        dicom_tags.of_frame(data, "PixelValueTransformationSequence"), ends=stored.ends
    )
    remarks += more
    black, white = stored.ends
    modality_ends = modality.ends(stored.ends)
    voi, more = dicom_tags.voi(dicom_tags.of_frame(data, "FrameVOILUTSequence"), ends=modality_ends)
    remarks += more

    largest = _largest(data, stored=stored, high=high)
    if voi and isinstance(voi[0], gray_scale.Window) and voi[0].is_range(modality_ends):
        # Many writers fill in the range of the bits: the user can say better which value is white.
        voi, largest = [], None
    if intensity_max is not None and intensity_max < white:
        # Of signed values without a negative one, 0 is black: they are those of an unsigned detector.
        ends = (-intensity_max - 1 if low < 0 else 0.0, intensity_max)
    else:
        ends = (black, largest or white)
    # Every value that the picture has is looked up in the shown ones, as there are far fewer than pixels.
    if high - low < 2**16:
        levels, position = np.arange(low, high + 1), None
        some = seen.reshape(-1)[:: 1 + seen.size // COUNTED]
        counts = np.bincount(some - low, minlength=len(levels))
    else:
        levels, position, counts = np.unique(seen, return_inverse=True, return_counts=True)
    shown = gray_scale.shown(levels, counts=counts, modality=modality, voi=voi, stored_ends=ends)
    unit = shown.unit.astype(np.float32)
    unit = 1 - unit if is_inverted else unit
    remarks += shown.remarks
    by_stored = shown.by_range and isinstance(modality, gray_scale.Rescale)
    if by_stored and ends[1] == intensity_max and high > ends[1]:
        remarks.append(ABOVE_INTENSITY_MAX)
    if by_stored and ends[1] == largest:
        remarks.append(LARGEST_IS_WHITE)
    pixels = np.zeros(stored.values.shape, np.float32)
    place = ... if stored.is_padding is None else ~stored.is_padding
    pixels[place] = unit[seen - low] if position is None else unit[position.reshape(seen.shape)]
    return Picture(
        pixels,
        white=float(ends[1]) if by_stored else None,
        remarks=tuple(remarks),
        # A negative slope inverts, too; both together do not.
        is_inverted=by_stored and is_inverted != (isinstance(modality, gray_scale.Rescale) and modality.slope < 0),
        largest=float(high) if by_stored else None,
        is_signed=ends[0] < 0 and by_stored,
        is_padding=stored.is_padding,
    )


def _largest(data: Any, *, stored: Stored, high: int) -> float | None:
    """White by LargestPixelValueInSeries or LargestImagePixelValue, where they say that bits are unused.

    It is the largest number of the bits that they need, as if BitsStored had named them, so that the images of one
    detector keep their brightness to each other. A tag that some pixel exceeds says nothing.
    """
    for keyword in ("LargestPixelValueInSeries", "LargestImagePixelValue"):
        for largest in dicom_tags.words(data, keyword)[:1]:
            num_bits = int(largest).bit_length()
            if not stored.is_signed and largest >= high and 0 < num_bits <= stored.num_bits - UNUSED_BITS:
                return 2.0**num_bits - 1
    return None


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
