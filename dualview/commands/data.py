"""`dualview data`: what a configuration reads, counted before any training."""

from pathlib import Path
from typing import Any

from dualview.config import Config
from dualview.data.contact_sheet import draw
from dualview.data.counts import count_data, dropped_images
from dualview.data.images.sample import of_sample
from dualview.data.load import load_data, look_at_sources, too_dark
from dualview.errors import UserError


def look_at_data(
    config: Config, *, dropped: Path | None = None, contact_sheet: Path | None = None, num_studies: int = 12
) -> dict[str, Any]:
    """Counts of images, studies, patients and labels, and a look at some images of each source.

    `too_dark` lists a sentence for each source whose images are too dark to be true. With `data.check_files=false` no
    image is read, unless a contact sheet is wanted.

    Args:
        dropped: CSV to write, of every image that is left out and why. It holds paths, which can identify patients.
        contact_sheet: PNG to draw random training studies into.
        num_studies: how many of them.

    Raises:
        UserError: problems of a source or of the image store.
    """
    try:
        data = load_data(config.data, seed=config.data_seed)
    except UserError as error:
        if dropped is not None and error.account:
            dropped_images(error.account).to_csv(dropped, index=False)
        raise
    if dropped is not None:
        dropped_images(data.sources).to_csv(dropped, index=False)
    if contact_sheet is not None:
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
    return counts
