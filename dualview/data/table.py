"""The study table: one row per study, whatever the data set it came from."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from dualview.views import View, availability_of


@dataclass(frozen=True, kw_only=True)
class StudyTable:
    """S studies with their images and labels. Order is part of the data: index = row.

    `images[view][s]` holds the images of study s in that view, in the order of the source: none
    where the view is absent, several where a study has, say, two frontals. An image is a path
    relative to `data.root`, or whatever key the source's image reader understands.

    A label is known, or unknown; an unknown one may be uncertain: the report hedges.

    What is counted over studies is counted once: nothing may change the arrays of a table.
    """

    findings: tuple[str, ...]  # (K,) names
    study_ids: np.ndarray  # (S,) str
    patient_ids: np.ndarray  # (S,) str
    images: tuple[np.ndarray, np.ndarray]  # per view (S,) object: tuple[str, ...]
    labels: np.ndarray  # (S, K) float32 in [0, 1]; means nothing where label_mask is False
    label_mask: np.ndarray  # (S, K) bool, True = known
    uncertain: np.ndarray | None = None  # (S, K) bool, True = unknown because the report hedges
    split: np.ndarray | None = None  # (S,) train, val or test; None: the source does not say
    weight: np.ndarray | None = None  # (S,) float32, factor of each study in the training loss; None: 1
    attributes: dict[str, np.ndarray] = field(default_factory=dict)  # name -> (S,) str, blank where not known

    def __len__(self) -> int:
        return len(self.study_ids)

    @cached_property
    def view_mask(self) -> np.ndarray:
        """(S, V) bool, True = at least one image of the view."""
        return self.num_images > 0

    @cached_property
    def num_images(self) -> np.ndarray:
        """(S, V) int64, images per study and view."""
        columns = [np.fromiter(map(len, self.images[view]), np.int64, len(self)) for view in View]
        return np.stack(columns, axis=1)

    @cached_property
    def availability(self) -> np.ndarray:
        """(S,) int8 of `Availability`. Every study has at least one image."""
        return availability_of(self.view_mask)

    @property
    def positive(self) -> np.ndarray:
        """(S, K) bool: the label is known, and above 1/2."""
        positive: np.ndarray = self.label_mask & (self.labels > 0.5)
        return positive

    def select(self, rows: np.ndarray) -> "StudyTable":
        """The studies at `rows` (int or bool index), in that order."""

        def chosen(array: np.ndarray | None) -> np.ndarray | None:
            return None if array is None else array[rows]

        return replace(
            self,
            study_ids=self.study_ids[rows],
            patient_ids=self.patient_ids[rows],
            images=(self.images[View.PA][rows], self.images[View.LATERAL][rows]),
            labels=self.labels[rows],
            label_mask=self.label_mask[rows],
            uncertain=chosen(self.uncertain),
            split=chosen(self.split),
            weight=chosen(self.weight),
            attributes={name: values[rows] for name, values in self.attributes.items()},
        )

    def seen_by(self, views: Sequence[View], *, needs_all: bool) -> "StudyTable":
        """The studies that have one of these views, or with `needs_all` all of them, without images of other views."""
        has = self.view_mask[:, list(views)]
        images = list(self.images)
        for view in set(View) - set(views):
            images[view] = np.empty(len(self), object)
            images[view][:] = [()] * len(self)
        kept = has.all(axis=1) if needs_all else has.any(axis=1)
        return replace(self, images=(images[View.PA], images[View.LATERAL])).select(np.flatnonzero(kept))

    def with_findings(self, findings: Sequence[str]) -> "StudyTable":
        """The same studies with these findings, in this order; one the table does not have is unknown everywhere."""
        there = [self.findings.index(name) if name in self.findings else None for name in findings]

        def columns(array: np.ndarray) -> np.ndarray:
            parts = [np.zeros(len(self), array.dtype) if k is None else array[:, k] for k in there]
            return np.stack(parts, axis=1) if parts else np.zeros((len(self), 0), array.dtype)

        return replace(
            self,
            findings=tuple(findings),
            labels=columns(self.labels),
            label_mask=columns(self.label_mask),
            uncertain=None if self.uncertain is None else columns(self.uncertain),
        )


def concatenate(tables: Sequence[StudyTable]) -> StudyTable:
    """The studies of several tables one after the other; findings are the union, in order of appearance.

    A finding that a table does not have is unknown in it, an attribute blank. Splits are dropped
    where a table has none.
    """
    findings = list(dict.fromkeys(name for table in tables for name in table.findings))
    attributes = list(dict.fromkeys(name for table in tables for name in table.attributes))
    tables = [table.with_findings(findings) for table in tables]

    def joined(arrays: list[np.ndarray | None]) -> np.ndarray | None:
        there = [array for array in arrays if array is not None]
        return np.concatenate(there) if len(there) == len(arrays) else None

    return StudyTable(
        findings=tuple(findings),
        study_ids=np.concatenate([table.study_ids for table in tables]),
        patient_ids=np.concatenate([table.patient_ids for table in tables]),
        images=(
            np.concatenate([table.images[View.PA] for table in tables]),
            np.concatenate([table.images[View.LATERAL] for table in tables]),
        ),
        labels=np.concatenate([table.labels for table in tables]),
        label_mask=np.concatenate([table.label_mask for table in tables]),
        uncertain=np.concatenate([np.zeros_like(t.label_mask) if t.uncertain is None else t.uncertain for t in tables]),
        split=joined([table.split for table in tables]),
        weight=np.concatenate([np.ones(len(t), np.float32) if t.weight is None else t.weight for t in tables]),
        attributes={
            name: np.concatenate([t.attributes.get(name, np.full(len(t), "", object)) for t in tables])
            for name in attributes
        },
    )
