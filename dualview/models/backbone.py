"""torchvision's DenseNet for one-channel images, divided at the point where the views meet."""

from collections.abc import Callable
from functools import partial

import torchvision
from torch import Tensor, nn

from dualview.models.norm import Norm, use_norm

BACKBONES: dict[str, Callable[..., torchvision.models.DenseNet]] = {
    "densenet121": torchvision.models.densenet121,
    "densenet161": torchvision.models.densenet161,
    "densenet169": torchvision.models.densenet169,
    "densenet201": torchvision.models.densenet201,
    # 38 thousand parameters: for tests and demonstrations, not a network anyone has published.
    "densenet_tiny": partial(
        torchvision.models.DenseNet, growth_rate=8, block_config=(2, 2, 4, 2), num_init_features=16, bn_size=2
    ),
}


def build_features(name: str, *, dropout: float, norm: Norm = "batch") -> nn.Sequential:
    """The feature layers of a torchvision DenseNet with one input channel and random weights.

    Same modules, names and values as torchvision's `DenseNet.features`, so that its weights fit, with
    three changes: one input channel; the normalisation asked for (norm.py); and
    the average pooling of each transition before its 1x1 convolution instead of after. Both are
    linear and act on different axes, so the result is the same and the convolution does a quarter of
    the work.

    Raises:
        ValueError: unknown `name`.
    """
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone '{name}'; there are {', '.join(BACKBONES)}")
    features: nn.Sequential = BACKBONES[name](drop_rate=dropout).features
    num_channels = features.get_submodule("norm0").num_features
    assert isinstance(num_channels, int)
    features.conv0 = nn.Conv2d(1, num_channels, kernel_size=7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(features.conv0.weight)  # as torchvision initialises its own
    for layer_name, layer in features.named_children():
        if layer_name.startswith("transition"):
            pool_first = {key: getattr(layer, key) for key in ("norm", "relu", "pool", "conv")}
            layer._modules.clear()
            for key, module in pool_first.items():
                layer.add_module(key, module)
    use_norm(features, norm)
    return features


def split_point(features: nn.Sequential, *, merge_after_block: int) -> int:
    """Number of layers up to the merge point: after dense block 3, or after the last norm for 4."""
    names = [name for name, _ in features.named_children()]
    return len(names) if merge_after_block == 4 else names.index(f"denseblock{merge_after_block}") + 1


def merge_channels(features: nn.Sequential, *, merge_after_block: int) -> int:
    """Channels of the feature map at the merge point."""
    following = "norm5" if merge_after_block == 4 else f"transition{merge_after_block}.norm"
    weight = features.get_submodule(following).weight  # one per channel, in every kind of normalisation
    assert isinstance(weight, Tensor)
    return weight.shape[0]
