"""What happens within one optimizer step: counts over ranks, forward, gradients, statistics.

A step covers a group of micro-batches (see schedule.py). Each micro-batch backpropagates its loss sum
times R / N, where N is the number of labelled studies of the whole group over all ranks (the sum of their
weights, where `data.sources` gives any): after DDP's average over R ranks that is the gradient of the mean
over the group. Before the optimizer moves, all ranks agree that the step was finite (else all skip it) and
whether to stop.
"""

import logging
import math
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dualview.batch import StudyBatch
from dualview.config import Config
from dualview.data.dataset import Loaded
from dualview.distributed import Job
from dualview.errors import UserError
from dualview.losses import HeadLosses, head_loss_sums
from dualview.models.network import Network
from dualview.models.norm import PooledStatistics
from dualview.optim import GROUPS, group_of
from dualview.views import View

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepCounts:
    """Counts over all ranks and micro-batches of one step."""

    studies: int
    labelled: int  # studies with at least one known label
    weight: float  # of these, summed
    rows_pa: int
    rows_lateral: int
    rows_both: int
    labelled_pa: int
    labelled_lateral: int
    labelled_both: int
    idle_pa: int  # micro-batches without a PA image
    idle_lateral: int  # micro-batches without a lateral image
    bad_images: int

    def labelled_rows(self, part: str, *, joint_sees_all: bool = False) -> int:
        """Studies with a known label that reach a part of the network."""
        joint = self.labelled if joint_sees_all else self.labelled_both
        return {
            "pa": self.labelled_pa,
            "lateral": self.labelled_lateral,
            "joint": joint,
            "shared": self.labelled,
            "loss": self.labelled_both,
        }[part]

    def rows(self, part: str, *, joint_sees_all: bool = False) -> int:
        """Images, or for `joint` studies, that reach a part of the network."""
        joint = self.studies if joint_sees_all else self.rows_both
        images = self.rows_pa + self.rows_lateral
        return {"pa": self.rows_pa, "lateral": self.rows_lateral, "joint": joint, "shared": images}[part]


def count(group: list[Loaded], *, step: int, job: Job) -> StepCounts:
    """The step's small all-reduce before the forward passes; it also proves that all ranks are at this step.

    Raises:
        RuntimeError: they are not. Gradients of different steps would be averaged without a word.
    """
    local = [0.0] * len(fields(StepCounts))
    for batch, bad_images, _ in group:
        labelled = batch.label_mask.any(dim=1)
        rows = batch.rows
        here = StepCounts(
            studies=batch.num_studies,
            labelled=int(labelled.sum()),
            weight=float(batch.weight[labelled].double().sum()),
            rows_pa=len(rows.pa),
            rows_lateral=len(rows.lateral),
            rows_both=len(rows.both),
            labelled_pa=int(labelled[rows.pa].sum()),
            labelled_lateral=int(labelled[rows.lateral].sum()),
            labelled_both=int(labelled[rows.both].sum()),
            idle_pa=int(len(rows.pa) == 0),
            idle_lateral=int(len(rows.lateral) == 0),
            bad_images=len(bad_images),
        )
        local = [total + number for total, number in zip(local, astuple(here), strict=True)]
    step_sum, *sums = job.sum_numbers([step, *local])
    if step_sum != step * job.world_size:
        raise RuntimeError(
            f"rank {job.rank} is at step {step + 1}, the mean over ranks is {step_sum / job.world_size + 1:g}: "
            "some rank left out or repeated a step"
        )
    num_studies, num_labelled, total_weight, *others = sums
    return StepCounts(int(num_studies), int(num_labelled), total_weight, *map(int, others))


