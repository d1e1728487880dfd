"""Where a training is: what its loop moves on and what a checkpoint keeps, so that a run continues as if never stopped.

No random generator is part of it: every draw is a function of (seed, epoch or step, study or micro-batch), so the
step is the position in the epoch plan and in every stream of random numbers.
"""

from dataclasses import dataclass, field
from typing import Any, Self


@dataclass
class BestCheckpoint:
    """The evaluation with the highest `train.best_metric`, and how long ago that was."""

    value: float | None = None  # best so far; None: no evaluation has defined it
    step: int = 0
    evaluations_since: int = 0

    def see(self, value: float | None, *, step: int) -> bool:
        """Take in an evaluation; True where it is the best. While none was defined, the latest counts as best."""
        better = self.value is None or (value is not None and value > self.value)
        if better:
            self.value, self.step, self.evaluations_since = value, step, 0
        else:
            self.evaluations_since += 1
        return better


@dataclass
class BadStepCounts:
    """How many steps were skipped because a loss or gradient was not finite."""

    total: int = 0
    in_a_row: int = 0


@dataclass(kw_only=True)
class TrainState:
    """What the training loop moves on, and beside it what must not have changed when the run is continued."""

    run_id: str
    micro_batches_per_step: int  # number over all ranks and accumulation steps
    train_studies: str  # fingerprint of the training studies (run/resume.py)
    step: int = 0  # optimizer steps done
    best: BestCheckpoint = field(default_factory=BestCheckpoint)
    bad_steps: BadStepCounts = field(default_factory=BadStepCounts)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for `torch.save`; `from_dict` takes them back."""
        return {
            "run_id": self.run_id,
            "micro_batches_per_step": self.micro_batches_per_step,
            "train_studies": self.train_studies,
            "step": self.step,
            "best": {
                "macro_auroc": self.best.value,  # The name is that of the first versions, which had no other metric.
                "step": self.best.step,
                "since": self.best.evaluations_since,
            },
            "bad_steps": [self.bad_steps.total, self.bad_steps.in_a_row],
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The state that `to_dict` gave; other keys, such as those of older checkpoints, are not looked at."""
        best, (total, in_a_row) = values["best"], values["bad_steps"]
        return cls(
            run_id=values["run_id"],
            micro_batches_per_step=values["micro_batches_per_step"],
            train_studies=values["train_studies"],
            step=values["step"],
            best=BestCheckpoint(best["macro_auroc"], best["step"], best["since"]),
            bad_steps=BadStepCounts(total, in_a_row),
        )
