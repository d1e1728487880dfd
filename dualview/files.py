"""Files that are there whole or not at all, their checksums, and JSON line by line."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path to write to; when the block ends well, it becomes `path` in one go, flushed to disk.

    A block that fails leaves `path` as it was. A kill can leave the temporary file, which the next attempt replaces.
    """
    temporary = temporary_of(path)
    try:
        yield temporary
        flush_to_disk(temporary)
        temporary.replace(path)
        flush_to_disk(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def temporary_of(path: Path) -> Path:
    """Where `whole_file` writes before the file gets its name."""
    return path.with_name(f".{path.name}.tmp")


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all; text as UTF-8 with the line ends that it has."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def link_whole(link: Path, *, to: Path) -> None:
    """Make `link`, beside a file or folder, point to it, replacing in one go what it was."""
    temporary = link.with_name(f"tmp-{link.name}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(to.name)
    temporary.replace(link)
    flush_to_disk(link.parent)


def flush_to_disk(path: Path) -> None:
    """Return once the system has written a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file that has one a line; none where there is no file.

    A last line without an end is left out: a kill has torn it, or it is being written.
    """
    if not path.exists():
        return []
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    return [json.loads(line) for line in whole.splitlines()]
