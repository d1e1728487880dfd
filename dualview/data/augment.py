"""From stored pixels to the network's input: scaling, and training-time augmentation of a whole batch.

torchvision's transforms change all images of a batch alike; here each has its own parameters, in one call, on the
worker that reads or on the device that trains. Each step gives the pixels that torchvision.transforms.v2 gives for one
image (`tests/data/test_augment.py`).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dualview.batch import StudyBatch
from dualview.config import AugmentConfig
from dualview.data.random_numbers import normal, uniform

STORED = (torch.uint8, torch.int16)  # int16 holds the bits of uint16, which torch cannot pass between processes
NUM_DRAWS = 12  # number of uniform random numbers that an image takes


def to_input(images: Tensor, *, keys: Tensor | None = None, augment: AugmentConfig | None = None) -> Tensor:
    """Images (N, 1, S, S), stored or float32 in [-1, 1], as float32 in [-1, 1], augmented if wanted.

    Args:
        images: on any device; the result is there too. Stored ones are uint8, or int16 with the bits of uint16.
        keys: (N,) int64 of `random_numbers.key`; all that is random is a function of an image's key.
        augment: what to do; without it, or without keys, images are only scaled.
    """
    if augment is None or keys is None or not len(images):
        return _unit(images).mul_(2).sub_(1) if images.dtype in STORED else images
    unit = _unit(images)
    draws = uniform(keys, NUM_DRAWS)
    unit = _moved(unit, draws[:, :7], augment)
    if augment.contrast_fraction:
        factor = _between(draws[:, 7], augment.contrast_fraction, around=1).float()[:, None, None, None]
        mean = unit.mean(dim=(1, 2, 3), keepdim=True)
        unit = (mean + factor * (unit - mean)).clamp(0, 1)
    result = unit * 2 - 1
    if augment.noise_std:
        pixels = result[0].numel()
        result = result.add_(normal(keys ^ 1, pixels).view_as(result), alpha=augment.noise_std).clamp_(-1, 1)
    if augment.erase_probability:
        result = result.masked_fill(_erased(result.shape[-1], draws[:, 8:12], augment), -1)
    return result


def to_input_batch(
    batch: StudyBatch, *, keys: tuple[Tensor, Tensor] | None = None, augment: AugmentConfig | None = None
) -> StudyBatch:
    """The batch with both views through `to_input`; `keys` are those of its PA and lateral rows."""
    pa_keys, lateral_keys = keys or (None, None)
    return batch._replace(
        pa=to_input(batch.pa, keys=pa_keys, augment=augment),
        lateral=to_input(batch.lateral, keys=lateral_keys, augment=augment),
    )


def _unit(images: Tensor) -> Tensor:
    """Images as float32 in [0, 1], in new memory."""
    if images.dtype == torch.uint8:
        return images.float().mul_(1 / 255)
    if images.dtype == torch.int16:
        return (images.int() & 0xFFFF).float().mul_(1 / 65535)
    return images * 0.5 + 0.5


def _between(draws: Tensor, reach: float, *, around: float = 0) -> Tensor:
    """Uniform draws of [0, 1) moved to `around` plus or minus `reach`."""
    return around + reach * (2 * draws - 1)


def _moved(unit: Tensor, draws: Tensor, augment: AugmentConfig) -> Tensor:
    """Flip, rotation, shear, scale and shift, in one bilinear sampling; what comes in from outside is black."""
    size = unit.shape[-1]
    flip = draws[:, 6] < augment.horizontal_flip_probability
    if augment.horizontal_flip_probability:
        unit = torch.where(flip[:, None, None, None], unit.flip(-1), unit)
    angle = _between(draws[:, 0], math.radians(augment.rotation_degrees))
    reach = augment.translation_fraction * size
    shift_x, shift_y = _between(draws[:, 1], reach), _between(draws[:, 2], reach)
    scale = _between(draws[:, 3], augment.scale_fraction, around=1)
    shear = _between(draws[:, 4], math.radians(augment.shear_degrees))
    reaches = (augment.rotation_degrees, reach, augment.scale_fraction, augment.shear_degrees)
    if not any(reaches):
        return unit
    # `rows` is the inverse of rotation x shear x scale, as torchvision's `_get_inverse_affine_matrix` without y shear.
    cos, sin, tan = angle.cos(), angle.sin(), shear.tan()
    a, b, c, d = cos, -cos * tan - sin, sin, cos - sin * tan
    rows = ((d / scale, -b / scale), (-c / scale, a / scale))
    axis = torch.arange(size, device=unit.device, dtype=torch.float32) + (0.5 - size / 2)
    grid = torch.empty(len(unit), size, size, 2, device=unit.device)
    for coordinate, (x_factor, y_factor) in enumerate(rows):
        offset = -(x_factor * shift_x + y_factor * shift_y)
        along_x = (2 / size * x_factor).float()[:, None] * axis
        along_y = (2 / size * y_factor).float()[:, None] * axis + (2 / size * offset).float()[:, None]
        torch.add(along_y[:, :, None], along_x[:, None, :], out=grid[..., coordinate])
    return F.grid_sample(unit, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _erased(size: int, draws: Tensor, augment: AugmentConfig) -> Tensor:
    """(N, 1, S, S) bool: a rectangle in each image that is drawn for it, as torchvision's RandomErasing shapes it."""
    chosen = draws[:, 0] < augment.erase_probability
    area = (0.02 + (augment.erase_fraction - 0.02) * draws[:, 1]) * size**2
    aspect = (math.log(3.3) * (2 * draws[:, 2] - 1)).exp()
    height, width = (area * aspect).sqrt().clamp(max=size - 1), (area / aspect).sqrt().clamp(max=size - 1)
    top = draws[:, 3] * (size - height)
    left = (draws[:, 3] * 65536 % 1) * (size - width)  # The lower bits of draw 3 are independent of the upper ones.
    axis = torch.arange(size, device=draws.device) + 0.5
    rows = (axis >= top[:, None]) & (axis < (top + height)[:, None])
    columns = (axis >= left[:, None]) & (axis < (left + width)[:, None])
    return (rows[:, :, None] & columns[:, None, :] & chosen[:, None, None])[:, None]
