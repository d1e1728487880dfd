"""The table of logged keys against what a run records."""

from dualview.commands.train import train
from dualview.config import Config
from dualview.run.directory import RunDir
from dualview.run.metric_keys import KEYS


def test_every_recorded_key_is_in_the_table_once_and_the_table_has_no_other(tmp_path):
    """A run with all that can be logged: three heads, learned weights, both splits."""
    train(
        Config.model_validate(
            {
                "run": {"dir": tmp_path, "device": "cpu"},
                "data": {"image_size_px": 64, "num_workers": 0, "phantom": {"num_studies": 40}},
                "model": {"backbone": "densenet_tiny"},
                "loss": {"learned_weights": "uncertainty"},
                "train": {"max_steps": 2, "log_every_steps": 1},
                "tracking": {"wandb": "disabled"},
            }
        )
    )
    records = RunDir(tmp_path).read_log()
    recorded = {key for record in records for key in {**record, **record.get("summary", {})}} - {"step", "summary"}
    matches = {key: [entry.pattern for entry in KEYS if entry.matches(key)] for key in recorded}
    assert {key: found for key, found in matches.items() if len(found) != 1} == {}
    assert {entry.pattern for entry in KEYS} == {found[0] for found in matches.values()}
