"""Training the runs of a comparison: each in a process of its own, those that are done not again."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from dualview.comparison.plan import Plan, PlannedRun
from dualview.config.load import load_of_run
from dualview.errors import Preempted, UserError, listed
from dualview.files import write_whole
from dualview.run.directory import RunDir
from dualview.run.resume import differing_settings


def is_finished(run: PlannedRun) -> bool:
    """Whether the run is there, whole, and is the one that is planned.

    Raises:
        UserError: its directory holds a finished run with other settings.
    """
    run_dir = RunDir(run.config.run.dir)
    if not run_dir.is_finished:
        return False
    earlier = load_of_run(run_dir.config)
    differing = differing_settings(run.config, earlier)
    if differing:
        problems = [f"{key}: the run has {old!r}, now {new!r}" for key, (old, new) in differing.items()]
        raise UserError(
            f"{run_dir} holds a run with other settings\n{listed(problems)}\n"
            "Set them back, choose a new compare.dir, or remove that folder"
        )
    return True


def train_all(
    runs: list[PlannedRun], *, jobs: int, launch: Path | None, done: Callable[[PlannedRun], None]
) -> list[str]:
    """Train runs, `jobs` at a time; returns what went wrong with which. One that fails does not stop the others.

    Each is `dualview train`, or with `launch`, an Accelerate configuration file, that command on several processes. Its
    output goes to `train.log` in its directory.

    Raises:
        Preempted: a signal came; the runs have saved what they had, and the same command goes on.
    """
    running: set[subprocess.Popen[bytes]] = set()
    stopped = threading.Event()
    lock = threading.Lock()

    def one(run: PlannedRun) -> str | None:
        file = _write_config(run)
        log = file.with_suffix(".log")
        with lock:
            if stopped.is_set():
                return None
            with log.open("ab") as output:
                process = subprocess.Popen(
                    _command(file, launch=launch), stdout=output, stderr=subprocess.STDOUT, env=_environment(jobs)
                )
            running.add(process)
        code = process.wait()
        with lock:
            running.discard(process)
        if code == 0 or stopped.is_set():
            return None
        return f"{run.name} ended with {code}: {_last_line(log)} ({log} has all)"

    def stop(_number: int, _frame: object) -> None:
        stopped.set()
        for process in list(running):
            process.terminate()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    problems = []
    try:
        with ThreadPoolExecutor(max_workers=jobs) as pool:
            futures = {pool.submit(one, run): run for run in runs}
            for future in as_completed(futures):
                if (problem := future.result()) is not None:
                    problems.append(problem)
                elif not stopped.is_set():
                    done(futures[future])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stopped.is_set():
        raise Preempted("stopped by a signal; the runs in progress are saved")
    return problems


def slurm_array(plan: Plan, *, command: str) -> str:
    """A batch script whose array trains one run a task; submit it, then run `command` for the table."""
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            f"#SBATCH --job-name={plan.compare.dir.name}",
            f"#SBATCH --array=0-{len(plan.runs) - 1}",
            "#SBATCH --gres=gpu:1",
            "#SBATCH --cpus-per-task=8",
            "#SBATCH --signal=B:USR1@120",
            "#SBATCH --requeue",
            f"# {len(plan.runs)} runs; once all are done: {command}",
            "# As in launch/slurm.sbatch: requeued only where the run says that a signal stopped it, by its status 75.",
            "trap 'kill -USR1 $!' USR1",
            f"{command} --only $SLURM_ARRAY_TASK_ID &",
            "child=$!",
            "while kill -0 $child 2>/dev/null; do wait $child; done  # the trap ends a wait before the child ends",
            "wait $child; status=$?",
            "[[ $status != 75 ]] || scontrol requeue $SLURM_JOB_ID",
            "exit $status",
        ]
    )


def _write_config(run: PlannedRun) -> Path:
    """The run's configuration beside its directory, which only the run itself may fill."""
    run_dir = run.config.run.dir
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    file = run_dir.with_name(f"{run_dir.name}.yaml")
    write_whole(file, run.config.to_yaml())
    return file


def _command(file: Path, *, launch: Path | None) -> list[str]:
    launcher = [] if launch is None else ["accelerate.commands.launch", "--config_file", str(launch), "-m"]
    return [sys.executable, "-m", *launcher, "dualview", "train", str(file)]


def _environment(jobs: int) -> dict[str, str]:
    """Several jobs share the processor: each takes its part of the cores, unless the user says how many."""
    threads = str(max((os.cpu_count() or 1) // jobs, 1))
    return {"OMP_NUM_THREADS": threads, **os.environ}


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    errors = [line for line in lines if line.startswith("error:")]
    return (errors or lines or ["no output"])[-1]
