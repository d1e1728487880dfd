"""What is seen of training steps while they are taken: the progress bar, and the logged record of every Nth."""

from rich.progress import Progress

from dualview.distributed import Job
from dualview.losses import HeadLosses
from dualview.run import metric_keys
from dualview.run.state import TrainState
from dualview.run.tracking import Tracker, Values
from dualview.training.horizon import Horizon
from dualview.training.learner import Learner
from dualview.training.meter import Meter
from dualview.training.step import StepCounts, StepOutcome


class TrainingLog:
    """Progress bar, speeds and records of the training loop. Every rank makes the same calls; the main one shows."""

    def __init__(
        self,
        learner: Learner,
        *,
        state: TrainState,
        horizon: Horizon,
        tracker: Tracker,
        progress: Progress,
        job: Job,
    ) -> None:
        self._learner, self._state, self._horizon = learner, state, horizon
        self._tracker, self._progress, self._job = tracker, progress, job
        self._meter = Meter(job=job)
        self._bar = progress.add_task("training", total=horizon.max_steps, completed=state.step)

    def restart(self) -> None:
        """Forget what was measured since the last record, so that an evaluation is not counted as training."""
        self._meter.restart()

    def start_step(self) -> None:
        """A step begins with waiting for its micro-batches."""
        self._meter.start_step()

    def data_arrived(self) -> None:
        """The micro-batches of the step are there."""
        self._meter.data_arrived()

    def end_step(self, outcome: StepOutcome, *, counts: StepCounts, learning_rates: dict[str, float]) -> None:
        """The step is taken, and counted in the state; it is recorded where the horizon says so."""
        self._meter.end_step(counts)
        self._progress.advance(self._bar)
        if not self._horizon.logs_at(self._state.step):
            return
        values = step_values(outcome, counts=counts, learner=self._learner, job=self._job)
        self._progress.update(self._bar, description=f"training, loss {values[metric_keys.LOSS_TOTAL]:.3f}")
        values |= {metric_keys.learning_rate(part): rate for part, rate in learning_rates.items()}
        values |= {metric_keys.gradient_norm(part): norm for part, norm in outcome.gradient_norms.items()}
        values |= {
            metric_keys.EPOCH: self._horizon.epochs_at(self._state.step),
            metric_keys.BAD_STEPS: self._state.bad_steps.total,
            **self._meter.read(),
        }
        self._tracker.log(values, step=self._state.step)

    def close(self) -> None:
        """Take the bar away."""
        self._progress.remove_task(self._bar)


def step_values(outcome: StepOutcome, *, counts: StepCounts, learner: Learner, job: Job) -> Values:
    """Losses of a step over all ranks, and the learned weights of the heads where there are any. All ranks call."""
    loss_sums = job.sum(outcome.loss_sums.sum(dim=0))
    head_losses = dict(zip(HeadLosses._fields, (loss_sums / (counts.weight or 1)).tolist(), strict=True))
    total = sum(head_losses.values())
    if not learner.loss.distill_weight:
        del head_losses["distillation"]
    head_weights: dict[str, float] = {}
    if learner.model.loss_weights is None:
        del head_losses["log_terms"]
    else:
        head_weights = learner.model.loss_weights.now()
    return {
        metric_keys.LOSS_TOTAL: total,
        **{metric_keys.loss(head): loss for head, loss in head_losses.items()},
        **{metric_keys.loss_weight(head): weight for head, weight in head_weights.items()},
    }
