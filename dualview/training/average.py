"""An average of the network's weights over the steps (`train.ema_decay`), which is what is evaluated and kept.

Averages forget: after each step that was taken a weight's average a becomes d a + (1 - d) w. A part of the network that
no labelled study reached stays as it is, in the average as in the network. Source: Polyak and Juditsky 1992; the update
is torch.optim.swa_utils' own.
"""

import copy
from collections.abc import Set
from itertools import chain
from typing import Any, Self

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from dualview.models.network import Network
from dualview.training.optim import part_of


class WeightAverage:
    """The averaged network.

    The first updates of a part forget faster: after n of them the decay is at most (1 + n) / (10 + n), so that a short
    training is not an average with its random beginning. Source: TensorFlow's `ExponentialMovingAverage`.

    Attributes:
        model: the average, a network of its own, with averaged batch statistics too.
        num_updates: part of the network -> how often it was averaged.
    """

    def __init__(self, model: Network, *, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.num_updates = {part_of(name): 0 for name, _ in model.named_parameters()}
        self._names: dict[str, list[str]] = {part: [] for part in self.num_updates}
        for name, _ in chain(model.named_parameters(), model.named_buffers()):
            self._names[part_of(name)].append(name)

    @torch.no_grad()
    def update(self, model: Network, *, parts: Set[str]) -> None:
        """Take in the weights and statistics of the parts that a step has moved."""
        weights = dict(chain(model.named_parameters(), model.named_buffers()))
        averages = dict(chain(self.model.named_parameters(), self.model.named_buffers()))
        for part in parts & self.num_updates.keys():
            done = self.num_updates[part]
            names = self._names[part]
            average = get_ema_multi_avg_fn(min(self.decay, (1 + done) / (10 + done)))
            floats = [name for name in names if weights[name].is_floating_point()]
            average([averages[name] for name in floats], [weights[name] for name in floats], done)
            for name in set(names) - set(floats):
                averages[name].copy_(weights[name])
            self.num_updates[part] = done + 1

    def state(self, model: Network) -> dict[str, Any]:
        """What a checkpoint needs besides the average, which is its weights: the weights in training, and counts."""
        return {"weights": model.state_dict(), "num_updates": dict(self.num_updates)}

    def load(self, averages: dict[str, Tensor], *, num_updates: dict[str, int]) -> Self:
        """Go on from the averages and counts of a checkpoint."""
        self.model.load_state_dict(averages)
        self.num_updates = dict(num_updates)
        return self
