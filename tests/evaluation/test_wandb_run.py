"""An evaluation in wandb: offline runs are read back, and searched for what must not be there."""

import json
import logging
import shutil
import socket

import numpy as np
import pytest
import torch
import wandb
from PIL import Image
from sklearn.metrics import auc
from typer.testing import CliRunner

from dualview.cli import app
from dualview.commands.train import train
from dualview.config import Config
from dualview.data.contact_sheet import study_picture
from dualview.evaluation.operating_points import calibrated_scores
from dualview.evaluation.points_file import read_operating_points
from dualview.evaluation.prediction_table import read_predictions
from tests.support.runs import tiny_config

SECRETS = ("PATIENTSECRET", "STUDYSECRET", "IMAGESECRET", "FOLDERSECRET", "HOSTSECRET")
FINDINGS = ("Effusion", "Nodule")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on a hospital's files whose every identifier is easily recognised; recorded nowhere yet."""
    root = tmp_path_factory.mktemp("FOLDERSECRET")
    rows = ["patient,study,view,path,Effusion,Nodule"]
    generator = np.random.default_rng(0)
    for study in range(60):
        for view in (("PA", "L"), ("PA", "L"), ("PA",), ("L",))[study % 4]:
            name = f"IMAGESECRET-{study}{view}.png"
            pixels = generator.integers(0, 256, (64, 64), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name)
            labels = f"{study // 4 % 2},{study // 8 % 2}"
            rows.append(f"PATIENTSECRET-{study},STUDYSECRET-{study},{view},{name},{labels}")
    (root / "metadata.csv").write_text("\n".join(rows) + "\n")
    run_dir = tmp_path_factory.mktemp("runs") / "run"
    train(
        tiny_config(
            run_dir,
            data={
                "source": "csv",
                "root": root,
                "findings": list(FINDINGS),
                "phantom": {},
                "split": {"train": 0.3, "val": 0.3, "test": 0.4},
            },
            train={"max_steps": 2},
        )
    )
    return run_dir


@pytest.fixture
def evaluate(trained, tmp_path, monkeypatch):
    """Evaluate a copy of the run, from the command line, with more arguments."""
    run_dir = tmp_path / "run"
    shutil.copytree(trained, run_dir, symlinks=True)
    monkeypatch.setattr(socket, "gethostname", lambda: "HOSTSECRET")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("WANDB_DATA_DIR", raising=False)

    def run(*arguments: str):
        result = CliRunner().invoke(app, ["evaluate", str(run_dir), "--resamples", "100", *arguments])
        assert result.exit_code == 0, result.output
        return result

    run.dir, run.folder, run.home = run_dir, run_dir / "evaluation-test", tmp_path / "home"
    run.id = (run_dir / "run_id.txt").read_text().strip()
    return run


@pytest.fixture
def recorded(evaluate, read_back):
    """What an offline evaluation with four images logged: the function, its records and its wandb directory."""
    evaluate("tracking.wandb=offline", "tracking.num_images=4", "tracking.tags=[pilot]")
    (wandb_dir,) = evaluate.folder.glob("wandb/offline-run-*")
    return evaluate, read_back(wandb_dir), wandb_dir


def table(wandb_dir, name):
    """Rows of a logged table as dictionaries."""
    (file,) = wandb_dir.glob(f"files/media/table/evaluation/{name}_?_*.table.json")
    content = json.loads(file.read_text())
    return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]


def merged(records, kind):
    """All updates of the summary or the configuration, the later ones over the earlier."""
    return {key: value for record in records if record["type"] == kind for key, value in record[kind]["update"].items()}


