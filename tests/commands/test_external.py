"""`dualview evaluate RUN --on CONFIG`: recomputed by scikit-learn, and what it refuses and leaves alone."""

import json
import re
import shutil
import socket
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.special import expit
from sklearn.metrics import average_precision_score, brier_score_loss, recall_score, roc_auc_score
from typer.testing import CliRunner

from dualview.cli import app
from dualview.commands.train import train
from dualview.config import Config
from dualview.evaluation.external import set_aside
from dualview.evaluation.prediction_table import read_predictions
from dualview.views import ROUTES
from tests.support.hospital import write_hospital
from tests.support.runs import tiny_config

FINDINGS = ("Effusion", "Lung Opacity", "Hernia")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Trained on 90 patients of noise, with three findings."""
    folder = tmp_path_factory.mktemp("own")
    write_hospital(folder, "bpl" * 30, findings=FINDINGS)
    values = tiny_config(folder / "run").model_dump(mode="json")
    values["data"] |= {"source": "csv", "root": str(folder), "findings": list(FINDINGS), "phantom": {}}
    train(Config.model_validate(values))
    return folder / "run"


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run", symlinks=True)


@pytest.fixture
def other(tmp_path):
    """`other(...)` writes another hospital of 80 patients and its config; returns the file."""

    def other(name="second", *, kinds="pplb" * 20, findings=("pleural_effusion", "Lung Opacity", "Scoliosis"), **data):
        root = write_hospital(tmp_path / f"data-{name}", kinds, findings=findings)
        table = pd.read_csv(root / "metadata.csv", dtype=str)
        table["patient"] = "other-" + table["patient"]
        table.to_csv(root / "metadata.csv", index=False)
        values = {"source": "csv", "root": str(root), "findings": list(findings), **data}
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump({"data": values}))
        return file

    return other


def evaluate(run, *arguments):
    done = CliRunner().invoke(app, ["evaluate", str(run), "--resamples", "100", *map(str, arguments)])
    done.said = " ".join(done.output.split())
    return done


def document(folder):
    return json.loads((folder / "evaluation.json").read_text())


def contents(run):
    """Every file of a run outside of its external evaluations."""
    return {
        str(file.relative_to(run)): file.read_bytes()
        for file in run.rglob("*")
        if file.is_file() and not str(file.relative_to(run)).startswith("external-")
    }


def judged(folder, run, finding):
    """Truth, probability and decision of the studies with a label, by the run's own operating points."""
    points = json.loads((run / "operating_points.json").read_text())
    predictions = read_predictions(folder)
    k = predictions.findings.index(finding)
    use = predictions.label_mask[:, k]
    routes = np.array(ROUTES, object)[predictions.availability[use]]
    shift = points["log_pos_weight"][finding]
    scale = np.array([points["temperature"][route] for route in routes])
    probability = expit((predictions.logits["route"][use, k] - shift) / scale)
    called = probability >= np.array([points["routes"][route][finding]["threshold"] for route in routes])
    return predictions.labels[use, k].astype(int), probability, called


def delong_variance(truth, scores):
    """By the pairs themselves, of one study per patient."""
    pos, neg = scores[truth == 1], scores[truth == 0]
    wins = (pos[:, None] > neg[None]) + 0.5 * (pos[:, None] == neg[None])
    return wins.mean(axis=1).var(ddof=1) / len(pos) + wins.mean(axis=0).var(ddof=1) / len(neg)


