"""What every network of the family is: parts by name, and statistics that wait to be pooled."""

from collections.abc import Callable

from torch import Tensor, nn

from dualview.models.loss_weights import LossWeights
from dualview.models.norm import PooledBatchNorm2d, PooledStatistics, SyncedBatchNorm2d

PARTS = ("pa", "lateral", "joint", "shared", "loss")


class Network(nn.Module):
    """A network whose parameters are all in parts named as in `PARTS`."""

    joint_sees_all = False
    """Whether the joint part takes every study, or those with both views."""

    def __init__(self) -> None:
        super().__init__()
        self.loss: LossWeights | None = None  # of networks with three heads, where `loss.learned_weights` asks for it

    @property
    def num_parameters(self) -> int:
        """Parameters of all parts, shared ones once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def pool_statistics(
        self, *, sum_over_ranks: Callable[[Tensor], Tensor] | None = None
    ) -> dict[str, PooledStatistics]:
        """From now on running statistics wait for `PooledStatistics.update`; one for each part that has any.

        For a training loop that pools them over micro-batches and ranks. Without this call they move
        with every forward pass, as in any other network. Call it after the move to the device. Nothing
        for normalisations without running statistics to train (`group`, `frozen`, layer normalisation).

        Args:
            sum_over_ranks: differentiable sum, with which `norm: sync` normalises over all ranks.
        """
        pooled: dict[str, PooledStatistics] = {}
        for name, part in self.named_children():
            if any(isinstance(layer, PooledBatchNorm2d) for layer in part.modules()):
                pooled[name] = PooledStatistics(part)
                part.statistics = pooled[name]  # type: ignore[assignment]
            for layer in part.modules():
                if isinstance(layer, SyncedBatchNorm2d):
                    layer.sum_over_ranks = sum_over_ranks
        return pooled
