"""The physical lines of a table in a file, whatever it is compressed by, or one sentence on why it is no table.

What a file is, its first bytes say, not its name: browsers unpack `.gz` files and keep the name.
"""

import bz2
import gzip
import io
import lzma
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

import pyarrow

from dualview.errors import UserError

HEAD_BYTES = 4096
AS_CSV = 'open it and save it as "CSV UTF-8"'
UNPACK = "unpack it and give the table itself"
GZIP, BZIP2, XZ, ZSTD, ZIP, EMPTY_ZIP = (
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ\0",
    b"\x28\xb5\x2f\xfd",
    b"PK\x03\x04",
    b"PK\x05\x06",
)
COMPRESSED = (GZIP, BZIP2, XZ, ZSTD, ZIP, EMPTY_ZIP)
"""First bytes of compressed files."""
OTHER: dict[bytes, tuple[str, str]] = {
    b"\xd0\xcf\x11\xe0": ("is an Excel workbook", AS_CSV),
    b"\xff\xfe\0\0": ("is in UTF-32", AS_CSV),
    b"\xff\xfe": ("is in UTF-16", AS_CSV),
    b"\xfe\xff": ("is in UTF-16", AS_CSV),
    b"7z\xbc\xaf": ("is a 7z archive", UNPACK),
    b"Rar!": ("is a RAR archive", UNPACK),
    b"\x04\x22\x4d\x18": ("is compressed by LZ4", UNPACK),
    b"\x1f\x9d": ("is compressed by compress (.Z)", UNPACK),
    b"PAR1": ("is a Parquet file", "write it as CSV"),
    b"SQLite format 3": ("is a database of SQLite", "write its table as CSV"),
    b"%PDF": ("is a PDF", "give the table as CSV"),
    b"{\\rtf": ("is a text of a word processor (RTF)", "give the table as CSV"),
    b"version https://git-lfs": ("is a pointer of Git LFS, not yet fetched", "fetch it: git lfs pull"),
}
"""First bytes of what is no CSV -> what it is, and the remedy."""
WEB_PAGE = re.compile(rb"\s*<(!doctype html|html|head|\?xml)", re.IGNORECASE)
WORKBOOKS = {"xl/workbook.xml": "an Excel workbook", "xl/workbook.bin": "an Excel workbook",
             "content.xml": "a workbook of LibreOffice", "Index/Document.iwa": "a workbook of Numbers"}  # fmt: skip


class _Refused(Exception):
    """Why a file is no table: the text continues a sentence that begins with the file's name."""


def table_lines(file: Path) -> Iterator[str]:
    """The lines of a table, each with its line break as it stands; LF, CR LF and CR end one.

    Raises:
        UserError: no such file, an archive that is damaged, encrypted or holds several files, or anything but
            text in UTF-8; with the line, where there is one.
    """
    if not file.is_file():
        raise UserError(f"no such table: {file}")
    number = 0
    try:
        with _opened(file) as content:
            for line in _text(content):
                number += 1
                if not line.isascii() or "\0" in line:
                    _refuse_other_text(line)
                yield line
    except _Refused as refusal:
        raise UserError(f"{file}{f':{number}:' if number else ''} {refusal}") from None
    except Exception as error:  # A damaged archive makes its library raise anything.
        where = f" after line {number}" if number else ""
        raise UserError(f"{file} cannot be read{where}: {_reason(error, file)}") from None


def _opened(file: Path) -> IO[bytes]:
    """What is in the file, unpacked."""
    with file.open("rb") as raw:
        head = raw.read(HEAD_BYTES)
    if head.startswith((ZIP, EMPTY_ZIP)):
        return _member(zipfile.ZipFile(file))
    if head.startswith(ZSTD):
        unpacked: IO[bytes] = pyarrow.CompressedInputStream(pyarrow.OSFile(str(file)), "zstd")
        return unpacked
    for magic, library in ((GZIP, gzip), (BZIP2, bz2), (XZ, lzma)):
        if head.startswith(magic):
            opened: IO[bytes] = library.open(file)
            return opened
    return file.open("rb")


def _text(content: IO[bytes]) -> io.TextIOWrapper:
    """The text, with bytes that are not UTF-8 as lone surrogates; refuses what is known to be no text."""
    buffered = io.BufferedReader(content, HEAD_BYTES * 16)  # type: ignore[type-var]
    head = buffered.peek(HEAD_BYTES)
    if not head:
        raise _Refused("is empty")
    for magic, (what, remedy) in OTHER.items():
        if head.startswith(magic):
            raise _Refused(f"{what}, not a CSV; {remedy}")
    if head.startswith(COMPRESSED):
        raise _Refused(f"is compressed twice; {UNPACK}")
    if head[257:262] == b"ustar":
        raise _Refused(f"is a tar archive, not a CSV; {UNPACK}")
    if WEB_PAGE.match(head):
        raise _Refused("is a web page, not a CSV: perhaps a login was asked for; download it again")
    if len(head) > 3 and (not any(head[1:200:2]) or not any(head[:200:2])):
        raise _Refused(f"is in UTF-16, not a CSV in UTF-8; {AS_CSV}")
    return io.TextIOWrapper(buffered, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _refuse_other_text(line: str) -> None:
    """Raises: _Refused where a line has a NUL, or a byte that is not UTF-8."""
    if "\0" in line:
        raise _Refused(f"character {line.index(chr(0)) + 1} is a NUL byte; the file is no text, or damaged")
    try:
        line.encode()
    except UnicodeEncodeError as error:
        byte = ord(line[error.start]) - 0xDC00
        guess = bytes([byte]).decode("cp1252", errors="replace")
        raise _Refused(
            f"character {error.start + 1} is the byte 0x{byte:02X}, which is not UTF-8 (in Windows-1252 it is "
            f"{guess!r}); {AS_CSV}"
        ) from None


def _member(archive: zipfile.ZipFile) -> IO[bytes]:
    """The one table of a zip archive; what macOS and Windows hide in archives does not count."""
    names = [info.filename for info in archive.infolist()]
    for name, what in WORKBOOKS.items():
        if name in names:
            raise _Refused(f"is {what}, not a CSV; {AS_CSV}")
    members = [info for info in archive.infolist() if not info.is_dir() and not _is_hidden(info.filename)]
    tables = [info for info in members if info.filename.lower().endswith(".csv")]
    chosen = tables if len(tables) == 1 else members
    if len(chosen) != 1:
        what = f"several files: {', '.join(info.filename for info in members[:5])}" if members else "no file"
        raise _Refused(f"is an archive with {what}; give the table itself")
    if chosen[0].flag_bits & 0x1:
        raise _Refused(f"is an encrypted archive; {UNPACK}")
    try:
        return archive.open(chosen[0])
    except NotImplementedError:
        raise _Refused(f"is an archive whose compression Python does not know; {UNPACK}") from None


def _is_hidden(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return parts[-1] in ("Thumbs.db", "desktop.ini") or any(part.startswith((".", "__MACOSX")) for part in parts)


def _reason(error: Exception, file: Path) -> str:
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        return error.strerror
    with file.open("rb") as raw:
        is_compressed = raw.read(8).startswith(COMPRESSED)
    damaged = "the archive is damaged or cut short; copy or download it again" if is_compressed else "it is damaged"
    return f"{damaged} ({error or type(error).__name__})"
