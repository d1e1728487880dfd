"""Continuing a run: from a signal, under other settings, on other data, and beside another process."""

import json
import os
import signal

import pytest

import dualview.commands.train as training
from dualview.commands.train import train
from dualview.config import Config
from dualview.config.load import load_of_run
from dualview.errors import Preempted, UserError
from dualview.evaluation import evaluator
from dualview.run import checkpoint, datasets
from dualview.run.directory import RunDir
from dualview.run.resume import continued, with_overrides
from tests.support.process_group import dualview
from tests.support.runs import PHANTOMS, records, same_bits, steps_logged, tiny_config, weights

DATA = {**PHANTOMS, "view_dropout": {"p_pa": 0.1, "p_lateral": 0.1}}
MODEL = {"backbone": "densenet_tiny", "dropout": 0.1}
STEPS = {"max_steps": 8, "eval_every_steps": 4, "log_every_steps": 1, "micro_batch_size": 4}


def config_for(run_dir, **sections):
    """Eight steps with everything random on, and changes per section."""
    given = {"data": DATA, "model": MODEL, "train": STEPS}
    return tiny_config(run_dir, **{**given, **{name: {**given.get(name, {}), **new} for name, new in sections.items()}})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nothing interrupts."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    train(config_for(run_dir))
    return run_dir


@pytest.fixture
def at_count(monkeypatch):
    """Do something when the training counts a step."""

    def set_up(step_of_interest, action):
        real = training.count

        def count(group, *, step, job):
            if step == step_of_interest:
                action()
            return real(group, step=step, job=job)

        monkeypatch.setattr(training, "count", count)

    return set_up


def signalled(number):
    return lambda: os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_the_step_saves_it_and_the_run_goes_on_bit_equal(tmp_path, whole, at_count, monkeypatch, number):
    run = tmp_path / "run"
    with monkeypatch.context():
        at_count(5, signalled(number))
        with pytest.raises(Preempted, match="after step 6 of 8"):
            train(config_for(run))
    assert checkpoint.read_newest(RunDir(run)).step == 6
    assert "after step 6" in (run / "preempted.txt").read_text()
    assert signal.getsignal(number) == signal.SIG_DFL
    monkeypatch.undo()
    train(config_for(run))
    assert not (run / "preempted.txt").exists()
    assert same_bits(weights(run), weights(whole))
    assert steps_logged(run) == list(range(1, 9))


FAMILY = {
    "auxloss": {},
    "auxloss with uncertainty": {"loss": {"learned_weights": "uncertainty"}},
    "auxloss with temperature": {"loss": {"learned_weights": "temperature"}},
    "auxloss with curriculum": {"loss": {"curriculum_probability": 0.5}},
    "auxloss with an average of the weights": {"train": {"ema_decay": 0.9}},
    "auxloss in fp16": {"train": {"precision": "fp16"}},
    "auxloss with slower backbones": {"optim": {"backbone_factor": 0.5, "layer_decay": 0.8}},
    "dualnet": {},
    "hemis": {},
    "attention": {},
    "single pa": {},
    "single lateral": {"model": {"view": "lateral"}},
    "stacked": {},
    "auxloss of one backbone": {"model": {"shared_branch": True}},
    "hemis of one backbone": {"model": {"shared_branch": True}},
}


@pytest.mark.parametrize("member", FAMILY)
def test_every_member_of_the_family_goes_on_bit_equal(tmp_path, at_count, monkeypatch, member):
    """C7: stopped in the third of six steps. Weights, statistics, optimizer, records and predictions."""
    changes = {"loss": {}, **FAMILY[member]}
    changes["model"] = {"name": member.split()[0], **changes.get("model", {})}
    changes["train"] = {"max_steps": 6, "eval_every_steps": 4, **changes.get("train", {})}
    whole, run = (config_for(tmp_path / name, **changes) for name in ("whole", "run"))
    train(whole)
    with monkeypatch.context():
        at_count(2, signalled(signal.SIGTERM))
        with pytest.raises(Preempted, match="after step 3 of 6"):
            train(run)
    monkeypatch.undo()
    train(run)
    for name in ("last", "best"):
        ours, theirs = weights(run.run.dir, name), weights(whole.run.dir, name)
        assert same_bits(ours, theirs)
    training = checkpoint.read_newest(RunDir(run.run.dir)).training()
    if run.train.ema_decay is not None:  # What is kept is the average, and not what the steps move.
        assert not same_bits(weights(run.run.dir, "last"), training.average["weights"])
    states = [checkpoint.read_newest(RunDir(config.run.dir)).training().optimizer["state"] for config in (run, whole)]
    assert states[0].keys() == states[1].keys() and len(states[0]) > 0
    assert all(same_bits(moments, states[1][number]) for number, moments in states[0].items())
    assert recorded(run.run.dir) == recorded(whole.run.dir)
    predictions = [(config.run.dir / "predictions-test.parquet").read_bytes() for config in (run, whole)]
    assert predictions[0] == predictions[1]


