"""A first convolution that can take up the mean of the images its weights were trained with."""

from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FirstConvolution(nn.Conv2d):
    """`nn.Conv2d`, and exactly that until it has a `shift`.

    A convolution of x a + b is one of x with other weights, plus one of an image that is b everywhere. Within the image
    the latter is a constant, at a padded border it is not, as padding is 0 before and after.

    Attributes:
        shift: (out, 1, k, k) weights on an image of ones, whose result is added; None: nothing is. A state dict that
            has it makes it.
    """

    shift: Tensor | None

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.register_buffer("shift", None)

    @classmethod
    def of(cls, convolution: nn.Conv2d) -> Self:
        """The same convolution, with its parameters."""
        own = cls(convolution.in_channels, convolution.out_channels, 1, bias=convolution.bias is not None)
        for setting in ("kernel_size", "stride", "padding", "dilation", "groups", "_reversed_padding_repeated_twice"):
            setattr(own, setting, getattr(convolution, setting))
        own.weight, own.bias = convolution.weight, convolution.bias
        return own

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) to maps (N, out, h, w)."""
        maps = super().forward(images)
        if self.shift is None:
            return maps
        ones = images.new_ones(1, 1, *images.shape[2:])
        return maps + F.conv2d(ones, self.shift, None, self.stride, self.padding, self.dilation)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        given = state_dict.get(f"{prefix}shift")
        self.shift = (
            None if given is None else torch.zeros_like(given, device=self.weight.device, dtype=self.weight.dtype)
        )
        super()._load_from_state_dict(state_dict, prefix, *arguments)
