"""The AuxLoss network: two branches, a head on each, and a joint head where the views meet.

Source: Hashir, Bertrand & Cohen, "Quantifying the Value of Lateral Views in Deep Learning for Chest
X-rays", MIDL 2020 (arXiv:2002.02582); the authors' code calls it "multitask". Theirs feeds a zero
image for a missing view; here each image goes through its own branch, and no other image exists.
"""

from typing import Literal

import torch

from dualview.batch import Predictions, StudyBatch
from dualview.models.branch import Branch, linear_head
from dualview.models.network import Network
from dualview.models.norm import Norm


class AuxLoss(Network):
    """Routed two-view classifier.

    - PA only: PA branch and its head.
    - lateral only: lateral branch and its head.
    - both: both branches and heads, and the joint head on the concatenated features of the merge point.

    Args:
        num_findings: K.
        backbone: a key of `backbone.BACKBONES`, the same for both branches.
        merge_after_block: 3, or 4 for after the last norm as in the authors' code.
        dropout: probability after each dense layer, as torchvision's `drop_rate`.
        norm: normalisation, a name of `norm.use_norm`.
        idle_branch: what a branch without rows does: `skip`, it is not run; `empty`, it runs on zero rows,
            so that every forward pass has the same graph. Gradients are the same, but None against zero.
    """

    def __init__(
        self,
        *,
        num_findings: int,
        backbone: str = "densenet121",
        merge_after_block: int = 3,
        dropout: float = 0.0,
        norm: Norm = "batch",
        idle_branch: Literal["skip", "empty"] = "skip",
    ) -> None:
        super().__init__()
        self.runs_when_idle = idle_branch == "empty"
        self.pa, self.lateral = (
            Branch(
                backbone=backbone,
                num_findings=num_findings,
                merge_after_block=merge_after_block,
                dropout=dropout,
                norm=norm,
                runs_when_idle=self.runs_when_idle,
            )
            for _ in range(2)
        )
        self.joint = linear_head(self.pa.merge_channels + self.lateral.merge_channels, num_findings)

    def forward(self, batch: StudyBatch) -> Predictions:
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
        if self.loss is not None and self.training and (len(rows.both) or self.runs_when_idle):
            weights = self.loss()
        # shape[0], as len() of a tensor would write the batch size of the example into an exported graph
        if rows.both.shape[0] or batch.num_studies == 0 or self.runs_when_idle:
            both = (pa.merge_features[rows.both_in_pa], lateral.merge_features[rows.both_in_lateral])
            joint = self.joint(torch.cat(both, dim=1))
        return Predictions(joint=joint, pa=pa.logits, lateral=lateral.logits, weights=weights)
