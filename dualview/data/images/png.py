"""What a PNG says of its depth: the chunk sBIT (PNG, third edition, 11.3.2.7)."""

from pathlib import Path

import numpy as np

SIGNATURE_BYTES = 8
GRAYS = (0, 4)  # colour types without colour


def significant_bits(file: Path, *, stored: np.ndarray) -> int | None:
    """How many bits white has in this gray file, where sBIT says fewer than its depth; else None.

    By the standard the significant bits stand on the left: 12 bits in 16 are multiplied by 16, or by 65535 / 4095, and
    then the depth is the scale as always. Writers from detectors leave the values as they are, on the right. Which of
    the two it is the values tell: none needs more than the significant bits, and not all are multiples.

    Args:
        stored: (height, width) the values of the file.
    """
    depth, bits = _depths(file)
    if 8 * stored.dtype.itemsize < depth:  # Of gray with transparency Pillow keeps the upper 8 of 16 bits.
        return None
    if bits is None or not 0 < bits < depth or stored.dtype.kind not in "ui" or stored.max() >= 2**bits:
        return None
    values, shift = stored.astype(np.int64), depth - bits
    is_shifted = (values & (2**shift - 1) == 0).all() or (
        values == (values >> shift) * (2**depth - 1) // (2**bits - 1)
    ).all()
    return None if is_shifted else bits


def _depths(file: Path) -> tuple[int, int | None]:
    """Bits of the file, and significant bits; None where it does not say or is not gray."""
    with file.open("rb") as opened:
        opened.seek(SIGNATURE_BYTES)
        depth, is_gray = 0, False
        while len(head := opened.read(8)) == 8:
            length, kind = int.from_bytes(head[:4]), head[4:]
            if kind == b"IDAT":
                break
            if kind not in (b"IHDR", b"sBIT"):
                opened.seek(length + 4, 1)
                continue
            content = opened.read(length + 4)[:length]
            if kind == b"IHDR" and length >= 10:
                depth, is_gray = content[8], content[9] in GRAYS
            elif kind == b"sBIT" and is_gray and content:
                return depth, content[0]
    return depth, None
