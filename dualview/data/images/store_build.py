"""Making an image store (store.py): decode in parallel, go on after a kill, nothing half written.

While it works, STORE.partial holds the arrays and journal.jsonl, a line for each image that is done. A row of an
array whose line is missing is written again. The folder gets its name when everything in it is whole.
"""

import fcntl
import json
import os
import shutil
import time
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd
from torch.utils.data import DataLoader, Dataset

from dualview.data.images.files import FileReader
from dualview.data.images.store import (
    ARRAYS,
    INDEX,
    MANIFEST,
    PARTIAL,
    SHARD_BYTES,
    StoreImages,
    StoreSettings,
    crc32_of,
    stamp,
)
from dualview.data.remarks import Remark, count_remarks
from dualview.errors import BadImage, UserError
from dualview.files import flush_to_disk, read_json_lines, write_whole
from dualview.progress import Track
from dualview.views import View

JOURNAL, PLAN = "journal.jsonl", "plan.json"
SAMPLE = 16  # number of images timed for the estimate of the duration
FREE_MARGIN_BYTES = 2**28
CHUNK = 8  # number of images per message of a reading process
SAVE_SECONDS = 2.0  # seconds between two writes of finished work to the disk


@dataclass(frozen=True, kw_only=True)
class Item:
    """One image to be stored."""

    path: str  # path as in the study table
    view: View
    row: int  # row in the array of its view


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What `prepare` did."""

    folder: Path
    num_images: int
    bad: dict[str, str]  # path -> reason
    remarks: tuple[Remark, ...]  # what was odd about images that were read; nothing where nothing was done
    num_bytes: int
    seconds: float
    was_there: bool  # whether a whole store was found, so that nothing was done


def items_of(images: Iterable[tuple[np.ndarray, np.ndarray]]) -> list[Item]:
    """Every image of these study tables' `images`, once."""
    rows = dict.fromkeys(View, 0)
    seen: dict[str, Item] = {}
    for table_images in images:
        for view in View:
            for paths in table_images[view]:
                for path in paths:
                    if path not in seen:
                        seen[path] = Item(path=path, view=view, row=rows[view])
                        rows[view] += 1
    return list(seen.values())


def write(
    folder: Path, *, items: list[Item], reader: FileReader, settings: StoreSettings, num_workers: int, track: Track
) -> Prepared:
    """Make the store in `folder`, or go on with one that was interrupted.

    Args:
        items: images to store.
        reader: of the source files.
        track: shows progress.

    Raises:
        UserError: a stale store is there, an interrupted one has other settings or images, or the disk is too full.
    """
    started = time.monotonic()
    if (folder / MANIFEST).exists():
        store = StoreImages(folder)
        store.refuse_if_stale([item.path for item in items], settings=settings, reader=reader)
        size = sum((folder / name).stat().st_size for name in ARRAYS.values())
        return Prepared(
            folder=folder, num_images=len(items), bad=store.bad, remarks=(), num_bytes=size, seconds=0, was_there=True
        )  # fmt: skip
    if folder.exists():
        raise UserError(f"{folder} exists and is not a store; choose another data.store")
    partial = folder.with_name(folder.name + PARTIAL)
    done = _begin(partial, items=items, settings=settings)
    left = [n for n in range(len(items)) if n not in done]
    dataset = _Decoding(partial, items=items, reader=reader, settings=settings)
    loader = DataLoader(dataset, batch_size=CHUNK, sampler=left, num_workers=num_workers, collate_fn=list)
    with (partial / JOURNAL).open("a", encoding="utf-8") as journal:
        _lock(journal, partial=partial)
        pending: list[dict[str, Any]] = []
        saved = time.monotonic()
        for chunk in track(loader, len(loader), "decoding"):
            pending += chunk
            if time.monotonic() - saved > SAVE_SECONDS:
                _save(pending, journal=journal, partial=partial)
                done |= {record["n"]: record for record in pending}
                pending, saved = [], time.monotonic()
        _save(pending, journal=journal, partial=partial)
        done |= {record["n"]: record for record in pending}
    _finish(partial, items=items, done=done, settings=settings, track=track)
    partial.rename(folder)
    for name in (PLAN, JOURNAL):
        (folder / name).unlink()
    return Prepared(
        folder=folder,
        num_images=len(items),
        bad={items[n].path: record["reason"] for n, record in done.items() if record["reason"]},
        remarks=count_remarks(
            (kind, items[n].path) for n, record in sorted(done.items()) for kind in record.get("remarks", [])
        ),
        num_bytes=sum((folder / name).stat().st_size for name in ARRAYS.values()),
        seconds=time.monotonic() - started,
        was_there=False,
    )


