"""All images of a study at test: which of them go through a network together, and one answer out of many.

`data.several_images_at_test` is `first`, or `mean` or `max` of the logits over all images of a study. A route of one
view is answered by each image of the view; one of both views by each pair of a PA and a lateral image. An image is read
once, whatever it is paired with.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dualview.batch import StudyBatch
from dualview.config import SeveralImages
from dualview.data.augment import to_input_batch
from dualview.data.dataset import Key, StudyDataset, read_all
from dualview.views import Availability, View


class StudyImages(NamedTuple):
    """Every image of B studies, each once, and the combinations in which a network sees them."""

    images: tuple[Tensor, Tensor]  # of each View (N, 1, S, S), study by study; stored pixels, or float32 in [-1, 1]
    combinations: Tensor  # (P, 3) int64: a study 0 .. B-1, the rows of its images in the two, or -1: no such view
    num_studies: int  # B

    @classmethod
    def of(cls, studies: Sequence[Sequence[Sequence[Tensor]]], *, image_size_px: int) -> "StudyImages":
        """Pack the images of each study by View; a study without any has no combination."""
        rows, packed = [], ([], [])  # type: tuple[list[tuple[int, int, int]], tuple[list[Tensor], list[Tensor]]]
        for number, of_views in enumerate(studies):
            places = []
            for view in View:
                first = len(packed[view])
                packed[view].extend(of_views[view])
                places.append(range(first, len(packed[view])) or [-1])
            if any(of_views):
                rows += [(number, pa, lateral) for pa, lateral in product(*places)]
        empty = torch.zeros(0, 1, image_size_px, image_size_px)
        pa, lateral = (torch.stack(images) if images else empty for images in packed)
        return cls((pa, lateral), torch.tensor(rows, dtype=torch.int64).reshape(-1, 3), len(studies))

    @property
    def view_mask(self) -> np.ndarray:
        """(B, V) bool, True = at least one image of the view."""
        mask = np.zeros((self.num_studies, len(View)), bool)
        studies, views = np.nonzero(self.combinations[:, 1:].numpy() >= 0)
        mask[self.combinations[:, 0].numpy()[studies], views] = True
        return mask

    def seen_by(self, views: Sequence[View], *, needs_all: bool) -> "StudyImages":
        """What a network sees that looks at these views: each combination once, of studies that it can judge."""
        seen = self.combinations.clone()
        for view in set(View) - set(views):
            seen[:, 1 + view] = -1
        has = seen[:, 1:][:, list(views)] >= 0
        kept = has.all(dim=1) if needs_all else has.any(dim=1)
        return self._replace(combinations=torch.unique(seen[kept], dim=0))  # sorted, as they were

    def batches(self, most: int) -> Iterator[tuple[Tensor, StudyBatch]]:
        """The combinations, at most so many at a time, as a network takes them: (P,) studies, batch of B = P.

        Those of one forward pass are put together here, so that no more than these are held twice.
        """
        for rows in self.combinations.split(most):
            if not len(rows):
                return
            columns: list[list[Tensor | None]] = [
                [None if at < 0 else self.images[view][at] for at in rows[:, 1 + view].tolist()] for view in View
            ]
            batch = StudyBatch.from_views(pa=columns[View.PA], lateral=columns[View.LATERAL])
            yield rows[:, 0], to_input_batch(batch)


def combined(logits: np.ndarray, *, studies: np.ndarray, num_studies: int, how: SeveralImages) -> np.ndarray:
    """(num_studies, ...) float64: mean or largest of the logits (P, ...) of each study; NaN for one that has none.

    Args:
        studies: (P,) whose each row is.
        how: of `first` there is one row per study.
    """
    shape = (num_studies, *logits.shape[1:])
    if how == "max":
        largest = np.full(shape, -np.inf)
        np.maximum.at(largest, studies, logits.astype(np.float64))
        largest[np.bincount(studies, minlength=num_studies) == 0] = np.nan
        return largest
    sums = np.zeros(shape)
    np.add.at(sums, studies, logits.astype(np.float64))
    counts = np.bincount(studies, minlength=num_studies).reshape(-1, *[1] * (logits.ndim - 1))
    mean: np.ndarray = np.divide(sums, counts, out=np.full(shape, np.nan), where=counts > 0)
    return mean


class AllImages(NamedTuple):
    """A micro-batch of studies with all their images, as it comes from the loader."""

    rows: Tensor  # (B,) int64, rows of the studies in the study table
    studies: StudyImages
    bad_images: tuple[tuple[str, str], ...]  # (path, reason)
    replaced: tuple[str, ...]  # paths of the bad images whose view has another one


class ReadStudyImages(NamedTuple):
    """One study after its images are read."""

    row: int
    images: tuple[tuple[Tensor, ...], tuple[Tensor, ...]]  # of each View those that could be read
    bad_images: tuple[tuple[str, str], ...]
    replaced: tuple[str, ...]


class AllImagesDataset(Dataset[ReadStudyImages]):
    """The studies of a dataset of evaluation, with all images of each view that can be read."""

    def __init__(self, dataset: StudyDataset) -> None:
        self.dataset = dataset
        self.table = dataset.table

    def __getitem__(self, key: Key | tuple[int, int]) -> ReadStudyImages:
        """Read one study; a bad image is recorded, and the others of its view count."""
        _, row, availability = Key(*key)
        images: list[tuple[Tensor, ...]] = [(), ()]
        bad_images: list[tuple[str, str]] = []
        replaced: list[str] = []
        for view in Availability(availability).views:
            read = read_all(self.table.images[view][row], read=self.dataset.read)
            images[view] = read.images
            bad_images += read.bad
            replaced += [path for path, _ in read.bad if read.images]
        return ReadStudyImages(row, (images[View.PA], images[View.LATERAL]), tuple(bad_images), tuple(replaced))

    def collate(self, items: list[Any]) -> AllImages:
        """Pack studies; those without any readable image have no combination."""
        return AllImages(
            rows=torch.tensor([study.row for study in items], dtype=torch.int64),
            studies=StudyImages.of([study.images for study in items], image_size_px=self.dataset.image_size_px),
            bad_images=tuple(bad for study in items for bad in study.bad_images),
            replaced=tuple(path for study in items for path in study.replaced),
        )
