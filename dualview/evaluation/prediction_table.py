"""Predictions of one split as a table that evaluation, reports and comparisons start from: a parquet file.

    study, patient, availability, attribute/NAME ...,
    and per finding: FINDING/label, FINDING/known, and FINDING/SCORE for every score below

Scores are probabilities, null where they do not exist:

- `route`: of the head that the study's views lead to; the answer of the network.
- `joint`, `pa`, `lateral`: of each head, where it has seen the study.
- `lateral_hidden`, `pa_hidden`: the answer of the network to a study with both views of which one is withheld.

The file identifies studies and patients: it stays on the machine.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from dualview.errors import UserError
from dualview.views import Availability, View

HEADS = ("route", "joint", "pa", "lateral")
HIDDEN = {View.LATERAL: "lateral_hidden", View.PA: "pa_hidden"}
SCORES = (*HEADS, *HIDDEN.values())
ROUTES = tuple(kind.name.lower() for kind in Availability)


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """S studies and what a network says of them."""

    findings: tuple[str, ...]  # K names
    study_ids: np.ndarray  # (S,) str
    patient_ids: np.ndarray  # (S,) str
    availability: np.ndarray  # (S,) int8 of `Availability`, by the views that could be read
    evaluated: np.ndarray  # (S,) bool: False where no image of the study could be read
    labels: np.ndarray  # (S, K) 0 or 1; means nothing where label_mask is False
    label_mask: np.ndarray  # (S, K) bool, True = known
    scores: dict[str, np.ndarray]  # of SCORES -> (S, K) probability, NaN where there is none
    attributes: dict[str, np.ndarray] = field(default_factory=dict)  # name -> (S,) str

    def __len__(self) -> int:
        return len(self.study_ids)

    def route_of(self, score: str) -> np.ndarray:
        """(S,) int8 of `Availability`: by which views a score judges each study."""
        if score in ("pa", HIDDEN[View.LATERAL]):
            return np.full(len(self), Availability.PA_ONLY, np.int8)
        if score in ("lateral", HIDDEN[View.PA]):
            return np.full(len(self), Availability.LATERAL_ONLY, np.int8)
        return self.availability

    def select(self, rows: np.ndarray) -> "Predictions":
        """The studies at `rows` (int or bool index), in that order."""
        return replace(
            self,
            study_ids=self.study_ids[rows],
            patient_ids=self.patient_ids[rows],
            availability=self.availability[rows],
            evaluated=self.evaluated[rows],
            labels=self.labels[rows],
            label_mask=self.label_mask[rows],
            scores={name: values[rows] for name, values in self.scores.items()},
            attributes={name: values[rows] for name, values in self.attributes.items()},
        )

    def write(self, path: Path) -> None:
        """Write the parquet file."""
        kinds = [ROUTES[kind] if there else None for kind, there in zip(self.availability, self.evaluated, strict=True)]
        columns: dict[str, object] = {"study": self.study_ids, "patient": self.patient_ids, "availability": kinds}
        columns |= {f"attribute/{name}": values for name, values in self.attributes.items()}
        for k, finding in enumerate(self.findings):
            known = self.label_mask[:, k]
            columns[f"{finding}/label"] = _nullable(self.labels[:, k], known, dtype="Int8")
            columns[f"{finding}/known"] = known
            for score in SCORES:
                values = self.scores[score][:, k]
                columns[f"{finding}/{score}"] = _nullable(values, np.isfinite(values), dtype="Float64")
        pd.DataFrame(columns).to_parquet(path, index=False)


def read_predictions(path: Path) -> Predictions:
    """Read what `Predictions.write` wrote.

    Raises:
        UserError: no such file, or a parquet file of something else.
    """
    try:
        frame = pd.read_parquet(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}. Has the run ended?") from None
    except ValueError as error:
        raise UserError(f"{path} is no parquet file: {error}") from None
    findings = tuple(str(name).removesuffix("/known") for name in frame.columns if str(name).endswith("/known"))
    wanted = ["study", "patient", "availability", *(f"{name}/{score}" for name in findings for score in SCORES)]
    if not findings or not set(wanted) <= set(frame.columns):
        raise UserError(f"{path} holds no predictions of this dualview; run `dualview evaluate` on the run")

    def per_finding(what: str, dtype: type, missing: float) -> np.ndarray:
        return np.stack([frame[f"{name}/{what}"].fillna(missing).to_numpy(dtype) for name in findings], axis=1)

    evaluated = frame["availability"].notna().to_numpy()
    kinds = [ROUTES.index(kind) if there else 0 for kind, there in zip(frame["availability"], evaluated, strict=True)]
    return Predictions(
        findings=findings,
        study_ids=frame["study"].to_numpy(dtype=object),
        patient_ids=frame["patient"].to_numpy(dtype=object),
        availability=np.array(kinds, np.int8),
        evaluated=evaluated,
        labels=per_finding("label", np.float32, 0),
        label_mask=per_finding("known", np.bool_, 0),
        scores={score: per_finding(score, np.float64, np.nan) for score in SCORES},
        attributes={
            str(name).removeprefix("attribute/"): frame[name].to_numpy(dtype=object)
            for name in frame.columns
            if str(name).startswith("attribute/")
        },
    )


def _nullable(values: np.ndarray, mask: np.ndarray, *, dtype: Literal["Int8", "Float64"]) -> pd.Series:
    """A pandas column that is null where `mask` is False."""
    return pd.Series(np.where(mask, values, 0)).astype(dtype).where(mask)
