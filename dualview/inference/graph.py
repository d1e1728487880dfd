"""A network as a static graph: plain tensors in, logits out, for studies that all have the same views."""

import torch
from torch import Tensor, nn

from dualview.batch import Rows, StudyBatch
from dualview.models.network import Network
from dualview.views import Availability, View


class RouteGraph(nn.Module):
    """A network on studies that all have the same views: plain tensors in, logits (B, K) of the route out.

    It makes the StudyBatch whose rows are all studies, so that what was trained is what is exported.

    Args:
        model: the trained network, in eval mode.
        route: which studies.
        vote: complete ones are answered by the mean of the three heads (`model.joint_rule: vote`).
    """

    def __init__(self, model: Network, *, route: Availability, vote: bool) -> None:
        super().__init__()
        self.model = model
        self.route = route
        self.vote = vote

    def forward(self, pa: Tensor | None = None, lateral: Tensor | None = None) -> Tensor:
        """Images (B, 1, S, S) in [-1, 1] of the views of the route."""
        images = pa if pa is not None else lateral
        assert images is not None
        num_studies = images.shape[0]
        every, no_row, no_image = (
            torch.arange(num_studies, device=images.device),
            images.new_zeros(0).long(),
            images[:0],
        )
        has = torch.tensor([pa is not None, lateral is not None], device=images.device)
        both = every if pa is not None and lateral is not None else no_row
        batch = StudyBatch(
            pa=no_image if pa is None else pa,
            lateral=no_image if lateral is None else lateral,
            view_mask=has.expand(num_studies, len(View)),
            rows=Rows(
                pa=no_row if pa is None else every,
                lateral=no_row if lateral is None else every,
                both=both, both_in_pa=both, both_in_lateral=both,
            ),
            labels=images.new_zeros(num_studies, 0),
            label_mask=images.new_zeros(num_studies, 0).bool(),
            study_index=every,
            weight=images.new_ones(num_studies),
        )  # fmt: skip
        heads = self.model(batch)
        logits: Tensor
        if self.vote and self.route == Availability.BOTH:
            logits = torch.stack([heads.joint, heads.pa, heads.lateral]).mean(dim=0)
        elif self.route == Availability.BOTH or self.model.joint_sees_all:
            logits = heads.joint
        else:
            logits = heads.pa if self.route == Availability.PA_ONLY else heads.lateral
        return logits
