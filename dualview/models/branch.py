"""One view's branch: a backbone for the images of that view, and in some networks a linear head of its own."""

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dualview.models.backbone import (
    build_features,
    ends_with_relu,
    first_layers,
    merge_channels,
    out_channels,
    split_point,
)
from dualview.models.norm import Norm, PooledStatistics


class BranchOutput(NamedTuple):
    merge_features: Tensor  # (N, merge_channels), pooled at the merge point
    logits: Tensor  # (N, K), of the branch's own head; (0, K) without one


class SharedBackbone(nn.Module):
    """One backbone for the images of both views (`model.shared_branch`); batches are normalised view by view."""

    def __init__(self, features: nn.Sequential) -> None:
        super().__init__()
        self.features = features
        self.statistics: PooledStatistics | None = None


class FeatureBranch(nn.Module):
    """A backbone that runs on the images (N, C, H, W) that exist; with none, it is not run at all.

    No row: an empty output that no parameter took part in, so every parameter keeps grad None; with
    `runs_when_idle` the same output, and gradients that are zero.

    `statistics`, once set, collects this branch's batch statistics (see norm.py).
    """

    def __init__(self, features: nn.Sequential, *, num_channels: int, runs_when_idle: bool = False) -> None:
        super().__init__()
        self.features = features
        self.num_channels = num_channels
        self.runs_when_idle = runs_when_idle
        self.statistics: PooledStatistics | None = None
        self.embedding: nn.Parameter | None = None  # (C,) added to the feature map, to tell views of one backbone
        self._lender: list[SharedBackbone] = []  # in a list, so that its parameters are not this branch's too

    @property
    def backbone(self) -> nn.Sequential:
        """The layers that images go through, this branch's own or shared."""
        return self._lender[0].features if self._lender else self.features

    def borrow(self, lender: SharedBackbone, *, num_channels: int) -> None:
        """Give up the own backbone for a shared one."""
        del self.features
        self._lender = [lender]
        self.embedding = nn.Parameter(torch.zeros(num_channels))
        nn.init.normal_(self.embedding, std=0.02)

    def unshare(self) -> None:
        """Go on with a copy of the backbone, if it is shared: what its layers do is of one view then."""
        self._lender = [copy.deepcopy(lender) for lender in self._lender]

    def marked(self, feature_map: Tensor) -> Tensor:
        """The feature map with the view's embedding, where there is one."""
        return feature_map if self.embedding is None else feature_map + self.embedding[:, None, None]

    def is_idle(self, images: Tensor) -> bool:
        """Whether the branch is not run on these images."""
        return images.shape[0] == 0 and not self.runs_when_idle

    def count(self, images: Tensor) -> None:
        """Take in the statistics of the forward pass just made."""
        statistics = self._lender[0].statistics if self._lender else self.statistics
        if self.training and statistics is not None and images.shape[0] > 0:
            statistics.add(images.shape[0])

    def forward(self, images: Tensor) -> Tensor:
        """The feature map (N, num_channels, h, w); (0, num_channels, 1, 1) of an idle branch."""
        if self.is_idle(images):
            return images.new_zeros(0, self.num_channels, 1, 1)
        feature_map: Tensor = self.backbone(images)
        self.count(images)
        return self.marked(feature_map)


class Branch(FeatureBranch):
    """A backbone divided at the merge point, with a head of its own at its end (none for `has_head=False`)."""

    def __init__(
        self,
        *,
        backbone: str,
        num_findings: int,
        merge_after_block: int,
        dropout: float,
        norm: Norm = "batch",
        runs_when_idle: bool = False,
        has_head: bool = True,
        in_channels: int = 1,
    ) -> None:
        features = build_features(backbone, dropout=dropout, norm=norm, in_channels=in_channels)
        super().__init__(
            features,
            num_channels=out_channels(features, backbone=backbone, in_channels=in_channels),
            runs_when_idle=runs_when_idle,
        )
        self.num_findings = num_findings
        self.relu = ends_with_relu(backbone)
        self.split_point = split_point(self.features, backbone=backbone, merge_after_block=merge_after_block)
        self.merge_channels = (
            merge_channels(self.features, merge_after_block=merge_after_block)
            if merge_after_block != 4
            else self.num_channels
        )
        if not has_head:
            self.features = first_layers(self.features, self.split_point)  # nothing would use what comes after
        self.head = linear_head(self.num_channels, num_findings) if has_head else None

    def forward(self, images: Tensor) -> BranchOutput:  # type: ignore[override]
        """Pooled features at the merge point, and the logits of the branch's head."""
        if self.is_idle(images):
            return BranchOutput(
                merge_features=images.new_zeros(0, self.merge_channels),
                logits=images.new_zeros(0, self.num_findings),
            )
        at_merge = self.marked(self.backbone[: self.split_point](images))
        at_end = self.backbone[self.split_point :](at_merge)  # the empty slice passes it through
        self.count(images)
        merge_features = pool(at_merge, relu=self.relu)
        if self.head is None:
            return BranchOutput(merge_features, images.new_zeros(0, self.num_findings))
        end_features = merge_features if at_end is at_merge else pool(at_end, relu=self.relu)
        return BranchOutput(merge_features, self.head(end_features))


def share_backbone(first: FeatureBranch, second: FeatureBranch) -> SharedBackbone:
    """Make two branches use the backbone of the first, and tell their views apart by an embedding each."""
    shared = SharedBackbone(first.features)
    for branch in (first, second):
        branch.borrow(shared, num_channels=getattr(branch, "merge_channels", branch.num_channels))
    return shared


def pool(feature_map: Tensor, *, relu: bool = True) -> Tensor:
    """Global average: (N, D, h, w) to (N, D); after a ReLU, as torchvision's DenseNet before its classifier."""
    return (F.relu(feature_map) if relu else feature_map).mean(dim=(2, 3))


def linear_head(in_features: int, num_findings: int) -> nn.Linear:
    """A linear classifier with torchvision's initial bias of zero."""
    head = nn.Linear(in_features, num_findings)
    torch.nn.init.zeros_(head.bias)
    return head