def test_scikit_learn_finds_the_same(run, other):
    before = contents(run)
    done = evaluate(run, "--on", other())
    assert done.exit_code == 0, done.output
    assert contents(run) == before  # thresholds and calibration, and all else, are as they were
    folder = run / "external-second"
    assert (folder / "operating_points.json").read_bytes() == before["operating_points.json"]
    said = document(folder)
    assert said["num_studies"] == said["num_patients"] == 80 and said["split"] == "all"
    assert said["external"]["findings"]["Effusion"] == {"theirs": ["pleural_effusion"], "by": "vocabulary"}
    assert said["external"]["findings"]["Lung Opacity"] == {"theirs": ["Lung Opacity"], "by": "name"}
    assert said["external"]["findings"]["Hernia"] == {"theirs": [], "by": None}
    assert said["external"]["unmatched"] == ["Scoliosis"] and "Hernia: unknown" in done.said
    assert said["groups"]["all"]["findings"]["Hernia"]["num_unknown"] == 80
    predictions = read_predictions(folder / "predictions.parquet")
    studies = predictions.study_ids.astype(int)
    np.testing.assert_array_equal(predictions.labels[:, 0], studies & 1)  # bit 0: pleural_effusion
    np.testing.assert_array_equal(predictions.labels[:, 1], studies >> 1 & 1)
    kinds = {"p": 1, "l": 2, "b": 0}
    np.testing.assert_array_equal(predictions.availability, [kinds["pplb"[study % 4]] for study in studies])
    drift = said["external"]["drift"]["all"]
    assert set(drift["findings"]) == {"Effusion", "Lung Opacity"}
    for finding in ("Effusion", "Lung Opacity"):
        values, variances = [], []
        for file, look in (
            (folder / "predictions.parquet", said["groups"]["all"]),
            (run / "predictions-test.parquet", drift["internal"]),
        ):
            truth, probability, called = judged(file, run, finding)
            ours = look["findings"][finding]
            assert ours["auroc"]["value"] == pytest.approx(roc_auc_score(truth, probability), abs=1e-9)
            precision = average_precision_score(truth, probability)
            assert ours["average_precision"]["value"] == pytest.approx(precision, abs=1e-9)
            assert ours["brier"]["value"] == pytest.approx(brier_score_loss(truth, probability), abs=1e-9)
            point = ours["operating_point"]
            rates = (recall_score(truth, called), recall_score(1 - truth, ~called))
            assert point["sensitivity"]["value"] == pytest.approx(rates[0])
            assert point["specificity"]["value"] == pytest.approx(rates[1])
            values.append((roc_auc_score(truth, probability), precision, *rates))
            variances.append(delong_variance(truth, probability))
        ours = drift["findings"][finding]
        for name, here, there in zip(
            ("auroc", "average_precision", "sensitivity", "specificity"), *values, strict=True
        ):
            assert ours[name]["value"] == pytest.approx(here - there, abs=1e-9)
        error = np.sqrt(sum(variances))
        assert ours["delong"]["standard_error"] == pytest.approx(error, rel=1e-6)
        # The interval is one of Newcombe's for few patients, squared and added: close to the plain one, never far less.
        width = (ours["auroc"]["high"] - ours["auroc"]["low"]) / (2 * 1.96 * error)
        assert 0.85 < width < 1.4
        assert ours["verdict"] == "too_few" and ours["auroc"]["simultaneous_low"] is None  # 18 patients in the own test


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--map", "Effusion"], "write 'Run finding=their finding'"),
        (["--map", "Hernias=Scoliosis"], "the run has no finding 'Hernias' Findings of the run: Effusion, Lung"),
        (["--map", "Hernia=Scoliosi"], "have no finding 'Scoliosi' Findings of these data: pleural_effusion, Lung"),
        (["--map", "Hernia=Scoliosis", "--map", "Hernia=Lung Opacity"], "'Hernia' is mapped to 'Scoliosis' already"),
        (["--map", "Hernia=Scoliosis", "--map", "Effusion=Scoliosis"], "'Scoliosis' is taken for 'Hernia' already"),
        (["--name", "../elsewhere"], "--name '../elsewhere' is to be the name of a folder in RUN"),
        (["--name", ""], "is to be the name of a folder"),
        (["--calibrate"], "leave out --threshold, --calibrate and --set-thresholds"),
        (["--recalibrate-on", "80"], "these data have 80 patients"),
        (["--recalibrate-on", "0"], "give a number from 1 to 79"),
        (["--recalibrate-on", "5"], "nothing can be fitted on these patients"),
        (["model.name=hemis"], "model.name cannot be changed"),
        (["data.rot=/x"], "data.rot"),
    ],
    ids=str,
)  # fmt: skip
def test_mistakes_are_one_clear_error(run, other, arguments, expected):
    done = evaluate(run, "--on", other(), *arguments)
    assert done.exit_code == 1 and expected in done.said, done.output
    assert not list(run.glob("external-*"))


def test_no_common_finding_is_an_error_and_a_map_mends_it(run, other):
    file = other(kinds="pb" * 8, findings=("Kyphosis", "Scoliosis"))
    done = evaluate(run, "--on", file)
    assert done.exit_code == 1
    assert "no finding of these data is one of the run" in done.said and "Kyphosis, Scoliosis" in done.said
    done = evaluate(run, "--on", file, "--map", "Hernia=Scoliosis", "--name", "mapped")
    assert done.exit_code == 0, done.output
    said = document(run / "external-mapped")
    assert said["external"]["name"] == "mapped"
    assert said["external"]["findings"]["Hernia"] == {"theirs": ["Scoliosis"], "by": "map"}
    assert "--name, --map and --recalibrate-on are for other data" in evaluate(run, "--map", "Hernia=Scoliosis").said


