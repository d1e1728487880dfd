"""Requests: studies that somebody asks about, read, packed and handed to a network, without a label or a table.

What cannot be read is a reason, not an error: a study with one readable view is answered from that view, and
one without any has reasons alone.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dualview.config import ModelConfig
from dualview.data.dataset import read_all, read_first
from dualview.data.loading import loader
from dualview.data.several_images import StudyImages
from dualview.errors import UserError
from dualview.views import View

OTHERS = {False: "another image of the view is used", True: "other images of the view are used"}
"""What is said of a bad image among several, by whether all count."""

Prepared = tuple[Tensor, ...]  # an image as each preparation makes it, (1, S, S)


class ReadNoted(Protocol):
    """A reader of whatever stands for an image in a `StudyRequest`, prepared for each kind of network."""

    sizes_px: tuple[int, ...]  # S of each preparation

    def __call__(self, image: Any, *, note: list[tuple[str, str]]) -> Prepared: ...


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

    def every(self, view: View) -> tuple[Any, ...]:
        """All images of a view."""
        return () if self.images[view] is None else (self.images[view], *self.spares[view])


def request_of(
    images: tuple[Sequence[Any], Sequence[Any]], *, reasons: Iterable[str] = (), study: str = "", patient: str = ""
) -> StudyRequest:
    """A study with any number of images of each View; a path that comes twice counts once."""
    images = (_once(images[View.PA]), _once(images[View.LATERAL]))
    firsts = [paths[0] if paths else None for paths in images]
    return StudyRequest(
        images=(firsts[View.PA], firsts[View.LATERAL]),
        reasons=tuple(dict.fromkeys(reasons)),
        study=study,
        patient=patient,
        spares=(tuple(images[View.PA][1:]), tuple(images[View.LATERAL][1:])),
    )


def _once(images: Sequence[Any]) -> tuple[Any, ...]:
    paths: set[str] = set()
    kept = []
    for image in images:
        if isinstance(image, str | os.PathLike):
            if os.fspath(image) in paths:
                continue
            paths.add(os.fspath(image))
        kept.append(image)
    return tuple(kept)


class ReadStudy(NamedTuple):
    """One study after its images are read: those that the network takes, and why others are not there."""

    request: StudyRequest
    images: tuple[tuple[Prepared, ...], tuple[Prepared, ...]]  # of each View
    reasons: tuple[str, ...]
    is_served: bool  # whether the network can answer for the study
    error: str | None = None  # error that ends the command, such as a missing package
    remarks: tuple[tuple[str, str], ...] = ()  # (kind of oddity, image) of those that were read


class ReadBatch(NamedTuple):
    """Some studies as they come from the loader."""

    studies: list[StudyRequest]
    reasons: list[str]  # one per study; blank: all was well
    served: list[int]  # positions in `studies` of those that can be answered
    images: tuple[StudyImages, ...]  # of each preparation, B = len(served) studies
    errors: tuple[str, ...] = ()
    remarks: tuple[tuple[str, str], ...] = ()  # (kind of oddity, image)


class RequestDataset(Dataset[ReadStudy]):
    """Reads a study by itself: `dataset[request]`.

    Args:
        read: from an image of `StudyRequest` to (1, S, S) float32 in [-1, 1] for each preparation, or BadImage; it
            appends what was odd about it to `note`.
        networks: that are asked. What none of them looks at is not read.
        takes_all: whether all images of a view count, or the first that can be read.
    """

    def __init__(
        self,
        *,
        read: ReadNoted,
        networks: Sequence[ModelConfig],
        takes_all: bool = False,
    ) -> None:
        self.read = read
        self.networks = networks
        self.takes_all = takes_all
        self.views = [view for view in View if any(view in network.views for network in networks)]

    def __getitem__(self, request: StudyRequest) -> ReadStudy:
        reasons = list(request.reasons)
        images: list[tuple[Prepared, ...]] = [(), ()]
        noted: list[tuple[str, str]] = []
        there = request.view_mask
        for view in self.views if self.can_serve(there) else ():
            if not there[view]:
                continue
            reader = partial(self.read, note=noted)
            try:
                images[view], bad = self._read(request.every(view), reader=reader)
            except UserError as error:
                return ReadStudy(request, ((), ()), (), is_served=False, error=str(error))
            others = f" ({OTHERS[self.takes_all]})" if images[view] else ""
            reasons += [f"{view.key}: {reason}{others}" for reason in bad]
        is_served = self.can_serve((bool(images[View.PA]), bool(images[View.LATERAL])))
        if not is_served:
            images = [(), ()]
            needs_all = all(network.needs_all_views for network in self.networks)
            if any(there) and (needs_all or not any(there[view] for view in self.views)):
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

    def _read(
        self, images: tuple[Any, ...], *, reader: Callable[[Any], Prepared]
    ) -> tuple[tuple[Prepared, ...], list[str]]:
        """The images of a view that count, and why others cannot."""
        if self.takes_all:
            every = read_all(images, read=reader)
            return every.images, [reason for _, reason in every.bad]
        first = read_first(images, read=reader)
        return () if first.image is None else (first.image,), [reason for _, reason in first.bad]

    def can_serve(self, view_mask: tuple[bool, bool]) -> bool:
        """Whether any network says anything of a study with these views."""
        return any(can_judge(network, view_mask) for network in self.networks)

    @property
    def needs(self) -> str:
        """What a study must have, as a reason."""
        needs = [
            f"the network ({f'{network.name} of {network.view}' if network.name == 'single' else network.name}) needs "
            + " and ".join(view.key for view in network.views)
            for network in self.networks
        ]
        return ", ".join(dict.fromkeys(needs))

    def collate(self, studies: list[ReadStudy]) -> ReadBatch:
        """Pack the studies that can be served; none at all gives a batch of B = 0."""
        served = [position for position, study in enumerate(studies) if study.is_served]
        packed = tuple(
            StudyImages.of(
                [[[image[number] for image in of_view] for of_view in studies[position].images] for position in served],
                image_size_px=size_px,
            )
            for number, size_px in enumerate(self.read.sizes_px)
        )
        return ReadBatch(
            studies=[study.request for study in studies],
            reasons=["; ".join(study.reasons) for study in studies],
            served=served,
            images=packed,
            errors=tuple(study.error for study in studies if study.error is not None),
            remarks=tuple(remark for study in studies for remark in study.remarks),
        )


def can_judge(network: ModelConfig, view_mask: tuple[bool, bool]) -> bool:
    """Whether a network says anything of a study with these views."""
    has = [view_mask[view] for view in network.views]
    return all(has) if network.needs_all_views else any(has)


def request_loader(
    dataset: RequestDataset, *, batches: Iterable[list[StudyRequest]], num_workers: int, pin_memory: bool
) -> DataLoader[ReadBatch]:
    """Batches read in the order given."""
    return loader(dataset, batches=batches, num_workers=num_workers, pin_memory=pin_memory)
