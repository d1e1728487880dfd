"""What learns: the network with everything that one optimizer step of it needs or changes."""

from dataclasses import dataclass

import torch
from torch import nn

from dualview.config import AugmentConfig, Config, LossConfig
from dualview.config.sections import Precision
from dualview.data.table import StudyTable
from dualview.distributed import Job
from dualview.losses import Criterion, Focusing, log_odds, reference_pos_weight
from dualview.models.network import Network
from dualview.models.norm import PooledStatistics
from dualview.training.average import WeightAverage
from dualview.training.freezing import Freezing, configured_freezing
from dualview.training.loss_scale import LossScale
from dualview.training.optim import build_optimizer


@dataclass(frozen=True, kw_only=True)
class Learner:
    """A network in training. The objects stay the same from the first step to the last; steps change their content."""

    model: Network  # network whose weights the steps move
    wrapped: nn.Module  # `model`, in DDP where there are peers; training calls it
    optimizer: torch.optim.Optimizer
    statistics: dict[str, PooledStatistics]  # part of the network -> pooled statistics (models/norm.py)
    criterion: Criterion  # its tensors on the device
    loss: LossConfig
    augment: AugmentConfig  # how images that come with keys are augmented (`data.augment_on: device`)
    gradient_clip_norm: float | None
    precision: Precision
    seed: int  # seed of dropout
    loss_scale: LossScale | None  # of float16; None: the loss as it is
    freezing: Freezing | None  # layers that do not learn; None: all learn
    average: WeightAverage | None  # of the weights over the steps; None: not kept

    @property
    def evaluated(self) -> Network:
        """The network that is evaluated and whose weights checkpoints keep: the average, where there is one."""
        return self.model if self.average is None else self.average.model


def build_learner(model: Network, *, config: Config, criterion: Criterion | None = None, job: Job) -> Learner:
    """Move a network to the device and into DDP, and give it an optimizer. All ranks call together.

    Args:
        model: on the CPU, with its first weights; moved in place.
        criterion: what a label costs; None: as the configuration says, but for what is counted on training studies.
    """
    if config.train.channels_last:
        model.to(memory_format=torch.channels_last)
    average = None if config.train.ema_decay is None else WeightAverage(model, decay=config.train.ema_decay)
    wrapped = job.wrap(model)
    if average is not None:
        average.model.to(job.device)
    statistics = model.pool_statistics(sum_over_ranks=job.differentiable_sum)
    return Learner(
        model=model,
        wrapped=wrapped,
        optimizer=build_optimizer(model, config.optim),
        statistics=statistics,
        criterion=(criterion or build_criterion(config.loss)).to(job.device),
        loss=config.loss,
        augment=config.data.augment,
        gradient_clip_norm=config.optim.gradient_clip_norm,
        precision=config.train.precision,
        seed=config.run.seed,
        loss_scale=LossScale() if config.train.precision == "fp16" else None,
        freezing=configured_freezing(model, config.model),
        average=average,
    )


def build_criterion(loss: LossConfig, *, train: StudyTable | None = None) -> Criterion:
    """What a label costs, with what is counted on the training studies; without them nothing is counted."""
    counted = {}
    if train is not None:
        labels, known = torch.from_numpy(train.labels), torch.from_numpy(train.label_mask)
        if loss.pos_weight == "reference":
            counted["pos_weight"] = reference_pos_weight(labels, label_mask=known, maximum=loss.pos_weight_max)
        if loss.logit_adjustment:
            counted["logit_adjustment"] = loss.logit_adjustment * log_odds(labels, label_mask=known)
    return Criterion(
        normalise=loss.normalise, focusing=focusing_of(loss), label_smoothing=loss.label_smoothing, **counted
    )


def focusing_of(loss: LossConfig) -> Focusing:
    """By how much labels that are judged well count less, under the loss's name."""
    if loss.name == "focal":
        return Focusing(loss.focal_gamma, loss.focal_gamma)
    if loss.name == "asymmetric":
        return Focusing(*loss.asymmetric_gammas, loss.asymmetric_margin)
    return Focusing()
