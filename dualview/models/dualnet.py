"""DualNet: two branches whose pooled features are concatenated for one joint head that serves every study.

Source: Hashir, Bertrand & Cohen, MIDL 2020 (arXiv:2002.02582); the authors' `MultiViewCNN` without
`multitask`. Theirs feeds a zero image for a missing view, and pushes it through the branch; here the absent
half of the joint feature is zero after the backbone, and the branch does not run. Their unused branch
classifiers, 131,200 parameters at K = 64, are left out.
"""

from typing import Literal

import torch

from dualview.batch import Predictions, StudyBatch
from dualview.models.branch import Branch, linear_head
from dualview.models.network import Network
from dualview.models.norm import Norm


class DualNet(Network):
    """Joint head on concatenated features, zero where a view is absent; arguments as `AuxLoss`."""

    def __init__(
        self,
        *,
        num_findings: int,
        backbone: str = "densenet121",
        merge_after_block: int = 4,
        dropout: float = 0.0,
        norm: Norm = "batch",
        idle_branch: Literal["skip", "empty"] = "skip",
    ) -> None:
        super().__init__()
        self.joint_sees_all = True
        self.pa, self.lateral = (
            Branch(
                backbone=backbone, num_findings=num_findings, merge_after_block=merge_after_block, dropout=dropout,
                norm=norm, runs_when_idle=idle_branch == "empty", has_head=False,
            )
            for _ in range(2)
        )  # fmt: skip
        self.joint = linear_head(self.pa.merge_channels + self.lateral.merge_channels, num_findings)

    def forward(self, batch: StudyBatch) -> Predictions:
        """Logits of the joint head for every study, none of branch heads."""
        pa, lateral = self.pa(batch.pa), self.lateral(batch.lateral)
        halves = [
            output.merge_features.new_zeros(batch.num_studies, output.merge_features.shape[1]).index_copy(
                0, rows, output.merge_features
            )
            for output, rows in ((pa, batch.rows.pa), (lateral, batch.rows.lateral))
        ]
        return Predictions(joint=self.joint(torch.cat(halves, dim=1)), pa=pa.logits, lateral=lateral.logits)
