"""The files of a run directory, by name.

runs/NAME/
  config.yaml, split.csv       the resolved configuration; which patient is in which split
  metrics.jsonl                every logged value, one object a line (run/metric_keys.py)
  checkpoints/                 step-000123/ and links `best`, `last` (run/checkpoint.py)
  predictions-SPLIT.parquet    logits of val and test, by the best checkpoint
  operating_points.json        thresholds and calibration, from val
  metrics.json                 metrics of val and test; written last, so it marks a run that is finished
  evaluation-SPLIT[-CHECKPOINT]/   predictions.parquet, evaluation.json, operating_points.json
  ensemble-XXXXXXXX/           operating_points.json, members.json, evaluation-SPLIT/ of this run and others together
  external-NAME/               the same, of other data than the run's own
  report.html, export-FORMAT/  by `dualview report` and `dualview export`
  run_id.txt, preempted.txt, bad_images.txt, bad_steps.txt, wandb/, .lock
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualview.files import read_json_lines


@dataclass(frozen=True)
class EvaluationDir:
    """The folder of one evaluation."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.parquet"

    @property
    def evaluation(self) -> Path:
        return self.path / "evaluation.json"

    @property
    def operating_points(self) -> Path:
        """The operating points that the evaluation used."""
        return self.path / "operating_points.json"

    @property
    def wrong_answers(self) -> Path:
        """Who the studies of the report's table of wrong answers are: nothing of it is sent anywhere."""
        return self.path / "wrong-answers.csv"

    @property
    def recalibrated_points(self) -> Path:
        """Operating points from patients of other data who were set aside."""
        return self.path / "recalibrated_operating_points.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def wandb(self) -> Path:
        return self.path / "wandb"


@dataclass(frozen=True)
class EnsembleDir:
    """What belongs to several networks together, in the directory of one of their runs."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def operating_points(self) -> Path:
        """Thresholds and calibration that `dualview predict RUN RUN` uses."""
        return self.path / "operating_points.json"

    @property
    def members(self) -> Path:
        """Which networks they are."""
        return self.path / "members.json"

    def read_log_pos_weights(self) -> dict[str, dict[str, float]]:
        """SHA-256 of a member's weights -> what its loss has added to its logits, by finding; {}: not there."""
        try:
            content = json.loads(self.members.read_text(encoding="utf-8"))
            return {member["weights_sha256"]: dict(member["log_pos_weight"]) for member in content["members"]}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def evaluation(self, split: str) -> EvaluationDir:
        return EvaluationDir(self.path / f"evaluation-{split}")


@dataclass(frozen=True)
class RunDir:
    """Every path of a run directory; none of them need be there."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """Name of the directory, also where it is given as `.`."""
        return self.path.resolve().name

    # -- what the run is -----------------------------------------------------------------------------

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def split(self) -> Path:
        return self.path / "split.csv"

    @property
    def weights(self) -> Path:
        """Where the first weights are from, and under which licence; not there where they are random."""
        return self.path / "weights.json"

    @property
    def id_file(self) -> Path:
        return self.path / "run_id.txt"

    def read_id(self) -> str:
        """The run's id, which stays the same through interruptions; also wandb's."""
        return self.id_file.read_text(encoding="utf-8").strip()

    # -- what it has recorded ------------------------------------------------------------------------

    @property
    def log(self) -> Path:
        return self.path / "metrics.jsonl"

    def read_log(self) -> list[dict[str, Any]]:
        """The records of `metrics.jsonl`; a last line that a kill has torn is left out."""
        return read_json_lines(self.log)

    @property
    def wandb(self) -> Path:
        return self.path / "wandb"

    @property
    def bad_images(self) -> Path:
        """Images that could not be read. They can identify patients: nothing of them is sent anywhere."""
        return self.path / "bad_images.txt"

    @property
    def bad_steps(self) -> Path:
        """Steps that were skipped, with their studies: nothing of them is sent anywhere."""
        return self.path / "bad_steps.txt"

    # -- checkpoints ---------------------------------------------------------------------------------

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def checkpoint(self, which: str | int) -> Path:
        """Folder of the checkpoint `best`, `last`, or of a step."""
        return self.checkpoints / (which if isinstance(which, str) else f"step-{which:06d}")

    # -- what came out -------------------------------------------------------------------------------

    def predictions(self, split: str) -> Path:
        return self.path / f"predictions-{split}.parquet"

    @property
    def operating_points(self) -> Path:
        """Thresholds and calibration of the best checkpoint."""
        return self.path / "operating_points.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.json"

    @property
    def is_finished(self) -> bool:
        """Whether training has come to its end: `metrics.json` is the last file that it writes."""
        return self.metrics.is_file()

    def evaluation(self, split: str, *, checkpoint: str = "best") -> EvaluationDir:
        """Folder of an evaluation of a checkpoint: `best`, `last` or the number of a step."""
        return EvaluationDir(self.path / f"evaluation-{split}{'' if checkpoint == 'best' else f'-{checkpoint}'}")

    def ensemble(self, ensemble_id: str) -> "EnsembleDir":
        """Folder of what this run and others say together."""
        return EnsembleDir(self.path / f"ensemble-{ensemble_id}")

    def external(self, name: str) -> EvaluationDir:
        """Folder of an evaluation on other data than the run's own."""
        return EvaluationDir(self.path / f"external-{name}")

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def export(self, graph_format: str) -> Path:
        return self.path / f"export-{graph_format}"

    # -- who holds it --------------------------------------------------------------------------------

    @property
    def lock(self) -> Path:
        return self.path / ".lock"

    @property
    def preempted(self) -> Path:
        """There where a signal has stopped the run, which wants to be started again."""
        return self.path / "preempted.txt"
