"""What decoding a file gives: its pixels, and what was odd about them."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

LOGGERS = ("pydicom", "tifffile", "PIL")
MOST_PIXELS = 100_000_000  # a 14 x 17 inch film at 0.05 mm has 60 million
TOO_LARGE = "has far too many pixels for an X-ray and is refused as unsafe"
ABOVE_INTENSITY_MAX = "has values above data.intensity_max, which become white"


class Unclear(Exception):
    """An image that is refused because nobody can know what it shows; the text continues a sentence that names it."""


class Picture(NamedTuple):
    """One decoded image, upright."""

    pixels: np.ndarray  # (height, width) float32 in [0, 1], gray
    white: float | None  # stored value that is white; None where a window or table of the file decides what is
    remarks: tuple[str, ...] = ()  # kinds of oddity that were coped with, each a sentence without number or name
    is_inverted: bool = False  # whether `white` is the stored value that is black, because 0 is white
    largest: float | None = None  # largest stored value, where `white` is one
    is_signed: bool = False  # whether black is a stored value below 0
    is_padding: np.ndarray | None = None  # (height, width) bool, pixels that are no part of the picture; None: none


def scaled(
    stored: np.ndarray,
    *,
    white: float,
    intensity_max: float | None,
    is_inverted: bool = False,
    remarks: tuple[str, ...] = (),
) -> Picture:
    """The picture of stored values (height, width) from 0 on.

    Args:
        white: largest value that the file can hold.
        intensity_max: the value that is white instead, in files that can hold more.
        is_inverted: whether 0 is white.
    """
    if intensity_max is not None and intensity_max < white:
        white = intensity_max
        if stored.max() > white:
            remarks = (*remarks, ABOVE_INTENSITY_MAX)
    unit = np.minimum(stored.astype(np.float32) / white, 1, dtype=np.float32)
    return Picture(1 - unit if is_inverted else unit, white, remarks, is_inverted, float(stored.max()))


@contextmanager
def quiet_decoders() -> Iterator[list[warnings.WarningMessage]]:
    """Keep what decoders say off the screen; gives their warnings, for whoever counts them.

    Not for several threads at once: warnings are caught for the whole process.
    """
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield caught
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
