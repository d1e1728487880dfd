"""Evaluation: every study of a split once, for any number of processes; complete ones also with a view withheld."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress
from torch import nn
from torch.utils.data import DataLoader

from dualview.config import Config
from dualview.data.dataset import Loaded, StudyDataset
from dualview.data.loading import evaluation_loader
from dualview.data.table import StudyTable, availability_of
from dualview.distributed import Job
from dualview.errors import Preempted, UserError
from dualview.evaluation.metrics import GroupMetrics, by_availability
from dualview.evaluation.prediction_table import HEADS, SCORES, PredictionTable
from dualview.losses import study_losses
from dualview.run_directory import BadImages
from dualview.views import Availability, View

CHECK_EVERY = 8  # micro-batches between two questions whether to stop
Track = Callable[[DataLoader[Loaded]], Iterable[Loaded]]


@dataclass(frozen=True, kw_only=True)
class SplitPredictions:
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
    def availability(self) -> np.ndarray:
        """(S,) of `Availability`, by the views that were really read."""
        return availability_of(self.view_mask)


def predict_split(
    model: nn.Module,
    *,
    dataset: StudyDataset,
    job: Job,
    micro_batch_size: int,
    num_workers: int,
    autocast_dtype: torch.dtype | None = None,
    vote: bool = False,
    hide: View | None = None,
    bad_images: BadImages,
    track: Track = iter,
) -> SplitPredictions:
    """Run an unwrapped model over a split; every rank takes its share and all get the whole.

    Each rank writes its studies into a table of zeros and the tables are summed, so the result does
    not depend on who computed what. `model` is put into eval mode for the duration.

    Args:
        hide: withhold this view of studies that have both, and look at no others.

    Raises:
        UserError: an image cannot be read and the policy is `error`, or logits are not finite.
        Preempted: a rank was asked to stop.
    """
    num_findings = len(dataset.table.findings)
    logits = torch.zeros(len(dataset.table), len(HEADS), num_findings, dtype=torch.float64, device=job.device)
    head_count = torch.zeros(len(dataset.table), len(HEADS), dtype=torch.float64, device=job.device)
    view_count = torch.zeros(len(dataset.table), len(View), dtype=torch.float64, device=job.device)
    loader = evaluation_loader(
        dataset,
        micro_batch_size=micro_batch_size,
        rank=job.rank,
        world_size=job.world_size,
        hide=hide,
        num_workers=num_workers,
        pin_memory=job.device.type == "cuda",
    )
    num_studies = len(dataset.table) if hide is None else int((dataset.table.availability == Availability.BOTH).sum())
    shared_rounds = -(-num_studies // micro_batch_size) // job.world_size  # that every rank has
    num_bad_images = 0
    was_training = model.training
    model.eval()
    with torch.inference_mode(), torch.autocast(job.device.type, autocast_dtype, enabled=autocast_dtype is not None):
        for number, loaded in enumerate(track(loader)):
            if number % CHECK_EVERY == 0 and number < shared_rounds:
                _stop_if_asked(job)
            bad_images.take(loaded)
            num_bad_images += len(loaded.bad_images)
            batch = job.move(loaded.batch)
            if batch.num_studies == 0:
                continue
            predictions = model(batch)
            studies = batch.study_index
            logits[studies, HEADS.index("route")] = predictions.by_route(batch, vote=vote).double()
            head_count[studies, HEADS.index("route")] = 1
            view_count[studies] = batch.view_mask.double()
            rows = predictions.rows(batch)
            for head in ("joint", "pa", "lateral"):
                of_head = studies[getattr(rows, head)]
                logits[of_head, HEADS.index(head)] = getattr(predictions, head).double()
                head_count[of_head, HEADS.index(head)] = 1
    model.train(was_training)
    num_bad_images = int(job.sum_numbers([num_bad_images])[0])
    bad_images.settle(num_bad_images)
    job.sum(logits)
    job.sum(head_count)
    job.sum(view_count)
    if not logits.isfinite().all():
        raise UserError("the network's outputs are not finite: training has diverged. Lower optim.learning_rate")
    return SplitPredictions(
        logits=logits.cpu().numpy(),
        head_mask=head_count.cpu().numpy() > 0,
        view_mask=view_count.cpu().numpy() > 0,
        num_bad_images=num_bad_images,
    )


def _stop_if_asked(job: Job) -> None:
    if job.sum_numbers([job.stop_requested])[0]:
        raise Preempted("stopped by a signal during an evaluation, which is done again when the run continues")


@dataclass(frozen=True, kw_only=True)
class SplitEvaluation:
    """Predictions of one split and what they are worth; metrics are those of each study's route head."""

    name: str
    table: StudyTable
    predictions: SplitPredictions
    metrics: dict[str, GroupMetrics]  # all, both, pa_only, lateral_only
    loss: float | None  # mean over labelled studies of the unweighted route loss; None without any
    hidden: dict[View, SplitPredictions] = field(default_factory=dict)  # with that view of complete studies withheld

    @property
    def macro_auroc(self) -> float | None:
        return self.metrics["all"].macro_auroc

    def __str__(self) -> str:
        loss = "undefined" if self.loss is None else f"{self.loss:.4f}"
        macro = "undefined" if self.macro_auroc is None else f"{self.macro_auroc:.4f}"
        return f"{self.name} loss {loss}, macro AUROC {macro}"

    def values(self) -> dict[str, float | int | None]:
        """Metrics under tracker keys: `val/auroc_macro_both`, `val_auroc_both/Pneumonia`, ...

        Macro values share one section per split; findings have one section per metric and availability.
        """
        values: dict[str, float | int | None] = {
            f"{self.name}/loss": self.loss,
            f"{self.name}/bad_images": self.predictions.num_bad_images,
        }
        for group, metrics in self.metrics.items():
            values[f"{self.name}/auroc_macro_{group}"] = metrics.macro_auroc
            values[f"{self.name}/average_precision_macro_{group}"] = metrics.macro_average_precision
            for finding, of_finding in metrics.findings.items():
                values[f"{self.name}_auroc_{group}/{finding}"] = of_finding.auroc
                values[f"{self.name}_average_precision_{group}/{finding}"] = of_finding.average_precision
        return values


