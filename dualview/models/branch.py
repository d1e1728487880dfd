"""Parts of a network that look at images: a branch of one view, and the backbone that two branches may share."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dualview.models.backbone import Backbone


class BackbonePart(nn.Module):
    """A part of a network with a backbone, whose layers are its own part `features` unless another part owns them."""

    def __init__(self, backbone: Backbone, *, is_owner: bool = True) -> None:
        super().__init__()
        self.backbone = backbone
        self.is_owner = is_owner
        if is_owner:
            self.features = backbone.layers


class SharedBackbone(BackbonePart):
    """The owner of a backbone that both views go through (`model.shared_branch`), each in a batch of its own."""


class ViewPart(BackbonePart):
    """A part that takes the images of one view.

    The view's feature maps pass through two modules that change nothing, `merge_point` where the views meet and
    `end`. Hooks on them see this view alone, even where the layers are shared with the other.

    The embedding of a view, which only parts with a shared backbone have, is added at the merge point.
    """

    def __init__(self, backbone: Backbone, *, is_owner: bool = True) -> None:
        super().__init__(backbone, is_owner=is_owner)
        self.merge_point, self.end = nn.Identity(), nn.Identity()
        self.embedding: nn.Parameter | None = None  # (merge_channels,)

    def draw_embedding(self) -> None:
        """Give the view an embedding, drawn from torch's global generator."""
        self.embedding = nn.Parameter(torch.zeros(self.backbone.merge_channels))
        nn.init.normal_(self.embedding, std=0.02)

    def feature_maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Maps of images (N, C, H, W) at the merge point and at the end; one and the same where views meet there."""
        merges_at = self.backbone.merges_at
        at_merge = self.backbone.run(images, end=merges_at)
        if self.embedding is not None:
            at_merge = at_merge + self.embedding[:, None, None]
        at_merge = self.merge_point(at_merge)
        at_end: Tensor = self.end(self.backbone.run(at_merge, start=merges_at))
        self.backbone.count(images)
        return at_merge, at_end


class BranchOutput(NamedTuple):
    merge_features: Tensor  # (N, merge_channels), pooled at the merge point
    logits: Tensor  # (N, K), of the branch's own head; (0, K) without one


class Branch(ViewPart):
    """One view's backbone with a linear head at its end; without a head its end is the merge point."""

    def __init__(self, backbone: Backbone, *, num_findings: int, has_head: bool = True, is_owner: bool = True) -> None:
        super().__init__(backbone, is_owner=is_owner)
        self.num_findings = num_findings
        self.head = linear_head(backbone.num_channels, num_findings) if has_head else None

    def forward(self, images: Tensor) -> BranchOutput:
        """Pooled features at the merge point, and the logits of the branch's head."""
        no_logits = images.new_zeros(0, self.num_findings)
        if self.backbone.is_idle(images):
            return BranchOutput(images.new_zeros(0, self.backbone.merge_channels), no_logits)
        at_merge, at_end = self.feature_maps(images)
        relu = self.backbone.ends_with_relu
        if self.head is None:
            return BranchOutput(pool(at_end, relu=relu), no_logits)
        merge_features = pool(at_merge, relu=relu)
        end_features = merge_features if at_end is at_merge else pool(at_end, relu=relu)
        return BranchOutput(merge_features, self.head(end_features))

    def only_logits(self, images: Tensor) -> Tensor:
        """Logits (N, K) of the only branch of a network.

        Of an idle branch the head runs on zero rows, as DDP needs a graph on every rank.
        """
        assert self.head is not None
        logits: Tensor
        if self.backbone.is_idle(images):
            logits = self.head(images.new_zeros(0, self.backbone.num_channels))
        else:
            logits = self(images).logits
        return logits


Part = TypeVar("Part", bound=ViewPart)


def branch_per_view(
    make: Callable[..., Part], *, backbone: Callable[[], Backbone], shared: bool
) -> tuple[Part, Part, SharedBackbone | None]:
    """The parts of PA and lateral, and with `shared` the owner of the backbone that both have.

    Args:
        make: called with a backbone and `is_owner`, whether the part owns it.
        backbone: makes a new one.
        shared: both parts have the first.

    The second backbone is drawn even where it is not used, so that the other weights of a seed are the same with and
    without sharing.
    """
    first = backbone()
    pa = make(first, is_owner=not shared)
    second = backbone()
    lateral = make(first if shared else second, is_owner=not shared)
    return pa, lateral, SharedBackbone(first) if shared else None


def pool(feature_map: Tensor, *, relu: bool = True) -> Tensor:
    """Global average: (N, D, h, w) to (N, D); after a ReLU, as torchvision's DenseNet before its classifier."""
    return (F.relu(feature_map) if relu else feature_map).mean(dim=(2, 3))


def linear_head(in_features: int, num_findings: int) -> nn.Linear:
    """A linear classifier with torchvision's initial bias of zero."""
    head = nn.Linear(in_features, num_findings)
    torch.nn.init.zeros_(head.bias)
    return head
