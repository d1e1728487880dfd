"""Processes that work together: start and stop, sums over ranks, signals, and who speaks when one fails.

The only reader of the launcher's environment. Everything here works unchanged with one process.
"""

import gc
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from types import FrameType
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as differentiable
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, send_to_device
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dualview.config import DistributedConfig, RunConfig
from dualview.errors import AnotherRankFailed, Preempted, UserError

logger = logging.getLogger(__name__)

Anything = TypeVar("Anything")
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
ROLL_CALL_SECONDS = 5.0
POLL_SECONDS = 0.2


class Job:
    """This process among its peers: rank r of world size R. Made by `start`."""

    def __init__(self, accelerator: Accelerator, *, timeout_seconds: float) -> None:
        self.accelerator = accelerator
        self.device: torch.device = accelerator.device
        self.rank: int = accelerator.process_index
        self.world_size: int = accelerator.num_processes
        self.is_main: bool = accelerator.is_main_process
        self.timeout_seconds = timeout_seconds
        self.stop_requested = False  # whether this process got a signal; ranks agree at the end of a step
        # Counts live on the CPU: a group of their own exchanges them without waiting for a GPU.
        self._cpu_group: Any = None
        self._norm_group: Any = None
        if self.world_size > 1:
            timeout = timedelta(seconds=timeout_seconds)
            if dist.get_backend() != "gloo":
                self._cpu_group = dist.new_group(backend="gloo", timeout=timeout)
            self._norm_group = dist.new_group(timeout=timeout)

    def wrap(self, model: nn.Module) -> nn.Module:
        """Move to the device, and into DDP where there are peers, with rank 0's initial weights for all.

        DDP's copying of rank 0's buffers before each forward is switched off after that first copy: it
        would throw away every other rank's BatchNorm statistics (see models/norm.py).
        """
        wrapped: nn.Module = self.accelerator.prepare_model(model)
        if isinstance(wrapped, DistributedDataParallel):
            # DDP's switch was called broadcast_buffers before torch 2.13.
            switch = "forward_sync_buffers" if hasattr(wrapped, "forward_sync_buffers") else "broadcast_buffers"
            setattr(wrapped, switch, False)
        return wrapped

    def move(self, batch: Anything) -> Anything:
        """The same nested tuples with every tensor on this rank's device."""
        moved: Anything = send_to_device(batch, self.device, non_blocking=True)
        return moved

    def sum(self, values: Tensor) -> Tensor:
        """Sum over ranks of a tensor on this rank's device, in place; every rank must call, with equal shapes."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def differentiable_sum(self, values: Tensor) -> Tensor:
        """Sum over ranks whose gradient is summed over ranks too, apart from DDP's own exchange."""
        if self.world_size == 1:
            return values
        total: Tensor = differentiable.all_reduce(values, group=self._norm_group)
        return total

    def sum_numbers(self, numbers: list[float]) -> list[float]:
        """Sums over ranks of a short list of numbers, exact for counts up to 2^53."""
        values = torch.tensor(numbers, dtype=torch.float64)
        if self.world_size > 1:
            dist.all_reduce(values, group=self._cpu_group)
        sums: list[float] = values.tolist()
        return sums

    def gather_texts(self, texts: list[str]) -> list[str]:
        """The texts of all ranks, sorted, each once; every rank must call."""
        everyones: list[list[str]] = [texts] * self.world_size
        if self.world_size > 1:
            dist.all_gather_object(everyones, texts, group=self._cpu_group)
        return sorted(set().union(*everyones))

    def share(self, value: Anything) -> Anything:
        """The main process's value, on every rank; the others' are not looked at."""
        box = [value]
        if self.world_size > 1:
            dist.broadcast_object_list(box, src=0, group=self._cpu_group)
        return box[0]

    def no_sync(self, model: nn.Module, *, when: bool) -> AbstractContextManager[None]:
        """Leave out DDP's gradient exchange; must enclose forward and backward."""
        return model.no_sync() if when and isinstance(model, DistributedDataParallel) else nullcontext()

    def autocast(self, precision: Literal["fp32", "bf16", "fp16"]) -> torch.autocast:
        """The network's forward pass in fewer bits where `precision` says so; weights and losses are no part of it."""
        dtype = torch.float16 if precision == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype, enabled=precision != "fp32")

    def node_main_first(self) -> AbstractContextManager[None]:
        """Rank 0 of each node runs the block first."""
        context: AbstractContextManager[None] = self.accelerator.local_main_process_first()
        return context

    def once_per_node(self, work: Callable[[], object]) -> None:
        """Do `work` in the first process of each node, however long it takes; all ranks call and wait.

        It runs in a thread while the ranks keep in touch, so that no time limit of theirs is reached.

        Raises:
            AnotherRankFailed: the work of another process failed; its own error is raised as it is.
        """
        failed: list[BaseException] = []

        def run() -> None:
            try:
                work()
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=run, daemon=True)
        if self.accelerator.is_local_main_process:
            thread.start()
        while self.sum_numbers([thread.is_alive()])[0]:
            thread.join(POLL_SECONDS) if thread.ident else time.sleep(POLL_SECONDS)
        if self.sum_numbers([len(failed)])[0]:
            raise failed[0] if failed else AnotherRankFailed

    def barrier(self) -> None:
        """Wait for every rank."""
        self.sum_numbers([0.0])


