"""Tags of a DICOM data set as plain numbers, whatever their value representation, and tables made of them.

Values are taken as they stand in the file where pydicom has not converted them yet: it raises for a text that is no
number, and guesses the sign of what may be US or SS.
"""

import math
from typing import Any

import numpy as np

from dualview.data.images.gray_scale import FUNCTIONS, Rescale, Table, Window
from dualview.data.images.picture import Unclear

TEXTS = (None, "DS", "IS", "LO", "SH", "CS", "ST", "LT", "UN")  # representations of numbers written as text

NO_DATA = "has a lookup table without data; it counts as absent"
BAD_TABLE = "has a VOI LUT that cannot be read; it counts as absent"
BAD_WINDOW = "has a window without a usable centre and width; it counts as absent"
BAD_FUNCTION = "has a VOI LUT function that is not known; its windows count as absent"


def numbers(data: Any, keyword: str) -> list[float]:
    """The values of a tag of decimal numbers (NaN: no number); none where the tag is absent or empty."""
    from pydicom.datadict import tag_for_keyword  # noqa: PLC0415 - an extra

    tag = tag_for_keyword(keyword)
    if tag not in data:
        return []
    element = data.get_item(tag)
    value = element.value
    if isinstance(value, bytes) and element.VR in TEXTS:
        value = value.decode("latin-1")
    elif isinstance(value, bytes):
        value = data[tag].value
    if isinstance(value, str):
        texts = value.strip(" \0").split("\\")
        value = [text.strip(" \0") for text in texts] if texts != [""] else []
    if value is None:
        return []
    values = value if isinstance(value, list | tuple) or hasattr(value, "__iter__") else [value]
    return [_number(each) for each in values]


def _number(value: Any) -> float:
    try:
        return float(str(value))
    except ValueError:
        return math.nan


def words(data: Any, keyword: str) -> np.ndarray:
    """The values of a tag of 16-bit words as unsigned numbers (n,) uint16; none where it is absent or empty.

    Bytes of an odd number end with half a word of their own.
    """
    from pydicom.datadict import tag_for_keyword  # noqa: PLC0415 - an extra

    tag = tag_for_keyword(keyword)
    if tag not in data:
        return np.zeros(0, np.uint16)
    element = data.get_item(tag)
    value = element.value
    if isinstance(value, bytes):
        in_file = getattr(element, "is_little_endian", None)
        little = data.original_encoding[1] is not False if in_file is None else in_file
        value += b"\0" * (len(value) % 2)
        return np.frombuffer(value, "<u2" if little or element.VR == "OB" else ">u2").astype(np.uint16)
    if value is None or value == "":
        return np.zeros(0, np.uint16)
    whole = [int(each) for each in (value if hasattr(value, "__iter__") else [value])]
    return np.array(whole, np.int64).astype(np.uint16)  # A negative number becomes the word that it is stored as.


def signed_words(data: Any, keyword: str, *, signed: bool) -> list[int]:
    """As `words`, as numbers that may be negative where `signed` says so."""
    found = words(data, keyword)
    return [int(value) for value in (found.view(np.int16) if signed else found)]


def first_mapped(described: np.ndarray, *, ends: tuple[float, float]) -> int:
    """The second word of a descriptor, which is negative where values can be, or where none is as large."""
    word = int(described[1])
    return word - 65536 if word >= 32768 and (ends[0] < 0 or word > ends[1]) else word


def table(data: Any, *, descriptor: str, entries: str, ends: tuple[float, float]) -> Table | None:
    """A table from its descriptor and its data; None where there is no data.

    Args:
        data: data set or item of a sequence that has both.
        ends: smallest and largest value that the table may be asked for.

    Raises:
        Unclear: the descriptor is no descriptor, or promises more entries than there are.

    Source: DICOM PS3.3, C.11.1.1: 0 stands for 65,536 entries, the first value mapped is signed if the values are, and
    8-bit entries may be packed, two in a word.
    """
    described, found = words(data, descriptor), words(data, entries)
    if not len(found):
        return None
    if len(described) < 3:
        raise Unclear(f"has a {descriptor} that has not three values")
    num_entries = int(described[0]) or 65536
    if len(found) < num_entries and described[2] <= 8:
        found = np.stack([found & 0xFF, found >> 8], axis=1).reshape(-1)
    if len(found) < num_entries:
        raise Unclear(f"has {len(found)} entries of {entries} where {descriptor} promises {num_entries}")
    return Table(first=first_mapped(described, ends=ends), entries=found[:num_entries])


def of_frame(data: Any, module: str) -> Any:
    """Where the tags of a module stand: in a group of an enhanced object (C.7.6.16), else in the data set."""
    for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        for group in list(data.get(groups) or [])[:1]:
            for item in list(group.get(module) or [])[:1]:
                return item
    return data


def modality(data: Any, *, ends: tuple[float, float]) -> tuple[Rescale | Table, list[str]]:
    """The modality transform of stored values between these ends, and remarks.

    Raises:
        Unclear: a slope or intercept that is no number, a slope of 0, or a table that cannot be read.
    """
    remarks: list[str] = []
    for item in list(data.get("ModalityLUTSequence") or [])[:1]:
        found = table(item, descriptor="LUTDescriptor", entries="LUTData", ends=ends)
        if found is not None:
            return found, remarks
        remarks.append(NO_DATA)
    values = {}
    for keyword, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0)):
        given = numbers(data, keyword) or [default]
        if len(given) > 1 or not math.isfinite(given[0]):
            raise Unclear(f"has a {keyword} that is not one finite number")
        values[keyword] = given[0]
    if values["RescaleSlope"] == 0:
        raise Unclear("has a RescaleSlope of 0, which would make every pixel alike")
    return Rescale(slope=values["RescaleSlope"], intercept=values["RescaleIntercept"]), remarks


def voi(data: Any, *, ends: tuple[float, float]) -> tuple[list[Table | Window], list[str]]:
    """What may be used for display, tables before windows and each in the order of the file, and remarks.

    Args:
        ends: smallest and largest value that the modality transform can give.
    """
    usable: list[Table | Window] = []
    remarks: list[str] = []
    for item in data.get("VOILUTSequence") or []:
        try:
            found = table(item, descriptor="LUTDescriptor", entries="LUTData", ends=ends)
        except Unclear:
            remarks.append(BAD_TABLE)
            continue
        if found is None:
            remarks.append(NO_DATA)
        else:
            usable.append(found)
    centres, widths = numbers(data, "WindowCenter"), numbers(data, "WindowWidth")
    function = str(data.get("VOILUTFunction") or "LINEAR").strip().upper()
    if function not in FUNCTIONS:
        return usable, [*remarks, BAD_FUNCTION] if centres or widths else remarks
    if len(centres) != len(widths):
        remarks.append(BAD_WINDOW)
    for centre, width in zip(centres, widths, strict=False):
        smallest_is_there = width >= 1 if function == "LINEAR" else width > 0
        if math.isfinite(centre) and math.isfinite(width) and smallest_is_there:
            usable.append(Window(centre=centre, width=width, function=function))
        else:
            remarks.append(BAD_WINDOW)
    return usable, remarks
