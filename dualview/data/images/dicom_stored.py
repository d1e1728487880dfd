"""The stored values of a gray DICOM image: which bits they are, and which pixels are padding.

Source: DICOM PS3.3, C.7.6.3 (Image Pixel), C.7.5.1.1.2 (Pixel Padding); PS3.5, 8.1.1 (bits beside the stored ones may
hold overlays, a retired use).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dualview.data.images import dicom_tags
from dualview.data.images.picture import Unclear

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # weights of red, green and blue, ITU-R 601

OVERLAY_BITS = "has overlays among its pixels, which are not shown"
SHIFTED = "has its stored bits in the upper part of each word (HighBit)"


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Stored values of one picture."""

    values: np.ndarray  # (rows, columns), integers
    num_bits: int  # BitsStored
    is_signed: bool
    is_padding: np.ndarray | None  # (rows, columns) bool; None where there is none
    remarks: tuple[str, ...]

    @property
    def ends(self) -> tuple[float, float]:
        """Smallest and largest value that the bits can hold."""
        if self.is_signed:
            return -(2.0 ** (self.num_bits - 1)), 2.0 ** (self.num_bits - 1) - 1
        return 0.0, 2.0**self.num_bits - 1


def read_stored(data: Any) -> Stored:
    """Decode the pixels of a data set with one sample per pixel.

    Raises:
        Unclear: tags that contradict each other or the pixels.
        Exception: whatever pydicom and its decoders raise.
    """
    allocated, num_bits = int(data.BitsAllocated), int(data.BitsStored)
    high_bit = int(num_bits - 1 if data.get("HighBit") in (None, "") else data.HighBit)
    is_signed = int(data.get("PixelRepresentation") or 0) == 1
    if not 1 <= num_bits <= high_bit + 1 <= allocated:
        raise Unclear(
            f"has BitsAllocated {allocated}, BitsStored {num_bits}, HighBit {high_bit}, which do not go together"
        )
    words = _words(data, allocated=allocated)
    padding = _padding(words, data, allocated=allocated, is_signed=is_signed)
    shift = high_bit + 1 - num_bits
    if shift and data.file_meta.TransferSyntaxUID.is_encapsulated:
        raise Unclear(f"has HighBit {high_bit} with BitsStored {num_bits} in a compressed image")
    in_picture = words if padding is None else words[~padding]
    if shift and in_picture.size and int(in_picture.max()) < 2**num_bits and (in_picture & (2**shift - 1)).any():
        raise Unclear(f"has HighBit {high_bit} with BitsStored {num_bits}, but the highest bits are never used")
    remarks = [SHIFTED] if shift else []
    remarks += _check_high_bits(in_picture, data, high_bit=high_bit, is_signed=is_signed)
    wide: np.ndarray = words.astype(np.int64 if allocated > 16 else np.int32)
    values = (wide >> shift) & (2**num_bits - 1)
    if is_signed:
        values = values - ((values >> (num_bits - 1)) << num_bits)
    return Stored(values=values, num_bits=num_bits, is_signed=is_signed, is_padding=padding, remarks=tuple(remarks))


def _words(data: Any, *, allocated: int) -> np.ndarray:
    """Unsigned words (rows, columns) with all their bits as they stand in the file."""
    syntax = data.file_meta.TransferSyntaxUID
    rows, columns = int(data.Rows), int(data.Columns)
    if not syntax.is_encapsulated:
        needed, there = -(-rows * columns * allocated // 8), len(data.PixelData)
        if there >= 2 * needed > 0:
            raise Unclear(f"has {there} bytes of pixel data where rows, columns and bits need {needed}")
    # What pydicom would do about bits beside the stored ones hides that they are used.
    data.pixel_array_options(correct_unused_bits=False)
    pixels: np.ndarray = data.pixel_array
    if pixels.shape != (rows, columns):
        raise Unclear(f"has pixels of shape {pixels.shape} where rows and columns are {rows} and {columns}")
    return pixels.view(np.dtype(f"u{pixels.dtype.itemsize}").newbyteorder(pixels.dtype.byteorder))


def _padding(words: np.ndarray, data: Any, *, allocated: int, is_signed: bool) -> np.ndarray | None:
    """Where padding is (rows, columns) bool; None where there is none."""
    value = dicom_tags.signed_words(data, "PixelPaddingValue", signed=is_signed)[:1]
    if not value or allocated not in (8, 16):
        return None
    limit = dicom_tags.signed_words(data, "PixelPaddingRangeLimit", signed=is_signed)[:1] or value
    low, high = sorted((value[0], limit[0]))
    values = (
        words.view(np.dtype(f"i{words.dtype.itemsize}").newbyteorder(words.dtype.byteorder)) if is_signed else words
    )
    is_padding: np.ndarray = (values >= low) & (values <= high)
    return is_padding if is_padding.any() else None


def _check_high_bits(words: np.ndarray, data: Any, *, high_bit: int, is_signed: bool) -> list[str]:
    """Remarks on the bits above the stored ones.

    Raises:
        Unclear: they are used, and neither extend a sign nor are overlays, so that BitsStored may be wrong.
    """
    above = words >> (high_bit + 1)
    if not above.any():
        return []
    all_ones = 2 ** (words.dtype.itemsize * 8 - high_bit - 1) - 1
    if is_signed and (above == np.where((words >> high_bit) & 1, all_ones, 0)).all():
        return []
    overlay_bits = 0
    for group in range(0x6000, 0x6020, 2):
        if (group, 0x0102) in data and (group, 0x3000) not in data:
            overlay_bits |= 1 << int(data[group, 0x0102].value)
    if (above & ~np.array(overlay_bits >> (high_bit + 1), above.dtype)).any():
        raise Unclear(f"has values as large as {int(words.max())}, but BitsStored says {high_bit + 1} bits")
    return [OVERLAY_BITS]
