"""One optimizer step: `count` what it holds over all ranks, then `take_step`.

A step covers a group of micro-batches (see data/epoch_plan.py). Each micro-batch backpropagates its loss sum
times R / N, where N is the number of labelled studies of the whole group over all ranks (the sum of their
weights, where `data.sources` gives any): after DDP's average over R ranks that is the gradient of the mean
over the group. Before the optimizer moves, all ranks agree that the step was finite (else all skip it) and
whether to stop.

Training, `dualview bench exactness`, docs/generate/exactness.py and the tests of the numerical contracts all
call these two: what is proved is what runs.
"""

import math
from dataclasses import astuple, dataclass, fields

import numpy as np
import torch
from torch import Tensor, nn

from dualview.batch import StudyBatch
from dualview.data.augment import to_input_batch
from dualview.data.dataset import Loaded
from dualview.distributed import Job
from dualview.losses import HeadLosses, head_loss_sums
from dualview.models.network import PARTS, Network
from dualview.models.norm import PooledStatistics
from dualview.training.learner import Learner
from dualview.training.optim import part_of
from dualview.views import View


@dataclass(frozen=True)
class StepCounts:
    """Counts over all ranks and micro-batches of one step."""

    studies: int
    labelled: int  # studies with at least one known label
    weight: float  # sum of the labelled studies' weights
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
    for batch, bad_images, *_ in group:
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


@dataclass(frozen=True, kw_only=True)
class StepOutcome:
    """What came of a step. But for `loss_sums`, which are this rank's, every rank knows the same."""

    loss_sums: Tensor  # (micro-batches, heads) float64 on the device, in the order of `HeadLosses`
    gradient_norms: dict[str, float]  # L2 norm before clipping, per part of the network and `total`
    is_finite: bool  # whether all losses and the gradient are; if not, the step was not taken
    has_overflowed: bool  # whether the gradient is not finite by the factor of the loss alone, as far as is known
    stop: bool  # whether a rank was asked to stop


def take_step(
    learner: Learner, group: list[Loaded], *, counts: StepCounts, step: int, alone: View | None = None, job: Job
) -> StepOutcome:
    """One optimizer step on this rank's micro-batches of a group; all ranks call together.

    Where a loss or the gradient is not finite on any rank, no rank moves anything.

    Args:
        group: at least one micro-batch, as many on every rank; one may be empty.
        counts: of the group over all ranks, by `count`.
        step: optimizer steps done before.
        alone: the branch head that complete studies train alone (`loss.curriculum_probability`).
    """
    if learner.freezing is not None:
        learner.freezing.begin_step(step)
    scale = 1.0 if learner.loss_scale is None else learner.loss_scale.value
    loss_sums = torch.zeros(len(group), len(HeadLosses._fields), dtype=torch.float64, device=job.device)
    for number, (batch, _, keys, _) in enumerate(group):
        seed_dropout(learner.seed, step=step, micro_batch=number * job.world_size + job.rank)
        with job.no_sync(learner.wrapped, when=number < len(group) - 1):
            inputs = to_input_batch(job.move(batch), keys=job.move(keys), augment=learner.augment)
            losses = forward(learner, inputs, alone=alone, job=job)
            (losses.total * (scale * job.world_size / (counts.weight or 1))).backward()
        loss_sums[number] = torch.stack(losses).detach()

    if learner.loss_scale is not None:
        learner.loss_scale.undo(learner.model)
    if learner.freezing is not None:
        learner.freezing.end_backward(step)
    norms = finish_gradients(learner.model, counts=counts, clip_norm=learner.gradient_clip_norm)
    losses_are_finite, stop = _sum_statistics_and_flags(
        learner.statistics, loss_sums=loss_sums, stop=job.stop_requested, job=job
    )
    # DDP has averaged the gradient, so every rank finds the same.
    is_finite = losses_are_finite and math.isfinite(norms["total"])
    if learner.loss_scale is not None and losses_are_finite:
        learner.loss_scale.see(is_finite=is_finite)
    if is_finite:
        learner.optimizer.step()
        update_statistics(learner.statistics, counts=counts, joint_sees_all=learner.model.joint_sees_all)
        if learner.average is not None:
            learner.average.update(learner.model, parts=_moved_parts(learner.model, counts=counts))
    else:
        for branch in learner.statistics.values():
            branch.discard()
    learner.optimizer.zero_grad(set_to_none=True)  # The optimizer passes over None but not over 0 (C4).
    return StepOutcome(
        loss_sums=loss_sums,
        gradient_norms=norms,
        is_finite=is_finite,
        has_overflowed=losses_are_finite and not is_finite and scale > 1,
        stop=stop,
    )


