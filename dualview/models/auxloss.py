"""The AuxLoss network: two branches, a head on each, and a joint head where the views meet.

Source: Hashir, Bertrand & Cohen, "Quantifying the Value of Lateral Views in Deep Learning for Chest
X-rays", MIDL 2020 (arXiv:2002.02582); the authors' code calls it "multitask". Theirs feeds a zero
image for a missing view; here each image goes through its own branch, and no other image exists.
"""

from functools import partial

import torch

from dualview.batch import HeadLogits, StudyBatch
from dualview.models.branch import Branch, branch_per_view, linear_head
from dualview.models.loss_weights import LossWeights
from dualview.models.network import Network, NetworkSpec


class AuxLoss(Network):
    """Routed two-view classifier.

    - PA only: PA branch and its head.
    - lateral only: lateral branch and its head.
    - both: both branches and heads, and the joint head on the concatenated features of the merge point.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__(spec)
        self.pa, self.lateral, shared = branch_per_view(
            partial(Branch, num_findings=spec.num_findings),
            backbone=partial(spec.build_backbone, merge_after_block=spec.merge_after_block),
            shared=spec.shared_branch,
        )
        self.joint = linear_head(2 * self.pa.backbone.merge_channels, spec.num_findings)
        self._share(shared, self.pa, self.lateral)
        if spec.learned_weights != "none":
            self.loss = LossWeights(spec.learned_weights, pa=spec.pa_weight, lateral=spec.lateral_weight)

    def forward(self, batch: StudyBatch) -> HeadLogits:
        """Logits of each head on the rows that reach it.

        A head or branch without rows takes no part, and its parameters keep grad None. Only a batch
        without any study runs the joint head on zero rows: under DDP the backward pass of such a rank
        must touch something, or it would miss the step's gradient exchange. Learned weights of the loss
        come along where it will use them, and so get a gradient.
        """
        pa, lateral = self.pa(batch.pa), self.lateral(batch.lateral)
        rows = batch.rows
        joint = pa.logits[:0]
        weights = None
        if self.loss_weights is not None and self.training and (len(rows.both) or self.spec.runs_when_idle):
            weights = self.loss_weights()
        # len() of a tensor would write the example's batch size into an exported graph; shape[0] stays symbolic.
        if rows.both.shape[0] or batch.num_studies == 0 or self.spec.runs_when_idle:
            both = (pa.merge_features[rows.both_in_pa], lateral.merge_features[rows.both_in_lateral])
            joint = self.joint(torch.cat(both, dim=1))
        return HeadLogits(
            joint=joint,
            pa=pa.logits,
            lateral=lateral.logits,
            rows=rows.by_head,
            weights=weights,
        )


NETWORK = AuxLoss
