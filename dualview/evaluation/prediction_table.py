"""What a network says of every study of a split, as a table that evaluation, reports and comparisons start from.

It is kept as a parquet file:

    study, patient, availability, attribute/NAME ...,
    and per finding: FINDING/label, FINDING/known, and FINDING/SCORE_logit for every score below

Scores are logits before any temperature, null where they do not exist:

- `route`: of the head that the study's views lead to; the answer of the network.
- `joint`, `pa`, `lateral`: of each head, where it has seen the study.
- `lateral_hidden`, `pa_hidden`: the answer of the network to a study with both views of which one is withheld.

Of several networks that answer together they are mean logits, and FINDING/spread is the standard deviation (n - 1) of
the networks' logits of `route`, null where fewer than two have judged the study.

Probabilities are made of them in evaluation/operating_points.py. Files of earlier versions hold probabilities, in
columns FINDING/SCORE; they are read too.

The file identifies studies and patients: it stays on the machine.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from scipy.special import logit

from dualview.errors import UserError
from dualview.files import whole_file
from dualview.views import ROUTES, Availability, View

HEADS = ("route", "joint", "pa", "lateral")
SCORES = (*HEADS, View.LATERAL.hidden_key, View.PA.hidden_key)
SMALLEST, LARGEST = 1e-300, 1 - 1e-16  # bounds of probabilities whose logit is finite


def score_of_masking(masking: str) -> str:
    """Name of the score that judges complete studies in one of `views.MASKINGS`."""
    return "route" if masking == Availability.BOTH.key else masking


@dataclass(frozen=True, kw_only=True)
class PredictionTable:
    """S studies of a split and what a network says of them."""

    findings: tuple[str, ...]  # (K,) names
    study_ids: np.ndarray  # (S,) str
    patient_ids: np.ndarray  # (S,) str
    availability: np.ndarray  # (S,) int8 of `Availability`, by the views that could be read
    evaluated: np.ndarray  # (S,) bool: False where no image of the study could be read
    labels: np.ndarray  # (S, K) 0 or 1; means nothing where label_mask is False
    label_mask: np.ndarray  # (S, K) bool, True = known
    logits: dict[str, np.ndarray]  # score of SCORES -> (S, K) float64, NaN where there is none
    attributes: dict[str, np.ndarray] = field(default_factory=dict)  # name -> (S,) str
    spread: np.ndarray | None = None  # (S, K) of the logits of `route` over networks, NaN: fewer than two; None: one
    # Score -> (S, K) probability from which each study is called positive, NaN where none; {}: operating points say it.
    # They are not kept in the file.
    thresholds: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.study_ids)

    @property
    def positive(self) -> np.ndarray:
        """(S, K) bool: the label is known, and the finding is there."""
        positive: np.ndarray = self.label_mask & (self.labels > 0.5)
        return positive

    def judged_by(self, score: str) -> np.ndarray:
        """(S,) int8 of `Availability`: by which views a score judges each study."""
        alone = {view.key: view.alone for view in View} | {view.hidden_key: view.other.alone for view in View}
        return np.full(len(self), alone[score], np.int8) if score in alone else self.availability

    def with_both_classes(self, probabilities: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Finding, (N,) probabilities and (N,) truth of its known studies, where both classes are among them.

        Args:
            probabilities: (S, K), NaN where there is none.
        """
        for k, finding in enumerate(self.findings):
            known = self.label_mask[:, k] & np.isfinite(probabilities[:, k])
            truth = self.positive[known, k]
            if truth.any() and not truth.all():
                yield finding, probabilities[known, k], truth

    def select(self, rows: np.ndarray) -> "PredictionTable":
        """The studies at `rows` (int or bool index), in that order."""
        return replace(
            self,
            study_ids=self.study_ids[rows],
            patient_ids=self.patient_ids[rows],
            availability=self.availability[rows],
            evaluated=self.evaluated[rows],
            labels=self.labels[rows],
            label_mask=self.label_mask[rows],
            logits={name: values[rows] for name, values in self.logits.items()},
            attributes={name: values[rows] for name, values in self.attributes.items()},
            spread=None if self.spread is None else self.spread[rows],
            thresholds={name: values[rows] for name, values in self.thresholds.items()},
        )

    def with_findings(self, findings: Sequence[str]) -> "PredictionTable":
        """The same studies with some of the findings, in this order."""
        columns = [self.findings.index(finding) for finding in findings]
        return replace(
            self,
            findings=tuple(findings),
            labels=self.labels[:, columns],
            label_mask=self.label_mask[:, columns],
            logits={name: values[:, columns] for name, values in self.logits.items()},
            spread=None if self.spread is None else self.spread[:, columns],
            thresholds={name: values[:, columns] for name, values in self.thresholds.items()},
        )

    def write(self, path: Path) -> None:
        """Write the parquet file whole or not at all."""
        kinds = [ROUTES[kind] if there else None for kind, there in zip(self.availability, self.evaluated, strict=True)]
        columns: dict[str, object] = {"study": self.study_ids, "patient": self.patient_ids, "availability": kinds}
        columns |= {f"attribute/{name}": values for name, values in self.attributes.items()}
        for k, finding in enumerate(self.findings):
            known = self.label_mask[:, k]
            columns[f"{finding}/label"] = _nullable(self.labels[:, k], known, dtype="Int8")
            columns[f"{finding}/known"] = known
            for score in SCORES:
                values = self.logits[score][:, k]
                columns[f"{finding}/{score}_logit"] = _nullable(values, np.isfinite(values), dtype="Float64")
            if self.spread is not None:
                values = self.spread[:, k]
                columns[f"{finding}/spread"] = _nullable(values, np.isfinite(values), dtype="Float64")
        with whole_file(path) as temporary:
            pd.DataFrame(columns).to_parquet(temporary, index=False)


