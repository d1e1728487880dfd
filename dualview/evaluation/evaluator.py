"""Evaluation: every study of a split once, for any number of processes; complete ones also with a view withheld."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dualview.batch import StudyBatch
from dualview.config import Config
from dualview.data.dataset import Loaded, StudyDataset
from dualview.data.loading import EvaluatedDataset, evaluation_loader
from dualview.data.several_images import AllImages, AllImagesDataset, combined
from dualview.distributed import Job
from dualview.errors import Preempted, UserError
from dualview.evaluation.metrics import by_availability
from dualview.evaluation.operating_points import shift_of
from dualview.evaluation.prediction_table import HEADS
from dualview.evaluation.split import SplitEvaluation, SplitOutputs
from dualview.losses import Criterion, study_losses
from dualview.run.bad_images import BadImages
from dualview.views import Availability, View

CHECK_EVERY = 8  # number of micro-batches between two checks whether to stop


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """A network that splits are put to, with what that needs. All ranks make the same calls; all get the same."""

    model: nn.Module  # network without DDP's wrapper
    config: Config
    job: Job
    bad_images: BadImages
    progress: Progress
    log_pos_weight: Mapping[str, float] | None = None  # finding -> what is subtracted from its logits; None: nothing

    def evaluate(self, dataset: StudyDataset, *, name: str, hide_views: bool = False) -> SplitEvaluation:
        """Predict a split and measure it.

        Args:
            dataset: of evaluation, without augmentation.
            name: of the split.
            hide_views: predict complete studies twice more, once without each view.

        Raises:
            UserError: an image cannot be read and the policy is `error`, or logits are not finite.
            Preempted: a rank was asked to stop.
        """
        outputs = self.outputs(dataset, name=name)
        hidden: dict[View, SplitOutputs] = {}
        if hide_views and not self.config.model.needs_all_views:
            hidden = {view: self.outputs(dataset, name=name, hide=view) for view in View}
        table, done = dataset.table, outputs.evaluated
        metrics = by_availability(
            torch.from_numpy(outputs.route_logits[done] - shift_of(self.log_pos_weight, findings=table.findings))
            .sigmoid()
            .numpy(),
            positive=table.positive[done],
            known=table.label_mask[done],
            availability=outputs.availability[done],
            findings=table.findings,
        )
        known = table.label_mask & done[:, None]
        losses = study_losses(
            torch.from_numpy(outputs.route_logits),
            labels=torch.from_numpy(table.labels).double(),
            label_mask=torch.from_numpy(known),
            criterion=Criterion(normalise=self.config.loss.normalise),
        )
        num_labelled = int(known.any(axis=1).sum())
        loss = float(losses.sum() / num_labelled) if num_labelled else None
        return SplitEvaluation(name=name, table=table, outputs=outputs, metrics=metrics, loss=loss, hidden=hidden)

    def outputs(self, dataset: StudyDataset, *, name: str, hide: View | None = None) -> SplitOutputs:
        """Run the network over a split; every rank takes its share and all get the whole.

        Each rank writes its studies into a table of zeros and the tables are summed, so the result does
        not depend on who computed what. The network is put into eval mode for the duration.

        Args:
            name: of the split, for the progress bar.
            hide: withhold this view of studies that have both, and look at no others.

        Raises:
            UserError, Preempted: as `evaluate`.
        """
        job, size = self.job, self.config.train.micro_batch_size
        num_all, num_findings = len(dataset.table), len(dataset.table.findings)
        logits = torch.zeros(num_all, len(HEADS), num_findings, dtype=torch.float64, device=job.device)
        head_count = torch.zeros(num_all, len(HEADS), dtype=torch.float64, device=job.device)
        view_count = torch.zeros(num_all, len(View), dtype=torch.float64, device=job.device)
        takes_all = self.config.data.several_images_at_test != "first"
        reader: EvaluatedDataset[Loaded | AllImages] = AllImagesDataset(dataset) if takes_all else dataset
        loader = evaluation_loader(
            reader,
            micro_batch_size=size,
            rank=job.rank,
            world_size=job.world_size,
            hide=hide,
            num_workers=self.config.data.num_workers,
            pin_memory=job.device.type == "cuda",
        )
        num_studies = num_all if hide is None else int((dataset.table.availability == Availability.BOTH).sum())
        shared_rounds = -(-num_studies // size) // job.world_size  # how often every rank has a micro-batch
        vote = self.config.model.joint_rule == "vote" and hide is None
        withheld = "" if hide is None else f", {hide.title} withheld"
        num_bad_images = 0
        was_training = self.model.training
        self.model.eval()
        with torch.inference_mode(), job.autocast(self.config.train.precision):
            for number, loaded in enumerate(self._with_bar(loader, description=f"evaluating {name}{withheld}")):
                if number % CHECK_EVERY == 0 and number < shared_rounds:
                    self._stop_if_asked()
                self.bad_images.take(loaded)
                num_bad_images += len(loaded.bad_images)
                if (answers := self._answers(loaded, vote=vote)) is None:
                    continue
                logits[answers.studies] = answers.logits
                head_count[answers.studies] = answers.seen.double()
                view_count[answers.studies] = answers.view_mask.double()
        self.model.train(was_training)
        num_bad_images = int(job.sum_numbers([num_bad_images])[0])
        self.bad_images.settle(num_bad_images)
        for table in (logits, head_count, view_count):
            job.sum(table)
        if not logits.isfinite().all():
            raise UserError("the network's outputs are not finite: training has diverged. Lower optim.learning_rate")
        return SplitOutputs(
            logits=logits.cpu().numpy(),
            head_mask=head_count.cpu().numpy() > 0,
            view_mask=view_count.cpu().numpy() > 0,
            num_bad_images=num_bad_images,
        )

    def _answers(self, loaded: Loaded | AllImages, *, vote: bool) -> "_Answers | None":
        """What the network says of a micro-batch; None where it has no image."""
        if isinstance(loaded, Loaded):
            batch = self.job.move(loaded.batch)
            return _answers(self.model, batch, studies=batch.study_index, vote=vote) if batch.num_studies else None
        batches = loaded.studies.batches(self.config.train.micro_batch_size)
        parts = [
            _Answers(*(each.cpu() for each in _answers(self.model, self.job.move(batch), studies=studies, vote=vote)))
            for studies, batch in batches
        ]
        if not parts:
            return None
        each = _Answers(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
        there, first = np.unique(each.studies.numpy(), return_index=True)
        logits = combined(
            each.logits.numpy(), studies=np.searchsorted(there, each.studies.numpy()), num_studies=len(there),
            how=self.config.data.several_images_at_test,
        )  # fmt: skip
        # All combinations of a study have the same views, and so reach the same heads.
        answers = _Answers(loaded.rows[there], torch.from_numpy(logits), each.seen[first], each.view_mask[first])
        moved: _Answers = self.job.move(answers)
        return moved

    def _stop_if_asked(self) -> None:
        if self.job.sum_numbers([self.job.stop_requested])[0]:
            raise Preempted("stopped by a signal during an evaluation, which is done again when the run continues")

    def _with_bar(self, loader: "DataLoader[Loaded | AllImages]", *, description: str) -> Iterator[Loaded | AllImages]:
        """The loader's items, with a progress bar that goes away afterwards."""
        bar = self.progress.add_task(description, total=len(loader))
        for loaded in loader:
            yield loaded
            self.progress.advance(bar)
        self.progress.remove_task(bar)


class _Answers(NamedTuple):
    """What a network says of B studies, or of one study in B ways."""

    studies: Tensor  # (B,) int64
    logits: Tensor  # (B, 4 heads, K) float64, 0 where not `seen`
    seen: Tensor  # (B, 4 heads) bool: route always; joint, pa, lateral where the head has seen the study
    view_mask: Tensor  # (B, V) bool


def _answers(model: nn.Module, batch: StudyBatch, *, studies: Tensor, vote: bool) -> _Answers:
    """What the network says of a batch on its device; `studies` are whose its rows are."""
    predictions = model(batch)
    route = predictions.by_route(batch, vote=vote).double()
    logits = route.new_zeros(len(route), len(HEADS), route.shape[1])
    seen = torch.zeros(len(route), len(HEADS), dtype=torch.bool, device=route.device)
    logits[:, HEADS.index("route")], seen[:, HEADS.index("route")] = route, True
    for head in ("joint", "pa", "lateral"):
        rows = getattr(predictions.rows, head)
        logits[rows, HEADS.index(head)] = getattr(predictions, head).double()
        seen[rows, HEADS.index(head)] = True
    return _Answers(studies, logits, seen, batch.view_mask)