def test_patients_who_were_trained_on(run, other, tmp_path):
    """Counted where identifiers are alike, refused where they mean the same people, whatever their form."""
    file = other(kinds="pplb" * 3)
    split = pd.read_csv(run / "split.csv", dtype=str)
    trained_on, chosen_on = (split["patient"][split["split"] == name].tolist() for name in ("train", "val"))
    metadata = tmp_path / "data-second/metadata.csv"
    table = pd.read_csv(metadata, dtype=str)
    names = dict(zip(table["patient"].unique(), [*(p.upper() for p in trained_on[:3]), *chosen_on[:2]], strict=False))
    table["patient"] = table["patient"].map(lambda patient: names.get(patient, patient))
    table.to_csv(metadata, index=False)
    done = evaluate(run, "--on", file)
    assert done.exit_code == 0, done.output
    known = document(run / "external-second")["external"]["patients"]
    assert known == {"are_shared": False, "trained_on": 3, "chosen_on": 2, "tested_on": 0}
    assert "3 have identifiers of the run's train split, 2 of val" in done.said
    done = evaluate(run, "--on", file, "data.shared_patients=true")
    assert done.exit_code == 1 and "3 patient(s) of these data were trained on" in done.said
    assert evaluate(run, "--on", file, "data.shared_patients=false").exit_code == 0
    assert document(run / "external-second")["external"]["patients"]["trained_on"] == 0
    # The table that the run was trained on, as other data: the same people, without a word about it.
    own = yaml.safe_load((run / "config.yaml").read_text())["data"]
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"data": {k: own[k] for k in ("source", "root", "findings")}}))
    done = evaluate(run, "--on", tmp_path / "own.yaml")
    assert done.exit_code == 1 and "were trained on" in done.said and "it is the same table" in done.said
    done = evaluate(run, "--on", tmp_path / "own.yaml", "--split", "test", f"data.split.file={run / 'split.csv'}")
    assert done.exit_code == 0, done.output
    assert document(run / "external-own")["split"] == "test" and document(run / "external-own")["num_studies"] == 18
    assert document(run / "external-own")["external"]["patients"] == {
        "are_shared": True, "trained_on": 0, "chosen_on": 0, "tested_on": 18,
    }  # fmt: skip


def test_patients_set_aside_are_in_no_number_and_the_page(run, other, tmp_path):
    done = evaluate(run, "--on", other(kinds="pb" * 100), "--recalibrate-on", "130")
    assert done.exit_code == 0, done.output
    folder = run / "external-second"
    said = document(folder)
    recalibration = said["external"]["recalibration"]
    assert (said["num_patients"], recalibration["num_patients"], recalibration["num_studies"]) == (70, 130, 130)
    account = said["account"]  # of all who came, in sets of their own
    assert account["splits"]["test"]["availability"] == {"both": 100, "pa_only": 100, "lateral_only": 0}
    assert account["sources"][0]["flow"][-1]["left"] == {"images": 300, "studies": 200, "patients": 200}
    assert account["partition"] == ["All studies of these data: nothing was trained or chosen on them here."]
    assert account["leakage"] == ["No identifier of these patients is one of the run's train or val split."]
    assert len(read_predictions(folder / "predictions.parquet")) == 70
    assert recalibration["operating_points"] == "youden, chosen on 130 patients set aside"
    before, after = said["groups"]["all"]["findings"], recalibration["groups"]["all"]["findings"]
    assert before["Effusion"]["num_positive"] == after["Effusion"]["num_positive"]
    points = json.loads((folder / "recalibrated_operating_points.json").read_text())
    truth, probability, _ = judged(folder / "predictions.parquet", run, "Effusion")
    assert before["Effusion"]["brier"]["value"] == pytest.approx(brier_score_loss(truth, probability), abs=1e-9)
    predictions = read_predictions(folder / "predictions.parquet")
    z = predictions.logits["route"][:, 0] - points["log_pos_weight"]["Effusion"]
    lines = [points["routes"][ROUTES[kind]]["Effusion"]["platt"] for kind in predictions.availability]
    scales = [points["temperature"][ROUTES[kind]] for kind in predictions.availability]
    new = [expit(z_ / scale if line is None else line["slope"] * z_ + line["intercept"])
           for z_, line, scale in zip(z, lines, scales, strict=True)]  # fmt: skip
    assert after["Effusion"]["brier"]["value"] == pytest.approx(brier_score_loss(truth, new), abs=1e-9)
    aside = [set_aside(predictions, num_patients=30, seed=seed) for seed in (0, 1)]
    assert (aside[0] != aside[1]).any()
    done = CliRunner().invoke(app, ["report", str(run), "--evaluation", "external-second"])
    assert done.exit_code == 0, done.output
    page = (folder / "report.html").read_text().partition("/**\n* plotly.js")[0]
    gap = said["external"]["drift"]["all"]["findings"]["Effusion"]["auroc"]["value"]
    assert f"{gap:+.3f}" in page and "130 patients" in page and "Not used, because the run does not have them" in page
    secrets = [str(tmp_path), "other-p", "data-second", f">{socket.gethostname()}<"]
    assert [secret for secret in secrets if secret in page] == []
    done = CliRunner().invoke(app, ["report", str(run), "--evaluation", "external-third"])
    assert done.exit_code == 1 and "There are: external-second" in " ".join(done.output.split())


