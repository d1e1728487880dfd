"""`dualview prepare`: from a configuration to its image store (data/images/store.py)."""

import os

from rich.console import Console

from dualview.config import Config
from dualview.data.images.store import MANIFEST
from dualview.data.images.store_build import Prepared, estimate, items_of, refuse_full_disk, write
from dualview.data.load import load_data, look_at_sources, store_settings, too_dark
from dualview.errors import UserError
from dualview.progress import progress_bars, tracked_by


def prepare(config: Config, *, console: Console) -> Prepared:
    """Store every image of every whole split, after saying how much space and time it will take.

    Raises:
        UserError: no `data.store`, images too dark to be true, nothing to store, no space, or a store that is stale.
    """
    folder = config.data.store
    if folder is None:
        raise UserError("dualview prepare needs data.store, the folder to write; for example data.store=/data/store224")
    data = load_data(config.data, seed=config.data_seed)
    if data.files is None:
        raise UserError(f"{data.sources[0].name}s are drawn, not read from files; there is nothing to prepare")
    items = items_of(table.images for table in data.whole_splits.values())
    reader, settings = data.files, store_settings(config.data)
    if not (folder / MANIFEST).exists():
        if problems := too_dark(look_at_sources(data), config.data):
            raise UserError("\n".join(problems))
        num_bytes, seconds = estimate(items, reader=reader, settings=settings, num_workers=config.data.num_workers)
        refuse_full_disk(folder, num_bytes=num_bytes)
        duration = f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.0f} minutes"
        console.print(f"{len(items):,} images, {num_bytes / 2**30:.2f} GiB, about {duration}", highlight=False)
    with progress_bars(shown=True, console=console, transient=True) as progress:
        num_workers = min(config.data.num_workers, os.cpu_count() or 1)
        return write(
            folder, items=items, reader=reader, settings=settings, num_workers=num_workers, track=tracked_by(progress)
        )
