"""Steps whose loss or gradient was not finite: which studies they held, and when there are too many."""

import logging
from pathlib import Path

import numpy as np

from dualview.data.dataset import Loaded
from dualview.distributed import Job
from dualview.errors import UserError
from dualview.run.state import BadStepCounts
from dualview.training.step import StepOutcome

logger = logging.getLogger(__name__)


class BadSteps:
    """Steps whose loss or gradient was not finite: skipped by all ranks, counted, and named in a local file.

    The file is `bad_steps.txt` in the run directory. It names studies, so nothing of it is sent anywhere.
    """

    def __init__(self, file: Path, *, counts: BadStepCounts, limit: int, study_ids: np.ndarray, job: Job) -> None:
        """
        Args:
            file: list that is added to.
            counts: of the run so far; moved on.
            limit: bad steps in a row that end the run.
            study_ids: (S,) of the training studies.
        """
        self.file = file
        self.counts = counts
        self._limit = limit
        self._study_ids = study_ids
        self._job = job

    def see(self, outcome: StepOutcome, *, group: list[Loaded], step: int) -> None:
        """Take note of how a step came out. All ranks call together.

        Args:
            group: this rank's micro-batches.
            step: optimizer steps done before it.

        Raises:
            UserError: the step was the last of `train.max_bad_steps` bad ones in a row.
        """
        if outcome.is_finite:
            self.counts.in_a_row = 0
            return
        if outcome.has_overflowed:
            return  # The next step is scaled less; at a scale of 1 it would count.
        self.counts.total += 1
        self.counts.in_a_row += 1
        losses = outcome.loss_sums.sum(dim=1).tolist()
        texts = []
        for number, ((batch, *_), loss) in enumerate(zip(group, losses, strict=True)):
            ids = ", ".join(str(self._study_ids[row]) for row in batch.study_index.tolist())
            micro_batch = number * self._job.world_size + self._job.rank
            texts.append(f"step {step + 1}, micro-batch {micro_batch}, rank {self._job.rank}: loss {loss:g}: {ids}")
        texts = self._job.gather_texts(texts)
        if self._job.is_main:
            with self.file.open("a", encoding="utf-8") as file:
                file.writelines(f"{text}\n" for text in texts)
            logger.warning("step %d: loss or gradient is not finite; skipped on all ranks, see %s", step + 1, self.file)
        if self.counts.in_a_row >= self._limit:
            raise UserError(
                f"loss or gradient was not finite in {self.counts.in_a_row} steps in a row, up to step {step + 1}; the "
                f"optimizer used none of them. Their studies are named in {self.file}. Lower optim.learning_rate, set "
                "optim.gradient_clip_norm=1, or use train.precision=fp32"
            )
