"""What learns: the network with everything that one optimizer step of it needs or changes."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from dualview.config import AugmentConfig, Config, LossConfig
from dualview.data.table import StudyTable
from dualview.distributed import Job
from dualview.losses import reference_pos_weight
from dualview.models.network import Network
from dualview.models.norm import PooledStatistics
from dualview.training.optim import build_optimizer


@dataclass(frozen=True, kw_only=True)
class Learner:
    """A network in training. The objects stay the same from the first step to the last; steps change their content."""

    model: Network  # network that is evaluated and saved
    wrapped: nn.Module  # `model`, in DDP where there are peers; training calls it
    optimizer: torch.optim.Optimizer
    statistics: dict[str, PooledStatistics]  # part of the network -> pooled statistics (models/norm.py)
    pos_weight: Tensor | None  # (K,) on the device; None: 1 for every finding
    loss: LossConfig
    augment: AugmentConfig  # how images that come with keys are augmented (`data.augment_on: device`)
    gradient_clip_norm: float | None
    precision: Literal["fp32", "bf16"]
    seed: int  # seed of dropout


def build_learner(model: Network, *, config: Config, pos_weight: Tensor | None = None, job: Job) -> Learner:
    """Move a network to the device and into DDP, and give it an optimizer. All ranks call together.

    Args:
        model: on the CPU, with its first weights; moved in place.
        pos_weight: (K,) weight of positive labels; None: 1.
    """
    if config.train.channels_last:
        model.to(memory_format=torch.channels_last)
    wrapped = job.wrap(model)
    statistics = model.pool_statistics(sum_over_ranks=job.differentiable_sum)
    return Learner(
        model=model,
        wrapped=wrapped,
        optimizer=build_optimizer(model, config.optim),
        statistics=statistics,
        pos_weight=None if pos_weight is None else pos_weight.to(job.device),
        loss=config.loss,
        augment=config.data.augment,
        gradient_clip_norm=config.optim.gradient_clip_norm,
        precision=config.train.precision,
        seed=config.run.seed,
    )


def configured_pos_weight(train: StudyTable, loss: LossConfig) -> Tensor | None:
    """(K,) weight of positive labels, counted on the training studies; None: 1."""
    if loss.pos_weight == "none":
        return None
    return reference_pos_weight(
        torch.from_numpy(train.labels), label_mask=torch.from_numpy(train.label_mask), maximum=loss.pos_weight_max
    )


def counted_pos_weight(train: StudyTable, loss: LossConfig) -> list[float]:
    """K weights of positive labels, as numbers."""
    pos_weight = configured_pos_weight(train, loss)
    return [1.0] * len(train.findings) if pos_weight is None else pos_weight.tolist()
