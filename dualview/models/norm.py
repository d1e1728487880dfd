"""Batch normalisation whose running statistics do not depend on how a step is divided over ranks.

Normalisation itself uses the rows of the micro-batch on its own rank, as ever. The running mean and
variance, which evaluation and checkpoints use, are updated once per optimizer step from the
row-weighted pooled statistics of all micro-batches on all ranks. Left alone, DDP would copy rank 0's
statistics over everybody's: a rank 0 that saw no lateral would save an untrained lateral branch.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

Norm = Literal["batch", "group", "frozen", "sync"]
CHANNEL_GROUPS = 32  # number of groups of channels. Source: Wu & He, Group Normalization, ECCV 2018, section 4.1


class PooledBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d`, and exactly that until a `PooledStatistics` takes charge of it."""

    batch_mean: Tensor | None = None  # (channels,) view into PooledStatistics, written by each forward
    batch_var: Tensor | None = None  # (channels,) unbiased variance, a view into PooledStatistics too
    num_pixels: int = 0  # H x W of the last input

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.batch_mean is None:
            return super().forward(x)
        self.num_pixels = x.shape[2] * x.shape[3]
        # Momentum 1 makes the "running" statistics that are handed in those of this batch alone.
        return F.batch_norm(x, self.batch_mean, self.batch_var, self.weight, self.bias, True, 1.0, self.eps)


class SyncedBatchNorm2d(PooledBatchNorm2d):
    """Batch normalisation over the rows of all ranks, once `sum_over_ranks` is set.

    Every rank must call it equally often, with zero rows too. torch's `SyncBatchNorm` cannot stand in
    here: it refuses CPU tensors, and where no rank has a row it moves the running statistics to 0 / 0.
    """

    sum_over_ranks: Callable[[Tensor], Tensor] | None = None  # differentiable sum over ranks; None: one rank

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.sum_over_ranks is None or self.batch_mean is None or self.batch_var is None:
            return super().forward(x)
        self.num_pixels = x.shape[2] * x.shape[3]
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        rows = x.shape[0] * self.num_pixels
        if rows:
            var, mean = torch.var_mean(wide, dim=(0, 2, 3), correction=0)
        else:
            var = mean = wide.sum(dim=(0, 2, 3))  # zeros in the graph, for DDP
        local = torch.cat([rows * mean, rows * (var + mean.square()), mean.new_tensor([rows])])
        total = self.sum_over_ranks(local.double())
        count = total[-1].detach().clamp(min=1)
        mean, mean_of_squares = (total[:-1] / count).split(self.num_features)  # float64, for the small difference below
        var = (mean_of_squares - mean.square()).clamp(min=0).to(wide.dtype)
        mean = mean.to(wide.dtype)
        if rows:
            # PooledStatistics undoes the correction for bias, which counts this rank's rows alone.
            self.batch_mean.copy_(mean.detach())
            self.batch_var.copy_(var.detach() * (rows / max(rows - 1, 1)))
        scale = self.weight * torch.rsqrt(var + self.eps)
        normalised: Tensor = ((wide - mean[:, None, None]) * scale[:, None, None] + self.bias[:, None, None]).to(
            x.dtype
        )
        return normalised


def use_norm(module: nn.Module, norm: Norm) -> None:
    """Replace every BatchNorm2d below `module` by the normalisation of that name, keeping what it can keep.

    - `batch`: statistics of the micro-batch on its rank (PooledBatchNorm2d).
    - `sync`: statistics of the micro-batches of all ranks together (SyncedBatchNorm2d).
    - `frozen`: stored statistics and affine values, none of them trained (torchvision's FrozenBatchNorm2d).
    - `group`: GroupNorm; 32 groups, or the largest number that divides both 32 and the channels.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, _in_place_of(child, norm))
        else:
            use_norm(child, norm)


def _in_place_of(theirs: nn.BatchNorm2d, norm: Norm) -> nn.Module:
    """The normalisation of that name with the values of torch's; timm's kind goes on with its activation."""
    ours: nn.Module
    if norm == "group":
        ours = nn.GroupNorm(math.gcd(CHANNEL_GROUPS, theirs.num_features), theirs.num_features)
    elif norm == "frozen":
        ours = FrozenBatchNorm2d(theirs.num_features, eps=theirs.eps)
    else:
        kind = SyncedBatchNorm2d if norm == "sync" else PooledBatchNorm2d
        ours = kind(theirs.num_features, eps=theirs.eps, momentum=theirs.momentum)
    if norm != "group":
        ours.load_state_dict(theirs.state_dict())
    if hasattr(theirs, "act"):
        ours.drop, ours.act = theirs.drop, theirs.act
        ours.register_forward_hook(_drop_and_activate)
    return ours.to(theirs.weight)


def _drop_and_activate(layer: Any, _: object, normalised: Tensor) -> Tensor:
    """What timm's `BatchNormAct2d` does after it has normalised."""
    activated: Tensor = layer.act(layer.drop(normalised))
    return activated


