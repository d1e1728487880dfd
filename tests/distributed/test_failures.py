"""What happens when a rank fails, stops, dies or is told to stop; through the launcher where that is the claim."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from dualview import distributed
from dualview.config import DistributedConfig, RunConfig
from dualview.errors import UserError
from tests.distributed.run_faulty import faulty
from tests.support import ROOT
from tests.support.launch import last_words, launch
from tests.support.process_group import dualview
from tests.support.runs import quickstart, same_bits, steps_logged, weights

FAULTY = Path(__file__).with_name("run_faulty.py")
EIGHT_STEPS = ["train.max_steps=8", "train.eval_every_steps=4", "train.checkpoint_every_steps=1"]
VIEW_DROPOUT = ["data.view_dropout.p_pa=0.1", "data.view_dropout.p_lateral=0.1"]


def training_in(run_dir, *more: str) -> list[str]:
    return quickstart(run_dir, *EIGHT_STEPS, *VIEW_DROPOUT, "tracking.wandb=disabled", *more)


@pytest.fixture(scope="module")
def undisturbed(on_ranks, tmp_path_factory):
    """The run on two processes that nothing happens to; one that is launched as users do is held to it too."""
    run_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    on_ranks(2, dualview, *training_in(run_dir))
    return run_dir


@pytest.fixture
def train_sh():
    """Starts launch/train.sh with two processes; what a failed test leaves of them is killed."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "NUM_PROCESSES": "2",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
    }
    started: list[psutil.Process] = []

    def start(arguments) -> subprocess.Popen:
        process = subprocess.Popen(
            [str(ROOT / "launch" / "train.sh"), *arguments[1:]],
            env=environment, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        started.append(psutil.Process(process.pid))
        return process

    yield start
    for launcher in started:
        if launcher.is_running():
            for process in [*launcher.children(recursive=True), launcher]:
                process.kill()


def test_processes_that_do_not_find_each_other_are_refused(monkeypatch):
    """Wrong launcher flags start worlds of one, each of which would train alone into the same directory."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed, "Accelerator", lambda **_: SimpleNamespace(num_processes=1))
    started = distributed.start(RunConfig(device="cpu"), distributed=DistributedConfig())
    with pytest.raises(UserError, match="started 2 processes, but they see 1"), started:
        pass


def test_a_rank_that_raises_has_the_last_word(tmp_path):
    started = time.monotonic()
    done = launch(2, FAULTY, "raise", "1", "2", *training_in(tmp_path / "run"), check=False)
    assert done.returncode != 0
    assert "rank      : 1" in last_words(done)
    assert "ValueError: rank 1 has a bug" in last_words(done)
    assert "closed by peer" not in done.stderr.lower()
    assert time.monotonic() - started < 60  # of which most is starting


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_takes_no_part_is_named(on_ranks, tmp_path, rank):
    words = training_in(tmp_path / "run", "distributed.timeout_seconds=5")
    done = on_ranks(2, faulty, "stop", rank, 2, *words, check=False)
    assert done.statuses[1 - rank] == 1
    assert f"rank {rank} of 2 took no part for 5 s (distributed.timeout_seconds)" in done.last_words


def test_a_rank_at_another_step_is_found_before_gradients_mix(on_ranks, tmp_path):
    """Without the heartbeat of `count`, this rank's gradients would be averaged with those of other steps."""
    done = on_ranks(2, faulty, "repeat", 1, 2, *training_in(tmp_path / "run"), check=False)
    assert all(done.statuses)
    # Both ranks find it, and either may be the first to say so.
    found = r"is at step [23], the mean over ranks is 2\.5: some rank left out or repeated a step"
    assert re.search(found, done.last_words), done.last_words
    assert steps_logged(tmp_path / "run") == [1, 2]


def test_a_backward_left_out_on_one_rank_does_not_pair_with_the_next_step(on_ranks, tmp_path):
    words = training_in(tmp_path / "run", "distributed.timeout_seconds=5")
    done = on_ranks(2, faulty, "no_backward", 1, 2, *words, check=False)
    assert all(done.statuses)
    assert steps_logged(tmp_path / "run") == [1, 2]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_loss_that_is_not_finite_on_one_rank_skips_the_step_on_both(on_ranks, tmp_path, rank):
    run = tmp_path / "run"
    on_ranks(2, faulty, "nan", rank, 2, *training_in(run, "train.keep_checkpoints=9"))
    assert same_bits(weights(run, "step-000002"), weights(run, "step-000003"))
    lines = (run / "bad_steps.txt").read_text().splitlines()
    assert len(lines) == 2
    assert sum("loss nan" in line for line in lines) == 1
    assert any(f"rank {rank}: loss nan" in line for line in lines)
    assert steps_logged(run) == list(range(1, 9))


def test_a_signal_to_one_rank_stops_all_with_75_and_the_run_goes_on_bit_equal(on_ranks, tmp_path, undisturbed):
    run = tmp_path / "run"
    done = on_ranks(2, faulty, "usr1", 1, 3, *training_in(run), check=False)
    assert done.statuses == [75, 75]
    assert "after step 4 of 8" in (run / "preempted.txt").read_text()
    on_ranks(2, dualview, *training_in(run))
    assert not (run / "preempted.txt").exists()
    assert same_bits(weights(run), weights(undisturbed))
    assert steps_logged(run) == list(range(1, 9))


def test_a_run_goes_on_with_another_number_of_ranks(on_ranks, tmp_path, undisturbed):
    """Two ranks, stopped after step 4; then one, which accumulates. Within rounding of float32."""
    run = tmp_path / "run"
    on_ranks(2, faulty, "usr1", 0, 3, *training_in(run), check=False)
    done = on_ranks(1, dualview, *training_in(run))
    assert "train.accumulation_steps is 2 instead of 1" in " ".join((done.stdout + done.stderr).split())
    for name, value in weights(undisturbed).items():
        if value.is_floating_point():
            assert (weights(run)[name] - value).abs().max() < 1e-3, name
    assert steps_logged(run) == list(range(1, 9))


@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_killed_rank_is_restarted_by_train_sh_and_nothing_is_lost(tmp_path, train_sh, undisturbed, rank):
    run = tmp_path / "run"
    process = train_sh(training_in(run))
    wait_for_step(3, run, process)
    (victim,) = (one for one in ranks_of(process) if one.environ()["RANK"] == str(rank))
    victim.kill()
    stdout, stderr = process.communicate(timeout=100)
    assert process.returncode == 0, stderr[-3000:]
    assert "INFO     continuing" in stdout + stderr
    assert same_bits(weights(run), weights(undisturbed))
    assert steps_logged(run) == list(range(1, 9))


def test_a_restart_on_the_shared_store_is_refused_with_the_remedy(tmp_path):
    """Without the variable that launch/train.sh sets, torch's restarted group waits for processes that are gone."""
    done = launch(2, FAULTY, "kill", "1", "3", *training_in(tmp_path / "run"), check=False, max_restarts=1)
    assert done.returncode != 0
    assert "Launch with launch/train.sh; or export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in last_words(done)


# The launcher gets SIGTERM in the next test, too, with everybody else.
@pytest.mark.parametrize("number", [signal.SIGUSR1, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_to_the_launcher_saves_and_leaves_nobody_behind(tmp_path, train_sh, number):
    run = tmp_path / "run"
    process = train_sh(training_in(run, "data.num_workers=1", "train.max_steps=2000"))
    wait_for_step(3, run, process)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    process.communicate(timeout=100)
    assert process.returncode != 0
    assert "stopped by a signal after step" in (run / "preempted.txt").read_text()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive


def test_a_signal_to_every_process_at_once_saves_too(tmp_path, train_sh):
    """As a cluster does it: to the launcher, the ranks and their readers of images."""
    run = tmp_path / "run"
    process = train_sh(training_in(run, "data.num_workers=1", "train.max_steps=2000"))
    wait_for_step(3, run, process)
    launcher = psutil.Process(process.pid)
    everyone = [*launcher.children(recursive=True), launcher]
    for member in everyone:
        member.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=100)
    assert "stopped by a signal after step" in (run / "preempted.txt").read_text()
    assert "DataLoader worker" not in stderr
    _, alive = psutil.wait_procs(everyone[:-1], timeout=20)
    assert not alive


def wait_for_step(step: int, run_dir: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 100
    while not any(logged >= step for logged in steps_logged(run_dir)):
        assert process.poll() is None, process.stderr.read()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ranks_of(process: subprocess.Popen) -> list[psutil.Process]:
    return [child for child in psutil.Process(process.pid).children() if "RANK" in child.environ()]