def seed_dropout(seed: int, *, step: int, micro_batch: int) -> None:
    """Dropout is drawn from (seed, step, micro-batch number): no rank in it."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, micro_batch]).generate_state(1, np.uint64)[0] >> 1))


def forward(learner: Learner, batch: StudyBatch, *, alone: View | None = None, job: Job) -> HeadLosses:
    """Loss sums of one micro-batch; the network may run in bfloat16, the losses never do."""
    with job.autocast(learner.precision):
        predictions = learner.wrapped(batch)
    return head_loss_sums(
        predictions,
        batch=batch,
        pa_weight=learner.loss.pa_weight,
        lateral_weight=learner.loss.lateral_weight,
        alone=alone,
        criterion=learner.criterion,
        distill_weight=0.0 if alone is not None else learner.loss.distill_weight,
    )


def _moved_parts(model: Network, *, counts: StepCounts) -> set[str]:
    """The parts that a step moves: those that a labelled study reached on any rank."""
    return {part for part in PARTS if counts.labelled_rows(part, joint_sees_all=model.joint_sees_all)}


def finish_gradients(model: Network, *, counts: StepCounts, clip_norm: float | None) -> dict[str, float]:
    """Drop the gradients of idle parts, clip the rest; returns L2 norms before clipping, per part and total.

    A part that no labelled study reached on any rank has grad None from here on, whatever DDP left
    there, and so the optimizer does not move it: no weight decay, no momentum.
    """
    there = {part_of(name) for name, _ in model.named_parameters()}
    gradients: dict[str, list[Tensor]] = {part: [] for part in PARTS if part in there}
    moved = _moved_parts(model, counts=counts)
    for name, parameter in model.named_parameters():
        part = part_of(name)
        if part not in moved:
            parameter.grad = None
        elif parameter.grad is not None:
            gradients[part].append(parameter.grad)
    device = next(model.parameters()).device
    # The norm of an idle part, which has no gradients, is 0.
    norms = {part: nn.utils.get_total_norm(grads).to(device) for part, grads in gradients.items()}
    norms["total"] = torch.stack(list(norms.values())).norm()
    if clip_norm is not None:
        nn.utils.clip_grads_with_norm_(model.parameters(), clip_norm, norms["total"])
    values = torch.stack(list(norms.values())).tolist()
    return dict(zip(norms, values, strict=True))


def _sum_statistics_and_flags(
    statistics: dict[str, PooledStatistics], *, loss_sums: Tensor, stop: bool, job: Job
) -> tuple[bool, bool]:
    """Sum the branches' batch statistics over ranks, in place, and with them two flags: one small all-reduce.

    Returns:
        Whether the losses of all ranks are finite, and whether any rank was asked to stop.
    """
    flags = torch.stack([loss_sums.isfinite().all().logical_not(), loss_sums.new_tensor(stop, dtype=torch.bool)])
    packed = job.sum(torch.cat([flags.double(), *(branch.sums for branch in statistics.values())]))
    num_bad, num_stop = packed[:2].tolist()
    sizes = [branch.sums.numel() for branch in statistics.values()]
    for branch, sums in zip(statistics.values(), packed[2:].split(sizes), strict=True):
        branch.sums.copy_(sums)
    return num_bad == 0, num_stop > 0


def update_statistics(
    statistics: dict[str, PooledStatistics], *, counts: StepCounts, joint_sees_all: bool = False
) -> None:
    """Move the running statistics by sums that are of all ranks already."""
    for part, branch in statistics.items():
        branch.update(counts.rows(part, joint_sees_all=joint_sees_all))
