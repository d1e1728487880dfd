"""Data: from a configuration to the studies of each split and a reader of their images."""

import logging
from dataclasses import dataclass

from dualview.config import DataConfig
from dualview.data import phantom
from dualview.data.dataset import ImageReader
from dualview.data.images import FileImages
from dualview.data.sources import covid_cxr, csv_table
from dualview.data.splits import split_by_patient
from dualview.data.table import StudyTable
from dualview.errors import UserError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Data:
    """Studies of each split and how their images are read."""

    train: StudyTable
    val: StudyTable
    test: StudyTable
    read: ImageReader

    @property
    def splits(self) -> dict[str, StudyTable]:
        return {"train": self.train, "val": self.val, "test": self.test}


def load_data(config: DataConfig, *, seed: int) -> Data:
    """Read the study table of the configured source and divide it by patient. No image is read yet.

    Raises:
        UserError: problems of the source, an empty split, or nothing to learn.
    """
    read: ImageReader
    if config.source == "phantom":
        table, read = phantom.draw(config.phantom, seed=seed, image_size_px=config.image_size_px)
    else:
        assert config.root is not None  # checked by DataConfig
        table = (csv_table if config.source == "csv" else covid_cxr).read(config)
        read = FileImages(config.root, image_size_px=config.image_size_px)
    splits = split_by_patient(table, config=config.split, seed=seed)
    _check_labels(splits["train"])
    return Data(**splits, read=read)


def _check_labels(train: StudyTable) -> None:
    """Raises: UserError where no finding has both classes; findings with one class are named in the log."""
    one_class = []
    for k, finding in enumerate(train.findings):
        known = train.labels[train.label_mask[:, k], k] > 0.5
        if known.all() or not known.any():
            one_class.append(f"{finding} ({int(known.sum())} positive, {int((~known).sum())} negative)")
    if len(one_class) == len(train.findings):
        raise UserError(
            f"no finding has both positive and negative studies in the training split: {', '.join(one_class)}. "
            "There is nothing to learn; check data.findings and the table"
        )
    if one_class:
        logger.warning("one class only in the training split: %s; nothing can be learned of it", ", ".join(one_class))
