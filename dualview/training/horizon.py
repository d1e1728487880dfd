"""How long a training is, and at which of its steps something else happens."""

from dataclasses import dataclass
from typing import Self

from dualview.config import TrainConfig
from dualview.data.epoch_plan import num_groups


@dataclass(frozen=True, kw_only=True)
class Horizon:
    """Steps of a training; a step's number is how many optimizer steps are done after it."""

    steps_per_epoch: int
    max_steps: int
    eval_every_steps: int
    log_every_steps: int
    checkpoint_every_steps: int | None  # None: checkpoints stand before evaluations only

    @classmethod
    def of(cls, train: TrainConfig, *, num_studies: int, world_size: int) -> Self:
        """The horizon of a configuration with this many training studies and ranks."""
        steps_per_epoch = num_groups(
            num_studies,
            micro_batch_size=train.micro_batch_size,
            micro_batches_per_group=world_size * train.accumulation_steps,
        )
        return cls(
            steps_per_epoch=steps_per_epoch,
            max_steps=train.max_steps or train.epochs * steps_per_epoch,
            eval_every_steps=train.eval_every_steps or steps_per_epoch,
            log_every_steps=train.log_every_steps,
            checkpoint_every_steps=train.checkpoint_every_steps,
        )

    def evaluates_at(self, step: int) -> bool:
        """Whether val is evaluated after this step."""
        return step > 0 and (step % self.eval_every_steps == 0 or step == self.max_steps)

    def saves_at(self, step: int) -> bool:
        """Whether a checkpoint is written after this step, before the evaluation that may be due then."""
        is_due = self.checkpoint_every_steps is not None and step % self.checkpoint_every_steps == 0
        return step > 0 and (is_due or self.evaluates_at(step))

    def logs_at(self, step: int) -> bool:
        """Whether values are logged after this step."""
        return step > 0 and (step % self.log_every_steps == 0 or step == self.max_steps)

    def epochs_at(self, step: int) -> float:
        """Passes over the training split that are done after this step."""
        return step / self.steps_per_epoch