def test_what_an_evaluation_logs(recorded):
    """Identity, summary, tables, curves, images and artifact of one offline run, against the files on disk."""
    evaluate, records, wandb_dir = recorded
    document = json.loads((evaluate.folder / "evaluation.json").read_text())
    masked = document["masked"]

    (run,) = (record["run"] for record in records if record["type"] == "run")
    assert run["run_id"] == f"{evaluate.id}-test-best"
    assert (run["run_group"], run["job_type"], run["display_name"]) == (evaluate.id, "evaluation", "run test")
    assert run["tags"] == ["pilot"]
    assert run["config"]["update"]["model"] == {"name": "auxloss", "backbone": "densenet_tiny"}
    assert records[-1]["exit"]["exit_code"] == 0

    summary = merged(records, "summary")
    for name in ("both", "lateral_hidden", "pa_hidden"):
        assert summary[f"evaluation/auroc_macro_{name}"] == masked[name]["macro"]["auroc"]["value"]
    for name in ("all", "both", "pa_only", "lateral_only"):
        assert summary[f"evaluation/brier_macro_{name}"] == document["groups"][name]["macro"]["brier"]["value"]
    verdicts = [summary[f"evaluation/num_{verdict}"] for verdict in ("helped", "hurt", "undecided", "too_few")]
    assert sum(verdicts) == len(FINDINGS)

    rows = table(wandb_dir, "value_of_lateral")
    assert sorted(row["finding"] for row in rows) == sorted([*FINDINGS, "macro"])
    for row in rows[:-1]:
        gained = masked["value_of_lateral"]["findings"][row["finding"]]
        assert row["AUROC both views"] == masked["both"]["findings"][row["finding"]]["auroc"]["value"]
        assert row["AUROC PA withheld"] == masked["pa_hidden"]["findings"][row["finding"]]["auroc"]["value"]
        assert row["difference"] == pytest.approx(row["AUROC both views"] - row["AUROC lateral withheld"])
        assert row["simultaneous low"] == gained["auroc"]["simultaneous_low"]
        assert row["low"] == gained["auroc"]["low"]
        assert row["lateral"] == gained["verdict"]
    groups = {row["studies are"]: row for row in table(wandb_dir, "groups")}
    assert list(groups) == [
        "both views", "lateral withheld", "PA withheld",
        "all studies", "came with both views", "came with PA only", "came with lateral only",
        "all studies, judged by which views exist",
    ]  # fmt: skip
    assert groups["lateral withheld"]["number"] == masked["num_studies"]
    assert groups["all studies"]["Brier high"] == document["groups"]["all"]["macro"]["brier"]["high"]
    points = table(wandb_dir, "operating_points")
    (row,) = (row for row in points if (row["studies are"], row["finding"]) == ("PA withheld", "Nodule"))
    told = masked["pa_hidden"]["findings"]["Nodule"]["operating_point"]
    assert (row["threshold"], row["true positive"]) == (told["threshold"], told["true_positive"])
    assert row["sensitivity low"] == told["sensitivity"]["low"]

    config = merged(records, "config")
    for name in ("both", "lateral_hidden", "pa_hidden"):
        for chart in (f"roc_{name}", f"precision_recall_{name}"):
            panel = config[f"_wandb.visualize.evaluation/{chart}"]["panel_config"]
            assert panel["panelDefId"] == "wandb/area-under-curve/v0"
            curve = table(wandb_dir, f"{chart}_table")
            assert {row["class"] for row in curve} == set(FINDINGS)
            for finding in FINDINGS:
                x, y = np.array([(row["x"], row["y"]) for row in curve if row["class"] == finding]).T
                assert len(x) <= 100
                if chart.startswith("roc"):
                    expected = masked[name]["findings"][finding]["auroc"]["value"]
                    assert auc(x, y) == pytest.approx(expected, abs=1e-3)

    captions = summary["evaluation/studies.captions"]
    assert [caption.partition(":")[0] for caption in captions] == ["both", "pa_only", "lateral_only", "both"]
    predictions = read_predictions(evaluate.folder / "predictions.parquet")
    points = read_operating_points(evaluate.folder / "operating_points.json")
    told = {f"Effusion {value:.2f}" for value in calibrated_scores(predictions, score="route", points=points)[:, 0]}
    assert all(caption.split(": ")[1].split(" (")[0] in told for caption in captions)
    assert len(list(wandb_dir.glob("files/media/images/evaluation/*.png"))) == 4

    artifacts = {record["artifact"]["name"]: record["artifact"] for record in records if record["type"] == "artifact"}
    evaluation = artifacts[f"evaluation-{evaluate.id}-test-best"]
    assert evaluation["type"] == "evaluation"
    (kept,) = evaluation["manifest"]["contents"]
    assert kept["path"] == "evaluation.json"
    with open(kept["local_path"], encoding="utf-8") as file:
        assert json.load(file) == document


def test_nothing_names_a_patient_a_study_a_file_or_the_host(recorded):
    """In every byte of the run: its records, tables, images, copies for artifacts and logs."""
    evaluate, records, _ = recorded
    assert b"PATIENTSECRET" in (evaluate.folder / "predictions.parquet").read_bytes()
    files = [path for path in (evaluate.folder / "wandb").rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files) and len(files) > 20
    for path in files:
        content = path.read_bytes()
        assert [secret for secret in SECRETS if secret.encode() in content] == [], path
    assert not any(record["type"] == "environment" for record in records)
    (run,) = (record["run"] for record in records if record["type"] == "run")
    assert "host" not in run


def test_offline_everything_lies_in_the_evaluation_folder(recorded):
    """Artifacts are copied there, not to the home directory, from where `wandb sync` could not tell whose they are."""
    evaluate, records, _ = recorded
    staged = evaluate.folder / "wandb" / f"staged-{evaluate.id}-test-best"
    contents = [
        content for record in records if record["type"] == "artifact"
        for content in record["artifact"]["manifest"]["contents"]
    ]  # fmt: skip
    assert contents and all(content["local_path"].startswith(str(staged)) for content in contents)
    assert not (evaluate.home / ".local").exists()


