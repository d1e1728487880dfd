"""Which steps evaluate, save and log, against a table written by hand."""

import pytest

from dualview.config import TrainConfig
from dualview.training.horizon import Horizon


def steps(horizon: Horizon, asked) -> list[int]:
    return [step for step in range(horizon.max_steps + 1) if asked(step)]


@pytest.mark.parametrize(
    ("settings", "evaluated", "saved", "logged"),
    [
        # 50 studies in groups of 2 ranks x 4 studies: 7 steps an epoch.
        ({"epochs": 2}, [7, 14], [7, 14], [10, 14]),
        ({"max_steps": 9, "eval_every_steps": 4, "log_every_steps": 5}, [4, 8, 9], [4, 8, 9], [5, 9]),
        ({"max_steps": 6, "checkpoint_every_steps": 4, "log_every_steps": 3}, [6], [4, 6], [3, 6]),
    ],
)
def test_rhythms(settings, evaluated, saved, logged):
    horizon = Horizon.of(TrainConfig.model_validate({"micro_batch_size": 4, **settings}), num_studies=50, world_size=2)
    assert horizon.steps_per_epoch == 7
    assert steps(horizon, horizon.evaluates_at) == evaluated
    assert steps(horizon, horizon.saves_at) == saved
    assert steps(horizon, horizon.logs_at) == logged
    assert horizon.epochs_at(7) == 1
