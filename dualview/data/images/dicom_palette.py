"""PALETTE COLOR: stored values are places in three tables, of red, green and blue.

Source: DICOM PS3.3, C.7.6.3.1.5 and C.7.9.
"""

from typing import Any

import numpy as np

from dualview.data.images import dicom_tags
from dualview.data.images.dicom_stored import LUMA
from dualview.data.images.gray_scale import Table
from dualview.data.images.picture import Unclear

COLOURS = ("Red", "Green", "Blue")
MOST_ENTRIES = 65536
DISCRETE, LINEAR = 0, 1  # kinds of segment that are understood; the third repeats others, and nobody writes it


def palette_gray(stored: np.ndarray, data: Any, *, ends: tuple[float, float]) -> np.ndarray:
    """Luma (rows, columns) float32 in [0, 1] of stored places, which lie between the ends.

    Raises:
        Unclear: a palette is not there or cannot be read.
    """
    tables = [_table(data, colour=colour, ends=ends) for colour in COLOURS]
    white = max(table.white for table in tables)
    if not white:
        raise Unclear("has a palette that is black")
    low = int(stored.min())
    places = np.arange(low, int(stored.max()) + 1)
    colours = np.stack([table(places) for table in tables], axis=1) / white
    gray: np.ndarray = (colours.astype(np.float32) @ LUMA)[stored - low]
    return gray


def _table(data: Any, *, colour: str, ends: tuple[float, float]) -> Table:
    descriptor = f"{colour}PaletteColorLookupTableDescriptor"
    plain = f"{colour}PaletteColorLookupTableData"
    table = dicom_tags.table(data, descriptor=descriptor, entries=plain, ends=ends)
    if table is not None:
        return table
    described = dicom_tags.words(data, descriptor)
    segmented = dicom_tags.words(data, f"Segmented{plain}")
    if not len(segmented) or len(described) < 3:
        raise Unclear(f"has no {plain}")
    if described[2] <= 8:
        segmented = np.stack([segmented & 0xFF, segmented >> 8], axis=1).reshape(-1)
    num_entries = int(described[0]) or MOST_ENTRIES
    entries = _expanded([int(word) for word in segmented])
    if len(entries) < num_entries:
        raise Unclear(f"has a Segmented{plain} of {len(entries)} entries where {num_entries} are promised")
    return Table(
        first=dicom_tags.first_mapped(described, ends=ends), entries=np.array(entries[:num_entries], np.uint16)
    )


def _expanded(words: list[int]) -> list[int]:
    """Entries of a segmented palette: runs of entries, and straight lines to an entry (C.7.9.2).

    Raises:
        Unclear: more entries than a table can have, or a segment that is not understood.
    """
    entries: list[int] = []
    at = 0
    while at + 1 < len(words):
        kind, length = words[at], words[at + 1]
        if kind == DISCRETE:
            entries += words[at + 2 : at + 2 + length]
            at += 2 + length
        elif kind == LINEAR and entries and at + 2 < len(words):
            line = np.linspace(entries[-1], words[at + 2], length + 1)[1:]
            entries += [int(value) for value in np.rint(line)]
            at += 3
        else:
            raise Unclear(f"has a palette with a segment of kind {kind}")
        if len(entries) > MOST_ENTRIES:
            raise Unclear("has a segmented palette with too many entries")
    return entries
