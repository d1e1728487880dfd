"""Loaders: the micro-batches that this rank trains on, and its share of an evaluation."""

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeVar

import numpy as np
from torch.utils.data import DataLoader, Sampler

from dualview.config import ViewDropoutConfig
from dualview.data.dataset import Key, Loaded, StudyDataset
from dualview.data.epoch_plan import Order, num_groups, plan_epoch
from dualview.data.table import StudyTable
from dualview.data.view_dropout import drop_views, view_hidden_in
from dualview.views import Availability, View, without_view

Item_contra = TypeVar("Item_contra", contravariant=True)  # key by which a data set is asked for one item
Batch_co = TypeVar("Batch_co", covariant=True)


class TrainingSampler(Sampler[list[Key]]):
    """The keys of every micro-batch of one rank, from one step to the last, epoch after epoch.

    Args:
        availability: (S,) int8 of the training studies.
        micro_batch_size, accumulation_steps, order, view_dropout: as in the configuration.
        seed: of the run.
        first_step, max_steps: from which step, and up to which, not included.
        rank, world_size: this process and how many there are.
    """

    def __init__(
        self,
        availability: np.ndarray,
        *,
        micro_batch_size: int,
        accumulation_steps: int,
        max_steps: int,
        order: Order = "view_balanced",
        view_dropout: ViewDropoutConfig | None = None,
        seed: int,
        rank: int,
        world_size: int,
        first_step: int = 0,
    ) -> None:
        self.availability = availability
        self.micro_batch_size = micro_batch_size
        self.accumulation_steps = accumulation_steps
        self.order = order
        self.view_dropout = view_dropout or ViewDropoutConfig()
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.first_step = first_step
        self.max_steps = max_steps

    @property
    def steps_per_epoch(self) -> int:
        return num_groups(
            len(self.availability),
            micro_batch_size=self.micro_batch_size,
            micro_batches_per_group=self.world_size * self.accumulation_steps,
        )

    def __len__(self) -> int:
        return (self.max_steps - self.first_step) * self.accumulation_steps

    def __iter__(self) -> Iterator[list[Key]]:
        planned = None
        for step in range(self.first_step, self.max_steps):
            epoch, group = divmod(step, self.steps_per_epoch)
            if epoch != planned:
                p_pa, p_lateral = self.view_dropout.at(epoch)
                availability = self.availability
                if not self.view_dropout.whole_step:
                    availability = drop_views(availability, seed=self.seed, epoch=epoch, p_pa=p_pa, p_lateral=p_lateral)
                mine = plan_epoch(
                    availability,
                    seed=self.seed,
                    epoch=epoch,
                    micro_batch_size=self.micro_batch_size,
                    micro_batches_per_group=self.world_size * self.accumulation_steps,
                    order=self.order,
                ).of_rank(self.rank, world_size=self.world_size)
                planned = epoch
            hidden = None
            if self.view_dropout.whole_step:
                hidden = view_hidden_in(step, seed=self.seed, p_pa=p_pa, p_lateral=p_lateral)
            for number in range(self.accumulation_steps):
                studies = mine.micro_batch(group, number=number)
                left = availability[studies] if hidden is None else without_view(availability[studies], hidden)
                yield [Key(epoch, int(study), int(kind)) for study, kind in zip(studies, left, strict=True)]


def training_loader(
    dataset: StudyDataset, *, sampler: TrainingSampler, num_workers: int, pin_memory: bool
) -> DataLoader[Loaded]:
    """One micro-batch an item, in the order of the sampler."""
    return loader(dataset, batches=sampler, num_workers=num_workers, pin_memory=pin_memory)


class EvaluatedDataset(Protocol[Batch_co]):
    """A dataset of the studies of a table, by `Key`."""

    table: StudyTable

    def __getitem__(self, key: Key) -> Any:
        """One study."""

    def collate(self, items: list[Any]) -> Batch_co:
        """Studies as a micro-batch."""


def evaluation_loader(
    dataset: EvaluatedDataset[Batch_co],
    *,
    micro_batch_size: int,
    rank: int,
    world_size: int,
    hide: View | None = None,
    num_workers: int,
    pin_memory: bool,
) -> DataLoader[Batch_co]:
    """This rank's share of every study once: micro-batches of one availability, the same for any world size.

    With `hide`, of every study with both views, and without that view.
    """
    availability = dataset.table.availability
    by_kind = np.argsort(availability, kind="stable")
    if hide is not None:
        by_kind = np.flatnonzero(availability == Availability.BOTH)
        availability = without_view(availability, hide)
    micro_batches = [by_kind[start : start + micro_batch_size] for start in range(0, len(by_kind), micro_batch_size)]
    keys = [
        [Key(0, int(study), int(availability[study])) for study in studies]
        for studies in micro_batches[rank::world_size]
    ]
    return loader(dataset, batches=keys, num_workers=min(num_workers, len(keys)), pin_memory=pin_memory)


class BatchedDataset(Protocol[Item_contra, Batch_co]):
    """A dataset that says how its items become a batch."""

    def __getitem__(self, key: Item_contra) -> Any:
        """The item of this key."""

    def collate(self, items: list[Any]) -> Batch_co:
        """The items as one batch."""


def loader(
    dataset: BatchedDataset[Item_contra, Batch_co],
    *,
    batches: Iterable[list[Item_contra]],
    num_workers: int,
    pin_memory: bool,
) -> DataLoader[Batch_co]:
    """Batches in the order given; those to come are asked for while they are needed, never all at once."""
    return DataLoader[Batch_co](
        dataset,  # type: ignore[arg-type]  # `collate` makes its items batches
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=dataset.collate,
        pin_memory=pin_memory,
        worker_init_fn=_heed_parent_only,
    )


def _heed_parent_only(_worker: int) -> None:
    """A cluster signals all processes of a job; those that read images must outlive the last step of their parent."""
    signals = {signal.SIGTERM, signal.SIGUSR1}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)

    def wait() -> None:
        while signal.sigwaitinfo(signals).si_pid != os.getppid():
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()
