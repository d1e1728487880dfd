"""What a run records: metrics.jsonl always, and Weights & Biases where it is wanted and works.

The jsonl file is the record that everything else is drawn from. wandb can fail at any moment without
hurting the run: the failure is reported once and the run goes on with the file alone. Neither
receives images or anything that identifies a patient. Which keys there are, metric_keys.py says. How
wandb is started is the same for evaluations.
"""

import json
import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import wandb

from dualview.config import Config
from dualview.config.public import public_settings
from dualview.distributed import Job
from dualview.errors import Preempted
from dualview.files import read_json_lines
from dualview.run.directory import RunDir

logger = logging.getLogger(__name__)

Values = dict[str, float | int | None]
Started = TypeVar("Started")


class Tracker:
    """Record of one run; a context manager, so that it is closed whatever happens.

    Every rank makes the same calls; only the main one records.

    Keys are `section/name`; wandb arranges its workspace by the sections.
    """

    def __init__(self, config: Config, *, run_id: str, first_step: int, job: Job) -> None:
        """
        Args:
            run_id: of the run, the same after each interruption; also wandb's.
            first_step: the step that this process continues from. What an earlier process has recorded of
                the steps from there on is not recorded again.
        """
        self.run = RunDir(config.run.dir)
        self._file = None
        self._recorded: dict[int, set[str]] = {}  # step -> keys that an earlier process has recorded
        self._summaries: list[Values] = []
        if job.is_main:
            self._read_earlier(first_step=first_step)
            self._file = self.run.log.open("a", encoding="utf-8")
        self.wandb_dir: Path | None = None
        self.wandb_mode = "disabled"
        if job.is_main and config.tracking.wandb != "disabled":
            self._start_wandb(config, run_id=run_id)

    def _read_earlier(self, *, first_step: int) -> None:
        """Learn what is recorded, and cut off a line that a kill has left unfinished."""
        if not self.run.log.exists():
            return
        content = self.run.log.read_bytes()
        with self.run.log.open("r+b") as file:
            file.truncate(len(content) - len(content.rpartition(b"\n")[2]))
        for record in read_json_lines(self.run.log):
            if "summary" in record:
                self._summaries.append(record["summary"])
            elif record["step"] >= first_step:
                self._recorded.setdefault(record["step"], set()).update(record)

    def log(self, values: Values, *, step: int) -> None:
        """Record values at a step. None and non-finite numbers are kept as null in the file, left out of wandb."""
        if self._file is None:
            return
        clean = {
            key: value if value is not None and math.isfinite(value) else None
            for key, value in values.items()
            if key not in self._recorded.get(step, ())
        }
        if not clean:
            return
        self._file.write(json.dumps({"step": step, **clean}) + "\n")
        self._file.flush()
        if self._running:
            defined = {key: value for key, value in clean.items() if value is not None}
            self._guarded("log", lambda: self._wandb_run.log({**defined, "global_step": step}))

    def summarise(self, values: Values) -> None:
        """Put final and best values into the wandb summary, and into the file under `summary`."""
        if self._file is None:
            return
        if values not in self._summaries:
            self._file.write(json.dumps({"summary": values}) + "\n")
            self._file.flush()
        if self._running:
            defined = {key: value for key, value in values.items() if value is not None}
            self._guarded("summary", lambda: self._wandb_run.summary.update(defined))

    def log_checkpoint(self, folder: Path, *, name: str, step: int) -> None:
        """Keep a checkpoint's weights and configuration as a wandb artifact, under its name and step."""
        if not self._running:
            return

        def log() -> None:
            artifact = wandb.Artifact(f"model-{self._wandb_run.id}", type="model", metadata={"step": step})
            with staged_in(self.run.wandb, run_id=self._wandb_run.id):
                for file in ("model.safetensors", "config.yaml"):
                    artifact.add_file(str(folder / file), name=file)
            self._wandb_run.log_artifact(artifact, aliases=[name, f"step-{step}"])

        self._guarded("log_checkpoint", log)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._running:
            stopped = error is None or isinstance(error, Preempted)
            self._guarded("finish", lambda: self._wandb_run.finish(exit_code=0 if stopped else 1))
        if self._file is not None:
            self._file.close()

    # -- wandb ---------------------------------------------------------------------------------

    @property
    def _running(self) -> bool:
        return self.wandb_mode != "disabled"

    def _start_wandb(self, config: Config, *, run_id: str) -> None:
        def start(mode: str) -> Any:
            run = wandb.init(
                project=config.tracking.project,
                job_type="training",
                group=config.tracking.group or run_id,
                name=config.tracking.name or self.run.path.name,
                id=run_id,
                resume="allow",
                tags=config.tracking.tags,
                dir=str(self.run),
                mode=mode,  # type: ignore[arg-type]
                settings=wandb_settings(),
            )
            # A continued run has a configuration already, which may differ in harmless settings.
            run.config.update(public_settings(config), allow_val_change=True)
            run.define_metric("global_step", hidden=True)
            run.define_metric("*", step_metric="global_step")
            return run

        self.wandb_mode, run = start_wandb(
            config, start, otherwise="training goes on without wandb; metrics.jsonl holds everything"
        )
        if run is not None:
            self._wandb_run = run
            self.wandb_dir = Path(run.dir).parent

    def _guarded(self, what: str, call: Any) -> None:
        try:
            call()
        except Exception as error:  # A broken wandb process raises ConnectionResetError and others.
            self.wandb_mode = "disabled"
            logger.warning(
                "wandb failed in %s (%s: %s); training goes on, metrics.jsonl holds everything",
                what, type(error).__name__, error,
            )  # fmt: skip


