"""What the loop keeps an eye on: speed, rows per branch, and the best checkpoint so far."""

import time
from dataclasses import dataclass, fields
from typing import Any

from dualview.distributed import Job
from dualview.training.step import StepCounts


class Meter:
    """Speed and routing since the last reading. Counts are global, times the mean over ranks."""

    def __init__(self, *, job: Job) -> None:
        self._job = job
        self._bad_images = 0
        self.restart()

    def restart(self) -> None:
        """Forget what was measured since the last reading, so that an evaluation is not counted as training."""
        self._counts = dict.fromkeys((field.name for field in fields(StepCounts)), 0)
        self._steps = 0
        self._seconds = self._wait_seconds = 0.0

    def start_step(self) -> None:
        self._started = time.perf_counter()

    def data_arrived(self) -> None:
        self._wait_seconds += time.perf_counter() - self._started

    def end_step(self, counts: StepCounts) -> None:
        self._seconds += time.perf_counter() - self._started
        self._steps += 1
        self._bad_images += counts.bad_images
        for name in self._counts:
            self._counts[name] += getattr(counts, name)

    def read(self) -> dict[str, float | int | None]:
        """Speeds and mean rows per step since the last reading; all ranks call together."""
        seconds, wait = (
            total / self._job.world_size for total in self._job.sum_numbers([self._seconds, self._wait_seconds])
        )
        counts, steps = self._counts, max(self._steps, 1)
        values: dict[str, float | int | None] = {
            "speed/studies_per_second": counts["studies"] / max(seconds, 1e-9),
            "speed/images_per_second": (counts["rows_pa"] + counts["rows_lateral"]) / max(seconds, 1e-9),
            "speed/seconds_per_step": seconds / steps,
            "speed/data_wait_fraction": wait / max(seconds, 1e-9),
            "routing/rows_pa": counts["rows_pa"] / steps,
            "routing/rows_lateral": counts["rows_lateral"] / steps,
            "routing/rows_both": counts["rows_both"] / steps,
            "routing/idle_micro_batches_pa": counts["idle_pa"] / steps,
            "routing/idle_micro_batches_lateral": counts["idle_lateral"] / steps,
            "routing/labelled_studies": counts["labelled"] / steps,
            "routing/bad_images_total": self._bad_images,
        }
        self.restart()
        return values


@dataclass
class BestCheckpoint:
    """The evaluation with the highest validation macro AUROC, and how long ago that was."""

    patience: int | None  # evaluations without improvement to bear; None bears any number
    macro_auroc: float | None = None
    step: int = 0
    _since: int = 0

    def see(self, macro_auroc: float | None, *, step: int) -> bool:
        """Take in an evaluation; True where it is the best. While none was defined, the latest counts as best."""
        better = self.macro_auroc is None or (macro_auroc is not None and macro_auroc > self.macro_auroc)
        if better:
            self.macro_auroc, self.step, self._since = macro_auroc, step, 0
        else:
            self._since += 1
        return better

    def state(self) -> dict[str, Any]:
        """For a checkpoint; `load_state` takes it back."""
        return {"macro_auroc": self.macro_auroc, "step": self.step, "since": self._since}

    def load_state(self, state: dict[str, Any]) -> None:
        self.macro_auroc, self.step, self._since = state["macro_auroc"], state["step"], state["since"]

    @property
    def patience_is_over(self) -> bool:
        return self.patience is not None and self._since >= self.patience
