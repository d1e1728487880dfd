"""The members of the family with one branch: `single` sees one view only, `stacked` both as two channels.

Source: the PA, L and Stacked baselines of Hashir, Bertrand & Cohen, MIDL 2020 (arXiv:2002.02582).
"""

from typing import Literal

import torch

from dualview.batch import Predictions, StudyBatch
from dualview.models.branch import Branch
from dualview.models.network import Network
from dualview.models.norm import Norm
from dualview.views import View


class Single(Network):
    """One branch and its head, on the studies that have its view. The other view is not looked at."""

    def __init__(
        self,
        *,
        view: View,
        num_findings: int,
        backbone: str = "densenet121",
        dropout: float = 0.0,
        norm: Norm = "batch",
        idle_branch: Literal["skip", "empty"] = "skip",
    ) -> None:
        super().__init__()
        self.view = view
        self.part = "pa" if view == View.PA else "lateral"
        branch = Branch(
            backbone=backbone, num_findings=num_findings, merge_after_block=4, dropout=dropout, norm=norm,
            runs_when_idle=idle_branch == "empty",
        )  # fmt: skip
        setattr(self, self.part, branch)

    @property
    def branch(self) -> Branch:
        """The one branch."""
        branch: Branch = getattr(self, self.part)
        return branch

    def forward(self, batch: StudyBatch) -> Predictions:
        """Logits of the branch's head for the studies that have the view, none for others."""
        images = batch.pa if self.view == View.PA else batch.lateral
        logits = self.branch(images).logits
        if images.shape[0] == 0:
            assert self.branch.head is not None
            logits = self.branch.head(images.new_zeros(0, self.branch.num_channels))  # for DDP to touch
        nothing = logits[:0]
        is_pa = self.view == View.PA
        return Predictions(joint=nothing, pa=logits if is_pa else nothing, lateral=nothing if is_pa else logits)


class Stacked(Network):
    """One network on both views as two channels. It cannot take a missing view: such studies are left out."""

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
        self.joint = Branch(
            backbone=backbone, num_findings=num_findings, merge_after_block=4, dropout=dropout, norm=norm,
            runs_when_idle=idle_branch == "empty", in_channels=2,
        )  # fmt: skip

    def forward(self, batch: StudyBatch) -> Predictions:
        """Logits for the studies with both views, none for others."""
        rows = batch.rows
        images = torch.cat([batch.pa[rows.both_in_pa], batch.lateral[rows.both_in_lateral]], dim=1)
        logits = self.joint(images).logits
        if images.shape[0] == 0:
            assert self.joint.head is not None
            logits = self.joint.head(images.new_zeros(0, self.joint.num_channels))  # for DDP to touch
        nothing = logits[:0]
        return Predictions(joint=logits, pa=nothing, lateral=nothing)