def estimate(items: list[Item], *, reader: FileReader, settings: StoreSettings, num_workers: int) -> tuple[int, float]:
    """Bytes that the store will take, and seconds to make it, from decoding some of the images."""
    num_bytes = len(items) * settings.image_size_px**2 * settings.bits // 8
    sample = items[:: max(len(items) // SAMPLE, 1)][:SAMPLE]
    started = time.monotonic()
    for item in sample:
        try:
            reader.unit(item.path)
        except BadImage:
            continue
    each = (time.monotonic() - started) / max(len(sample), 1)
    return num_bytes, each * len(items) / max(min(num_workers, os.cpu_count() or 1), 1)


def refuse_full_disk(folder: Path, *, num_bytes: int) -> None:
    """Raises: UserError where the store does not fit; what an interrupted one holds already counts as free."""
    parent = next(parent for parent in folder.absolute().parents if parent.exists())
    partial = folder.with_name(folder.name + PARTIAL)
    held = sum(path.stat().st_blocks * 512 for path in partial.glob("*.npy")) if partial.exists() else 0
    free = shutil.disk_usage(parent).free + held
    if num_bytes + FREE_MARGIN_BYTES > free:
        raise UserError(
            f"data.store needs {num_bytes / 2**30:.1f} GiB and {parent} has {free / 2**30:.1f} GiB free. Choose "
            "another disk, a smaller data.image_size_px, or data.store_bits=8"
        )


class _Decoding(Dataset[dict[str, Any]]):
    """Decodes an image into its row of the array, in whichever process asks; gives the line for the journal."""

    def __init__(self, partial: Path, *, items: list[Item], reader: FileReader, settings: StoreSettings) -> None:
        self.partial = partial
        self.items = items
        self.reader = reader
        self.largest = 2**settings.bits - 1
        self._arrays: dict[View, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, n: int) -> dict[str, Any]:
        item = self.items[n]
        if item.view not in self._arrays:
            self._arrays[item.view] = np.load(self.partial / ARRAYS[item.view], mmap_mode="r+")
        array = self._arrays[item.view]
        file = self.reader.file(item.path)
        reason = ""
        remarks: tuple[str, ...] = ()
        try:
            picture = self.reader.picture(item.path)
            remarks = picture.remarks
            unit = self.reader.unit_of(item.path, picture)[0]
            array[item.row] = (unit * self.largest).round().numpy().astype(array.dtype)
        except BadImage as error:
            reason = error.reason
        size, mtime_ns = stamp(file)
        return {
            "n": n,
            "reason": reason,
            "size": size,
            "mtime_ns": mtime_ns,
            "crc32": crc32_of(file),
            "remarks": remarks,
        }


def _lock(journal: TextIO, *, partial: Path) -> None:
    """Raises: UserError where another process writes this store."""
    try:
        fcntl.lockf(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise UserError(f"another dualview prepare is writing {partial}; wait for it") from None


def _save(records: list[dict[str, Any]], *, journal: TextIO, partial: Path) -> None:
    """Pixels first, then the lines that say they are there."""
    for name in ARRAYS.values():
        flush_to_disk(partial / name)
    journal.writelines(json.dumps(record) + "\n" for record in records)
    journal.flush()
    os.fsync(journal.fileno())


def _begin(partial: Path, *, items: list[Item], settings: StoreSettings) -> dict[int, dict[str, Any]]:
    """Make the arrays, or take up those of an interrupted run; returns the journal's records by item.

    Raises:
        UserError: the interrupted run had other settings or images.
    """
    plan = {
        "settings": asdict(settings),
        "images": zlib.crc32("\0".join(f"{item.view}{item.path}" for item in items).encode()),
    }
    plan_file = partial / PLAN
    if plan_file.exists():
        if json.loads(plan_file.read_text("utf-8")) != plan:
            raise UserError(
                f"{partial} is of an interrupted dualview prepare with other settings or images; remove it first"
            )
        records = read_json_lines(partial / JOURNAL)
        (partial / JOURNAL).write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        return {record["n"]: record for record in records}
    partial.mkdir(parents=True, exist_ok=True)
    for view, name in ARRAYS.items():
        shape = (sum(item.view == view for item in items), settings.image_size_px, settings.image_size_px)
        np.lib.format.open_memmap(partial / name, mode="w+", dtype=f"<u{settings.bits // 8}", shape=shape).flush()
    write_whole(plan_file, json.dumps(plan).encode())
    return {}


def _finish(
    partial: Path, *, items: list[Item], done: dict[int, dict[str, Any]], settings: StoreSettings, track: Track
) -> None:
    """Write the index and, last, the manifest with checksums."""
    records = [{"path": item.path, "view": int(item.view), "row": item.row, **done[n]} for n, item in enumerate(items)]
    pd.DataFrame(records).drop(columns=["n", "remarks"], errors="ignore").to_parquet(partial / INDEX, index=False)
    files = {}
    for name in (*ARRAYS.values(), INDEX):
        size = (partial / name).stat().st_size
        num_shards = -(-size // SHARD_BYTES)
        flush_to_disk(partial / name)
        with (partial / name).open("rb") as file:
            shards = (file.read(SHARD_BYTES) for _ in range(num_shards))
            checksums = [zlib.crc32(shard) for shard in track(shards, num_shards, f"checksum of {name}")]
        files[name] = {"bytes": size, "crc32": checksums}
    manifest = {"settings": asdict(settings), "num_images": len(items), "files": files}
    write_whole(partial / MANIFEST, json.dumps(manifest, indent=1).encode())
