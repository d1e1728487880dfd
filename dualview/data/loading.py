"""Loaders: the micro-batches that this rank trains on, and its share of an evaluation."""

from collections.abc import Iterator
from functools import partial

import numpy as np
from torch.utils.data import DataLoader, Sampler

from dualview.config import TrainConfig
from dualview.data.dataset import Loaded, StudyDataset, collate
from dualview.schedule import num_groups, plan_epoch

Key = tuple[int, int]  # (epoch, row of the study table)


class TrainingSampler(Sampler[list[Key]]):
    """The keys of every micro-batch of one rank, from the first step to the last, epoch after epoch."""

    def __init__(self, availability: np.ndarray, *, config: TrainConfig, seed: int, rank: int, world_size: int) -> None:
        self.availability = availability
        self.config = config
        self.seed = seed
        self.rank = rank
        self.world_size = world_size

    @property
    def steps_per_epoch(self) -> int:
        return num_groups(
            len(self.availability),
            micro_batch_size=self.config.micro_batch_size,
            micro_batches_per_group=self.world_size * self.config.accumulation_steps,
        )

    @property
    def max_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.config.max_steps or self.config.epochs * self.steps_per_epoch

    def __len__(self) -> int:
        return self.max_steps * self.config.accumulation_steps

    def __iter__(self) -> Iterator[list[Key]]:
        for step in range(self.max_steps):
            epoch, group = divmod(step, self.steps_per_epoch)
            if group == 0:
                plan = plan_epoch(
                    self.availability,
                    seed=self.seed,
                    epoch=epoch,
                    micro_batch_size=self.config.micro_batch_size,
                    micro_batches_per_group=self.world_size * self.config.accumulation_steps,
                    order=self.config.order,
                )
            for accumulation_step in range(self.config.accumulation_steps):
                number = accumulation_step * self.world_size + self.rank
                yield [(epoch, int(study)) for study in plan.micro_batch(group, number=number)]


def training_loader(
    dataset: StudyDataset, *, sampler: TrainingSampler, num_workers: int, pin_memory: bool
) -> DataLoader[Loaded]:
    """One micro-batch an item, in the order of the sampler."""
    return _loader(dataset, batches=sampler, num_workers=num_workers, pin_memory=pin_memory)


def evaluation_loader(
    dataset: StudyDataset, *, micro_batch_size: int, rank: int, world_size: int, num_workers: int, pin_memory: bool
) -> DataLoader[Loaded]:
    """This rank's share of every study once: micro-batches of one availability, the same for any world size."""
    by_kind = np.argsort(dataset.table.availability, kind="stable")
    micro_batches = [by_kind[start : start + micro_batch_size] for start in range(0, len(by_kind), micro_batch_size)]
    keys = [[(0, int(study)) for study in studies] for studies in micro_batches[rank::world_size]]
    return _loader(dataset, batches=keys, num_workers=min(num_workers, len(keys)), pin_memory=pin_memory)


def _loader(
    dataset: StudyDataset, *, batches: Sampler[list[Key]] | list[list[Key]], num_workers: int, pin_memory: bool
) -> DataLoader[Loaded]:
    return DataLoader[Loaded](
        dataset,  # type: ignore[arg-type]  # its items are studies; collate makes them Loaded
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=partial(collate, num_findings=len(dataset.table.findings), image_size_px=dataset.image_size_px),
        pin_memory=pin_memory,
    )
