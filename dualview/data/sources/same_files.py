"""One image file in several rows of a table, whatever way its path is written or leads."""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from dualview.data.remarks import Remark, count_remarks
from dualview.data.sources.problems import Problems, repeated

# Paths without any of these are equal only where their texts are.
WRITTEN_IN_SEVERAL_WAYS = r"//|(?:^|/)\.{1,2}(?:/|$)|^/|/$"
LISTED_TWICE = "image {} stands in {} already; list each image once"
ONE_FILE = "image {} is the same file as {} in {}; list each image once"
HARD_LINKS = "image is another name (a hard link) of a file that an earlier row has"


def add_listed_twice(
    problems: Problems, frame: pd.DataFrame, *, root: Path | None, has_files: bool
) -> tuple[Remark, ...]:
    """Add rows whose image an earlier row has, by the same path, by another way to write it, or through links.

    Several names of one file's content (hard links) are no problem, as tools make them to save space; they are counted.

    Args:
        frame: with `line` and `path`, a row per image.
        root: folder that paths are relative to.
        has_files: look at the files too; otherwise paths alone are compared.
    """
    written = _as_written_once(frame["path"], root=root)
    for row, first in repeated(written):
        _add(problems, frame, row, first)
    if root is None or not has_files:
        return ()
    alone = frame[~pd.Series(written).duplicated().to_numpy()]
    there, files, has_names = _files(alone["path"], root=root)
    linked = []
    for again, before in repeated(files):
        row, first = int(there[again]), int(there[before])
        path, other = (os.path.join(root, alone["path"].iloc[n]) for n in (row, first))
        if has_names[again] and os.path.realpath(path) != os.path.realpath(other):
            linked.append((HARD_LINKS, str(alone["path"].iloc[row])))
        else:
            _add(problems, alone, row, first)
    return count_remarks(linked)


def _add(problems: Problems, frame: pd.DataFrame, row: int, first: int) -> None:
    path, other = frame["path"].iloc[row], frame["path"].iloc[first]
    place = problems.line(int(frame["line"].iloc[first]))
    if path == other:
        problems.add(frame["line"].iloc[row], LISTED_TWICE, path, place)
    else:
        problems.add(frame["line"].iloc[row], ONE_FILE, path, other, place)


def _as_written_once(paths: "pd.Series[str]", *, root: Path | None) -> np.ndarray:
    """The paths without `.`, `..` and repeated slashes; relative to `root` where they are absolute."""
    written = paths.to_numpy(object, copy=True)
    for n in np.flatnonzero(paths.str.contains(WRITTEN_IN_SEVERAL_WAYS)):
        path = os.path.normpath(paths.iloc[n])
        if root is not None and os.path.isabs(path):
            path = os.path.relpath(path, os.path.abspath(root))
        written[n] = path
    return written


def _files(paths: "pd.Series[str]", *, root: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The paths that are there, of which there may be F.

    Returns:
        (F,) int, their positions; (F,) objects that are equal where the file system has one file; (F,) bool, whether
        the file has several names.
    """
    there, files, has_names = [], [], []
    folder = str(root)
    for n, path in enumerate(paths):
        try:
            found = os.stat(os.path.join(folder, path))  # os.path takes a tenth of pathlib's time.
        except (OSError, ValueError):
            continue
        if found.st_ino:  # Some file systems do not number their files.
            there.append(n)
            files.append((found.st_dev, found.st_ino, found.st_size))
            has_names.append(found.st_nlink > 1)
    keys = np.empty(len(files), object)
    keys[:] = files
    return np.array(there, np.int64), keys, np.array(has_names, bool)
