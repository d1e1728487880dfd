"""HeMIS on dense blocks: the mean and variance over the views that exist, and one tail for all.

Source: Havaei et al., "HeMIS: Hetero-Modal Image Segmentation", MICCAI 2016 (arXiv:1607.05194), as
Hashir, Bertrand & Cohen, MIDL 2020, put it on DenseNet (`HeMIS` in the authors' models/joint.py): branches
through dense block 3 and its transition, dense block 4 and the head shared. The variance of two views is the
unbiased one, (a - b)^2 / 2; of one view it is 0, and the mean is that view.
"""

from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, nn

from dualview.batch import Predictions, StudyBatch
from dualview.models.backbone import DENSENETS, build_features, first_layers
from dualview.models.branch import FeatureBranch, linear_head, pool
from dualview.models.network import Network
from dualview.models.norm import Norm, PooledStatistics, use_norm


class HeMIS(Network):
    """One head for every availability; arguments as `AuxLoss`, whose merge point is fixed here.

    Raises:
        ValueError: a backbone without dense blocks.
    """

    def __init__(
        self,
        *,
        num_findings: int,
        backbone: str = "densenet121",
        dropout: float = 0.0,
        norm: Norm = "batch",
        idle_branch: Literal["skip", "empty"] = "skip",
    ) -> None:
        super().__init__()
        if backbone not in DENSENETS:
            raise ValueError(f"hemis shares a dense block, and {backbone} has none; use {', '.join(DENSENETS)}")
        self.joint_sees_all = True
        self.pa, self.lateral = (self._stem(backbone, dropout, norm, idle_branch) for _ in range(2))
        self.joint = _Tail(
            backbone=backbone, in_channels=2 * self.pa.num_channels, num_findings=num_findings, dropout=dropout,
            norm=norm, runs_when_idle=idle_branch == "empty",
        )  # fmt: skip

    @staticmethod
    def _stem(backbone: str, dropout: float, norm: Norm, idle_branch: str) -> FeatureBranch:
        features = build_features(backbone, dropout=dropout, norm=norm)
        num_channels = features.get_submodule("transition3.conv").out_channels
        assert isinstance(num_channels, int)
        stem = first_layers(features, list(features._modules).index("denseblock4"))
        return FeatureBranch(stem, num_channels=num_channels, runs_when_idle=idle_branch == "empty")

    def forward(self, batch: StudyBatch) -> Predictions:
        """Logits of the one head for every study."""
        pa, lateral, rows = self.pa(batch.pa), self.lateral(batch.lateral), batch.rows
        size = (pa if pa.shape[0] else lateral).shape[1:]
        total = pa.new_zeros(batch.num_studies, *size)
        for view_rows, view_map in ((rows.pa, pa), (rows.lateral, lateral)):
            if view_rows.shape[0]:
                total = total.index_add(0, view_rows, view_map)
        mean = total / batch.view_mask.sum(dim=1).clamp(min=1).to(total.dtype)[:, None, None, None]
        variance = torch.zeros_like(total)
        if rows.both.shape[0]:
            difference = pa[rows.both_in_pa] - lateral[rows.both_in_lateral]
            variance = variance.index_copy(0, rows.both, difference.square() / 2)
        joint = self.joint(torch.cat([mean, variance], dim=1))
        nothing = joint[:0]
        return Predictions(joint=joint, pa=nothing, lateral=nothing)


class _Tail(nn.Module):
    """Dense block 4, the last norm, and the head."""

    def __init__(
        self,
        *,
        backbone: str,
        in_channels: int,
        num_findings: int,
        dropout: float,
        norm: Norm,
        runs_when_idle: bool,
    ) -> None:
        super().__init__()
        self.runs_when_idle = runs_when_idle
        theirs = DENSENETS[backbone]().features.denseblock4
        growth_rate, bn_size = theirs.denselayer1.conv2.out_channels, theirs.denselayer1.conv1.out_channels
        layers = len(theirs)
        block = type(theirs)(
            num_layers=layers, num_input_features=in_channels, bn_size=bn_size // growth_rate, growth_rate=growth_rate,
            drop_rate=dropout,
        )  # fmt: skip
        num_channels = in_channels + layers * growth_rate
        self.features = nn.Sequential(OrderedDict(denseblock4=block, norm5=nn.BatchNorm2d(num_channels)))
        for layer in self.features.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
        use_norm(self.features, norm)
        self.head = linear_head(num_channels, num_findings)
        self.statistics: PooledStatistics | None = None

    def forward(self, feature_map: Tensor) -> Tensor:
        """(B, in_channels, h, w) to logits (B, K). Without a study only the head runs, for DDP to touch."""
        num_studies = feature_map.shape[0]
        if num_studies == 0 and not self.runs_when_idle:
            logits: Tensor = self.head(feature_map.new_zeros(0, self.head.in_features))
            return logits
        pooled = pool(self.features(feature_map))
        if self.training and self.statistics is not None and num_studies > 0:
            self.statistics.add(num_studies)
        logits = self.head(pooled)
        return logits
