"""The epoch plan: which studies form which micro-batch. Pure integers, no torch.

A plan is a function of (seed, epoch, the studies' availability, micro_batch_size, micro-batches per
group) and of nothing else. A group is the micro-batches of one optimizer step over all ranks and
accumulation steps; rank r of R takes micro-batch `a * R + r` of a group in accumulation step a. So
the same studies meet in the same micro-batches for any R with R x accumulation equal, and every
study comes once per epoch.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dualview.views import Availability

Order = Literal["view_balanced", "shuffled"]


@dataclass(frozen=True, kw_only=True)
class EpochPlan:
    """Micro-batches of one epoch, in order: group by group. Of all ranks, or of one (`of_rank`)."""

    studies: np.ndarray  # (S,) uint32, all studies in order of use, or those of one rank
    starts: np.ndarray  # (micro-batches + 1,) int64, bounds of micro-batches within `studies`
    micro_batches_per_group: int

    @property
    def num_groups(self) -> int:
        """Optimizer steps of the epoch."""
        return (len(self.starts) - 1) // self.micro_batches_per_group

    def micro_batch(self, group: int, *, number: int) -> np.ndarray:
        """Studies of micro-batch `number` of a group; empty where the epoch's ragged end has too few."""
        position = group * self.micro_batches_per_group + number
        return self.studies[self.starts[position] : self.starts[position + 1]]

    def of_rank(self, rank: int, *, world_size: int) -> "EpochPlan":
        """What one rank trains on, holding nothing of the others: its micro-batch a is a * R + rank of the whole.

        Raises:
            ValueError: the micro-batches of a group do not divide evenly among the ranks.
        """
        if self.micro_batches_per_group % world_size:
            raise ValueError(
                f"{self.micro_batches_per_group} micro-batches per group do not divide among {world_size} ranks"
            )
        mine = np.arange(rank, len(self.starts) - 1, world_size)
        sizes = self.starts[mine + 1] - self.starts[mine]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        position = np.arange(starts[-1]) - np.repeat(starts[:-1] - self.starts[mine], sizes)
        return EpochPlan(
            studies=self.studies[position],
            starts=starts,
            micro_batches_per_group=self.micro_batches_per_group // world_size,
        )


def num_groups(num_studies: int, *, micro_batch_size: int, micro_batches_per_group: int) -> int:
    """Optimizer steps in one epoch of `plan_epoch`."""
    return -(-num_studies // (micro_batch_size * micro_batches_per_group))


def plan_epoch(
    availability: np.ndarray,
    *,
    seed: int,
    epoch: int,
    micro_batch_size: int,
    micro_batches_per_group: int,
    order: Order = "view_balanced",
) -> EpochPlan:
    """Plan one epoch over studies of the given availability (S,) int8.

    `view_balanced`: every micro-batch of a full group holds the same number of studies of each
    availability, so all ranks of a step do equal work; the mix drifts by at most one study between
    groups (rounding over the epoch). `shuffled`: a plain permutation cut into pieces. What does not
    divide evenly stands in the last group or two, dealt out as evenly as it goes.
    """
    generator = np.random.default_rng([seed, epoch])
    group_size = micro_batch_size * micro_batches_per_group
    if order == "shuffled":
        studies = generator.permutation(np.arange(len(availability), dtype=np.uint32))
        full_groups = len(studies) // group_size
    else:
        by_kind = [
            generator.permutation(np.flatnonzero(availability == kind).astype(np.uint32)) for kind in Availability
        ]
        mix = _mix_per_group(
            np.array([len(kind) for kind in by_kind]),
            micro_batch_size=micro_batch_size,
            micro_batches_per_group=micro_batches_per_group,
        )
        studies, full_groups = _interleave(by_kind, mix=np.repeat(mix, micro_batches_per_group, axis=0)), len(mix)

    ragged = num_groups(
        len(studies) - full_groups * group_size,
        micro_batch_size=micro_batch_size,
        micro_batches_per_group=micro_batches_per_group,
    )
    left = studies[full_groups * group_size :]
    dealt = [left[number :: ragged * micro_batches_per_group] for number in range(ragged * micro_batches_per_group)]
    sizes = [micro_batch_size] * (full_groups * micro_batches_per_group) + [len(part) for part in dealt]
    return EpochPlan(
        studies=np.concatenate([studies[: full_groups * group_size], *dealt]),
        starts=np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]),
        micro_batches_per_group=micro_batches_per_group,
    )


def _mix_per_group(counts: np.ndarray, *, micro_batch_size: int, micro_batches_per_group: int) -> np.ndarray:
    """Studies of each kind in one micro-batch of each full group: (G, 3) int, rows sum to micro_batch_size.

    Cumulative targets are rounded down one inside the other, the rarest kind of all studies and the
    next of the rest, so each is whole, never falls, and follows its share to within one study; the
    commonest kind fills up. Groups stop where a kind would run out.
    """
    rare, middle, common = np.argsort(counts, kind="stable")
    total = int(counts.sum())
    slots = np.arange(total // (micro_batch_size * micro_batches_per_group) + 1) * micro_batch_size
    cumulative = np.empty((len(slots), len(counts)), dtype=np.int64)
    cumulative[:, rare] = slots * counts[rare] // max(total, 1)
    rest = slots - cumulative[:, rare]
    cumulative[:, middle] = rest * counts[middle] // max(total - counts[rare], 1)
    cumulative[:, common] = rest - cumulative[:, middle]
    affordable = (cumulative * micro_batches_per_group <= counts).all(axis=1)
    return np.diff(cumulative[affordable], axis=0)  # `cumulative` only rises: affordable rows come first


def _interleave(by_kind: list[np.ndarray], *, mix: np.ndarray) -> np.ndarray:
    """Studies in micro-batch order, `mix` (micro-batches, 3) of each kind; then what is left, kind by kind."""
    ends = np.cumsum(mix).reshape(mix.shape)  # end of each kind's share in each micro-batch
    placed = np.empty(int(mix.sum()), dtype=np.uint32)
    left = []
    for kind, studies in enumerate(by_kind):
        share = mix[:, kind]
        used = int(share.sum())
        placed[np.repeat(ends[:, kind] - share.cumsum(), share) + np.arange(used)] = studies[:used]
        left.append(studies[used:])
    return np.concatenate([placed, *left])
