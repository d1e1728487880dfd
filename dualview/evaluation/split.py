"""What a network says of a split: the outputs of every head, and the metrics of each study's route."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from dualview.data.table import StudyTable
from dualview.evaluation.metrics import GroupMetrics
from dualview.evaluation.prediction_table import HEADS, SCORES, PredictionTable
from dualview.files import write_whole
from dualview.run import metric_keys
from dualview.views import ALL_STUDIES, View, availability_of


@dataclass(frozen=True, kw_only=True)
class SplitOutputs:
    """Logits of one split, row by row of its study table. Equal on every rank and for any world size."""

    logits: np.ndarray  # (S, 4 heads, K) float64; where `head_mask` is False it means nothing
    head_mask: np.ndarray  # (S, 4 heads) bool: route always; joint, pa, lateral where the head has seen the study
    view_mask: np.ndarray  # (S, V) bool: the views that were really read
    num_bad_images: int

    @property
    def evaluated(self) -> np.ndarray:
        """(S,) bool: False only for a study none of whose images could be read."""
        evaluated: np.ndarray = self.head_mask[:, HEADS.index("route")]
        return evaluated

    @property
    def route_logits(self) -> np.ndarray:
        """(S, K) float64, of the head that each study's views lead to; means nothing where not `evaluated`."""
        route_logits: np.ndarray = self.logits[:, HEADS.index("route")]
        return route_logits

    @property
    def availability(self) -> np.ndarray:
        """(S,) of `Availability`, by the views that were really read."""
        return availability_of(self.view_mask)


@dataclass(frozen=True, kw_only=True)
class SplitEvaluation:
    """Outputs of one split and what they are worth; metrics are those of each study's route head."""

    name: str
    table: StudyTable
    outputs: SplitOutputs
    metrics: dict[str, GroupMetrics]  # group of `views.GROUPS` -> its metrics
    loss: float | None  # mean unweighted route loss of the labelled studies; None: there is none
    hidden: dict[View, SplitOutputs] = field(default_factory=dict)  # withheld view -> outputs of the complete studies

    @property
    def macro_auroc(self) -> float | None:
        return self.metrics[ALL_STUDIES].macro_auroc

    def __str__(self) -> str:
        loss = "undefined" if self.loss is None else f"{self.loss:.4f}"
        macro = "undefined" if self.macro_auroc is None else f"{self.macro_auroc:.4f}"
        return f"{self.name} loss {loss}, macro AUROC {macro}"

    def values(self) -> dict[str, float | int | None]:
        """Metrics under their keys, such as `val/auroc_macro_both` and `val_auroc_both/Pneumonia`."""
        values: dict[str, float | int | None] = {
            metric_keys.split_loss(self.name): self.loss,
            metric_keys.split_bad_images(self.name): self.outputs.num_bad_images,
        }
        for group, metrics in self.metrics.items():
            macros = {"auroc": metrics.macro_auroc, "average_precision": metrics.macro_average_precision}
            for metric, value in macros.items():
                values[metric_keys.macro(self.name, metric=metric, group=group)] = value
            for finding, finding_metrics in metrics.findings.items():
                for metric in macros:
                    key = metric_keys.finding_value(self.name, metric=metric, group=group, finding=finding)
                    values[key] = getattr(finding_metrics, metric)
        return values


def as_predictions(evaluation: SplitEvaluation) -> PredictionTable:
    """The evaluation's table of predictions."""
    table, outputs = evaluation.table, evaluation.outputs

    def head_logits(outputs: SplitOutputs, head: str) -> np.ndarray:
        at = HEADS.index(head)
        return np.where(outputs.head_mask[:, at, None], outputs.logits[:, at], np.nan)

    logits = {score: np.full(table.labels.shape, np.nan) for score in SCORES}
    logits |= {head: head_logits(outputs, head) for head in HEADS}
    logits |= {view.hidden_key: head_logits(hidden, "route") for view, hidden in evaluation.hidden.items()}
    return PredictionTable(
        findings=table.findings,
        study_ids=table.study_ids,
        patient_ids=table.patient_ids,
        availability=outputs.availability,
        evaluated=outputs.evaluated,
        labels=table.labels,
        label_mask=table.label_mask,
        logits=logits,
        attributes=table.attributes,
    )


def write_metrics(path: Path, evaluations: dict[str, SplitEvaluation]) -> None:
    """Metrics per split and availability as JSON; null is undefined."""
    plain = {
        split: {group: asdict(metrics) for group, metrics in evaluation.metrics.items()}
        for split, evaluation in evaluations.items()
    }
    write_whole(path, json.dumps(plain, indent=2) + "\n")
