"""What the headers of DICOM files say: a row of texts per file, and one counted line per kind of oddity.

The beginnings of files are read ahead by threads, as most of the time is waiting for the disk; they are parsed one
after another, because pydicom's work is Python's, and warnings would mix.
"""

import io
import logging
import os
import re
import warnings
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from dualview.data.remarks import Remark, count_remarks
from dualview.data.sources.dicom_views import Code
from dualview.errors import UserError
from dualview.folders import begins_dicom, head_of, picture_format

READ_BYTES = 32 * 2**10  # number of bytes that hold nearly every header
READERS, AHEAD = 8, 64  # threads, and files read before they are asked for
PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)  # PixelData and its floating-point siblings
DEFLATED = b"1.2.840.10008.1.2.1.99"
NOT_DICOM = "is not a DICOM file"
DAMAGED = "is a DICOM file whose header cannot be read: it is damaged or cut off"
BROKEN_VALUE = "a value of the header cannot be read and counts as blank"
TEXTS = {
    "patient": "PatientID", "study": "StudyInstanceUID", "accession": "AccessionNumber", "date": "StudyDate",
    "time": "StudyTime", "sex": "PatientSex", "age": "PatientAge", "born": "PatientBirthDate",
    "manufacturer": "Manufacturer",
    "modality": "Modality", "position": "ViewPosition", "examined": "BodyPartExamined", "instance": "SOPInstanceUID",
    "sop_class": "SOPClassUID", "image_type": "ImageType", "intent": "PresentationIntentType",
    "frames": "NumberOfFrames", "series_number": "SeriesNumber", "instance_number": "InstanceNumber",
    "series_description": "SeriesDescription", "protocol": "ProtocolName",
    "processing": "AcquisitionDeviceProcessingDescription", "performed": "PerformedProcedureStepDescription",
    "requested": "RequestedProcedureDescription", "study_description": "StudyDescription",
}  # fmt: skip
"""Column -> tag."""
CODES = {
    "views": "ViewCodeSequence",
    "regions": "AnatomicRegionSequence",
    "orientation": "PatientOrientationCodeSequence",
}
MODIFIERS = {
    "ViewCodeSequence": "ViewModifierCodeSequence",
    "PatientOrientationCodeSequence": "PatientOrientationModifierCodeSequence",
}


CODE = ("CodeValue", "LongCodeValue", "CodeMeaning")
# Values of these kinds that nothing is wrong with (PS3.5, 6.2); pydicom decodes, and judges, all others.
PLAIN = {
    "CS": re.compile(rb"[A-Z0-9 _]{0,16}(\\[A-Z0-9 _]{0,16})*"), "LO": re.compile(rb"[ -\[\]-~]{0,64}"),
    "SH": re.compile(rb"[ -\[\]-~]{0,16}"), "DA": re.compile(rb"\d{8}|"), "TM": re.compile(rb"(\d{6}(\.\d{1,6})? ?)?"),
    "AS": re.compile(rb"\d{3}[DWMY]|"), "IS": re.compile(rb"[+-]?\d{1,9} ?|"),
    "UI": re.compile(rb"(?=.{0,64}\Z)((0|[1-9]\d*)(\.(0|[1-9]\d*))*)?\0?"),
}  # fmt: skip


class _Tag(NamedTuple):
    """A tag of DICOM's dictionary."""

    number: int
    vr: str  # kind of its values


class _File(NamedTuple):
    """The beginning of a file."""

    name: str
    head: bytes
    unreadable: str  # why it cannot be opened
    num_bytes: int  # size of the file


def read_headers(root: Path, files: list[str]) -> tuple[pd.DataFrame, tuple[Remark, ...]]:
    """The headers of these files, and what was odd about them.

    The columns are `path`; `unreadable`, why a file cannot be opened, and `problem`, why it is no image, both blank
    where all is well; the texts of `TEXTS`; tuples of `Code` by `CODES`; `num_bytes`, the size of the file.

    Raises:
        UserError: pydicom is not installed.
    """
    try:
        from pydicom.datadict import dictionary_VR, tag_for_keyword  # noqa: PLC0415 - an extra
    except ImportError:
        raise UserError("source dicom needs pydicom: pip install 'dualview[dicom]'") from None
    keywords = (*TEXTS.values(), *CODES.values(), *MODIFIERS.values(), *CODE, "SpecificCharacterSet")
    tags = {keyword: _Tag(int(tag_for_keyword(keyword) or 0), dictionary_VR(keyword)) for keyword in keywords}
    rows = []
    remarks: list[tuple[str, str]] = []
    with _heard_from_pydicom() as heard:
        for file in _files(root, files):
            values, problem = _row(root, file, tags=tags, heard=heard)
            remarks += [(kind, file.name) for kind in dict.fromkeys(heard)]
            heard.clear()
            rows.append({"path": file.name, "unreadable": file.unreadable, "problem": problem,
                         "num_bytes": file.num_bytes, **values})  # fmt: skip
    columns = ["path", "unreadable", "problem", "num_bytes", *TEXTS, *CODES]
    return pd.DataFrame(rows, columns=columns, dtype=object), count_remarks(remarks)


