"""What a run records: metrics.jsonl always, and Weights & Biases through Accelerate's tracker.

The jsonl file is the record that everything else is drawn from. wandb can fail at any moment without
hurting the run: the failure is reported once and the run goes on with the file alone. Neither
receives images or anything that identifies a patient.
"""

import json
import logging
import math
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import wandb
from accelerate.utils import LoggerType

from dualview.config import Config
from dualview.distributed import Job
from dualview.errors import Preempted

logger = logging.getLogger(__name__)

Values = dict[str, float | int | None]


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
        self.run_dir: Path = config.run.dir
        self._job = job
        self._file = None
        self._recorded: dict[int, set[str]] = {}  # step -> keys that an earlier process has recorded
        self._summaries: list[Values] = []
        if job.is_main:
            path = self.run_dir / "metrics.jsonl"
            self._read_earlier(path, first_step=first_step)
            self._file = path.open("a", encoding="utf-8")
        self.wandb_dir: Path | None = None
        self.wandb_mode = "disabled"
        if job.is_main and config.tracking.wandb != "disabled":
            self._start_wandb(config, run_id=run_id)

    def _read_earlier(self, path: Path, *, first_step: int) -> None:
        """Learn what is recorded, and cut off a line that a kill has left unfinished."""
        if not path.exists():
            return
        text = path.read_text(encoding="utf-8")
        whole, _, torn = text.rpartition("\n")
        if torn:
            with path.open("r+", encoding="utf-8") as file:
                file.truncate(len(text.encode()) - len(torn.encode()))
        for line in whole.splitlines():
            record = json.loads(line)
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
        mode = _wandb_mode(config)
        if mode == "disabled":
            return
        for attempt in dict.fromkeys((mode, "offline")):
            try:
                self._init_wandb(config, mode=attempt, run_id=run_id)
            except Exception as error:  # wandb raises many kinds; none may end the run
                self._job.accelerator.trackers = []
                logger.warning("wandb did not start %s: %s", attempt, error)
            else:
                self.wandb_mode = attempt
                return
        logger.warning("training goes on without wandb; metrics.jsonl holds everything")

    def _init_wandb(self, config: Config, *, mode: str, run_id: str) -> None:
        settings = wandb.Settings(
            quiet=True,
            console="off",  # log lines may name files
            save_code=False,
            disable_git=True,
            init_timeout=60,
            x_transaction_log_flush_interval=1,  # the default of 15 s loses short and killed runs
        )
        accelerator = self._job.accelerator
        accelerator.log_with = [LoggerType.WANDB]
        accelerator.init_trackers(
            config.tracking.project,
            config=config.model_dump(mode="json"),
            init_kwargs={
                "wandb": {
                    "mode": mode,
                    "id": run_id,
                    "resume": "allow",
                    "dir": str(self.run_dir),
                    "name": config.tracking.name or self.run_dir.name,
                    "group": config.tracking.group,
                    "tags": config.tracking.tags,
                    "settings": settings,
                }
            },
        )
        self._wandb_run = accelerator.get_tracker("wandb", unwrap=True)
        self._wandb_run.define_metric("global_step", hidden=True)
        self._wandb_run.define_metric("*", step_metric="global_step")
        self.wandb_dir = Path(self._wandb_run.dir).parent

    def _guarded(self, what: str, call: Any) -> None:
        try:
            call()
        except Exception as error:  # a broken wandb process raises ConnectionResetError and others
            self.wandb_mode = "disabled"
            logger.warning(
                "wandb failed in %s (%s: %s); training goes on, metrics.jsonl holds everything",
                what, type(error).__name__, error,
            )  # fmt: skip


def _wandb_mode(config: Config) -> str:
    if config.tracking.wandb != "auto":
        return config.tracking.wandb
    from_environment = wandb.setup().settings.mode  # WANDB_MODE, or online
    if from_environment != "online":
        return "disabled" if from_environment == "disabled" else "offline"
    try:
        return "online" if wandb.login(prompt=False) else "offline"
    except Exception as error:  # a malformed key, say
        logger.warning("wandb credentials cannot be used (%s); recording offline", error)
        return "offline"
