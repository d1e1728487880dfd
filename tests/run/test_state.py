"""What a checkpoint keeps of a training, and what marks a run as finished."""

import io

import torch

from dualview.run.directory import RunDir
from dualview.run.state import BadStepCounts, BestCheckpoint, TrainState


def test_the_state_comes_back_from_what_torch_saves():
    state = TrainState(
        run_id="a1b2c3d4", micro_batches_per_step=4, train_studies="f00d", step=7,
        best=BestCheckpoint(0.75, 5, 2), bad_steps=BadStepCounts(total=3, in_a_row=1),
    )  # fmt: skip
    buffer = io.BytesIO()
    torch.save({**state.to_dict(), "optimizer": {}}, buffer)
    buffer.seek(0)
    assert TrainState.from_dict(torch.load(buffer, weights_only=True)) == state


def test_the_best_evaluation_by_hand():
    best = BestCheckpoint()
    seen = [best.see(macro, step=step) for step, macro in enumerate([None, None, 0.6, None, 0.5, 0.6, 0.7], start=1)]
    assert seen == [True, True, True, False, False, False, True]  # While none was defined the latest counts.
    assert (best.value, best.step, best.evaluations_since) == (0.7, 7, 0)
    best.see(0.7, step=8)
    assert (best.step, best.evaluations_since) == (7, 1)


def test_a_run_is_finished_with_the_last_file_it_writes(tmp_path):
    run = RunDir(tmp_path)
    for file in (run.config, run.log, run.predictions("test"), run.operating_points):
        file.write_text("")
        assert not run.is_finished
    run.metrics.write_text("{}")
    assert run.is_finished


def test_every_path_lies_in_the_directory(tmp_path):
    run = RunDir(tmp_path)
    paths = [value for name in vars(RunDir) if isinstance(value := getattr(run, name), type(tmp_path))]
    assert len(paths) > 10
    assert all(path.is_relative_to(tmp_path) for path in paths)
    assert run.evaluation("test").path.name == "evaluation-test"
    assert run.evaluation("val", checkpoint="7").path.name == "evaluation-val-7"
    assert run.checkpoint(7).name == "step-000007"
