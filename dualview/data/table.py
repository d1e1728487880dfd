"""The study table: one row per study, whatever the data set it came from."""

from dataclasses import dataclass, replace

import numpy as np

from dualview.views import Availability, View


@dataclass(frozen=True, kw_only=True)
class StudyTable:
    """S studies with their images and labels. Order is part of the data: index = row.

    `images[view][s]` holds the images of study s in that view, in the order of the source: none
    where the view is absent, several where a study has, say, two frontals. An image is a path
    relative to `data.root`, or whatever key the source's image reader understands.
    """

    findings: tuple[str, ...]  # K names
    study_ids: np.ndarray  # (S,) str
    patient_ids: np.ndarray  # (S,) str
    images: tuple[np.ndarray, np.ndarray]  # per view (S,) object: tuple[str, ...]
    labels: np.ndarray  # (S, K) float32, 0 or 1; means nothing where label_mask is False
    label_mask: np.ndarray  # (S, K) bool, True = known
    split: np.ndarray | None = None  # (S,) train, val or test, where the source says so

    def __len__(self) -> int:
        return len(self.study_ids)

    @property
    def view_mask(self) -> np.ndarray:
        """(S, V) bool, True = at least one image of the view."""
        columns = [np.fromiter((len(paths) > 0 for paths in self.images[view]), bool, len(self)) for view in View]
        return np.stack(columns, axis=1)

    @property
    def availability(self) -> np.ndarray:
        """(S,) int8 of `Availability`. Every study has at least one image."""
        has_pa, has_lateral = self.view_mask.T
        kinds = np.where(has_lateral, Availability.LATERAL_ONLY, Availability.PA_ONLY)
        return np.where(has_pa & has_lateral, Availability.BOTH, kinds).astype(np.int8)

    def select(self, rows: np.ndarray) -> "StudyTable":
        """The studies at `rows` (int or bool index), in that order."""
        return replace(
            self,
            study_ids=self.study_ids[rows],
            patient_ids=self.patient_ids[rows],
            images=(self.images[View.PA][rows], self.images[View.LATERAL][rows]),
            labels=self.labels[rows],
            label_mask=self.label_mask[rows],
            split=None if self.split is None else self.split[rows],
        )