def test_keys_about_the_network_are_those_of_the_run(run, other, caplog):
    file = other(image_size_px=96, aspect="pad", on_bad_image="treat_view_as_missing")
    broken = file.parent / "data-second/0PA.png"
    broken.write_bytes(b"no image")
    done = evaluate(run, "--on", file)
    assert done.exit_code == 0, done.output
    assert "data.image_size_px (96, the run has 64); data.aspect (pad, the run has center_crop)" in caplog.text
    assert document(run / "external-second")["num_studies"] == 79  # on_bad_image is about the files: theirs counts
    assert "0PA.png" in (run / "external-second/bad_images.txt").read_text() and not (run / "bad_images.txt").exists()


def test_without_an_own_test_nothing_is_compared(run, other, caplog):
    (run / "predictions-test.parquet").unlink()
    done = evaluate(run, "--on", other(kinds="pb" * 8))
    assert done.exit_code == 0, done.output
    assert document(run / "external-second")["external"]["drift"] is None
    assert "no predictions of its own test" in caplog.text and "no predictions of its own test" in done.said
    page = CliRunner().invoke(app, ["report", str(run), "--evaluation", "external-second"])
    assert page.exit_code == 0 and "nothing is compared" in (run / "external-second/report.html").read_text()
    (run / "operating_points.json").unlink()
    done = evaluate(run, "--on", other())
    assert done.exit_code == 1 and "--set-thresholds" in done.said and not (run / "operating_points.json").exists()


def test_wandb_hears_neither_path_nor_name_of_a_file(run, other, read_back):
    config = json.loads(json.dumps(yaml.safe_load((run / "config.yaml").read_text())))
    assert config["tracking"]["wandb"] == "disabled"
    done = evaluate(run, "--on", other("st-mary", kinds="pb" * 8), "tracking.wandb=offline")
    assert done.exit_code == 0, done.output
    found = list((run / "external-st-mary/wandb").glob("offline-run-*/*.wandb"))
    assert len(found) == 1
    sent = json.dumps(read_back(found[0].parent))
    assert "external-" in sent
    assert "other-p" not in sent and "data-st-mary" not in sent
    assert [found for found in re.findall(r'[^" ]*st-mary[^" ]*', sent) if "external-st-mary/wandb" not in found] == []


def test_overrides_may_move_the_table_and_not_change_it(run, tmp_path, caplog):
    """Decided by what the table says: the same elsewhere is fine, in another order too."""
    own = yaml.safe_load((run / "config.yaml").read_text())["data"]["root"]
    moved = shutil.copytree(own, tmp_path / "moved", ignore=shutil.ignore_patterns("run"))
    table = pd.read_csv(moved / "metadata.csv", dtype=str)

    def write(frame):
        frame.to_csv(moved / "metadata.csv", index=False)
        return evaluate(run, f"data.root={moved}", f"data.split.file={run / 'split.csv'}")

    other_order = table[["path", "view", "patient", "study", *FINDINGS]].sample(frac=1, random_state=0)
    assert write(other_order).exit_code == 0
    tested = pd.read_csv(run / "split.csv", dtype=str).query("split == 'test'")["patient"].tolist()
    relabelled = table.copy()
    rows = relabelled["patient"] == tested[0]
    relabelled.loc[rows, "Hernia"] = np.where(relabelled.loc[rows, "Hernia"] == "1", "0", "1")
    complete_tested = next(patient for patient in tested if (table["patient"] == patient).sum() == 2)
    no_lateral = table[(table["patient"] != complete_tested) | (table["view"] == "PA")]
    swapped = table.assign(view=table["view"].map({"PA": "L", "L": "PA"}))
    for changed, expected in (
        (no_lateral, "1 studies of test have other views than in the run"),
        (swapped, "studies of test have other views than in the run"),
        (relabelled, "1 labels of test are other than in the run"),
        (table[table["patient"] != tested[1]], "1 patient(s) of the run are not there"),
    ):
        done = write(changed)
        assert done.exit_code == 1 and expected in done.said and "--on CONFIG" in done.said, done.output
    write(table)
    shutil.copy(run / "split.csv", tmp_path / "kept.csv")
    split = pd.read_csv(tmp_path / "kept.csv", dtype=str)
    split.loc[split["split"] == "val", "split"] = "test"
    split.loc[split["patient"] == tested[0], "split"] = "val"
    split.to_csv(tmp_path / "other.csv", index=False)
    done = evaluate(run, f"data.split.file={tmp_path / 'other.csv'}")
    assert done.exit_code == 1 and "are in another split than in the run" in done.said
    done = evaluate(run, "data.source=dicom")
    assert done.exit_code == 1 and "dualview evaluate RUN --on CONFIG" in done.said


