"""`dualview data`: what a configuration reads, counted before any training."""

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from dualview.config import Config
from dualview.data.contact_sheet import draw, draw_suspects
from dualview.data.counts import count_data, dropped_images
from dualview.data.images.sample import of_sample
from dualview.data.images.store import MANIFEST
from dualview.data.load import Data, load_data, look_at_sources, too_dark
from dualview.data.view_check import check_views
from dualview.errors import UserError
from dualview.progress import progress_bars, tracked_by

ON_SHEET = 48  # number of doubtful views on the contact sheet


@dataclass(frozen=True, kw_only=True)
class ViewCheckRequest:
    """What `--check-views` looks at and where it writes."""

    limit: int  # images to look at, drawn at random where there are more
    suspects: Path | None  # CSV to write, of every image whose picture contradicts the table
    console: Console | None  # where progress is shown; None: nowhere


def look_at_data(
    config: Config,
    *,
    dropped: Path | None = None,
    contact_sheet: Path | None = None,
    num_studies: int = 12,
    views: ViewCheckRequest | None = None,
) -> dict[str, Any]:
    """Counts of images, studies, patients and labels, and a look at some images of each source.

    `too_dark` lists a sentence for each source whose images are too dark to be true. With `data.check_files=false` no
    image is read, unless a contact sheet or a check of views is wanted.

    Args:
        dropped: CSV to write, of every image that is left out and why. It holds paths, which can identify patients.
        contact_sheet: PNG to draw random training studies into, or with `views` the images with doubtful views.
        num_studies: how many of them.
        views: look whether pictures are of the view that the table says, which adds `check_views` to the counts.

    Raises:
        UserError: a file to write whose folder is not there, problems of a source or of the image store, or views that
            cannot be checked.
    """
    _refuse_absent_folders([dropped, contact_sheet, views.suspects if views is not None else None])
    store = config.data.store if views is not None else None
    if store is not None and not (store / MANIFEST).exists():
        store = None  # What is not prepared yet is read from its files.
    try:
        data = load_data(config.data, seed=config.data_seed, store=store)
    except UserError as error:
        if dropped is not None and error.account:
            dropped_images(error.account).to_csv(dropped, index=False)
        raise
    if dropped is not None:
        dropped_images(data.sources).to_csv(dropped, index=False)
    if contact_sheet is not None and views is None:
        draw(
            contact_sheet,
            table=data.train,
            read=data.read,
            image_size_px=config.data.image_size_px,
            num_studies=num_studies,
            seed=config.run.seed,
        )
    counts = count_data(data)
    checks_files = all(source.check_files for source in config.data.all_sources)
    samples = look_at_sources(data) if checks_files else {}
    for source in counts["sources"]:
        if (sample := samples.get(source["name"])) is not None:
            source["remarks"] += [vars(remark) for remark in of_sample(sample.remarks)]
    counts["too_dark"] = too_dark(samples, config.data)
    if views is not None:
        try:
            counts["check_views"] = _check_views(data, config=config, request=views, contact_sheet=contact_sheet)
        except UserError as error:
            error.account = data.sources
            raise
    return counts


def _refuse_absent_folders(files: Iterable[Path | None]) -> None:
    """Raises: UserError before any work that would end with a file that cannot be written."""
    if absent := [file for file in files if file is not None and not file.parent.is_dir()]:
        raise UserError("\n".join(f"{file} cannot be written, as there is no folder {file.parent}" for file in absent))


def _check_views(
    data: Data, *, config: Config, request: ViewCheckRequest, contact_sheet: Path | None
) -> dict[str, Any]:
    """The check of views in plain types, its CSV and its contact sheet written; see `look_at_data`."""
    on_gpu = config.run.device != "cpu" and torch.cuda.is_available()
    with progress_bars(shown=request.console is not None, console=request.console, transient=True) as progress:
        check = check_views(
            list(data.whole_splits.values()),
            read=data.read,
            limit=request.limit,
            seed=config.run.seed,
            num_workers=config.data.num_workers,
            device=torch.device("cuda" if on_gpu else "cpu"),
            track=tracked_by(progress),
        )
    suspects = check.suspects
    if request.suspects is not None:
        suspects.to_csv(request.suspects, index=False)
    if len(suspects):
        contact_sheet = contact_sheet or _private_file(".png")
        first = suspects[:ON_SHEET].itertuples(index=False, name=None)
        draw_suspects(contact_sheet, suspects=first, read=data.read, image_size_px=config.data.image_size_px)
    return {
        "classifier": check.classifier,
        "num_images": check.num_images,
        "num_judged": len(check.images),
        "bad": [{"path": path, "reason": reason} for path, reason in check.bad],
        "auroc": check.auroc,
        "accuracy": check.accuracy,
        "suspects": suspects.to_dict("records"),
        "contact_sheet": str(contact_sheet) if len(suspects) else None,
        "warnings": check.warnings,
    }


def _private_file(suffix: str) -> Path:
    """A new file in the folder for temporary files, for the user alone."""
    with tempfile.NamedTemporaryFile(prefix="dualview-views-", suffix=suffix, delete=False) as file:
        return Path(file.name)