def test_evaluating_again_replaces_and_another_split_does_not(evaluate):
    evaluate("tracking.wandb=offline")
    (first,) = evaluate.folder.glob("wandb/offline-run-*")
    staged = set((evaluate.folder / "wandb").glob("staged-*/artifacts/staging/*"))
    evaluate("tracking.wandb=offline", "--split", "val", "--out", str(evaluate.folder))
    (second,) = (path for path in evaluate.folder.glob("wandb/offline-run-*") if path != first)
    assert second.name.endswith(f"{evaluate.id}-val-best")
    assert all(path.exists() for path in staged)
    (first / "mark").touch()
    evaluate("tracking.wandb=offline", "tracking.log_evaluation=false")
    runs = sorted(path.name.split("-", 3)[3] for path in evaluate.folder.glob("wandb/offline-run-*"))
    assert runs == [f"{evaluate.id}-test-best", f"{evaluate.id}-val-best"]
    assert not list(evaluate.folder.glob("wandb/*/mark"))
    assert not any(path.exists() for path in staged)


def test_neither_images_nor_the_evaluation_where_they_are_switched_off(evaluate, read_back):
    result = evaluate("tracking.wandb=offline", "tracking.log_evaluation=false", "--checkpoint", "last")
    (wandb_dir,) = evaluate.dir.glob("evaluation-test-last/wandb/offline-run-*")
    assert f"wandb, offline  {wandb_dir}" in result.output.replace("\n", "")
    records = read_back(wandb_dir)
    kinds = {record["artifact"]["type"] for record in records if record["type"] == "artifact"}
    assert kinds == {"run_table"}
    assert not (wandb_dir / "files/media/images").exists()
    (run,) = (record["run"] for record in records if record["type"] == "run")
    assert (run["run_id"], run["display_name"]) == (f"{evaluate.id}-test-last", "run test last")


def test_a_disabled_wandb_gets_nothing(evaluate):
    assert "wandb," not in evaluate("tracking.wandb=disabled").output
    assert not (evaluate.folder / "wandb").exists()


@pytest.mark.parametrize("moment", ["init", "log"])
def test_wandb_that_fails_costs_no_file_and_is_said_once(evaluate, monkeypatch, caplog, moment):
    def fail(*_args, **_kwargs):
        raise ConnectionResetError("gone")

    monkeypatch.setattr(wandb if moment == "init" else wandb.Run, moment, fail)
    with caplog.at_level(logging.WARNING, logger="dualview"):
        result = evaluate("tracking.wandb=offline")
    assert "wandb," not in result.output
    assert (evaluate.folder / "evaluation.json").exists() and (evaluate.folder / "predictions.parquet").exists()
    said = {"init": "the evaluation is not in wandb", "log": "wandb failed (ConnectionResetError: gone)"}[moment]
    assert caplog.text.count(said) == 1


def test_a_network_of_one_view_has_curves_of_all_its_studies(tmp_path, read_back):
    """And no table of what the lateral view is worth."""
    run_dir = tmp_path / "run"
    train(
        Config.model_validate(
            {
                "run": {"dir": run_dir, "device": "cpu"},
                "data": {"image_size_px": 64, "num_workers": 0, "phantom": {"num_studies": 60}},
                "model": {"backbone": "densenet_tiny", "name": "single"},
                "train": {"max_steps": 2, "micro_batch_size": 4},
                "tracking": {"wandb": "disabled", "group": "pilot"},
            }
        )
    )
    result = CliRunner().invoke(app, ["evaluate", str(run_dir), "--resamples", "100", "tracking.wandb=offline"])
    assert result.exit_code == 0, result.output
    (wandb_dir,) = run_dir.glob("evaluation-test/wandb/offline-run-*")
    tables = {path.name.rsplit("_", 2)[0] for path in wandb_dir.glob("files/media/table/evaluation/*.json")}
    assert tables == {"groups", "operating_points", "roc_all_table", "precision_recall_all_table"}
    (run,) = (record["run"] for record in read_back(wandb_dir) if record["type"] == "run")
    assert run["run_group"] == "pilot"


def test_a_picture_shows_what_was_read_and_says_what_is_absent():
    """Float and stored pixels come out alike; the absent view is a dim field with text."""
    stored = (torch.arange(64 * 64).reshape(1, 64, 64) % 256).to(torch.uint8)
    as_float = stored.float() / 127.5 - 1
    pa = np.asarray(study_picture((as_float, None), size=64))
    assert pa.shape == (64, 2 * 64 + 8)
    np.testing.assert_array_equal(pa[:, :64], stored[0])
    assert 100 < pa[:, 72:].max() < 256 and pa[:, 72:].mean() < 100
    lateral = np.asarray(study_picture((None, stored), size=64))
    np.testing.assert_array_equal(lateral[:, 72:], stored[0])
