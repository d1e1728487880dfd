"""What happens within one optimizer step: counts over ranks, forward, gradients, statistics.

A step covers a group of micro-batches (see schedule.py). Each micro-batch backpropagates its loss sum
times R / N, where N is the number of labelled studies of the whole group over all ranks: after DDP's
average over R ranks that is the gradient of the mean over the group.
"""

import math
from dataclasses import astuple, dataclass, fields

import numpy as np
import torch
from torch import Tensor, nn

from dualview.batch import StudyBatch
from dualview.config import Config
from dualview.data.dataset import Loaded
from dualview.distributed import Job
from dualview.errors import UserError
from dualview.losses import HeadLosses, auxloss_sums
from dualview.models.norm import PooledStatistics
from dualview.optim import GROUPS, group_of


@dataclass(frozen=True)
class StepCounts:
    """Counts over all ranks and micro-batches of one step."""

    studies: int
    labelled: int  # studies with at least one known label
    rows_pa: int
    rows_lateral: int
    rows_both: int
    labelled_pa: int
    labelled_lateral: int
    labelled_both: int
    idle_pa: int  # micro-batches without a PA image
    idle_lateral: int  # micro-batches without a lateral image
    bad_images: int

    def labelled_rows(self, part: str) -> int:
        """Rows with a known label that reach `pa`, `lateral` or `joint`."""
        return {"pa": self.labelled_pa, "lateral": self.labelled_lateral, "joint": self.labelled_both}[part]


def count(group: list[Loaded], *, job: Job) -> StepCounts:
    """The step's one small all-reduce before the forward passes."""
    local = [0] * len(fields(StepCounts))
    for batch, bad_images in group:
        labelled = batch.label_mask.any(dim=1)
        rows = batch.rows
        here = StepCounts(
            studies=batch.num_studies,
            labelled=int(labelled.sum()),
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
    return StepCounts(*map(int, job.sum_numbers([float(number) for number in local])))


def seed_dropout(seed: int, *, step: int, micro_batch: int) -> None:
    """Dropout is drawn from (seed, step, micro-batch number): no rank in it."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, micro_batch]).generate_state(1, np.uint64)[0] >> 1))


def forward(model: nn.Module, batch: StudyBatch, *, config: Config, pos_weight: Tensor | None) -> HeadLosses:
    """Loss sums of one micro-batch; the network may run in bfloat16, the losses never do."""
    with autocast(config, device=batch.pa.device):
        predictions = model(batch)
    return auxloss_sums(
        predictions,
        batch=batch,
        pa_weight=config.loss.pa_weight,
        lateral_weight=config.loss.lateral_weight,
        pos_weight=pos_weight,
    )


def autocast(config: Config, *, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=config.train.precision == "bf16")


def finish_gradients(model: nn.Module, *, counts: StepCounts, clip_norm: float | None) -> dict[str, float]:
    """Drop the gradients of idle parts, clip the rest; returns L2 norms before clipping, per part and total.

    A part that no labelled study reached on any rank has grad None from here on, whatever DDP left
    there, and so the optimizer does not move it: no weight decay, no momentum.
    """
    gradients: dict[str, list[Tensor]] = {part: [] for part in GROUPS}
    for name, parameter in model.named_parameters():
        part = group_of(name)
        if counts.labelled_rows(part) == 0:
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


def refuse_non_finite(gradient_norm: float, *, step: int) -> None:
    """Gradients are summed over ranks, so all ranks see the same norm and stop together."""
    if not math.isfinite(gradient_norm):
        raise UserError(
            f"step {step + 1}: the gradient is not finite ({gradient_norm}); the optimizer has not used it. "
            "Lower optim.learning_rate, set optim.gradient_clip_norm=1, or use train.precision=fp32"
        )


def update_statistics(statistics: dict[str, PooledStatistics], *, counts: StepCounts, job: Job) -> None:
    """Sum both branches' batch statistics over ranks in one all-reduce, then move the running ones."""
    packed = job.sum(torch.cat([branch.sums for branch in statistics.values()], dim=1))
    widths = [branch.sums.shape[1] for branch in statistics.values()]
    for (part, branch), sums in zip(statistics.items(), packed.split(widths, dim=1), strict=True):
        branch.sums.copy_(sums)
        branch.update(counts.rows_pa if part == "pa" else counts.rows_lateral)
