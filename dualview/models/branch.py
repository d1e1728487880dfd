"""One view's branch: stem up to the merge point, tail, and the view's own linear head."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dualview.models.backbone import build_features, merge_channels, split_point
from dualview.models.norm import Norm, PooledStatistics


class BranchOutput(NamedTuple):
    merge_features: Tensor  # (N, merge_channels), pooled at the merge point
    logits: Tensor  # (N, K), of the branch's own head


class Branch(nn.Module):
    """DenseNet features and a head for the images of one view.

    `statistics`, once set, collects this branch's batch statistics (see norm.py).
    """

    def __init__(
        self,
        *,
        backbone: str,
        num_findings: int,
        merge_after_block: int,
        dropout: float,
        norm: Norm = "batch",
        runs_when_idle: bool = False,
    ) -> None:
        super().__init__()
        self.runs_when_idle = runs_when_idle
        self.features = build_features(backbone, dropout=dropout, norm=norm)
        self.split_point = split_point(self.features, merge_after_block=merge_after_block)
        self.merge_channels = merge_channels(self.features, merge_after_block=merge_after_block)
        self.head = linear_head(merge_channels(self.features, merge_after_block=4), num_findings)
        self.statistics: PooledStatistics | None = None

    def forward(self, images: Tensor) -> BranchOutput:
        """Run the branch on the images (N, 1, H, W) that exist; with none, it is not run at all.

        No row: empty outputs that no parameter took part in, so every parameter keeps grad None; with
        `runs_when_idle` the same outputs, and gradients that are zero.
        """
        num_rows = images.shape[0]
        if num_rows == 0 and not self.runs_when_idle:
            return BranchOutput(
                merge_features=images.new_zeros(0, self.merge_channels),
                logits=images.new_zeros(0, self.head.out_features),
            )
        at_merge = self.features[: self.split_point](images)
        at_end = self.features[self.split_point :](at_merge)  # the empty slice passes it through
        if self.training and self.statistics is not None and num_rows > 0:
            self.statistics.add(num_rows)
        merge_features = pool(at_merge)
        return BranchOutput(merge_features, self.head(merge_features if at_end is at_merge else pool(at_end)))


def pool(feature_map: Tensor) -> Tensor:
    """ReLU and global average: (N, D, h, w) to (N, D), as torchvision's DenseNet before its classifier."""
    return F.relu(feature_map).mean(dim=(2, 3))


def linear_head(in_features: int, num_findings: int) -> nn.Linear:
    """A linear classifier with torchvision's initial bias of zero."""
    head = nn.Linear(in_features, num_findings)
    torch.nn.init.zeros_(head.bias)
    return head
