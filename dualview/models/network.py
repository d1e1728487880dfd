"""What every network of the family is: parts by name, made from one specification."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor, nn

from dualview.batch import HeadLogits, StudyBatch
from dualview.models.backbone import Backbone, build_backbone
from dualview.models.branch import BackbonePart, SharedBackbone, ViewPart
from dualview.models.loss_weights import LearnedWeights, LossWeights
from dualview.models.norm import Norm, PooledStatistics, SyncedBatchNorm2d
from dualview.views import View

PARTS = ("pa", "lateral", "joint", "shared", "loss")


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """What a network is made from; each member of the family takes of it what it has a use for."""

    num_findings: int  # K, number of outputs of every head
    backbone: str = "densenet121"  # a key of `backbone.BACKBONES` or `timm:NAME`, the same for both branches
    image_size_px: int = 224  # side of the images; networks of timm with positions are made for it
    merge_after_block: int = 3  # 3, or 4: after the last norm, as in the authors' code
    dropout: float = 0.0  # probability after each dense layer, as torchvision's `drop_rate`
    norm: Norm = "batch"  # kind of normalisation; see `norm.use_norm`
    runs_when_idle: bool = False  # whether a branch runs on zero rows, so that every forward pass has the same graph
    recomputes: bool = False  # whether training computes maps a second time instead of keeping them
    shared_branch: bool = False  # whether one backbone serves both views
    view: View = View.PA  # view that `single` sees
    learned_weights: Literal["none"] | LearnedWeights = "none"  # how three heads learn their weights in the loss
    pa_weight: float = 0.3  # weight of the PA head in the loss; learned ones begin with it
    lateral_weight: float = 0.3  # weight of the lateral head in the loss; learned ones begin with it

    def build_backbone(self, *, merge_after_block: int = 4, in_channels: int = 1) -> Backbone:
        """A new backbone, with weights drawn from torch's global generator."""
        return build_backbone(
            self.backbone,
            dropout=self.dropout,
            norm=self.norm,
            merge_after_block=merge_after_block,
            in_channels=in_channels,
            image_size_px=self.image_size_px,
            runs_when_idle=self.runs_when_idle,
            recomputes=self.recomputes,
        )


class WeightSource(NamedTuple):
    """Where initial weights are from."""

    parts: str  # which of the network's parts took them, `all` or by name
    source: str
    licence: str | None  # None: of a file, whose terms are known to who has it


class Network(nn.Module):
    """A network whose parameters are all in parts named as in `PARTS`; members are made as `Member(spec)`."""

    joint_sees_all = False
    """Whether the joint part takes every study, or those with both views."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.weight_sources: list[WeightSource] = []  # of initial weights; none: they are random
        self.loss: LossWeights | None = None  # `loss` is its name in checkpoints; code says `loss_weights`

    @abstractmethod
    def forward(self, batch: StudyBatch) -> HeadLogits:
        """Logits of every head on the rows that reach it."""

    @property
    def loss_weights(self) -> LossWeights | None:
        """Learned weights of the heads in the loss; None where they are not learned."""
        return self.loss

    @property
    def num_parameters(self) -> int:
        """How many numbers the parameters hold."""
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
        for layer in self.modules():
            if isinstance(layer, SyncedBatchNorm2d):
                layer.sum_over_ranks = sum_over_ranks
        owners = {
            name: part for name, part in self.named_children() if isinstance(part, BackbonePart) and part.is_owner
        }
        pooled = {name: part.backbone.pool_statistics() for name, part in owners.items()}
        return {name: statistics for name, statistics in pooled.items() if statistics is not None}

    def _share(self, shared: SharedBackbone | None, *branches: ViewPart) -> None:
        """Own the backbone that the branches share, if they do, and draw what tells them apart: after all else."""
        if shared is not None:
            for branch in branches:
                branch.draw_embedding()
            self.shared = shared
