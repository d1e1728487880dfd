"""Studies as tensors: images read, augmented and packed into batches of what exists."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dualview.batch import StudyBatch
from dualview.config import AugmentConfig
from dualview.data.augment import to_input_batch
from dualview.data.images.files import ImageReader
from dualview.data.random_numbers import key as random_key
from dualview.data.table import StudyTable
from dualview.errors import BadImage
from dualview.views import Availability, View

Read = TypeVar("Read")  # what a reader makes of an image


class Key(NamedTuple):
    """What to read: a study in an epoch, by the views that view dropout leaves of it."""

    epoch: int
    row: int
    availability: int = Availability.BOTH  # `BOTH` hides nothing


class LoadedStudy(NamedTuple):
    """One study's images; None where the view does not exist or could not be read."""

    row: int
    images: tuple[Tensor | None, Tensor | None]  # image of each View
    keys: tuple[int, int]  # key of each View's random numbers
    labels: Tensor  # (K,) float32
    label_mask: Tensor  # (K,) bool
    weight: float
    bad_images: tuple[tuple[str, str], ...]  # (path, reason)
    replaced: tuple[str, ...] = ()  # paths of the bad images in whose place another of the view was read


class Loaded(NamedTuple):
    """A micro-batch as it comes from the loader. Studies without any readable image are not in it."""

    batch: StudyBatch
    bad_images: tuple[tuple[str, str], ...]  # (path, reason)
    keys: tuple[Tensor, Tensor] | None = None  # keys of PA and lateral rows; None: no augmentation is left to do
    replaced: tuple[str, ...] = ()  # paths of the bad images in whose place another of the view was read


class FirstRead(NamedTuple, Generic[Read]):
    """The first of several images of a view that can be read."""

    image: Read | None  # as the reader gives it; None: none can be read
    bad: tuple[tuple[Any, str], ...]  # (image, reason) of those before it


def read_first(images: Sequence[Any], *, read: Callable[[Any], Read]) -> FirstRead[Read]:
    """Read images of one view, one after another, until one can be read."""
    bad: list[tuple[Any, str]] = []
    for image in images:
        try:
            return FirstRead(read(image), tuple(bad))
        except BadImage as error:
            bad.append((image, error.reason))
    return FirstRead(None, tuple(bad))


class AllRead(NamedTuple, Generic[Read]):
    """All images of a view that can be read."""

    images: tuple[Read, ...]  # as the reader gives them
    bad: tuple[tuple[Any, str], ...]  # (image, reason) of the others


def read_all(images: Sequence[Any], *, read: Callable[[Any], Read]) -> AllRead[Read]:
    """Read every image of one view."""
    each = [read_first((image,), read=read) for image in images]
    return AllRead(
        tuple(one.image for one in each if one.image is not None), tuple(bad for one in each for bad in one.bad)
    )


class StudyDataset(Dataset[LoadedStudy]):
    """The studies of one split, read on demand by `Key`.

    What is random is drawn from (seed, epoch, row, view), so that neither the rank nor the worker
    that reads a study changes it.

    Args:
        table: studies of the split.
        read: reader of one image.
        image_size_px: S.
        seed: of the run.
        several_images: which of several images of a view to take, `first` or `random` per epoch.
        augment: changes for training; None for evaluation.
        augment_on: whether `collate` augments, or leaves it, with the keys, to whoever trains.
    """

    def __init__(
        self,
        table: StudyTable,
        *,
        read: ImageReader,
        image_size_px: int,
        seed: int,
        several_images: Literal["first", "random"] = "first",
        augment: AugmentConfig | None = None,
        augment_on: Literal["worker", "device"] = "worker",
    ) -> None:
        self.table = table
        self.read = read
        self.image_size_px = image_size_px
        self.seed = seed
        self.several_images = several_images
        self.augment = augment
        self.augment_on = augment_on

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, key: Key | tuple[int, int]) -> LoadedStudy:
        """Read one study, by `Key` or (epoch, row).

        A bad image is recorded, not raised: a worker's traceback helps nobody. Another of its view takes its place.
        """
        epoch, row, availability = Key(*key)
        left = Availability(availability).views
        images: list[Tensor | None] = [None, None]
        keys = [random_key(self.seed, epoch, row, view) for view in View]
        bad_images: list[tuple[str, str]] = []
        replaced: list[str] = []
        for view in View:
            paths = self.table.images[view][row]
            if not paths or view not in left:
                continue
            first = keys[view] % len(paths) if self.several_images == "random" else 0
            read = read_first(paths[first:] + paths[:first], read=self.read)
            images[view] = read.image
            bad_images += read.bad
            replaced += [path for path, _ in read.bad if read.image is not None]
        return LoadedStudy(
            row=row,
            images=(images[View.PA], images[View.LATERAL]),
            keys=(keys[View.PA], keys[View.LATERAL]),
            labels=torch.from_numpy(self.table.labels[row]),
            label_mask=torch.from_numpy(self.table.label_mask[row]),
            weight=1.0 if self.table.weight is None else float(self.table.weight[row]),
            bad_images=tuple(bad_images),
            replaced=tuple(replaced),
        )

    def collate(self, studies: list[LoadedStudy]) -> Loaded:
        """Pack studies into a batch of network inputs; none at all gives a batch of B = 0."""
        usable = [study for study in studies if any(image is not None for image in study.images)]
        num_findings = len(self.table.findings)
        batch = StudyBatch.from_views(
            pa=[study.images[View.PA] for study in usable],
            lateral=[study.images[View.LATERAL] for study in usable],
            labels=torch.stack([study.labels for study in usable]) if usable else torch.zeros(0, num_findings),
            label_mask=torch.stack([study.label_mask for study in usable])
            if usable
            else torch.zeros(0, num_findings, dtype=torch.bool),
            study_index=torch.tensor([study.row for study in usable], dtype=torch.int64),
            weight=torch.tensor([study.weight for study in usable]),
            image_shape=(1, self.image_size_px, self.image_size_px),
        )
        bad_images = tuple(bad for study in studies for bad in study.bad_images)
        replaced = tuple(path for study in studies for path in study.replaced)
        if self.augment is None:
            return Loaded(to_input_batch(batch), bad_images, replaced=replaced)
        keys = (_keys(usable, View.PA), _keys(usable, View.LATERAL))
        if self.augment_on == "device":
            return Loaded(batch, bad_images, keys, replaced)
        return Loaded(to_input_batch(batch, keys=keys, augment=self.augment), bad_images, replaced=replaced)


def _keys(studies: list[LoadedStudy], view: View) -> Tensor:
    return torch.tensor([study.keys[view] for study in studies if study.images[view] is not None], dtype=torch.int64)


def _one_by_one(paths: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Each path alone; for no path, once none."""
    return [(path,) for path in paths] or [()]


def expand_all(table: StudyTable) -> StudyTable:
    """A row for every pairing of a study's PA and lateral images; a study with one of each stays one row."""
    rows: list[int] = []
    pairs: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
    for row, (pa_paths, lateral_paths) in enumerate(zip(*table.images, strict=True)):
        for pa, lateral in product(_one_by_one(pa_paths), _one_by_one(lateral_paths)):
            rows.append(row)
            pairs.append((pa, lateral))
    images = (np.empty(len(pairs), object), np.empty(len(pairs), object))
    for position, pair in enumerate(pairs):
        images[View.PA][position], images[View.LATERAL][position] = pair
    return replace(table.select(np.array(rows, dtype=np.int64)), images=images)