@contextmanager
def start(run: RunConfig, *, distributed: DistributedConfig) -> Iterator[Job]:
    """Join the job that the launcher describes, or be a job of one; leave it when the block ends.

    Inside, SIGTERM and SIGUSR1 only set `Job.stop_requested`. An error leaves the block as it is on the
    rank that met it first, and as AnotherRankFailed on those that fail because of it.

    Raises:
        UserError: `run.device` is cuda and there is no GPU, the launcher started processes that do not
            find each other, or a rank stopped taking part for `timeout_seconds`.
    """
    if run.device == "cuda" and not torch.cuda.is_available():
        raise UserError("run.device is cuda, but this process sees no GPU; use run.device=auto or cpu")
    on_cpu = run.device == "cpu" or not torch.cuda.is_available()
    if on_cpu:
        # Accelerate's own launcher flags for CPU start separate worlds of one process (seen in accelerate
        # 1.15). With this variable the processes that its GPU launcher starts are one gloo world.
        os.environ["ACCELERATE_USE_CPU"] = "true"
    if run.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic algorithms need it
        torch.use_deterministic_algorithms(True, warn_only=not on_cpu)
        torch.backends.cudnn.benchmark = False
    _refuse_stale_store()
    accelerator = Accelerator(
        cpu=on_cpu,
        mixed_precision="no",  # `Job.autocast` does it
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=distributed.idle_branch == "skip"),
            InitProcessGroupKwargs(timeout=timedelta(seconds=distributed.timeout_seconds)),
        ],
    )
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != launched:
        raise UserError(
            f"the launcher started {launched} processes, but they see {accelerator.num_processes}. Launch with one of "
            "the files in launch/, such as accelerate launch --config_file launch/cpu2.yaml"
        )
    job = Job(accelerator, timeout_seconds=distributed.timeout_seconds)
    try:
        with _stop_signals_noted(job):
            yield job
    except Preempted:
        # The launcher ends all processes when one ends: wait until the main process has closed its files.
        job.barrier()
        raise
    except Exception as error:
        say = _what_to_say(error, job=job) if job.world_size > 1 else error
        if say is error:
            raise
        raise say from error
    finally:
        gc.collect()  # Gloo may abort when DDP still refers to a group that is gone.
        if dist.is_initialized():
            dist.destroy_process_group()
        # Accelerate keeps its state in singletons, which a second run in this process must not inherit.
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        PartialState._reset_state()
        torch.use_deterministic_algorithms(False)


