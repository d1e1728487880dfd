"""An evaluation on other data is the same on one and on two processes, an image that cannot be read included."""

import json

import numpy as np
import yaml

from dualview.commands.train import train
from dualview.config import Config
from dualview.evaluation.prediction_table import read_predictions
from tests.distributed.run_external import run_external
from tests.support.hospital import write_hospital
from tests.support.runs import tiny_config


def test_two_processes_say_what_one_says(on_ranks, tmp_path):
    """The network looks at the PA only, so that studies without one are left out."""
    own, other = (write_hospital(tmp_path / name, "bpl" * 25, findings=("A", "B")) for name in ("own", "other"))
    text = (other / "metadata.csv").read_text().replace("\np", "\nother")
    (other / "metadata.csv").write_text(text)
    (other / "0PA.png").write_bytes(b"no image")
    values = tiny_config(tmp_path / "run", model={"name": "single"}).model_dump(mode="json")
    values["data"] |= {"source": "csv", "root": str(own), "findings": ["A", "B"], "phantom": {}}
    train(Config.model_validate(values))
    file = tmp_path / "other.yaml"
    data = {"source": "csv", "root": str(other), "findings": ["A", "B"], "on_bad_image": "treat_view_as_missing"}
    file.write_text(yaml.safe_dump({"data": data}))
    run_external(tmp_path / "run", config=file, name="one")
    on_ranks(2, run_external, tmp_path / "run", config=file, name="two")
    documents = [json.loads((tmp_path / f"run/external-{name}/evaluation.json").read_text()) for name in ("one", "two")]
    for document in documents:
        del document["external"]["name"]
    assert documents[0] == documents[1]
    assert documents[0]["num_studies"] == 50 - 40 - 1 and documents[0]["masked"] is None
    one, two = (read_predictions(tmp_path / f"run/external-{name}/predictions.parquet") for name in ("one", "two"))
    assert np.array_equal(one.logits["route"], two.logits["route"], equal_nan=True)
    assert len(one) == 10  # the one without an image cannot be set aside
