"""`train.gradient_checkpointing`: the same gradients and batch statistics as without, in less memory."""

import subprocess
import sys

import pytest
import torch

from dualview.config.uses import NETWORKS
from dualview.losses import head_loss_sums
from dualview.models import build_model


def gradients_and_statistics(make_batch, name, *, gradient_checkpointing, **settings):
    model = build_model(
        name, num_findings=3, seed=0, gradient_checkpointing=gradient_checkpointing, **settings
    ).double().train()  # fmt: skip
    statistics = model.pool_statistics()
    for kinds in ("bplb", "pp", "b"):
        batch = make_batch(kinds, dtype=torch.float64, size=64)
        torch.manual_seed(7)
        head_loss_sums(model(batch), batch=batch).total.backward()
    sums = {part: branch.sums for part, branch in statistics.items()}
    return {key: p.grad for key, p in model.named_parameters()}, sums


@pytest.mark.parametrize("name", sorted(NETWORKS))
@pytest.mark.parametrize(
    "settings",
    [{"backbone": "densenet_tiny", "dropout": 0.3}, {"backbone": "densenet_tiny", "shared_branch": True}],
    ids=["dropout", "shared"],
)
def test_every_member_has_the_same_gradients_and_statistics(make_batch, name, settings):
    if settings.get("shared_branch") and "model.shared_branch" not in NETWORKS[name].keys:
        pytest.skip(f"{name} has one branch")
    results = [
        gradients_and_statistics(make_batch, name, gradient_checkpointing=recomputes, **settings)
        for recomputes in (False, True)
    ]
    compare(*results)


@pytest.mark.parametrize("backbone", ["resnet18", "swin_t", "timm:convnext_atto", "timm:resnet10t"])
def test_other_backbones_too(make_batch, backbone):
    if backbone.startswith("timm:"):
        pytest.importorskip("timm", reason="timm is not installed (extra dualview[timm])")
    settings = {"backbone": backbone, "merge_after_block": 4, "image_size_px": 64}
    compare(
        *(gradients_and_statistics(make_batch, "auxloss", gradient_checkpointing=again, **settings)
          for again in (False, True))
    )  # fmt: skip


def compare(plain, recomputed):
    for ours, theirs in zip(plain, recomputed, strict=True):
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            assert (value is None) == (ours[key] is None)
            if value is not None:
                torch.testing.assert_close(ours[key], value, rtol=1e-12, atol=1e-14)


PEAK = """
import sys, torch
from pathlib import Path
from dualview.batch import StudyBatch
from dualview.models import build_model
def kib(what):
    return int(Path("/proc/self/status").read_text().split(what + ":")[1].split()[0])
images = torch.randn(8, 1, int(sys.argv[1]), int(sys.argv[1]))
batch = StudyBatch.from_views(pa=list(images), lateral=list(images))
before = kib("VmRSS")
for how in sys.argv[2:]:
    model = build_model("auxloss", num_findings=14, gradient_checkpointing=how == "again", seed=0).train()
    model(batch).by_route(batch).sum().backward()
    print((kib("VmHWM") - before) / 2**20)
"""


def peaks_gib(size: int, *hows: str) -> list[float]:
    """The most memory that a step of 8 complete studies has added so far, for each way, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(size), *hows], capture_output=True, text=True, check=True, timeout=1800
    )  # fmt: skip
    return [float(line) for line in done.stdout.split()]


def test_the_maps_of_a_step_take_less_memory():
    again, once = peaks_gib(112, "again", "once")
    assert again < 0.6 * once


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("size", "hows"), [(512, ("again", "once")), (1024, ("again",))])
def test_large_images_fit_into_24_gib(size, hows):
    """The numbers of docs/benchmarks.md."""
    peaks = peaks_gib(size, *hows)
    for how, peak in zip(hows, peaks, strict=True):
        print(f"8 complete studies of {size} px, {how}: {peak:.1f} GiB")
    assert peaks[0] < 22