# -- how wandb is started ----------------------------------------------------------------------------


def start_wandb(config: Config, start: Callable[[str], Started], *, otherwise: str) -> tuple[str, Started | None]:
    """The first mode in which wandb starts, and what `start` returned for it.

    ("disabled", None) where it is not wanted, and where it does not start; `otherwise` is then said.
    """
    mode = wandb_mode(config)
    if mode == "disabled":
        return mode, None
    for attempt in dict.fromkeys((mode, "offline")):
        try:
            return attempt, start(attempt)
        except Exception as error:  # wandb raises many kinds of error, none of which may end the run.
            logger.warning("wandb did not start %s: %s", attempt, error)
    logger.warning("%s", otherwise)
    return "disabled", None


def wandb_settings(**more: Any) -> wandb.Settings:
    """The settings of every run that dualview starts."""
    return wandb.Settings(
        quiet=True,
        console="off",  # Log lines may name files, which must not leave.
        save_code=False,
        disable_git=True,
        host="",
        x_disable_meta=True,  # The command line and the Python it runs are paths.
        init_timeout=60,
        x_transaction_log_flush_interval=1,  # seconds; the default of 15 loses short and killed runs
        **more,
    )


def wandb_mode(config: Config) -> str:
    """Online, offline or disabled, as the configuration, WANDB_MODE and the credentials have it."""
    if config.tracking.wandb != "auto":
        return config.tracking.wandb
    if wandb.setup().settings.mode == "disabled":
        return "disabled"
    return "online" if why_offline() is None else "offline"


def why_offline() -> str | None:
    """What keeps wandb from its server here; None where nothing is known to."""
    mode = wandb.setup().settings.mode  # WANDB_MODE, or online without it
    if mode != "online":
        return f"WANDB_MODE is {mode}"
    try:
        return None if wandb.login(prompt=False) else "no API key is configured"
    except Exception as error:  # wandb raises many kinds of error, for a malformed key for one.
        logger.warning("wandb credentials cannot be used (%s)", error)
        return f"its credentials cannot be used: {error}"


def default_entity() -> str | None:
    """The user or team whose project runs go to. Asks the server where WANDB_ENTITY does not say."""
    entity: str | None = wandb.setup().settings.entity or wandb.Api().default_entity
    return entity


@contextmanager
def staged_in(wandb_dir: Path, *, run_id: str) -> Iterator[None]:
    """Files that wandb takes in this block are copied beside the run, where `wandb sync` finds them.

    Its own place for them is in the home directory. A WANDB_DATA_DIR that is set already stays.
    """
    if "WANDB_DATA_DIR" in os.environ:
        yield
        return
    # wandb has no setting for this folder, only the variable.
    os.environ["WANDB_DATA_DIR"] = str(staging(wandb_dir, run_id=run_id).resolve())
    try:
        yield
    finally:
        del os.environ["WANDB_DATA_DIR"]


def staging(wandb_dir: Path, *, run_id: str) -> Path:
    """The folder beside the run in which copies of wandb's files wait for `wandb sync`."""
    return wandb_dir / f"staged-{run_id}"
