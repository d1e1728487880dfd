"""DualNet: two branches whose pooled features are concatenated for one joint head that serves every study.

Source: Hashir, Bertrand & Cohen, MIDL 2020 (arXiv:2002.02582); the authors' `MultiViewCNN` without
`multitask`. Theirs feeds a zero image for a missing view, and pushes it through the branch; here the absent
half of the joint feature is zero after the backbone, and the branch does not run. Their unused branch
classifiers, 131,200 parameters at K = 64, are left out.
"""

from functools import partial

import torch

from dualview.batch import HeadLogits, StudyBatch
from dualview.models.backbone import Backbone, first_layers
from dualview.models.branch import Branch, branch_per_view, linear_head
from dualview.models.network import Network, NetworkSpec


class DualNet(Network):
    """Joint head on concatenated features, zero where a view is absent."""

    joint_sees_all = True

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__(spec)
        self.pa, self.lateral, shared = branch_per_view(
            partial(Branch, num_findings=spec.num_findings, has_head=False),
            backbone=partial(_up_to_merge_point, spec),
            shared=spec.shared_branch,
        )
        self.joint = linear_head(2 * self.pa.backbone.merge_channels, spec.num_findings)
        self._share(shared, self.pa, self.lateral)

    def forward(self, batch: StudyBatch) -> HeadLogits:
        """Logits of the joint head for every study, none of branch heads."""
        halves = [
            features.new_zeros(batch.num_studies, features.shape[1]).index_copy(0, rows, features)
            for features, rows in (
                (self.pa(batch.pa).merge_features, batch.rows.pa),
                (self.lateral(batch.lateral).merge_features, batch.rows.lateral),
            )
        ]
        return HeadLogits.of_every_study(self.joint(torch.cat(halves, dim=1)))


def _up_to_merge_point(spec: NetworkSpec) -> Backbone:
    whole = spec.build_backbone(merge_after_block=spec.merge_after_block)
    return first_layers(whole, whole.merges_at, num_channels=whole.merge_channels, ends_with_relu=whole.ends_with_relu)


NETWORK = DualNet
