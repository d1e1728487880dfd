"""Augmentation of a batch against torchvision's of one image, and its randomness against statistics."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms.v2 import InterpolationMode, functional

from dualview.config import AugmentConfig
from dualview.data import random_numbers
from dualview.data.augment import NUM_DRAWS, to_input
from dualview.data.random_numbers import key, normal, uniform

S = 64
STILL = {"rotation_degrees": 0, "noise_std": 0}


def images(num=5):
    return torch.rand(num, 1, S, S, generator=torch.Generator().manual_seed(0)) * 2 - 1


def keys(num=5):
    return torch.tensor([key(0, 0, number) for number in range(num)])


def draws(num=5):
    """The uniform numbers of each image, in the order of augment.py."""
    return uniform(keys(num), NUM_DRAWS).tolist()


def augmented(**config):
    return to_input(images(), keys=keys(), augment=AugmentConfig.model_validate({**STILL, **config}))


# -- random numbers ----------------------------------------------------------------------------------


def test_the_stream_is_splitmix64():
    """First numbers for seed 1234567, from the reference implementation (prng.di.unimi.it/splitmix64.c)."""
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    found = random_numbers.bits(torch.tensor([1234567]), 5)[0].tolist()
    assert [number % 2**64 for number in found] == expected


def test_uniform_and_normal_numbers_are_what_they_say():
    many = torch.tensor([key(number) for number in range(50)])
    flat = uniform(many, 2000).flatten().numpy()
    assert stats.kstest(flat, "uniform").pvalue > 0.01
    flat = normal(many, 2001).flatten().numpy()
    assert stats.kstest(flat, "norm").pvalue > 0.01
    assert abs(np.corrcoef(flat[:-1], flat[1:])[0, 1]) < 0.01
    assert flat.dtype == np.float32


def test_keys_depend_on_every_part_and_their_order():
    assert len({key(0, 1), key(1, 0), key(0, 0), key(0), key(0, 0, 0)}) == 5
    assert key(2**32 - 1, 10**6, 10**7, 1) == key(2**32 - 1, 10**6, 10**7, 1)
    assert -(2**63) <= min(key(number) for number in range(100)) < 0 < max(key(number) for number in range(100)) < 2**63


def test_an_image_does_not_depend_on_its_batch():
    config = AugmentConfig(scale_fraction=0.1, contrast_fraction=0.2, erase_probability=0.5)
    together = to_input(images(), keys=keys(), augment=config)
    for number in range(5):
        alone = to_input(images()[number : number + 1], keys=keys()[number : number + 1], augment=config)
        torch.testing.assert_close(alone[0], together[number], atol=1e-6, rtol=0)


# -- stored pixels -----------------------------------------------------------------------------------


def test_stored_pixels_are_scaled_by_their_bits():
    eight = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    torch.testing.assert_close(to_input(eight).flatten(), torch.linspace(-1, 1, 256))
    sixteen = torch.from_numpy(np.arange(65536, dtype=np.uint16).view(np.int16)).reshape(1, 1, 256, 256)
    torch.testing.assert_close(to_input(sixteen).flatten(), torch.linspace(-1, 1, 65536))


def test_stored_and_float_pixels_are_augmented_alike():
    stored = torch.randint(0, 256, (5, 1, S, S), dtype=torch.uint8)
    config = AugmentConfig(contrast_fraction=0.2)
    one = to_input(stored, keys=keys(), augment=config)
    other = to_input(to_input(stored), keys=keys(), augment=config)
    torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


# -- augmentation ------------------------------------------------------------------------------------


def test_no_augmentation_is_identity_and_bounds_hold():
    torch.testing.assert_close(augmented(), images(), atol=1e-6, rtol=0)
    strong = AugmentConfig(
        rotation_degrees=45, translation_fraction=0.3, noise_std=1, scale_fraction=0.5, shear_degrees=30,
        contrast_fraction=0.9, erase_probability=1, horizontal_flip_probability=0.5,
    )  # fmt: skip
    changed = to_input(images(), keys=keys(), augment=strong)
    assert changed.shape == images().shape
    assert changed.abs().max() <= 1


def test_geometry_is_torchvisions_affine():
    config = {"rotation_degrees": 20, "translation_fraction": 0.1, "scale_fraction": 0.2, "shear_degrees": 10}
    for image, drawn, found in zip(images(), draws(), augmented(**config), strict=True):
        angle, x, y, scale, shear = (2 * value - 1 for value in drawn[:5])
        expected = functional.affine(
            image + 1,
            angle=20 * angle,
            translate=[0.1 * S * x, 0.1 * S * y],
            scale=1 + 0.2 * scale,
            shear=[10 * shear, 0.0],
            interpolation=InterpolationMode.BILINEAR,
        )
        torch.testing.assert_close(found, expected - 1, atol=2e-4, rtol=0)


def test_contrast_is_torchvisions():
    for image, drawn, found in zip(images(), draws(), augmented(contrast_fraction=0.5), strict=True):
        expected = functional.adjust_contrast((image + 1) / 2, 1 + 0.5 * (2 * drawn[7] - 1))
        torch.testing.assert_close(found, expected * 2 - 1, atol=1e-5, rtol=0)


def test_flip_mirrors_those_that_are_drawn():
    found = augmented(horizontal_flip_probability=0.5)
    flipped = [drawn[6] < 0.5 for drawn in draws()]
    assert 0 < sum(flipped) < 5
    for image, mirror, result in zip(images(), flipped, found, strict=True):
        torch.testing.assert_close(result, image.flip(-1) if mirror else image, atol=1e-6, rtol=0)


def test_erasing_makes_one_black_rectangle_of_the_area_drawn():
    found = augmented(erase_probability=0.9, erase_fraction=0.3)
    for image, drawn, result in zip(images(), draws(), found, strict=True):
        black = (result[0] == -1).numpy()
        if drawn[8] >= 0.9:
            torch.testing.assert_close(result, image, atol=1e-6, rtol=0)
            continue
        rows, columns = np.flatnonzero(black.any(axis=1)), np.flatnonzero(black.any(axis=0))
        assert black[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        area = (0.02 + 0.28 * drawn[9]) * S**2
        assert black.sum() == pytest.approx(area, abs=2 * math.sqrt(area) + 4)
        assert len(rows) / len(columns) == pytest.approx(math.exp(math.log(3.3) * (2 * drawn[10] - 1)), rel=0.35)


def test_noise_has_the_stated_standard_deviation():
    flat = to_input(torch.zeros(8, 1, S, S), keys=keys(8), augment=AugmentConfig(rotation_degrees=0, noise_std=0.05))
    assert flat.std().item() == pytest.approx(0.05, rel=0.02)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_device_gives_the_pixels_of_the_worker():
    config = AugmentConfig(contrast_fraction=0.2, erase_probability=0.5, scale_fraction=0.1)
    on_gpu = to_input(images().cuda(), keys=keys().cuda(), augment=config).cpu()
    torch.testing.assert_close(on_gpu, to_input(images(), keys=keys(), augment=config), atol=1e-5, rtol=0)