def _files(root: Path, names: list[str]) -> Iterator[_File]:
    """The beginning of each file, in the order given."""

    def begin(name: str) -> _File:
        head, unreadable = head_of(root / name, num_bytes=READ_BYTES)
        return _File(name, head, unreadable, 0 if unreadable else os.path.getsize(root / name))

    waiting: deque[Future[_File]] = deque()
    with ThreadPoolExecutor(READERS) as pool:
        for name in names:
            waiting.append(pool.submit(begin, name))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _row(root: Path, file: _File, *, tags: Mapping[str, _Tag], heard: list[str]) -> tuple[dict[str, Any], str]:
    """The values of a file, and why it is no image."""
    values: dict[str, Any] = {**dict.fromkeys(TEXTS, ""), **dict.fromkeys(CODES, ())}
    if file.unreadable or (problem := _refusal(file.head)):
        return values, "" if file.unreadable else problem
    try:
        data, has_pixels = _parsed(io.BytesIO(file.head), tags=tags)
        if not has_pixels and file.num_bytes > len(file.head):
            raise EOFError
    except Exception:  # The header goes on after the part that was read, or a broken one makes pydicom raise anything.
        heard.clear()
        try:
            with (root / file.name).open("rb") as opened:
                data, has_pixels = _parsed(opened, tags=tags)
        except Exception:
            return values, DAMAGED
    values = {column: _text(data, tags[tag], heard=heard) for column, tag in TEXTS.items()}
    values |= {column: _codes(data, sequence, tags=tags, heard=heard) for column, sequence in CODES.items()}
    if not values["sop_class"] and not has_pixels:
        return values, DAMAGED
    has_frames = values["frames"] not in ("", "0", "1")
    return values, "holds no image" if not has_pixels else "has several frames; one is needed" if has_frames else ""


def _refusal(head: bytes) -> str:
    """Why a file is not looked into; blank where it is."""
    if not begins_dicom(head):
        picture = picture_format(head)
        return f"is a {picture} picture, not a DICOM file" if picture else NOT_DICOM
    # A deflated file unpacks to any size before a single tag can be checked.
    is_deflated = DEFLATED in head[:1024]
    return "is deflated as a whole, which is refused as unsafe; store it uncompressed" if is_deflated else ""


def _parsed(file: Any, *, tags: Mapping[str, _Tag]) -> tuple[Any, bool]:
    """The tags of a header, and whether pixels follow it."""
    from pydicom.filereader import read_partial  # noqa: PLC0415 - an extra

    stopped_at: list[tuple[int, int]] = []

    def is_end(tag: Any, _vr: str | None, length: int) -> bool:
        if int.__lt__(tag, PIXELS[0]):  # This is asked for every tag, and pydicom's own comparison is slow.
            return False
        stopped_at.append((int(tag), length))
        return True

    numbers = [tag.number for tag in tags.values()]
    data = read_partial(file, stop_when=is_end, specific_tags=numbers, force=True)
    return data, any(tag in PIXELS and length for tag, length in stopped_at)


def _text(data: Any, tag: _Tag, *, heard: list[str]) -> str:
    """A value as text, several with backslashes between them as in the file; blank where it is not there."""
    try:
        element = data.get_item(tag.number)
        if element is None:
            return ""
        raw = element.value
        if isinstance(raw, bytes) and tag.vr in PLAIN and PLAIN[tag.vr].fullmatch(raw):
            return raw.decode("ascii").strip(" \0")
        value = data[tag.number].value
        if value is None:
            return ""
        is_list = not isinstance(value, str) and hasattr(value, "__iter__")
        return "\\".join(str(part).strip() for part in value) if is_list else str(value).strip()
    except Exception:  # A broken value makes pydicom raise anything.
        heard.append(BROKEN_VALUE)
        return ""


def _codes(data: Any, sequence: str, *, tags: Mapping[str, _Tag], heard: list[str]) -> tuple[Code, ...]:
    """The items of a sequence of codes."""
    number = tags[sequence].number
    try:
        if data.get_item(number) is None:
            return ()
        items = [item for item in data[number].value or () if hasattr(item, "get_item")]
    except Exception:  # As above.
        heard.append(BROKEN_VALUE)
        return ()
    codes = []
    for item in items:
        short, long, meaning = (_text(item, tags[keyword], heard=heard) for keyword in CODE)
        modifiers = _codes(item, MODIFIERS[sequence], tags=tags, heard=heard) if sequence in MODIFIERS else ()
        codes.append(Code(short or long, meaning, modifiers))
    return tuple(codes)


@contextmanager
def _heard_from_pydicom() -> Iterator[list[str]]:
    """Kinds of what pydicom warns of and logs in the block, instead of on the screen; the reader empties the list."""
    heard: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                heard.append(kind_of_warning(record.getMessage()))

    logger, keep = logging.getLogger("pydicom"), Keep()
    handlers, propagates = logger.handlers, logger.propagate
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_args, **_more: heard.append(kind_of_warning(str(message)))
        logger.handlers, logger.propagate = [keep], False
        try:
            yield heard
        finally:
            logger.handlers, logger.propagate = handlers, propagates


def kind_of_warning(message: str) -> str:
    """A warning without its values, which can identify a patient: the text before the first of them, without digits."""
    text = message
    for end in (":", "'", '"', "[", "(", "\n", ". "):
        text = text.partition(end)[0]
    words = [word for word in text.split() if not any(letter.isdigit() for letter in word)]
    return f"pydicom: {' '.join(words)}" if words else "pydicom warns"