def read_predictions(path: Path) -> PredictionTable:
    """Read what `PredictionTable.write` wrote, or an earlier version with probabilities.

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
    has_logits = f"{findings[0]}/route_logit" in frame.columns if findings else False
    suffix = "_logit" if has_logits else ""
    wanted = ["study", "patient", "availability"]
    wanted += [f"{name}/{score}{suffix}" for name in findings for score in SCORES]
    if not findings or not set(wanted) <= set(frame.columns):
        raise UserError(f"{path} holds no predictions of this dualview; run `dualview evaluate` on the run")

    def per_finding(what: str, dtype: type, missing: float) -> np.ndarray:
        return np.stack([frame[f"{name}/{what}"].fillna(missing).to_numpy(dtype) for name in findings], axis=1)

    def logits(score: str) -> np.ndarray:
        values = per_finding(f"{score}{suffix}", np.float64, np.nan)
        return values if has_logits else logit(np.clip(values, SMALLEST, LARGEST))

    evaluated = frame["availability"].notna().to_numpy()
    kinds = [ROUTES.index(kind) if there else 0 for kind, there in zip(frame["availability"], evaluated, strict=True)]
    return PredictionTable(
        findings=findings,
        study_ids=frame["study"].to_numpy(dtype=object),
        patient_ids=frame["patient"].to_numpy(dtype=object),
        availability=np.array(kinds, np.int8),
        evaluated=evaluated,
        labels=per_finding("label", np.float32, 0),
        label_mask=per_finding("known", np.bool_, 0),
        logits={score: logits(score) for score in SCORES},
        attributes={
            str(name).removeprefix("attribute/"): frame[name].to_numpy(dtype=object)
            for name in frame.columns
            if str(name).startswith("attribute/")
        },
        spread=per_finding("spread", np.float64, np.nan) if f"{findings[0]}/spread" in frame.columns else None,
    )


def _nullable(values: np.ndarray, mask: np.ndarray, *, dtype: Literal["Int8", "Float64"]) -> pd.Series:
    """A pandas column that is null where `mask` is False."""
    return pd.Series(np.where(mask, values, 0)).astype(dtype).where(mask)
