"""Where the images of a table really are: which of several ways to write a path leads to a file."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

EXTENSIONS = (".png", ".jpg", ".jpeg", ".dicom", ".dcm", "")


def located(candidates: Sequence["pd.Series[str]"], *, root: Path | None, each: bool) -> "pd.Series[str]":
    """Of each row the first of its candidates that is a file under `root`; its first one where none is.

    Args:
        candidates: ways to write the paths, the likeliest first.
        each: look for every file; otherwise for one of each folder of the first candidate's top two folders.
    """
    first = candidates[0]
    if root is None:
        return first
    asked = first if each else first.str.extract(r"^((?:[^/]*/){0,2})", expand=False)
    groups, representative = np.unique(asked.to_numpy(str), return_index=True)
    group_of = np.searchsorted(groups, asked.to_numpy(str))
    chosen = np.full(len(groups), -1)
    for number, candidate in enumerate(candidates):
        open_groups = np.flatnonzero(chosen < 0)
        paths = candidate.to_numpy()[representative[open_groups]]
        found = [os.path.isfile(os.path.join(root, path)) for path in paths]
        chosen[open_groups[np.array(found, bool)]] = number
    chosen[chosen < 0] = 0
    columns = np.stack([candidate.to_numpy(dtype=object) for candidate in candidates])
    return pd.Series(columns[chosen[group_of], np.arange(len(first))], index=first.index, dtype=object)


def files_by_stem(root: Path | None, *, folders: Sequence[str]) -> dict[str, str]:
    """Name without extension -> path under `root`, of the images in these folders (names or patterns).

    Of files that differ in their extension only, the one comes first that stands first in `EXTENSIONS`.
    """
    if root is None or not root.is_dir():
        return {}
    ranked: dict[str, tuple[int, str]] = {}
    for pattern in folders:
        for folder in sorted(root.glob(pattern)) if pattern else [root]:
            if not folder.is_dir():
                continue
            within = "" if folder == root else folder.relative_to(root).as_posix() + "/"
            for name in os.listdir(folder):
                stem, extension = os.path.splitext(name)
                if extension.lower() in EXTENSIONS:
                    rank = EXTENSIONS.index(extension.lower())
                    ranked[stem] = min(ranked.get(stem, (len(EXTENSIONS), "")), (rank, within + name))
    return {stem: path for stem, (_, path) in ranked.items()}