def recorded(run_dir):
    """Every logged value but the speeds."""
    return [
        {key: value for key, value in record.items() if not key.startswith("speed/")} for record in records(run_dir)
    ]


def test_a_signal_during_an_evaluation_ends_it_and_it_is_done_again(tmp_path, whole, monkeypatch):
    real, run = evaluator.evaluation_loader, tmp_path / "run"

    def loader(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(evaluator, "evaluation_loader", loader)
        with pytest.raises(Preempted, match="during an evaluation"):
            train(config_for(run))
    assert checkpoint.read_newest(RunDir(run)).step == 4
    result = train(config_for(run))
    assert same_bits(weights(run), weights(whole))
    assert same_bits(weights(run, "best"), weights(whole, "best"))
    assert result.num_steps == 8


def test_a_finished_run_is_only_evaluated_again(tmp_path):
    config = config_for(tmp_path / "run")
    first, before = train(config), weights(tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text()
    second = train(config)
    assert second.metrics == first.metrics
    assert same_bits(weights(tmp_path / "run"), before)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == lines


def test_a_damaged_newest_checkpoint_costs_steps_and_nothing_else(tmp_path, whole, at_count, monkeypatch, caplog):
    run = tmp_path / "run"
    at_count(6, signalled(signal.SIGTERM))
    with pytest.raises(Preempted):
        train(config_for(run))
    monkeypatch.undo()
    state = run / "checkpoints" / "step-000007" / "state.pt"
    state.write_bytes(state.read_bytes()[:-100])
    train(config_for(run))
    assert "a checkpoint is damaged, going back to step-000004" in caplog.text
    assert same_bits(weights(run), weights(whole))


def test_all_checkpoints_damaged_is_an_error_that_leaves_them(tmp_path):
    config = config_for(tmp_path / "run")
    train(config)
    for state in tmp_path.glob("run/checkpoints/step-*/state.pt"):
        state.write_bytes(b"")
    with pytest.raises(UserError, match=r"no checkpoint in .* can be used"):
        train(config)


def test_harmless_differences_are_listed_and_taken_others_refused_together(tmp_path, caplog):
    train(config_for(tmp_path / "run", train={"max_steps": 4}))
    with pytest.raises(UserError) as refused:
        train(config_for(tmp_path / "run", run={"seed": 7}, optim={"learning_rate": 0.5}))
    for line in (
        "run.seed: the run has 0, now 7",
        "optim.learning_rate: the run has 0.0003, now 0.5",
        "train.max_steps: the run has 4, now 8",
    ):
        assert line in str(refused.value)
    assert "log_every_steps" not in str(refused.value)
    smaller = {"seed": 1, "train_on": ["both"], "split": {"max_train_patients": 30}}
    with pytest.raises(UserError) as refused:
        train(config_for(tmp_path / "run", train={"max_steps": 4}, data=smaller))
    for line in (
        "data.seed: the run has None, now 1",
        "data.train_on: the run has [], now ['both']",
        "data.split.max_train_patients: the run has None, now 30",
    ):
        assert line in str(refused.value)
    with caplog.at_level("INFO"):
        train(config_for(tmp_path / "run", train={"max_steps": 4, "log_every_steps": 2}))
    assert "continuing with train.log_every_steps: 2 instead of 1" in caplog.text


def test_other_data_is_refused(tmp_path, monkeypatch):
    """The same configuration, but a label of the table has changed since."""
    config = config_for(tmp_path / "run")
    train(config)
    real = datasets.load_data

    def load_data(*args, **kwargs):
        data = real(*args, **kwargs)
        data.train.labels[3, 0] = 1 - data.train.labels[3, 0]
        return data

    monkeypatch.setattr(datasets, "load_data", load_data)
    with pytest.raises(UserError, match="other training studies"):
        train(config)


@pytest.mark.parametrize(("world_size", "accumulation"), [(1, 8), (2, 4), (4, 2), (8, 1)])
def test_another_number_of_ranks_keeps_the_global_batch(tmp_path, world_size, accumulation):
    config = config_for(tmp_path, train={"accumulation_steps": 2})
    now = continued(config, earlier=config.model_dump(mode="json"), micro_batches_per_step=8, world_size=world_size)
    assert now.train.accumulation_steps == accumulation
    assert now.model_dump(exclude={"train"}) == config.model_dump(exclude={"train"})


def test_a_number_of_ranks_that_does_not_fit_is_refused_with_those_that_do(tmp_path):
    config = config_for(tmp_path)
    with pytest.raises(UserError, match=r"3 ranks cannot share them evenly\. Continue with 1, 2, 4, 8 ranks"):
        continued(config, earlier=config.model_dump(mode="json"), micro_batches_per_step=8, world_size=3)


def test_a_second_run_on_the_same_directory_is_refused(tmp_path, at_count, on_ranks):
    """Another process tries while this one trains."""
    path = tmp_path / "config.yaml"
    path.write_text(config_for(tmp_path / "run").to_yaml())
    second = []
    at_count(2, lambda: second.append(on_ranks(1, dualview, "train", path, check=False)))
    train(config_for(tmp_path / "run"))
    assert second[0].statuses == [1]
    assert f"is in use by process {os.getpid()} on " in second[0].stderr
    assert "Nothing was changed" in second[0].stderr


def test_a_run_goes_on_without_a_key_that_nothing_used():
    """It was trained when such a key was taken without a word; a file with it is refused now."""
    earlier = Config.model_validate({"model": {"name": "hemis", "merge_after_block": 4}})
    config = Config.model_validate({"model": {"name": "hemis"}})
    now = continued(config, earlier=earlier.model_dump(mode="json"), micro_batches_per_step=1, world_size=1)
    assert now.model == config.model


def forget_normalise(run_dir):
    """Make the settings that a run has written those of a dualview that did not know `loss.normalise`."""
    for folder in (run_dir / "checkpoints").glob("step-*"):
        manifest = json.loads((folder / "manifest.json").read_text())
        del manifest["config"]["loss"]["normalise"], manifest["sha256"]
        (folder / "manifest.json").write_text(json.dumps(manifest))
    text = (run_dir / "config.yaml").read_text()
    assert "  normalise: known\n" in text
    (run_dir / "config.yaml").write_text(text.replace("  normalise: known\n", ""))


def test_a_run_from_before_loss_normalise_goes_on_as_it_began(tmp_path, at_count, monkeypatch):
    """It divided by the known labels. Bit-equal to the run that says so, also when it is stopped a second time."""
    data = {**DATA, "phantom": {"num_studies": 60, "unknown_label_fraction": 0.4}}
    steps = {"max_steps": 6, "eval_every_steps": 3}
    whole = config_for(tmp_path / "whole", data=data, train=steps, loss={"normalise": "known"})
    train(whole)
    run, begun = (
        config_for(tmp_path / "run", data=data, train=steps, loss=loss) for loss in ({}, whole.loss.model_dump())
    )
    for config, step in ((begun, 2), (run, 4)):
        with monkeypatch.context():
            at_count(step - 1, signalled(signal.SIGTERM))
            with pytest.raises(Preempted, match=f"after step {step} of 6"):
                train(config)
        monkeypatch.undo()
        if step == 2:
            forget_normalise(run.run.dir)
            with pytest.raises(UserError, match=r"loss\.normalise: the run has 'known', now 'findings'"):
                train(config_for(tmp_path / "run", data=data, train=steps, loss={"normalise": "findings"}))
            assert load_of_run(run.run.dir / "config.yaml").loss.normalise == "known"
    train(run)
    assert same_bits(weights(run.run.dir), weights(whole.run.dir))
    assert recorded(run.run.dir) == recorded(whole.run.dir)
    fresh = config_for(tmp_path / "fresh", data=data, train=steps)
    train(fresh)
    assert not same_bits(weights(fresh.run.dir), weights(whole.run.dir))


@pytest.mark.parametrize("override", ["data.cohort.adults_only=true", "data.uncertain=one", "loss.pa_weight=0.7"])
def test_an_override_that_nothing_would_obey_is_refused_for_a_trained_network(tmp_path, override):
    """Keys that the source or the network has no use for, too."""
    config = config_for(tmp_path, model={"name": "hemis"})
    with pytest.raises(UserError, match="cannot be changed for a network that is trained"):
        with_overrides(config, [override])
    assert with_overrides(config, ["data.num_workers=3"]).data.num_workers == 3
