"""Batch normalisation whose running statistics do not depend on how a step is divided over ranks.

Normalisation itself uses the rows of the micro-batch on its own rank, as ever. The running mean and
variance, which evaluation and checkpoints use, are updated once per optimizer step from the
row-weighted pooled statistics of all micro-batches on all ranks. Left alone, DDP would copy rank 0's
statistics over everybody's: a rank 0 that saw no lateral would save an untrained lateral branch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PooledBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d`, and exactly that until a `PooledStatistics` takes charge of it."""

    batch_mean: Tensor | None = None  # (channels,) view into PooledStatistics, written by each forward
    batch_var: Tensor | None = None  # (channels,) likewise, unbiased
    num_pixels: int = 0  # H x W of the last input

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.batch_mean is None:
            return super().forward(x)
        self.num_pixels = x.shape[2] * x.shape[3]
        # momentum 1: the "running" statistics handed in become those of this batch alone
        return F.batch_norm(x, self.batch_mean, self.batch_var, self.weight, self.bias, True, 1.0, self.eps)

    @classmethod
    def replace_in(cls, module: nn.Module) -> None:
        """Turn every BatchNorm2d below `module` into this class, keeping its parameters and buffers."""
        for child in module.modules():
            if type(child) is nn.BatchNorm2d:
                child.__class__ = cls


class PooledStatistics:
    """Sums over the micro-batches of a step from which one branch's running statistics are updated.

    Attributes:
        sums: (2, channels of all layers) float64: rows x mean and rows x mean of squares, of this
            rank since the last `update`. All-reduce it in place, then call `update`.
    """

    def __init__(self, branch: nn.Module) -> None:
        self.layers = [layer for layer in branch.modules() if isinstance(layer, PooledBatchNorm2d)]
        if not self.layers:
            raise ValueError("the branch has no PooledBatchNorm2d")
        self._widths = [layer.num_features for layer in self.layers]
        like = self.layers[0].running_mean
        assert like is not None
        self._batch = torch.zeros(2, sum(self._widths), dtype=like.dtype, device=like.device)
        self.sums = torch.zeros_like(self._batch, dtype=torch.float64)
        means, variances = (row.split(self._widths) for row in self._batch)
        for layer, mean, var in zip(self.layers, means, variances, strict=True):
            layer.batch_mean, layer.batch_var = mean, var

    @torch.no_grad()
    def add(self, num_rows: int) -> None:
        """Take in the statistics of the forward pass just made on `num_rows` images."""
        pixels = torch.tensor([layer.num_pixels for layer in self.layers], dtype=torch.float64)
        count = (num_rows * pixels).repeat_interleave(torch.tensor(self._widths)).to(self.sums.device)
        mean, var = self._batch.double()
        mean_of_squares = var * (count - 1) / count + mean.square()
        self.sums += num_rows * torch.stack([mean, mean_of_squares])
        # So that a non-finite batch does not live on in 0 x inf. Autograd holds on to these tensors but, in
        # training, does not read them; `.data` tells it not to mind the change.
        self._batch.data.zero_()

    @torch.no_grad()
    def update(self, num_rows: int) -> None:
        """Move the running statistics by the sums over `num_rows` rows of all ranks; none, no move.

        The variance is the unbiased one of all rows x pixels of the step, as BatchNorm2d's own.
        """
        if num_rows > 0:
            pixels = torch.tensor([layer.num_pixels for layer in self.layers], dtype=torch.float64)
            count = (num_rows * pixels).repeat_interleave(torch.tensor(self._widths)).to(self.sums.device)
            mean, mean_of_squares = self.sums / num_rows
            var = (mean_of_squares - mean.square()).clamp(min=0) * count / (count - 1)
            for layer, layer_mean, layer_var in zip(
                self.layers, mean.split(self._widths), var.split(self._widths), strict=True
            ):
                assert layer.running_mean is not None and layer.running_var is not None
                assert layer.num_batches_tracked is not None and layer.momentum is not None
                layer.running_mean.lerp_(layer_mean.to(layer.running_mean.dtype), layer.momentum)
                layer.running_var.lerp_(layer_var.to(layer.running_var.dtype), layer.momentum)
                layer.num_batches_tracked += 1
        self.sums.zero_()