def test_an_evaluation_keeps_off_the_files_of_its_run(run, other):
    """Whatever --out says: the thresholds that predict uses, and the own test that other data are compared with."""
    before, file = contents(run), other()
    on = ("--on", file)
    for out, arguments in (
        (run, ("--threshold", "sensitivity=0.95")), (run, on), (run / "evaluation-test", on), (run / "x/..", on),
        (run / "external-second", ()), (run / "checkpoints", ()),
    ):  # fmt: skip
        done = evaluate(run, *arguments, "--out", out)
        assert done.exit_code == 1 and "give a folder outside of the run" in done.said, done.output
        assert contents(run) == before


def test_another_hospital_in_place_of_the_own_is_refused(run, other, tmp_path):
    other("second", findings=FINDINGS)
    for patients in ("other-p", "p"):  # with identifiers of its own, and with those of the run
        table = pd.read_csv(tmp_path / "data-second/metadata.csv", dtype=str)
        table["patient"] = patients + table["study"]
        table.to_csv(tmp_path / "data-second/metadata.csv", index=False)
        before = contents(run)
        done = evaluate(run, f"data.root={tmp_path / 'data-second'}")
        assert done.exit_code == 1 and ("--on CONFIG" in done.said or "data.split.file=" in done.said), done.output
        assert contents(run) == before


def test_the_advice_to_give_the_old_split_is_taken(run):
    """Patients have been taken out of the table, so that a split by fractions is another; the old one is given."""
    own = yaml.safe_load((run / "config.yaml").read_text())["data"]["root"]
    file = Path(own) / "metadata.csv"
    whole = file.read_bytes()
    try:
        table = pd.read_csv(file, dtype=str)
        table[table["patient"] != "p3"].to_csv(file, index=False)
        done = evaluate(run)
        assert done.exit_code == 1 and f"data.split.file={run / 'split.csv'}" in done.output.replace("\n", ""), (
            done.output
        )
        done = evaluate(run, f"data.split.file={run / 'split.csv'}")
        assert done.exit_code == 0, done.output
    finally:
        file.write_bytes(whole)


def test_several_sources_and_a_store(run, other, tmp_path):
    """The same studies from the files and from a store; each source is matched by itself and is a subgroup."""
    entries = []
    for name, findings in (("north", ("Effusion", "Hernia")), ("south", ("Pleural Effusion", "Lung Opacity"))):
        data = yaml.safe_load(other(name, kinds="bpl" * 6, findings=findings).read_text())["data"]
        entries.append({**data, "name": name})
    file = tmp_path / "both.yaml"
    data = {"sources": entries, "image_size_px": 64, "num_workers": 0}
    file.write_text(yaml.safe_dump({"data": data}))
    assert evaluate(run, "--on", file, "--by", "source").exit_code == 0
    said = document(run / "external-both")
    assert said["num_patients"] == 36  # p0 of the north is not p0 of the south
    assert set(said["subgroups"]["source"]) == {"north", "south"}
    assert said["external"]["findings"]["Effusion"]["theirs"] == ["Effusion", "Pleural Effusion"]
    assert said["groups"]["all"]["findings"]["Hernia"]["num_unknown"] == 18
    file.write_text(yaml.safe_dump({"data": {**data, "store": str(tmp_path / "store")}}))
    done = CliRunner().invoke(app, ["prepare", str(file)])
    assert done.exit_code == 0, done.output
    for image in tmp_path.glob("data-*/*.png"):
        image.write_bytes(image.read_bytes()[:-1] + b"\0")  # the store is read, and not the files
    done = evaluate(run, "--on", file, "--name", "store", "data.check_files=false")
    assert done.exit_code == 0, done.output
    one, two = (read_predictions(run / f"external-{name}/predictions.parquet") for name in ("both", "store"))
    np.testing.assert_allclose(one.logits["route"], two.logits["route"], atol=1e-3)
