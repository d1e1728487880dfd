"""float16: gradients are those of float32 but for rounding, small ones survive, and an overflow halves the scale."""

import pytest
import torch

from dualview.config import Config, DistributedConfig, RunConfig
from dualview.distributed import start
from dualview.models import build_model
from dualview.run.state import BadStepCounts
from dualview.training.bad_steps import BadSteps
from dualview.training.learner import build_learner
from dualview.training.loss_scale import FIRST, STEPS_TO_GROW, LossScale
from dualview.training.step import count, take_step
from tests.distributed.run_steps import micro_batch


@pytest.fixture
def on_one_rank():
    with start(RunConfig(device="cpu"), distributed=DistributedConfig(timeout_seconds=60)) as job:
        yield job


def a_step(job, *, precision, scale=None):
    """Gradients of one step, its outcome, and the learner."""
    config = Config.model_validate({"train": {"precision": precision, "channels_last": False}})
    model = build_model("auxloss", num_findings=4, backbone="densenet_tiny", norm="group", seed=0).train()
    learner = build_learner(model, config=config, job=job)
    if scale is not None:
        learner.loss_scale.value = scale
    gradients = {}
    learner.optimizer.register_step_pre_hook(
        lambda *_: gradients.update({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    )
    batch = micro_batch("bplb", seed=3)
    batch = batch._replace(**{k: v.float() for k, v in batch._asdict().items()
                              if isinstance(v, torch.Tensor) and v.dtype == torch.float64})  # fmt: skip
    group = [(batch, [], None, None)]
    outcome = take_step(learner, group, counts=count(group, step=0, job=job), step=0, job=job)
    return gradients, outcome, learner


def test_gradients_are_those_of_float32_but_for_rounding(on_one_rank):
    truth, *_ = a_step(on_one_rank, precision="fp32")
    ours, outcome, learner = a_step(on_one_rank, precision="fp16")
    assert outcome.is_finite
    flat, expected = (torch.cat([g.flatten() for g in gradients.values()]) for gradients in (ours, truth))
    # Rounding turns some ReLUs of an untrained network over; a factor that is not undone would be 65,536.
    assert (flat - expected).norm() / expected.norm() < 0.3
    assert learner.loss_scale == LossScale(FIRST, 1)


def test_the_scale_alone_changes_nothing_but_which_small_gradients_survive(on_one_rank):
    """Powers of 2 are exact; without a scale more gradients become 0 than with one."""
    with_scale, *_ = a_step(on_one_rank, precision="fp16")
    without, *_ = a_step(on_one_rank, precision="fp16", scale=1.0)
    zeros = [sum(int((g == 0).sum()) for g in gradients.values()) for gradients in (with_scale, without)]
    assert zeros[0] < zeros[1]


def test_an_overflow_halves_the_scale_moves_nothing_and_is_no_bad_step(on_one_rank, tmp_path):
    before = build_model("auxloss", num_findings=4, backbone="densenet_tiny", norm="group", seed=0).state_dict()
    gradients, outcome, learner = a_step(on_one_rank, precision="fp16", scale=2.0**60)
    assert not gradients
    assert not outcome.is_finite and outcome.has_overflowed
    assert learner.loss_scale.value == 2.0**59
    assert all(torch.equal(value, before[key]) for key, value in learner.model.state_dict().items())
    counts = BadStepCounts()
    BadSteps(tmp_path / "bad.txt", counts=counts, limit=1, study_ids=None, job=on_one_rank).see(
        outcome, group=[], step=0
    )
    assert counts == BadStepCounts()


def test_the_scale_doubles_after_many_steps_and_stays_at_least_1():
    scale = LossScale()
    for _ in range(STEPS_TO_GROW):
        scale.see(is_finite=True)
    assert scale == LossScale(2 * FIRST, 0)
    for _ in range(100):
        scale.see(is_finite=False)
    assert scale.value == 1
