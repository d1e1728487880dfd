"""What exactness costs: a training step with the global count and the pooled statistics, and one without.

Both are the same AuxLoss network on DenseNet121 under real DDP, the same optimizer and gradient norms, and
the same micro-batches of 8 studies: 4 with both views, 3 PA only, 1 lateral only. `exact` is the step of
`dualview train`. `plain` is what a script without dualview does: each rank divides by its own count, and DDP
copies rank 0's BatchNorm statistics. Rounds alternate between the two, so that drifts of the machine hit both.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from rich.table import Table
from torch.nn.parallel import DistributedDataParallel

from dualview.batch import StudyBatch
from dualview.config import Config
from dualview.data.dataset import Loaded
from dualview.distributed import Job
from dualview.errors import UserError
from dualview.models import build_model
from dualview.models.network import Network
from dualview.training.learner import build_learner
from dualview.training.step import count, finish_gradients, forward, take_step

NUM_FINDINGS = 14
CONFIG = Config.model_validate({"train": {"channels_last": False}})
STUDIES = ((True, True),) * 4 + ((True, False),) * 3 + ((False, True),)


@dataclass(frozen=True, kw_only=True)
class ExactnessBench:
    """Result of `measure`; seconds of one optimizer step, medians over rounds."""

    device: str
    ranks: int
    image_size_px: int
    rounds: int
    seconds_exact: float
    seconds_plain: float
    slowdown: float  # median over rounds of exact / plain; 1.03 is 3 % slower

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def measure(
    *, job: Job, image_size_px: int, rounds: int, track: Callable[[Sequence[int]], Iterable[int]] = iter
) -> ExactnessBench:
    """Time one optimizer step of each kind per round, after one of warm-up; every rank must call.

    Raises:
        UserError: there is only one process, which exchanges nothing.
    """
    if job.world_size < 2:
        raise UserError(
            "this bench compares what ranks exchange, but there is one process: "
            "accelerate launch --config_file launch/cpu2.yaml -m dualview bench exactness"
        )
    steps = {
        "exact": _exact_step(job, image_size_px=image_size_px),
        "plain": _plain_step(job, image_size_px=image_size_px),
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for round_number in track(range(rounds + 1)):
        for name, step in steps.items():
            job.barrier()
            started = time.perf_counter()
            step(round_number)
            if job.device.type == "cuda":
                torch.cuda.synchronize()
            job.barrier()  # A step is over when the slowest rank is done.
            if round_number > 0:
                seconds[name].append(time.perf_counter() - started)
    ratios = [exact / plain for exact, plain in zip(seconds["exact"], seconds["plain"], strict=True)]
    return ExactnessBench(
        device=torch.cuda.get_device_name() if job.device.type == "cuda" else "cpu",
        ranks=job.world_size,
        image_size_px=image_size_px,
        rounds=rounds,
        seconds_exact=statistics.median(seconds["exact"]),
        seconds_plain=statistics.median(seconds["plain"]),
        slowdown=statistics.median(ratios),
    )


def as_table(result: ExactnessBench) -> Table:
    """The result for a terminal."""
    table = Table(
        title=f"one optimizer step of {len(STUDIES)} studies per rank, {result.ranks} ranks, "
        f"{result.image_size_px} px, on {result.device}",
        caption=f"exact / plain in the same round: {result.slowdown:.3f}, median of {result.rounds} rounds",
    )
    for column in ("step", "seconds", "steps / s"):
        table.add_column(column, justify="left" if column == "step" else "right")
    for name, seconds in (("exact", result.seconds_exact), ("plain", result.seconds_plain)):
        table.add_row(name, f"{seconds:.3f}", f"{1 / seconds:.2f}")
    return table


def _micro_batch(job: Job, image_size_px: int) -> StudyBatch:
    generator = torch.Generator().manual_seed(job.rank)
    images = torch.rand(len(STUDIES), 2, 1, image_size_px, image_size_px, generator=generator) * 2 - 1
    labels = torch.randint(0, 2, (len(STUDIES), NUM_FINDINGS), generator=generator).float()
    return StudyBatch.from_dense(images, view_mask=torch.tensor(STUDIES), labels=labels)


def _exact_step(job: Job, *, image_size_px: int) -> Callable[[int], None]:
    group = [Loaded(_micro_batch(job, image_size_px), ())]
    learner = build_learner(_network(), config=CONFIG, job=job)

    def step(number: int) -> None:
        take_step(learner, group, counts=count(group, step=number, job=job), step=number, job=job)

    return step


def _plain_step(job: Job, *, image_size_px: int) -> Callable[[int], None]:
    batch = _micro_batch(job, image_size_px)
    learner = build_learner(_network(), config=CONFIG, job=job)
    # Plain DDP keeps its default, which copies the buffers of rank 0 before each forward pass.
    plain = DistributedDataParallel(learner.model, find_unused_parameters=True)
    learner = replace(learner, wrapped=plain)
    counts = count([Loaded(batch, ())], step=0, job=job)  # counted once, for the gradient norms alone

    def step(_number: int) -> None:
        losses = forward(learner, job.move(batch), job=job)
        (losses.total / batch.num_studies).backward()
        finish_gradients(learner.model, counts=counts, clip_norm=None)
        learner.optimizer.step()
        learner.optimizer.zero_grad(set_to_none=True)

    return step


def _network() -> Network:
    return build_model("auxloss", num_findings=NUM_FINDINGS, seed=0).train()
