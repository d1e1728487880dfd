"""Routed training against what is written without it: zero images for absent views, a loop over studies.

All are the same pair of DenseNet121 with the same loss; the two alternatives and the plain network are
put together from torchvision's DenseNet as a user would. One step is forward and backward of one
micro-batch of 8 studies: 4 with both views, 3 PA only, 1 lateral only. Every variant runs in the same
memory order (channels last). Rounds alternate between variants, so that drifts of the machine hit
all of them.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
import torchvision
from accelerate.utils import send_to_device
from rich.table import Table
from torch import Tensor, nn

from dualview.batch import HeadLogits, HeadRows, StudyBatch
from dualview.errors import UserError
from dualview.losses import head_loss_sums
from dualview.models import build_model
from dualview.models.branch import pool
from dualview.views import View

NUM_FINDINGS = 14
BATCH = 8
MIX = {"both": 4, "pa_only": 3, "lateral_only": 1}
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class RoutingBench:
    """Result of `measure`; seconds are medians over rounds."""

    device: str
    image_size_px: int
    rounds: int
    mix: dict[str, int]
    seconds_per_step: dict[str, float]
    images_per_step: dict[str, int]
    speedup_over_zero_image: float
    speedup_over_loop: float
    fraction_of_plain: float  # images/s of routing / images/s of one plain torchvision DenseNet121 at batch 8
    bf16_speedup_over_zero_image: float  # speed of routing in bf16 / speed of zero images in fp32

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def measure(
    *,
    image_size_px: int = 224,
    rounds: int = 5,
    device: str = "cpu",
    track: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> RoutingBench:
    """Time one training step of each variant, alternating, after one round of warm-up."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda, but there is no GPU; use --device cpu")
    torch.manual_seed(0)
    place = torch.device(device)
    steps = _steps(place, image_size_px=image_size_px)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for round_number in track(range(rounds + 1)):
        for name, step in steps.items():
            step()  # An untimed step leaves memory and caches as training would.
            _wait(place)
            started = time.perf_counter()
            step()
            _wait(place)
            if round_number > 0:
                seconds[name].append(time.perf_counter() - started)

    median = {name: statistics.median(values) for name, values in seconds.items()}
    images = MIX["both"] * 2 + MIX["pa_only"] + MIX["lateral_only"]
    images_per_step = {"routed": images, "zero_image": 2 * BATCH, "loop": images, "plain": BATCH}
    return RoutingBench(
        device=torch.cuda.get_device_name() if place.type == "cuda" else f"cpu, {torch.get_num_threads()} threads",
        image_size_px=image_size_px,
        rounds=rounds,
        mix=MIX,
        seconds_per_step=median,
        images_per_step={name: images_per_step[name.removesuffix("_bf16")] for name in median},
        speedup_over_zero_image=median["zero_image"] / median["routed"],
        speedup_over_loop=median["loop"] / median["routed"],
        fraction_of_plain=(images / median["routed"]) / (BATCH / median["plain"]),
        bf16_speedup_over_zero_image=median["zero_image"] / median["routed_bf16"],
    )


def _wait(place: torch.device) -> None:
    if place.type == "cuda":
        torch.cuda.synchronize()


def as_table(result: RoutingBench) -> Table:
    """The result for a terminal."""
    table = Table(
        title=f"one training step of {BATCH} studies, {result.image_size_px} px, on {result.device}",
        caption=f"routed is {result.speedup_over_zero_image:.2f}x as fast as zero images, "
        f"{result.speedup_over_loop:.2f}x as fast as a loop, and trains {result.fraction_of_plain:.2f} of the plain "
        f"network's images/s; in bf16 it is {result.bf16_speedup_over_zero_image:.2f}x as fast as zero images in fp32",
    )
    for column in ("variant", "seconds / step", "images / step", "images / s"):
        table.add_column(column, justify="left" if column == "variant" else "right")
    for name, seconds in result.seconds_per_step.items():
        images = result.images_per_step[name]
        table.add_row(name, f"{seconds:.3f}", str(images), f"{images / seconds:.1f}")
    return table


