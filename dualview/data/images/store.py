"""The image store: every image decoded and resized once, one memory-mapped array per view, shared by all ranks.

    STORE/
      pa.npy, lateral.npy   (N, S, S) uint8 or uint16, gray, 0 = black
      index.parquet         per image: path, view, row, reason (blank where it is good), size, mtime_ns and crc32 of
                            its file
      manifest.json         settings and checksums; written last, so a folder without it is not a store

store_build.py makes it.
"""

import json
import logging
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dualview.data.images.files import Aspect, FileReader
from dualview.data.images.picture import Picture
from dualview.errors import BadImage, UserError, listed
from dualview.files import write_whole
from dualview.views import View

logger = logging.getLogger(__name__)

VERSION = 2  # version of the layout and of how pixels are made
UNCHANGED_SINCE_1 = (".png", ".jpg", ".jpeg")  # files of which version 1 made the same pixels
ARRAYS = {view: f"{view.key}.npy" for view in View}
INDEX, MANIFEST, PARTIAL = "index.parquet", "manifest.json", ".partial"
SHARD_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class StoreSettings:
    """What the pixels of a store depend on, besides the files."""

    image_size_px: int
    bits: Literal[8, 16]
    aspect: Aspect
    intensity_max: dict[str, float] = field(default_factory=dict)  # source -> its `data.intensity_max` where it has one
    version: int = VERSION


class StoreImages:
    """Reader of a whole store; processes share its pages and copy nothing."""

    def __init__(self, folder: Path) -> None:
        """Open the store in `folder`.

        Raises:
            UserError: the folder holds no store, or one that is not whole.
        """
        self.folder = folder
        self.settings = StoreSettings(**manifest_of(folder)["settings"])
        index = pd.read_parquet(folder / INDEX)
        self._row = dict(zip(index["path"], zip(index["view"], index["row"], strict=True), strict=True))
        bad = index["reason"] != ""
        self.bad: dict[str, str] = dict(zip(index.loc[bad, "path"], index.loc[bad, "reason"], strict=True))
        self._arrays: dict[int, np.ndarray] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_arrays": {}}  # A copied reader maps the files anew.

    def __call__(self, path: str) -> Tensor:
        """The image that was at `path`: (1, S, S) stored pixels (augment.py).

        Raises:
            BadImage: it could not be read when the store was made.
        """
        if path in self.bad:
            raise BadImage(path, reason=self.bad[path])
        view, row = self._row[path]
        if view not in self._arrays:
            array = np.asarray(np.load(self.folder / ARRAYS[View(view)], mmap_mode="c"))
            self._arrays[view] = array.view(np.int16) if array.dtype == np.uint16 else array
        return torch.from_numpy(self._arrays[view][row])[None]

    def picture(self, path: str) -> Picture:
        """The image that was at `path`, for a look at how bright the store is."""
        if path not in self._row:
            raise BadImage(path, reason="is not in the store")
        pixels = self(path)[0].numpy()
        largest = 255 if pixels.dtype == np.uint8 else 65535
        unsigned = pixels if pixels.dtype == np.uint8 else pixels.view(np.uint16)
        return Picture(unsigned.astype(np.float32) / np.float32(largest), None)

    def refuse_if_stale(self, paths: Iterable[str], *, settings: StoreSettings, reader: FileReader | None) -> None:
        """Compare the store with what is wanted now.

        Args:
            paths: images that will be asked for.
            settings: of the configuration.
            reader: of the source files, to see whether they have changed; None: they are not looked at.

        Raises:
            UserError: settings differ, images are not in the store, or files have changed since; it names them.
        """
        problems = [
            f"{key} is {asdict(settings)[key]}, the store has {value}"
            for key, value in asdict(self.settings).items()
            if asdict(settings)[key] != value and (key, value) != ("version", 1)
        ]
        if self.settings.version == 1 and any(not path.lower().endswith(UNCHANGED_SINCE_1) for path in self._row):
            logger.warning(
                "data.store %s was made by an earlier version, which read some DICOM and TIFF files wrongly; "
                "dualview prepare makes it anew once it is removed", self.folder,
            )  # fmt: skip
        absent = [path for path in paths if path not in self._row]
        if absent:
            problems.append(f"{len(absent)} image(s) of the data are not in it, the first {absent[0]}")
        changed = [] if reader is None else list(self._changes(reader))
        if changed:
            problems.append(f"{len(changed)} file(s) have changed since: {'; '.join(changed[:3])}")
        if problems:
            raise UserError(
                f"data.store {self.folder} is stale\n{listed(problems)}\nRemove it and run dualview prepare again, "
                "or choose another data.store"
            )

    def _changes(self, reader: FileReader) -> Iterator[str]:
        """What has changed in each source file; a new time alone is no change, the content decides."""
        index = pd.read_parquet(self.folder / INDEX, columns=["path", "size", "mtime_ns", "crc32"])
        for path, size, mtime_ns, crc32 in index.itertuples(index=False):
            now, then = stamp(reader.file(path)), (int(size), int(mtime_ns))
            if now == then:
                continue
            if now[0] != then[0]:
                yield f"{path} (size {now[0]} instead of {then[0]})" if now[0] >= 0 else f"{path} (is gone)"
            elif crc32_of(reader.file(path)) != crc32:
                yield f"{path} (content)"


