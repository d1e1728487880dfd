"""HeMIS on dense blocks: the mean and variance over the views that exist, and one tail for all.

Source: Havaei et al., "HeMIS: Hetero-Modal Image Segmentation", MICCAI 2016 (arXiv:1607.05194), as
Hashir, Bertrand & Cohen, MIDL 2020, put it on DenseNet (`HeMIS` in the authors' models/joint.py): branches
through dense block 3 and its transition, dense block 4 and the head shared. The variance of two views is the
unbiased one, (a - b)^2 / 2; of one view it is 0, and the mean is that view.
"""

from collections import OrderedDict
from functools import partial

import torch
from torch import Tensor, nn

from dualview.batch import HeadLogits, StudyBatch
from dualview.models.backbone import DENSENETS, Backbone, first_layers
from dualview.models.branch import BackbonePart, ViewPart, branch_per_view, linear_head, pool
from dualview.models.network import Network, NetworkSpec
from dualview.models.norm import use_norm


class HeMIS(Network):
    """One head for every availability; the merge point is fixed, after the transition that follows dense block 3.

    Raises:
        ValueError: a backbone without dense blocks.
    """

    joint_sees_all = True

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__(spec)
        if spec.backbone not in DENSENETS:
            raise ValueError(f"hemis shares a dense block, and {spec.backbone} has none; use {', '.join(DENSENETS)}")
        self.pa, self.lateral, shared = branch_per_view(
            Stem, backbone=partial(_up_to_block_4, spec), shared=spec.shared_branch
        )
        self.joint = Tail(spec, in_channels=2 * self.pa.backbone.num_channels)
        self._share(shared, self.pa, self.lateral)

    def forward(self, batch: StudyBatch) -> HeadLogits:
        """Logits of the one head for every study."""
        pa, lateral, rows = self.pa(batch.pa), self.lateral(batch.lateral), batch.rows
        seen = pa if pa.shape[0] else lateral  # An idle branch has neither the size of a map nor autocast's type.
        total = seen.new_zeros(batch.num_studies, *seen.shape[1:])
        for view_rows, view_map in ((rows.pa, pa), (rows.lateral, lateral)):
            if view_map.shape[1:] == seen.shape[1:]:  # not the map of a branch that did not run
                total = total.index_add(0, view_rows, view_map)
        mean = total / batch.view_mask.sum(dim=1).clamp(min=1).to(total.dtype)[:, None, None, None]
        variance = torch.zeros_like(total)
        if rows.both.shape[0]:
            difference = pa[rows.both_in_pa] - lateral[rows.both_in_lateral]
            variance = variance.index_copy(0, rows.both, difference.square() / 2)
        joint = self.joint(torch.cat([mean, variance], dim=1))
        return HeadLogits.of_every_study(joint)


class Stem(ViewPart):
    """The part of a branch that comes before the views meet."""

    def forward(self, images: Tensor) -> Tensor:
        """The feature map (N, num_channels, h, w); (0, num_channels, 1, 1) of an idle branch."""
        if self.backbone.is_idle(images):
            return images.new_zeros(0, self.backbone.num_channels, 1, 1)
        return self.feature_maps(images)[1]


class Tail(BackbonePart):
    """Dense block 4, the last norm, and the head."""

    def __init__(self, spec: NetworkSpec, *, in_channels: int) -> None:
        super().__init__(_block_4(spec, in_channels=in_channels))
        self.head = linear_head(self.backbone.num_channels, spec.num_findings)

    def forward(self, feature_map: Tensor) -> Tensor:
        """(B, in_channels, h, w) to logits (B, K).

        Without a study only the head runs, on zero rows: DDP needs a graph on every rank.
        """
        if self.backbone.is_idle(feature_map):
            logits: Tensor = self.head(feature_map.new_zeros(0, self.backbone.num_channels))
            return logits
        pooled = pool(self.backbone.run(feature_map))
        self.backbone.count(feature_map)
        logits = self.head(pooled)
        return logits


def _up_to_block_4(spec: NetworkSpec) -> Backbone:
    whole = spec.build_backbone()
    num_channels = whole.layers.get_submodule("transition3.conv").out_channels
    assert isinstance(num_channels, int)
    count = list(whole.layers._modules).index("denseblock4")
    return first_layers(whole, count, num_channels=num_channels, ends_with_relu=False)


def _block_4(spec: NetworkSpec, *, in_channels: int) -> Backbone:
    """Dense block 4 and the last norm of the backbone, on more channels than its own."""
    theirs = DENSENETS[spec.backbone]().features.denseblock4
    growth_rate, bottleneck = theirs.denselayer1.conv2.out_channels, theirs.denselayer1.conv1.out_channels
    num_channels = in_channels + len(theirs) * growth_rate
    block = type(theirs)(
        num_layers=len(theirs), num_input_features=in_channels, bn_size=bottleneck // growth_rate,
        growth_rate=growth_rate, drop_rate=spec.dropout,
    )  # fmt: skip
    layers = nn.Sequential(OrderedDict(denseblock4=block, norm5=nn.BatchNorm2d(num_channels)))
    for layer in layers.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    use_norm(layers, spec.norm)
    return Backbone(
        layers,
        num_channels=num_channels,
        ends_with_relu=True,
        runs_when_idle=spec.runs_when_idle,
        recomputes=spec.recomputes,
    )


NETWORK = HeMIS
