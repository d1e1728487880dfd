"""How deep in its backbone a parameter lies, by which layers are frozen and learn at rates of their own."""

import re

from torch import nn

from dualview.models.timm_backbone import TimmFeatures

BACKBONE = ".features."
"""What stands in the name of every parameter of a backbone, between its part and its place there."""


def depths(model: nn.Module, *, in_stages: bool) -> dict[str, int]:
    """Parameter of a backbone -> its depth: 0 the stem, then 1, 2, ...; parameters outside of backbones have none.

    In torchvision's networks stages are counted: dense blocks with their transitions, `layer1` to `layer4` of a ResNet,
    the children of `features` of the others. In timm's networks it is their own `group_matcher` that groups, in a
    transformer always by blocks. The last normalisation belongs to the last of them.

    Args:
        in_stages: count timm's networks in stages too where they have any, not in blocks.
    """
    found: dict[str, int] = {}
    for part, module in model.named_children():
        layers = getattr(module, "features", None)
        if isinstance(layers, nn.Sequential):
            within = _depths_within(layers, in_stages=in_stages)
            found |= {f"{part}{BACKBONE}{name}": depth for name, depth in within.items()}
    return found


def _depths_within(layers: nn.Sequential, *, in_stages: bool) -> dict[str, int]:
    first = layers[0]
    if isinstance(first, TimmFeatures):
        return {f"timm.network.{name}": depth for name, depth in _by_timm(first, in_stages=in_stages).items()}
    stages: dict[str, int] = {}
    for child in layers._modules:
        number = re.fullmatch(r"(?:denseblock|transition|layer)?(\d+)", child)
        stages[child] = int(number[1]) if number else 0
    last = max(stages.values())
    stages |= {name: last for name in stages if name in ("norm5", "norm", "permute")}
    return {name: stages[name.partition(".")[0]] for name, _ in layers.named_parameters()}


def _by_timm(features: TimmFeatures, *, in_stages: bool) -> dict[str, int]:
    from timm.models import group_parameters  # noqa: PLC0415 - an extra

    network = features.network
    depths: dict[str, int] = group_parameters(network, network.group_matcher(coarse=in_stages), reverse=True)
    return depths