def stage(source: Path, to: Path) -> Path:
    """Copy a whole store into the folder `to`, shard by shard; returns where it is.

    Shards of an interrupted copy are used again where their checksum is right; only a copy that is whole has a
    manifest. Call it in one process per node.

    Raises:
        UserError: the copy does not fit, or the source is damaged.
    """
    manifest = manifest_of(source)
    target = to / f"{source.name}-{zlib.crc32((source / MANIFEST).read_bytes()):08x}"
    if (target / MANIFEST).exists():
        return target
    target.mkdir(parents=True, exist_ok=True)
    total = sum(entry["bytes"] for entry in manifest["files"].values())
    held = sum(path.stat().st_size for path in target.iterdir())
    if total > shutil.disk_usage(target).free + held:
        raise UserError(f"data.stage_to {to} has no room for the {total / 2**30:.1f} GiB of data.store {source}")
    for name, entry in manifest["files"].items():
        (target / name).touch()
        with (source / name).open("rb") as original, (target / name).open("r+b") as copy:
            for number, crc32 in enumerate(entry["crc32"]):
                copy.seek(number * SHARD_BYTES)
                if zlib.crc32(copy.read(SHARD_BYTES)) == crc32:
                    continue
                original.seek(number * SHARD_BYTES)
                shard = original.read(SHARD_BYTES)
                if zlib.crc32(shard) != crc32:
                    raise UserError(f"{source / name} is damaged (shard {number}); run dualview prepare again")
                copy.seek(number * SHARD_BYTES)
                copy.write(shard)
            copy.truncate(entry["bytes"])
            os.fsync(copy.fileno())
    write_whole(target / MANIFEST, (source / MANIFEST).read_bytes())
    return target


def manifest_of(folder: Path) -> dict[str, Any]:
    """Raises: UserError where there is no whole store."""
    file = folder / MANIFEST
    if not file.exists():
        partial = folder.with_name(folder.name + PARTIAL).exists()
        raise UserError(
            f"no image store at data.store {folder}"
            + (
                ", only an interrupted one: run dualview prepare to complete it"
                if partial
                else "; run dualview prepare"
            )
        )
    manifest: dict[str, Any] = json.loads(file.read_text("utf-8"))
    short = [
        name
        for name, entry in manifest["files"].items()
        if not (folder / name).exists() or (folder / name).stat().st_size != entry["bytes"]
    ]
    if short:
        raise UserError(
            f"the image store {folder} is damaged: {', '.join(short)} have not their size; prepare it again"
        )
    return manifest


def stamp(file: Path) -> tuple[int, int]:
    """Size and time of last change of a file; -1, -1 where there is none."""
    try:
        status = file.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def crc32_of(file: Path) -> int:
    """Checksum of a file's content; 0 where it cannot be read."""
    try:
        return zlib.crc32(file.read_bytes())
    except OSError:
        return 0
