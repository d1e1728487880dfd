"""Stacked: one network on both views as two channels. It cannot take a missing view: such studies are left out.

Source: the Stacked baseline of Hashir, Bertrand & Cohen, MIDL 2020 (arXiv:2002.02582).
"""

import torch

from dualview.batch import HeadLogits, HeadRows, StudyBatch
from dualview.models.branch import Branch
from dualview.models.network import Network, NetworkSpec


class Stacked(Network):
    """One branch of two channels, PA first, and its head."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__(spec)
        self.joint = Branch(spec.build_backbone(in_channels=2), num_findings=spec.num_findings)

    def forward(self, batch: StudyBatch) -> HeadLogits:
        """Logits for the studies with both views, none for others."""
        rows = batch.rows
        images = torch.cat([batch.pa[rows.both_in_pa], batch.lateral[rows.both_in_lateral]], dim=1)
        logits = self.joint.only_logits(images)
        nothing, no_row = logits[:0], rows.both[:0]
        return HeadLogits(
            joint=logits, pa=nothing, lateral=nothing, rows=HeadRows(joint=rows.both, pa=no_row, lateral=no_row)
        )


NETWORK = Stacked
