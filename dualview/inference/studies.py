"""Requests: studies that somebody asks about, read, packed and handed to a network, without a label or a table.

What cannot be read is a reason, not an error: a study with one readable view is answered from that view, and
one without any has reasons alone.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dualview.batch import StudyBatch
from dualview.data.dataset import read_first
from dualview.data.loading import loader
from dualview.errors import UserError
from dualview.views import View


class ReadNoted(Protocol):
    """A reader of whatever stands for an image in a `StudyRequest`."""

    def __call__(self, image: Any, *, note: list[tuple[str, str]]) -> Tensor: ...


class StudyRequest(NamedTuple):
    """One study before its images are read."""

    images: tuple[Any, Any]  # what the reader reads for each View, a path as a rule; None: no image
    reasons: tuple[str, ...] = ()  # why images of the study are left out already
    study: str = ""
    patient: str = ""
    row: int = 0  # row among all studies of the input
    spares: tuple[tuple[Any, ...], tuple[Any, ...]] = ((), ())  # further images of each View, tried in this order

    @property
    def view_mask(self) -> tuple[bool, bool]:
        return (self.images[View.PA] is not None, self.images[View.LATERAL] is not None)


def request_of(
    images: tuple[Sequence[Any], Sequence[Any]], *, reasons: Iterable[str] = (), study: str, patient: str = ""
) -> StudyRequest:
    """A study with any number of images of each View: the first counts, as in evaluation, where it can be read."""
    firsts = [paths[0] if paths else None for paths in images]
    return StudyRequest(
        images=(firsts[View.PA], firsts[View.LATERAL]),
        reasons=tuple(dict.fromkeys(reasons)),
        study=study,
        patient=patient,
        spares=(tuple(images[View.PA][1:]), tuple(images[View.LATERAL][1:])),
    )


class ReadStudy(NamedTuple):
    """One study after its images are read: those that the network takes, and why others are not there."""

    request: StudyRequest
    images: tuple[Tensor | None, Tensor | None]  # (1, S, S) of each View
    reasons: tuple[str, ...]
    is_served: bool  # whether the network can answer for the study
    error: str | None = None  # error that ends the command, such as a missing package
    remarks: tuple[tuple[str, str], ...] = ()  # (kind of oddity, image) of those that were read


class ReadBatch(NamedTuple):
    """Some studies as they come from the loader."""

    studies: list[StudyRequest]
    reasons: list[str]  # one per study; blank: all was well
    served: list[int]  # positions in `studies` of those in the batch, in its order
    batch: StudyBatch  # batch of B = len(served) studies
    errors: tuple[str, ...] = ()
    remarks: tuple[tuple[str, str], ...] = ()  # (kind of oddity, image)


class RequestDataset(Dataset[ReadStudy]):
    """Reads a study by itself: `dataset[request]`.

    Args:
        read: from an image of `StudyRequest` to (1, S, S) float32 in [-1, 1], or BadImage; it appends what was odd
            about it to `note`.
        views: that the network looks at; others are not read.
        needs_all: whether it says nothing without all of them.
        network: its name, for reasons.
        image_size_px: S.
    """

    def __init__(
        self,
        *,
        read: ReadNoted,
        views: tuple[View, ...],
        needs_all: bool,
        network: str,
        image_size_px: int,
    ) -> None:
        self.read = read
        self.views = views
        self.needs_all = needs_all
        self.network = network
        self.image_size_px = image_size_px

    def __getitem__(self, request: StudyRequest) -> ReadStudy:
        reasons = list(request.reasons)
        images: list[Tensor | None] = [None, None]
        noted: list[tuple[str, str]] = []
        there = request.view_mask
        for view in self.views if self.can_serve(there) else ():
            if not there[view]:
                continue
            try:
                read = read_first((request.images[view], *request.spares[view]), read=partial(self.read, note=noted))
            except UserError as error:
                return ReadStudy(request, (None, None), (), is_served=False, error=str(error))
            images[view] = read.image
            instead = "" if read.image is None else " (another image of the view is used)"
            reasons += [f"{view.key}: {reason}{instead}" for _, reason in read.bad]
        is_served = self.can_serve((images[View.PA] is not None, images[View.LATERAL] is not None))
        if not is_served:
            images = [None, None]
            if any(there) and (self.needs_all or not any(there[view] for view in self.views)):
                reasons.append(self.needs)
            elif not reasons:
                reasons.append("no image is given")
        return ReadStudy(
            request,
            (images[View.PA], images[View.LATERAL]),
            tuple(reasons),
            is_served=is_served,
            remarks=tuple(noted),
        )

    def can_serve(self, view_mask: tuple[bool, bool]) -> bool:
        """Whether the network says anything of a study with these views."""
        has = [view_mask[view] for view in self.views]
        return all(has) if self.needs_all else any(has)

    @property
    def needs(self) -> str:
        """What a study must have, as a reason."""
        views = " and ".join(view.key for view in self.views)
        return f"the network ({self.network}) needs {views}"

    def collate(self, studies: list[ReadStudy]) -> ReadBatch:
        """Pack the studies that can be served; none at all gives a batch of B = 0."""
        served = [position for position, study in enumerate(studies) if study.is_served]
        batch = StudyBatch.from_views(
            pa=[studies[position].images[View.PA] for position in served],
            lateral=[studies[position].images[View.LATERAL] for position in served],
            image_shape=(1, self.image_size_px, self.image_size_px),
        )
        return ReadBatch(
            studies=[study.request for study in studies],
            reasons=["; ".join(study.reasons) for study in studies],
            served=served,
            batch=batch,
            errors=tuple(study.error for study in studies if study.error is not None),
            remarks=tuple(remark for study in studies for remark in study.remarks),
        )


def request_loader(
    dataset: RequestDataset, *, batches: Iterable[list[StudyRequest]], num_workers: int, pin_memory: bool
) -> DataLoader[ReadBatch]:
    """Batches read in the order given."""
    return loader(dataset, batches=batches, num_workers=num_workers, pin_memory=pin_memory)