class PooledStatistics:
    """Sums over the micro-batches of a step from which one branch's running statistics are updated.

    Attributes:
        sums: (2 x channels of all layers + layers,) float64, of this rank since the last `update`: count x
            mean and count x mean of squares per channel, and the count, rows x pixels, per layer.
            All-reduce it in place, then call `update`.
    """

    def __init__(self, branch: nn.Module) -> None:
        self.layers = [layer for layer in branch.modules() if isinstance(layer, PooledBatchNorm2d)]
        if not self.layers:
            raise ValueError("the branch has no PooledBatchNorm2d")
        self._widths = [layer.num_features for layer in self.layers]
        like = self.layers[0].running_mean
        assert like is not None
        self._batch = torch.zeros(2, sum(self._widths), dtype=like.dtype, device=like.device)
        self.sums = like.new_zeros(self._batch.numel() + len(self.layers), dtype=torch.float64)
        means, variances = (row.split(self._widths) for row in self._batch)
        for layer, mean, var in zip(self.layers, means, variances, strict=True):
            layer.batch_mean, layer.batch_var = mean, var

    def discard(self) -> None:
        """Forget what was summed, for a step that is not taken."""
        self.sums.zero_()

    @torch.no_grad()
    def add(self, num_rows: int) -> None:
        """Take in the statistics of the forward pass just made on `num_rows` images."""
        layer_counts = num_rows * torch.tensor([layer.num_pixels for layer in self.layers], dtype=torch.float64)
        # A layer in evaluation mode has counted nothing, and its zeros must not become 0 / 0.
        layer_counts *= torch.tensor([layer.training for layer in self.layers])
        count = layer_counts.repeat_interleave(torch.tensor(self._widths)).to(self.sums.device)
        mean, var = self._batch.double()
        mean_of_squares = var * (count - 1) / count.clamp(min=1) + mean.square()
        self.sums += torch.cat([count * mean, count * mean_of_squares, layer_counts.to(self.sums.device)])
        # Zeros keep a non-finite batch from living on in 0 x inf. Autograd holds on to these
        # tensors but does not read them in training; `.data` tells it not to mind the change.
        self._batch.data.zero_()

    @torch.no_grad()
    def update(self, num_rows: int) -> None:
        """Move the running statistics by the sums over `num_rows` rows of all ranks; none, no move.

        The variance is the unbiased one of all rows x pixels of the step, as BatchNorm2d's own.
        """
        if num_rows > 0:
            sums, layer_counts = self.sums.split([self._batch.numel(), len(self.layers)])
            widths = torch.tensor(self._widths, device=self.sums.device)
            count = layer_counts.repeat_interleave(widths, output_size=sum(self._widths))
            mean, mean_of_squares = sums.view(2, -1) / count
            var = (mean_of_squares - mean.square()).clamp(min=0) * count / (count - 1)
            for layer, layer_mean, layer_var in zip(
                self.layers, mean.split(self._widths), var.split(self._widths), strict=True
            ):
                if not layer.training:
                    continue
                assert layer.running_mean is not None and layer.running_var is not None
                assert layer.num_batches_tracked is not None and layer.momentum is not None
                layer.running_mean.lerp_(layer_mean.to(layer.running_mean.dtype), layer.momentum)
                layer.running_var.lerp_(layer_var.to(layer.running_var.dtype), layer.momentum)
                layer.num_batches_tracked += 1
        self.sums.zero_()