def evaluate_split(
    model: nn.Module,
    *,
    name: str,
    dataset: StudyDataset,
    config: Config,
    job: Job,
    bad_images: BadImages,
    progress: Progress,
    hide_views: bool = False,
) -> SplitEvaluation:
    """Predict a split with the unwrapped model and measure it. All ranks call; all get the same.

    Args:
        hide_views: predict complete studies twice more, once without each view.
    """

    def predict(hide: View | None = None) -> SplitPredictions:
        withheld = "" if hide is None else f", {hide.name.lower().replace('pa', 'PA')} withheld"
        return predict_split(
            model,
            dataset=dataset,
            job=job,
            micro_batch_size=config.train.micro_batch_size,
            num_workers=config.data.num_workers,
            autocast_dtype=torch.bfloat16 if config.train.precision == "bf16" else None,
            vote=config.model.joint_rule == "vote" and hide is None,
            hide=hide,
            bad_images=bad_images,
            track=lambda loader: _with_bar(loader, progress=progress, description=f"evaluating {name}{withheld}"),
        )

    predictions = predict()
    hidden = {view: predict(view) for view in View} if hide_views and not config.model.needs_all_views else {}
    table, done = dataset.table, predictions.evaluated
    route_logits = predictions.logits[:, HEADS.index("route")]
    metrics = by_availability(
        torch.from_numpy(route_logits[done]).sigmoid().numpy(),
        labels=table.labels[done],
        label_mask=table.label_mask[done],
        availability=predictions.availability[done],
        findings=table.findings,
    )
    known = table.label_mask & done[:, None]
    losses = study_losses(
        torch.from_numpy(route_logits),
        labels=torch.from_numpy(table.labels).double(),
        label_mask=torch.from_numpy(known),
    )
    num_labelled = int(known.any(axis=1).sum())
    loss = float(losses.sum() / num_labelled) if num_labelled else None
    return SplitEvaluation(name=name, table=table, predictions=predictions, metrics=metrics, loss=loss, hidden=hidden)


def _with_bar(loader: DataLoader[Loaded], *, progress: Progress, description: str) -> Iterator[Loaded]:
    """The loader's items, with a progress bar that goes away afterwards."""
    bar = progress.add_task(description, total=len(loader))
    for loaded in loader:
        yield loaded
        progress.advance(bar)
    progress.remove_task(bar)


def as_predictions(evaluation: SplitEvaluation) -> PredictionTable:
    """The evaluation's table of predictions."""
    table, outputs = evaluation.table, evaluation.predictions

    def logits(outputs: SplitPredictions, head: str) -> np.ndarray:
        at = HEADS.index(head)
        return np.where(outputs.head_mask[:, at, None], outputs.logits[:, at], np.nan)

    by_score = {score: np.full(table.labels.shape, np.nan) for score in SCORES}
    by_score |= {head: logits(outputs, head) for head in HEADS}
    by_score |= {view.hidden_key: logits(hidden, "route") for view, hidden in evaluation.hidden.items()}
    return PredictionTable(
        findings=table.findings,
        study_ids=table.study_ids,
        patient_ids=table.patient_ids,
        availability=outputs.availability,
        evaluated=outputs.evaluated,
        labels=table.labels,
        label_mask=table.label_mask,
        logits=by_score,
        attributes=table.attributes,
    )


def write_metrics(path: Path, evaluations: dict[str, SplitEvaluation]) -> None:
    """Metrics per split and availability as JSON; null is undefined."""
    plain = {
        split: {group: asdict(metrics) for group, metrics in evaluation.metrics.items()}
        for split, evaluation in evaluations.items()
    }
    path.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
