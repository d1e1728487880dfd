"""From the stored values of a detector to the grays that a viewer shows: modality and VOI transforms.

Source: DICOM PS3.3, C.11.1 (modality LUT, rescale), C.11.2 (VOI LUT, window). Everything here is a function of plain
numbers, so that slope, intercept, tables and ranges have one definition for pixels and range alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dualview.data.images.picture import Unclear

FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")  # VOI LUT functions, C.11.2.1.2 and C.11.2.1.3
ONE_GRAY = 0.5 / 255  # difference of grays that no 8-bit screen shows
FEW = 0.01  # fraction of the pixels; a burnt-in letter is less, and every chest has more grays

WINDOW_MISSES = "has a window that shows nearly every pixel alike, or as plain black or white; it counts as absent"
TABLE_MISSES = "has a VOI LUT that shows nearly every pixel alike, or as plain black or white; it counts as absent"


@dataclass(frozen=True, kw_only=True)
class Rescale:
    """The modality transform value * slope + intercept."""

    slope: float = 1.0  # slope, finite and not 0
    intercept: float = 0.0

    def __call__(self, stored: np.ndarray) -> np.ndarray:
        """Values (...) float64 of stored ones."""
        values: np.ndarray = stored.astype(np.float64) * self.slope + self.intercept
        return values

    def ends(self, stored_ends: tuple[float, float]) -> tuple[float, float]:
        """Smallest and largest value where stored ones lie between these."""
        low, high = sorted(end * self.slope + self.intercept for end in stored_ends)
        return low, high


@dataclass(frozen=True, kw_only=True)
class Table:
    """A lookup table: the entries for the values `first`, `first` + 1, ...; values beyond take the entry at the end."""

    first: int
    entries: np.ndarray  # (n,) uint16

    @property
    def white(self) -> float:
        """Largest number of as many bits as the entries really use, whatever the descriptor says of them.

        Entries that end with a power of two, such as 4096, do not need another bit: whoever made them counted from 1.
        """
        largest = int(self.entries.max())
        return float(max(2 ** max(largest - 1, 0).bit_length() - 1, largest))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Entries (...) float64 of values."""
        last = self.first + len(self.entries) - 1
        # Indices are as wide as values: 16 bits overflow where `first` is negative.
        position = np.rint(values.clip(self.first, last)).astype(np.int64) - self.first
        entries: np.ndarray = self.entries[position].astype(np.float64)
        return entries

    def ends(self, stored_ends: tuple[float, float]) -> tuple[float, float]:
        """Black and white of the entries, which hang on no stored value."""
        return 0.0, max(self.white, 1.0)

    def shown(self, values: np.ndarray) -> np.ndarray:
        """Grays (...) float64 in [0, 1]."""
        return self(values) / max(self.white, 1.0)


@dataclass(frozen=True, kw_only=True)
class Window:
    """A window that can be used: `width` is at least 1 for LINEAR, above 0 for the others."""

    centre: float
    width: float
    function: str = "LINEAR"

    def is_range(self, ends: tuple[float, float]) -> bool:
        """Whether it shows the whole range between these ends and no more, as a window that nobody has chosen does."""
        if self.function == "SIGMOID":
            return False
        less = int(self.function == "LINEAR")
        half, centre = (self.width - less) / 2, self.centre - less / 2
        edges, (low, high) = (centre - half, centre + half), ends
        return max(abs(edges[0] - low), abs(edges[1] - high)) <= ONE_GRAY * (high - low)

    def shown(self, values: np.ndarray) -> np.ndarray:
        """Grays (...) float64 in [0, 1]."""
        if self.function == "SIGMOID":
            # tanh does not overflow where exp does.
            sigmoid: np.ndarray = 0.5 + 0.5 * np.tanh(2 * (values - self.centre) / self.width)
            return sigmoid
        centre, width = self.centre, self.width
        if self.function == "LINEAR":
            centre, width = centre - 0.5, width - 1
        if width == 0:
            return (values > centre).astype(np.float64)
        linear: np.ndarray = ((values - centre) / width + 0.5).clip(0, 1)
        return linear


class Shown(NamedTuple):
    """Grays of values, and how they came about."""

    unit: np.ndarray  # (...) float64 in [0, 1] but for rounding
    by_range: bool  # whether the range decided, because there was no usable window or table
    remarks: tuple[str, ...]


def shown(
    stored: np.ndarray,
    *,
    counts: np.ndarray,
    modality: Rescale | Table,
    voi: Sequence[Table | Window],
    stored_ends: tuple[float, float],
) -> Shown:
    """Grays of stored values, by the first table or window of `voi` that shows more than black and white.

    Args:
        stored: (n,) every value that the picture has, and more.
        counts: (n,) number of pixels of each.
        stored_ends: the stored values between which everything lies, for pictures without `voi`.

    Raises:
        Unclear: the modality transform leaves no range.
    """
    values = modality(stored)
    low, high = modality.ends(stored_ends)
    if not 0 < high - low < np.inf:
        raise Unclear(f"has a slope and intercept that give values from {low:g} to {high:g}")
    remarks: list[str] = []
    for transform in voi:
        unit = transform.shown(values)
        if len(values) == 1 or _shows(unit, counts=counts):
            return Shown(unit, False, tuple(remarks))
        remarks.append(TABLE_MISSES if isinstance(transform, Table) else WINDOW_MISSES)
    return Shown((values - low) / (high - low), True, tuple(remarks))


def _shows(unit: np.ndarray, *, counts: np.ndarray) -> bool:
    """Whether these grays (n,) are a picture, and not one gray, or black and white but for few of the pixels."""
    unit, counts = unit[counts > 0], counts[counts > 0]
    is_between = (unit > ONE_GRAY) & (unit < 1 - ONE_GRAY)
    has_grays = counts[is_between].sum() > FEW * counts.sum()
    return bool(has_grays and unit.max() - unit.min() > ONE_GRAY)
