"""What the order of studies costs: idle branches, and ranks that wait for the one with most images.

No training: the epoch plans themselves are counted, with one micro-batch per rank and step.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from rich.table import Table

from dualview.data.epoch_plan import Order, plan_epoch
from dualview.errors import UserError
from dualview.views import Availability

ORDERS: tuple[Order, ...] = ("view_balanced", "shuffled")
RANKS = tuple(2**power for power in range(13))  # powers of 2 from 1 to 4,096


@dataclass(frozen=True, kw_only=True)
class ScheduleRow:
    """One world size under one order; means over the steps of an epoch."""

    ranks: int
    order: Order
    steps: int
    straggler: float  # mean over steps of the slowest rank's images / the mean rank's images
    straggler_full_steps: float | None  # `straggler` over steps in which every rank has a whole micro-batch
    idle_pa: float  # probability that a rank's micro-batch has no PA image
    idle_lateral: float  # probability that a rank's micro-batch has no lateral image
    idle_everywhere_pa: float  # probability that no rank of a step has a PA image
    idle_everywhere_lateral: float  # probability that no rank of a step has a lateral image
    rows_pa: float  # mean PA images per micro-batch
    rows_lateral: float  # mean lateral images per micro-batch


def parse_mix(text: str) -> tuple[float, float, float]:
    """Fractions of both / PA only / lateral only from a text such as `50/49/1`.

    Raises:
        UserError: not three numbers of at least 0, or all of them 0.
    """
    try:
        parts = [float(part) for part in text.split("/")]
    except ValueError:
        parts = []
    if len(parts) != 3 or min(parts) < 0 or not 0 < sum(parts) < np.inf:
        raise UserError(f"--mix is '{text}'; write shares of both/PA only/lateral only, such as 50/49/1")
    both, pa_only, lateral_only = (part / sum(parts) for part in parts)
    return both, pa_only, lateral_only


def studies_of_mix(mix: tuple[float, float, float], *, num_studies: int) -> np.ndarray:
    """Availability (S,) int8 of a dataset with this mix, to the nearest study."""
    bounds = np.rint(np.cumsum([0.0, *mix]) * num_studies).astype(np.int64)
    return np.repeat(np.arange(3, dtype=np.int8), np.diff(bounds))


def measure(
    *,
    availability: np.ndarray | None = None,
    mix: tuple[float, float, float] | None = None,
    ranks: Sequence[int] = RANKS,
    micro_batch_size: int = 8,
    steps: int = 200,
    seed: int = 0,
    track: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> list[ScheduleRow]:
    """Count one epoch for each number of ranks and each order.

    Give either the availability (S,) of a dataset, or a mix, of which `steps` steps and a half are planned.
    """
    rows = []
    for world_size in track(ranks):
        if availability is None:
            assert mix is not None
            studies = studies_of_mix(mix, num_studies=(2 * steps + 1) * world_size * micro_batch_size // 2)
        else:
            studies = availability
        rows += [
            _count(studies, world_size=world_size, micro_batch_size=micro_batch_size, order=order, seed=seed)
            for order in ORDERS
        ]
    return rows


def _count(availability: np.ndarray, *, world_size: int, micro_batch_size: int, order: Order, seed: int) -> ScheduleRow:
    plan = plan_epoch(
        availability,
        seed=seed,
        epoch=0,
        micro_batch_size=micro_batch_size,
        micro_batches_per_group=world_size,
        order=order,
    )
    kinds = availability[plan.studies]

    def per_step_and_rank(per_study: np.ndarray) -> np.ndarray:
        """Sums over the studies of each micro-batch: (steps, ranks)."""
        up_to = np.concatenate([[0], np.cumsum(per_study, dtype=np.int64)])
        sums: np.ndarray = np.diff(up_to[plan.starts]).reshape(plan.num_groups, world_size)
        return sums

    pa = per_step_and_rank(kinds != Availability.LATERAL_ONLY)
    lateral = per_step_and_rank(kinds != Availability.PA_ONLY)
    images = pa + lateral
    straggler = images.max(axis=1) / images.mean(axis=1)
    full = (np.diff(plan.starts).reshape(images.shape) == micro_batch_size).all(axis=1)
    return ScheduleRow(
        ranks=world_size,
        order=order,
        steps=plan.num_groups,
        straggler=float(straggler.mean()),
        straggler_full_steps=float(straggler[full].mean()) if full.any() else None,
        idle_pa=float((pa == 0).mean()),
        idle_lateral=float((lateral == 0).mean()),
        idle_everywhere_pa=float((pa == 0).all(axis=1).mean()),
        idle_everywhere_lateral=float((lateral == 0).all(axis=1).mean()),
        rows_pa=float(pa.mean()),
        rows_lateral=float(lateral.mean()),
    )


def as_json(rows: list[ScheduleRow], *, of: str) -> dict[str, object]:
    return {"of": of, "rows": [asdict(row) for row in rows]}


def as_table(rows: list[ScheduleRow], *, of: str) -> Table:
    """The result for a terminal."""
    table = Table(
        title=f"one epoch of {of}",
        caption="straggler: images of the slowest rank / of the mean rank, mean over steps; "
        "idle: micro-batches without an image of the view",
    )
    for column in ("ranks", "order", "straggler", "idle PA", "idle lateral", "PA rows", "lateral rows"):
        table.add_column(
            column, justify="left" if column == "order" else "right", no_wrap=column in ("order", "straggler")
        )
    for row in rows:
        table.add_row(
            f"{row.ranks:,}", row.order, f"{row.straggler:.3f}", f"{row.idle_pa:.1%}",
            f"{row.idle_lateral:.1%}", f"{row.rows_pa:.2f}", f"{row.rows_lateral:.2f}",
            end_section=row.order == ORDERS[-1],
        )  # fmt: skip
    return table
