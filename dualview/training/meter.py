"""What the loop keeps an eye on: speed, and rows per branch."""

import time
from dataclasses import fields

from dualview.distributed import Job
from dualview.run import metric_keys
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
            metric_keys.STUDIES_PER_SECOND: counts["studies"] / max(seconds, 1e-9),
            metric_keys.IMAGES_PER_SECOND: (counts["rows_pa"] + counts["rows_lateral"]) / max(seconds, 1e-9),
            metric_keys.SECONDS_PER_STEP: seconds / steps,
            metric_keys.DATA_WAIT_FRACTION: wait / max(seconds, 1e-9),
            metric_keys.rows("pa"): counts["rows_pa"] / steps,
            metric_keys.rows("lateral"): counts["rows_lateral"] / steps,
            metric_keys.rows("both"): counts["rows_both"] / steps,
            metric_keys.idle_micro_batches("pa"): counts["idle_pa"] / steps,
            metric_keys.idle_micro_batches("lateral"): counts["idle_lateral"] / steps,
            metric_keys.LABELLED_STUDIES: counts["labelled"] / steps,
            metric_keys.BAD_IMAGES: self._bad_images,
        }
        self.restart()
        return values
