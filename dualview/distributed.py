"""Processes that work together: start and stop, sums over ranks, and who speaks.

The only reader of the launcher's environment. Everything here works unchanged with one process.
"""

import gc
import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, send_to_device
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dualview.config import DistributedConfig, RunConfig
from dualview.errors import UserError

Moved = TypeVar("Moved")


class Job:
    """This process among its peers: rank r of world size R. Made by `start`."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.device: torch.device = accelerator.device
        self.rank: int = accelerator.process_index
        self.world_size: int = accelerator.num_processes
        self.is_main: bool = accelerator.is_main_process

    def wrap(self, model: nn.Module) -> nn.Module:
        """Move to the device, and into DDP where there are peers, with rank 0's initial weights for all.

        DDP's copying of rank 0's buffers before each forward is switched off after that first copy: it
        would throw away every other rank's BatchNorm statistics (see models/norm.py).
        """
        wrapped: nn.Module = self.accelerator.prepare_model(model)
        if isinstance(wrapped, DistributedDataParallel):
            # called broadcast_buffers before torch 2.13
            switch = "forward_sync_buffers" if hasattr(wrapped, "forward_sync_buffers") else "broadcast_buffers"
            setattr(wrapped, switch, False)
        return wrapped

    def move(self, batch: Moved) -> Moved:
        """The same nested tuples with every tensor on this rank's device."""
        moved: Moved = send_to_device(batch, self.device, non_blocking=True)
        return moved

    def sum(self, values: Tensor) -> Tensor:
        """Sum over ranks, in place; every rank must call, with equal shapes."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def sum_numbers(self, numbers: list[float]) -> list[float]:
        """Sums over ranks of a short list of numbers, exact for counts up to 2^53."""
        values: list[float] = self.sum(torch.tensor(numbers, dtype=torch.float64, device=self.device)).tolist()
        return values

    def gather_texts(self, texts: list[str]) -> list[str]:
        """The texts of all ranks, sorted, each once; every rank must call."""
        everyones: list[list[str]] = [texts] * self.world_size
        if self.world_size > 1:
            dist.all_gather_object(everyones, texts)
        return sorted(set().union(*everyones))

    def no_sync(self, model: nn.Module, *, when: bool) -> AbstractContextManager[None]:
        """Leave out DDP's gradient exchange; must enclose forward and backward."""
        return model.no_sync() if when and isinstance(model, DistributedDataParallel) else _nothing()

    def node_main_first(self) -> AbstractContextManager[None]:
        """The first process of each node goes through the block before the node's others enter it."""
        context: AbstractContextManager[None] = self.accelerator.local_main_process_first()
        return context

    def barrier(self) -> None:
        self.accelerator.wait_for_everyone()


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def start(run: RunConfig, *, distributed: DistributedConfig) -> Iterator[Job]:
    """Join the job that the launcher describes, or be a job of one; leave it when the block ends.

    Raises:
        UserError: `run.device` is cuda and there is no GPU, or the launcher started processes that do
            not find each other.
    """
    if run.device == "cuda" and not torch.cuda.is_available():
        raise UserError("run.device is cuda, but this process sees no GPU; use run.device=auto or cpu")
    on_cpu = run.device == "cpu" or not torch.cuda.is_available()
    if on_cpu:
        # Accelerate's own launcher flags for CPU start separate worlds of one process (facts of accelerate 1.15);
        # this variable makes what its GPU launcher starts into one gloo world.
        os.environ["ACCELERATE_USE_CPU"] = "true"
    if run.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # asked for by torch.use_deterministic_algorithms
        torch.use_deterministic_algorithms(True, warn_only=not on_cpu)
        torch.backends.cudnn.benchmark = False
    accelerator = Accelerator(
        cpu=on_cpu,
        mixed_precision="no",  # autocast is ours, see train.py
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=True),
            InitProcessGroupKwargs(timeout=timedelta(seconds=distributed.timeout_seconds)),
        ],
    )
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != launched:
        raise UserError(
            f"the launcher started {launched} processes, but they see {accelerator.num_processes}. Launch with one of "
            "the files in launch/, such as accelerate launch --config_file launch/cpu2.yaml"
        )
    logging.getLogger("dualview").debug("rank %d of %d", accelerator.process_index, accelerator.num_processes)
    try:
        yield Job(accelerator)
    finally:
        gc.collect()  # drop DDP's references before the group goes, or gloo may abort
        if dist.is_initialized():
            dist.destroy_process_group()
        # Accelerate keeps its state in singletons: a second run in this process must not inherit them.
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        PartialState._reset_state()
        torch.use_deterministic_algorithms(False)


def is_main_by_environment() -> bool:
    """Whether this is the main process, before or outside a job."""
    return os.environ.get("RANK", "0") == "0"