def is_main_by_environment() -> bool:
    """Whether this is the main process, before or outside a job."""
    return os.environ.get("RANK", "0") == "0"


def is_alone_by_environment() -> bool:
    """Whether no launcher has started this process among others."""
    return os.environ.get("WORLD_SIZE", "1") == "1"


def launcher_error_file() -> str | None:
    """Where torch's launcher looks for a worker's last words, which it prints when it ends."""
    return os.environ.get("TORCHELASTIC_ERROR_FILE")


def _refuse_stale_store() -> None:
    """Refuse a store that torch's launcher keeps for all attempts, with the addresses of processes that died.

    A group that is restarted on it hangs, or does not, by chance.

    Raises:
        UserError: this is a restarted group on such a store (PyTorch issue 167288).
    """
    restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    if restarted and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        raise UserError(
            "the launcher restarted this group on a store with the addresses of processes that are gone. Launch with "
            "launch/train.sh; or export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 and use the c10d rendezvous "
            "(PET_STANDALONE=1 on one machine, --rdzv_backend c10d on several), or without --max_restarts"
        )


# -- signals ---------------------------------------------------------------------------------------


@contextmanager
def _stop_signals_noted(job: Job) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets only the main thread handle signals.
        return

    def note(_number: int, _frame: FrameType | None) -> None:
        job.stop_requested = True

    before: dict[int, Any] = {number: signal.signal(number, note) for number in STOP_SIGNALS}
    try:
        yield
    except Preempted:
        if job.world_size > 1:
            # The launcher signals every rank that ends later than the first: these are to end in peace.
            before = dict.fromkeys(before, signal.SIG_IGN)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# -- which rank speaks when something fails --------------------------------------------------------


def _what_to_say(error: Exception, *, job: Job) -> Exception:
    """The error itself on the rank that met it first, AnotherRankFailed on all others.

    The ranks agree through the store of the process group, which needs no other rank's help. The
    first to raise an error of its own is the one to speak. Where nobody raised, a rank stopped or
    died: the lowest of those that wait names it.
    """
    # "pair closure" is what gloo says where a backward pass waits for several exchanges at once.
    words = ("gloo", "NCCL", "by peer", "pair closure")
    lost_contact = isinstance(error, dist.DistError) or any(word in str(error) for word in words)
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    try:
        everyones = dist.distributed_c10d._get_default_store()
        store = dist.PrefixStore(f"dualview/{attempt}", everyones)  # type: ignore[attr-defined]
        store.set_timeout(timedelta(seconds=ROLL_CALL_SECONDS))
        if not lost_contact:
            if store.add("raised", 1) > 1:
                return AnotherRankFailed(str(error))
            if isinstance(error, UserError):
                error.rank = job.rank
            return error
        store.set(f"present/{job.rank}", "")
        deadline = time.monotonic() + ROLL_CALL_SECONDS
        while time.monotonic() < deadline and not job.stop_requested:
            if store.add("raised", 0):
                return AnotherRankFailed(str(error))
            time.sleep(0.1)
        present = [rank for rank in range(job.world_size) if store.check([f"present/{rank}"])]
    except RuntimeError:  # Rank 0 holds the store, so a store that does not answer means that rank 0 is gone.
        present = list(range(1, job.world_size))
    absent = [rank for rank in range(job.world_size) if rank not in present]
    if job.stop_requested or not absent or job.rank != min(present):
        return AnotherRankFailed(str(error))
    hung = "imed out" in str(error) or "imeout" in str(error)
    what = f"took no part for {job.timeout_seconds:g} s (distributed.timeout_seconds)" if hung else "is gone"
    named = UserError(
        f"rank {', '.join(map(str, absent))} of {job.world_size} {what}; the others waited and have stopped. "
        "The newest checkpoint is whole: start the same command again to continue from it"
    )
    named.rank = job.rank
    return named