def _steps(place: torch.device, *, image_size_px: int) -> dict[str, Callable[[], None]]:
    """One training step (forward, loss, backward) of each variant, on the same studies."""
    view_mask = torch.tensor(
        [[True, True]] * MIX["both"] + [[True, False]] * MIX["pa_only"] + [[False, True]] * MIX["lateral_only"]
    )
    images = torch.rand(BATCH, len(View), 1, image_size_px, image_size_px) * 2 - 1
    images[~view_mask] = 0  # zero images take the place of absent views
    labels = torch.randint(0, 2, (BATCH, NUM_FINDINGS)).float()

    def packed(studies: slice) -> StudyBatch:
        batch = StudyBatch.from_dense(images[studies], view_mask=view_mask[studies], labels=labels[studies])
        moved: StudyBatch = send_to_device(batch, place)
        return moved

    batch, singles = packed(slice(None)), [packed(slice(study, study + 1)) for study in range(BATCH)]
    dense_pa, dense_lateral = images.to(place).unbind(dim=1)

    routed = _ready(build_model("auxloss", num_findings=NUM_FINDINGS), place)
    by_hand, plain = _ready(_HandWrittenAuxLoss(), place), _ready(_PlainDenseNet(), place)

    def loss(predictions: HeadLogits, of: StudyBatch) -> Tensor:
        return head_loss_sums(predictions, batch=of).total / BATCH

    def routed_step() -> None:
        loss(routed(batch), batch).backward()

    def zero_image_step() -> None:
        dense, rows = by_hand(dense_pa, dense_lateral, rows=batch.rows.by_head), batch.rows
        used = HeadLogits(
            joint=dense.joint[rows.both], pa=dense.pa[rows.pa], lateral=dense.lateral[rows.lateral], rows=rows.by_head
        )
        loss(used, batch).backward()

    def loop_step() -> None:
        torch.stack([loss(by_hand.study(single), single) for single in singles]).sum().backward()

    def plain_step() -> None:
        F.binary_cross_entropy_with_logits(plain(dense_pa)[1].float(), batch.labels).backward()

    def in_bf16(step: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            with torch.autocast(place.type, torch.bfloat16):
                step()

        return run

    fp32 = {"routed": routed_step, "zero_image": zero_image_step, "loop": loop_step, "plain": plain_step}
    return fp32 | {"routed_bf16": in_bf16(routed_step), "zero_image_bf16": in_bf16(zero_image_step)}


def _ready(model: Network, place: torch.device) -> Network:
    model.to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.train()


class _PlainDenseNet(nn.Module):
    """torchvision's DenseNet121 as it comes, with one input channel and a tap after dense block 3."""

    def __init__(self) -> None:
        super().__init__()
        densenet = torchvision.models.densenet121(num_classes=NUM_FINDINGS)
        densenet.features.conv0 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
        split = [name for name, _ in densenet.features.named_children()].index("denseblock3") + 1
        self.stem, self.tail = densenet.features[:split], densenet.features[split:]
        self.classifier = densenet.classifier

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled features after dense block 3 and logits."""
        at_merge = self.stem(images)
        return pool(at_merge), self.classifier(pool(self.tail(at_merge)))


class _HandWrittenAuxLoss(nn.Module):
    """The AuxLoss network on dense input, as one writes it without routing."""

    def __init__(self) -> None:
        super().__init__()
        self.pa, self.lateral = _PlainDenseNet(), _PlainDenseNet()
        self.joint = nn.Linear(2 * 1024, NUM_FINDINGS)

    def forward(self, pa: Tensor, lateral: Tensor, *, rows: HeadRows) -> HeadLogits:
        """Every study through both branches, whatever its images are."""
        (pa_features, pa_logits), (lateral_features, lateral_logits) = self.pa(pa), self.lateral(lateral)
        joint = self.joint(torch.cat([pa_features, lateral_features], dim=1))
        return HeadLogits(joint=joint, pa=pa_logits, lateral=lateral_logits, rows=rows)

    def study(self, single: StudyBatch) -> HeadLogits:
        """One study through what it has: the body of the loop with its `if` per study."""
        if len(single.pa) and len(single.lateral):
            predictions: HeadLogits = self(single.pa, single.lateral, rows=single.rows.by_head)
            return predictions
        logits = (self.pa(single.pa) if len(single.pa) else self.lateral(single.lateral))[1]
        pa, lateral = (logits, logits[:0]) if len(single.pa) else (logits[:0], logits)
        return HeadLogits(joint=logits[:0], pa=pa, lateral=lateral, rows=single.rows.by_head)