def seed_dropout(seed: int, *, step: int, micro_batch: int) -> None:
    """Dropout is drawn from (seed, step, micro-batch number): no rank in it."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, micro_batch]).generate_state(1, np.uint64)[0] >> 1))


def forward(
    model: nn.Module, batch: StudyBatch, *, config: Config, pos_weight: Tensor | None, alone: View | None = None
) -> HeadLosses:
    """Loss sums of one micro-batch; the network may run in bfloat16, the losses never do."""
    with autocast(config, device=batch.pa.device):
        predictions = model(batch)
    return head_loss_sums(
        predictions,
        batch=batch,
        pa_weight=config.loss.pa_weight,
        lateral_weight=config.loss.lateral_weight,
        alone=alone,
        pos_weight=pos_weight,
    )


def autocast(config: Config, *, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=config.train.precision == "bf16")


def finish_gradients(model: Network, *, counts: StepCounts, clip_norm: float | None) -> dict[str, float]:
    """Drop the gradients of idle parts, clip the rest; returns L2 norms before clipping, per part and total.

    A part that no labelled study reached on any rank has grad None from here on, whatever DDP left
    there, and so the optimizer does not move it: no weight decay, no momentum.
    """
    there = {group_of(name) for name, _ in model.named_parameters()}
    gradients: dict[str, list[Tensor]] = {part: [] for part in GROUPS if part in there}
    for name, parameter in model.named_parameters():
        part = group_of(name)
        if counts.labelled_rows(part, joint_sees_all=model.joint_sees_all) == 0:
            parameter.grad = None
        elif parameter.grad is not None:
            gradients[part].append(parameter.grad)
    device = next(model.parameters()).device
    norms = {part: nn.utils.get_total_norm(of_part).to(device) for part, of_part in gradients.items()}  # 0 if idle
    norms["total"] = torch.stack(list(norms.values())).norm()
    if clip_norm is not None:
        nn.utils.clip_grads_with_norm_(model.parameters(), clip_norm, norms["total"])
    values = torch.stack(list(norms.values())).tolist()
    return dict(zip(norms, values, strict=True))


class Agreement(NamedTuple):
    """What all ranks know alike at the end of a step, before the optimizer moves."""

    is_finite: bool  # every micro-batch's loss, and the gradient
    stop: bool  # a rank was asked to stop


def agree(
    loss_sums: Tensor, *, gradient_norm: float, statistics: dict[str, PooledStatistics], stop: bool, job: Job
) -> Agreement:
    """Sum both branches' batch statistics over ranks, and with them whether to go on: one small all-reduce."""
    flags = torch.stack([loss_sums.isfinite().all().logical_not(), loss_sums.new_tensor(stop, dtype=torch.bool)])
    packed = job.sum(torch.cat([flags.double(), *(branch.sums for branch in statistics.values())]))
    num_bad, num_stop = packed[:2].tolist()
    sizes = [branch.sums.numel() for branch in statistics.values()]
    for branch, sums in zip(statistics.values(), packed[2:].split(sizes), strict=True):
        branch.sums.copy_(sums)
    # the gradient is the same on all ranks: DDP has averaged it
    return Agreement(is_finite=num_bad == 0 and math.isfinite(gradient_norm), stop=num_stop > 0)


def update_statistics(
    statistics: dict[str, PooledStatistics], *, counts: StepCounts, joint_sees_all: bool = False
) -> None:
    """Move the running statistics by the sums of all ranks (`agree`)."""
    for part, branch in statistics.items():
        branch.update(counts.rows(part, joint_sees_all=joint_sees_all))


class BadSteps:
    """Steps whose loss or gradient was not finite: skipped by all ranks, counted, and named in a local file.

    The file is `bad_steps.txt` in the run directory. It names studies, so nothing of it is sent anywhere.
    """

    def __init__(self, run_dir: Path, *, limit: int, study_ids: np.ndarray, job: Job) -> None:
        self.file = run_dir / "bad_steps.txt"
        self.total = self.in_a_row = 0
        self._limit = limit
        self._study_ids = study_ids
        self._job = job

    def skip(
        self, group: list[Loaded], *, losses: list[float], statistics: dict[str, PooledStatistics], step: int
    ) -> None:
        """Take note of a bad step instead of taking it. All ranks call together.

        Args:
            group: this rank's micro-batches.
            losses: the loss sum of each.
            statistics: sums over the step, to be forgotten.

        Raises:
            UserError: it was the last of `train.max_bad_steps` in a row.
        """
        for branch in statistics.values():
            branch.discard()
        self.total += 1
        self.in_a_row += 1
        texts = []
        for number, ((batch, _, _), loss) in enumerate(zip(group, losses, strict=True)):
            ids = ", ".join(str(self._study_ids[row]) for row in batch.study_index.tolist())
            micro_batch = number * self._job.world_size + self._job.rank
            texts.append(f"step {step + 1}, micro-batch {micro_batch}, rank {self._job.rank}: loss {loss:g}: {ids}")
        texts = self._job.gather_texts(texts)
        if self._job.is_main:
            with self.file.open("a", encoding="utf-8") as file:
                file.writelines(f"{text}\n" for text in texts)
            logger.warning("step %d: loss or gradient is not finite; skipped on all ranks, see %s", step + 1, self.file)
        if self.in_a_row >= self._limit:
            raise UserError(
                f"loss or gradient was not finite in {self.in_a_row} steps in a row, up to step {step + 1}; the "
                f"optimizer used none of them. Their studies are named in {self.file}. Lower optim.learning_rate, set "
                "optim.gradient_clip_norm=1, or use train.precision=fp32"
            )
