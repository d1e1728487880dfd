"""Grad-CAM per view: where in each image the evidence for a finding is, for the answer to all views of a study.

The map of a view is the sum of its branch's feature channels, each weighted by the mean gradient of the answer; of
that the positive part (Selvaraju et al., ICCV 2017, arXiv:1610.02391). By captum's LayerGradCam, on the last feature
map that the answer is made from; the other view is held as it is, or is absent.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from dualview.batch import StudyBatch
from dualview.errors import UserError
from dualview.models.branch import ViewPart
from dualview.models.network import Network
from dualview.models.single import Single
from dualview.models.stacked import Stacked
from dualview.views import View

TINY = 1e-12  # a value above 0, so that the network's ReLU lets the gradient of a silent position through

Views = tuple[Tensor | None, Tensor | None]


def heat_maps(network: Network, views: Views, *, finding: int) -> Views:
    """Maps (h, w) of the evidence in each view, not negative; None for a view that is absent or not looked at.

    Args:
        network: in eval mode; it is left as it was.
        views: one study's images (C, H, W) by `View`, None where absent.
        finding: k.

    Raises:
        UserError: captum is not installed.
    """
    seen = _seen(network, views)
    maps: list[Tensor | None] = [None, None]
    if seen == (None, None) or (isinstance(network, Stacked) and None in seen):
        return None, None
    for view in View:
        if seen[view] is not None:
            maps[view] = _heat_map(network, seen, view=view, finding=finding)
    return maps[View.PA], maps[View.LATERAL]


def _seen(network: Network, views: Views) -> Views:
    if not isinstance(network, Single):
        return views
    return (views[View.PA], None) if network.view == View.PA else (None, views[View.LATERAL])


def _heat_map(network: Network, views: Views, *, view: View, finding: int) -> Tensor:
    own = copy.deepcopy(network).eval()
    part = own.joint if isinstance(own, Stacked) else own.get_submodule(view.key)
    assert isinstance(part, ViewPart)
    # The joint head sees the merge point, so complete studies are explained there, others at the end of their branch.
    place = part.end if None in views else part.merge_point
    hook = place.register_forward_hook(_as_pooled(part))
    image = views[view]
    assert image is not None
    try:
        gradcam = _captum().LayerGradCam(_Answer(own, views, view=view), place)
        with torch.enable_grad():
            attribution: Tensor = gradcam.attribute(image[None].clone(), target=finding, relu_attributions=True)
    finally:
        hook.remove()
    return attribution.detach()[0, 0]


class _Answer(nn.Module):
    """The network as a function of one view's image: logits (1, K) of the study's own route."""

    def __init__(self, network: Network, views: Views, *, view: View) -> None:
        super().__init__()
        self.network = network
        self.views = views
        self.view = view

    def forward(self, image: Tensor) -> Tensor:
        images = list(self.views)
        images[self.view] = image[0]
        batch = StudyBatch.from_views(pa=[images[View.PA]], lateral=[images[View.LATERAL]])
        heads = self.network(batch)
        logits: Tensor = heads.by_route(batch)
        return logits


def _as_pooled(part: ViewPart) -> Any:
    """A forward hook that makes a feature map the one that the network pools.

    DenseNets are pooled after a ReLU that is no module. Grad-CAM wants the map after it, and the gradient with respect
    to that, which a second ReLU would stop where the map is 0: so the least value is a little more than 0.
    """

    def hook(_: nn.Module, __: Any, feature_map: Tensor) -> Tensor | None:
        return feature_map.clamp(min=TINY) if part.backbone.ends_with_relu else None

    return hook


def _captum() -> Any:
    try:
        import captum.attr  # noqa: PLC0415 - an extra
    except ImportError:
        raise UserError('Grad-CAM needs captum: pip install "dualview[images]"') from None
    return captum.attr
