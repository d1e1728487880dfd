"""Several runs that answer together: evaluate, predict and load against numpy on what each run says alone."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from typer.testing import CliRunner

import dualview
from dualview.cli import app
from dualview.commands.train import train
from dualview.config import Config
from dualview.errors import UserError
from dualview.evaluation.points_file import read_operating_points
from dualview.evaluation.prediction_table import read_predictions
from dualview.inference.ensemble import evaluate_command
from dualview.run.directory import RunDir
from dualview.run.trained import load_trained
from tests.commands.test_several_images import MEAN, settings, write_studies
from tests.support.process_group import dualview as run_dualview

SCORES = ("route", "joint", "pa", "lateral", "lateral_hidden", "pa_hidden")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """auxloss `a`; `b` of another seed, weight, size of images and order of findings; `c`, which sees PA alone.

    `a` is evaluated with `b` and with `c`; what that has printed is in `a b.txt` and `a c.txt`.
    """
    folder = tmp_path_factory.mktemp("ensemble")
    (folder / "images").mkdir()
    write_studies(folder / "images", num_studies=56)
    changes = {
        "a": {},
        "b": {
            "run": {"seed": 1},
            "loss": {"pos_weight": "none"},
            "data": {"findings": ["B", "A"], "image_size_px": 96},
        },
        "c": {"run": {"seed": 2}, "model": {"name": "single", "view": "pa"}},
        "other": {"data": {"seed": 9}},
    }
    for name, sections in changes.items():
        values = settings(folder / name, folder / "images", seed=5).model_dump(mode="json")
        for section, keys in sections.items():
            values[section] |= keys
        train(Config.model_validate(values))
    for other in "bc":
        (folder / f"a {other}.txt").write_text(evaluate(folder / "a", folder / other))
    return folder


@pytest.fixture
def runs(trained, tmp_path):
    for name in ("a", "b", "c", "other"):
        shutil.copytree(trained / name, tmp_path / name, symlinks=True)
    return tmp_path


def invoke(*words):
    return CliRunner().invoke(app, list(map(str, words)))


def evaluate(*words):
    done = invoke("evaluate", *words, "--resamples", 100)
    assert done.exit_code == 0, done.output
    return done.output


def home_of(*runs):
    """Where the evaluation of these runs lies, in the first of them."""
    names = [run.name for run in runs]
    (home,) = (
        members.parent
        for members in runs[0].glob("ensemble-*/members.json")
        if [member["run"] for member in json.loads(members.read_text())["members"]] == names
    )
    return home


def alone(run, split="test"):
    """By score {study: logits of A and B less log of the weight}, of one run."""
    table, trained = read_predictions(run / f"predictions-{split}.parquet"), load_trained(RunDir(run))
    columns = [table.findings.index(finding) for finding in ("A", "B")]
    shift = np.array([trained.log_pos_weight[finding] for finding in ("A", "B")])
    return {score: dict(zip(table.study_ids, table.logits[score][:, columns] - shift, strict=True)) for score in SCORES}


def test_the_logits_are_the_mean_of_both_and_the_spread_is_theirs(runs, trained):
    a, b = runs / "a", runs / "b"
    home = home_of(a, b)
    together = read_predictions(home / "evaluation-test/predictions.parquet")
    assert together.findings == ("A", "B")
    of_runs = [alone(a), alone(b)]
    for score in SCORES:
        both = np.array([[of_run[score][study] for study in together.study_ids] for of_run in of_runs])
        np.testing.assert_allclose(together.logits[score], both.mean(axis=0), atol=1e-9, err_msg=score)
        if score == "route":
            np.testing.assert_allclose(together.spread, both.std(axis=0, ddof=1), atol=1e-9)
    document = json.loads((home / "evaluation-test/evaluation.json").read_text())
    assert [member["run"] for member in document["members"]] == ["a", "b"]
    points = read_operating_points(home / "operating_points.json")
    assert points.chosen_on == "val" and set(points.log_pos_weight.values()) == {0.0}
    # Youden's index of the mean logits on val, by hand: pairs of sensitivity and specificity at every probability.
    val = [alone(a, "val")["route"], alone(b, "val")["route"]]
    table = read_predictions(a / "predictions-val.parquet")
    rows = [row for row in range(len(table)) if table.availability[row] == 0]
    p = expit([np.mean([of_run[table.study_ids[row]] for of_run in val], axis=0)[0] for row in rows])
    truth = table.labels[rows, 0] == 1
    best = max((p[truth] >= cut).mean() + (p[~truth] < cut).mean() for cut in [*p, 1.1])
    cut = points.routes["both"]["A"].threshold
    assert (p[truth] >= cut).mean() + (p[~truth] < cut).mean() == pytest.approx(best)
    assert f"{trained / home.relative_to(runs)}/operating_points.json" in (trained / "a b.txt").read_text().replace(
        "\n", ""
    )


def test_the_order_of_runs_changes_nothing_and_finds_the_same_folder(runs):
    a, b = runs / "a", runs / "b"
    home = home_of(a, b)
    before = read_predictions(home / "evaluation-test/predictions.parquet")
    points = (home / "operating_points.json").read_bytes()
    evaluate(b, a, "--calibrate", "--threshold", "sensitivity=0.9")
    assert not list(b.glob("ensemble-*"))
    after = read_predictions(home / "evaluation-test/predictions.parquet").with_findings(("A", "B"))
    np.testing.assert_array_equal(after.logits["route"], before.logits["route"])
    own = home / "evaluation-test/operating_points.json"
    assert (home / "operating_points.json").read_bytes() == points != own.read_bytes()
    evaluate(b, a, "--threshold", "sensitivity=0.9", "--set-thresholds")
    assert read_operating_points(home / "operating_points.json").rule == "sensitivity=0.9"


def test_two_processes_say_the_same_also_of_all_images(runs, on_ranks):
    a, c = runs / "a", runs / "c"
    words = ("evaluate", a, c, MEAN, "--set-thresholds", "--resamples", 100)
    home = home_of(a, c)
    names = ("operating_points.json", "evaluation-test/predictions.parquet", "evaluation-test/evaluation.json")
    of_first = {name: (home / name).read_bytes() for name in names}
    assert invoke(*words).exit_code == 0
    one = {name: (home / name).read_bytes() for name in names}
    assert all(one[name] != of_first[name] for name in names)
    shutil.rmtree(home)
    on_ranks(2, run_dualview, *words)
    assert one == {name: (home / name).read_bytes() for name in names}


def test_a_network_of_pa_alone_answers_where_it_can(runs):
    """On complete studies and PA only: both; on lateral only: one, without a spread; withheld as it is for each."""
    a, c = runs / "a", runs / "c"
    home = home_of(a, c)
    together = read_predictions(home / "evaluation-test/predictions.parquet")
    aux, single = alone(a), alone(c)
    kinds = set()
    for row, study in enumerate(together.study_ids):
        kind = together.availability[row]
        kinds.add(int(kind))
        members = [aux["route"][study]] + ([single["route"][study]] if kind != 2 else [])
        np.testing.assert_allclose(together.logits["route"][row], np.mean(members, axis=0), atol=1e-9)
        expected = np.full(2, np.nan) if kind == 2 else np.std(members, axis=0, ddof=1)
        np.testing.assert_allclose(together.spread[row], expected, atol=1e-9)
        if kind == 0:
            hidden = np.mean([aux["lateral_hidden"][study], single["route"][study]], axis=0)
            np.testing.assert_allclose(together.logits["lateral_hidden"][row], hidden, atol=1e-9)
            np.testing.assert_allclose(together.logits["pa_hidden"][row], aux["pa_hidden"][study], atol=1e-9)
            assert np.isnan(together.logits["joint"][row]).all()  # `single` has no such head
        else:
            assert np.isnan(together.logits["lateral_hidden"][row]).all()
    assert kinds == {0, 1, 2}
    document = json.loads((home / "evaluation-test/evaluation.json").read_text())
    assert [member["routes"] for member in document["members"]] == [["both", "pa_only", "lateral_only"], ["pa_only"]]


def test_predict_and_load_answer_as_the_evaluation(runs, trained):
    a, b, c = (runs / name for name in "abc")
    table, rows = runs / "some.csv", pd.read_csv(trained / "images/metadata.csv", dtype=str)
    of_test = read_predictions(a / "predictions-test.parquet").study_ids
    rows[rows["study"].isin([*of_test, "2", "4"])].to_csv(table, index=False)
    words = ("predict", a, b, c, "--csv", table, "--root", trained / "images", "--device", "cpu", "--workers", 0)
    done = invoke(*words, "--out", runs / "early.csv")
    assert done.exit_code == 0, done.output
    early = pd.read_csv(runs / "early.csv", dtype={"study": str})
    assert early["A_decision"].isna().all()
    evaluate(a, b, c)
    done = invoke(*words, "--out", runs / "out.csv")
    assert done.exit_code == 0, done.output
    answers = pd.read_csv(runs / "out.csv", dtype={"study": str}).set_index("study")
    assert list(answers.columns) == [
        "patient", "views", "members", "A", "A_decision", "A_spread", "B", "B_decision", "B_spread", "reason",
    ]  # fmt: skip
    together = read_predictions(home_of(a, b, c) / "evaluation-test/predictions.parquet")
    of_test = answers.loc[list(together.study_ids)]
    np.testing.assert_allclose(of_test[["A", "B"]], expit(together.logits["route"]), atol=1e-5)
    np.testing.assert_allclose(of_test[["A_spread", "B_spread"]], together.spread, atol=1e-4)
    assert of_test["members"].tolist() == [2 if kind == 2 else 3 for kind in together.availability]
    points = read_operating_points(home_of(a, b, c) / "operating_points.json")
    for row, kind in enumerate(together.availability):
        threshold = points.routes[("both", "pa_only", "lateral_only")[kind]]["A"].threshold
        if threshold is not None:
            assert of_test["A_decision"].iloc[row] == (of_test["A"].iloc[row] >= threshold - 1e-6)
    network = dualview.load([a, b, c], device="cpu")
    rows = pd.read_csv(table, dtype=str).drop_duplicates(["study", "view"])
    paths = {view: dict(rows[rows["view"] == view][["study", "path"]].to_numpy()) for view in ("PA", "L")}
    files = {
        view: [trained / "images" / paths[view][study] if study in paths[view] else None for study in answers.index]
        for view in ("PA", "L")
    }
    result = network.predict(pa=files["PA"], lateral=files["L"])
    np.testing.assert_allclose(result.probabilities, answers[["A", "B"]], atol=1e-5)
    assert result.num_members.tolist() == answers["members"].tolist()
    frame = result.to_frame()
    assert list(frame.columns) == [name for name in answers.columns if name != "patient"]


def test_predictions_without_operating_points_say_what_to_run(runs, caplog):
    b, c = runs / "b", runs / "c"
    dualview.load([b, c], device="cpu")
    assert f"`dualview evaluate {b} {c}` makes their operating points" in caplog.text
    # Of networks that are not the best of all runs no step is common, although the first is the best of its run.
    b_last, c_last = load_trained(RunDir(b)), replace(load_trained(RunDir(c)), step=3, folder=c)
    assert evaluate_command([b_last, c_last]) == f"dualview evaluate {b} {c} --checkpoint last"
    assert evaluate_command([b_last, replace(c_last, step=2)]) == f"dualview evaluate {b} {c} --checkpoint 2"


def test_a_list_of_one_run_is_that_run(runs, trained):
    images = sorted((trained / "images").glob("*.png"))[:5]
    one, listed = (dualview.load(run, device="cpu").predict(pa=images) for run in (runs / "a", [runs / "a"]))
    np.testing.assert_array_equal(one.probabilities, listed.probabilities)
    assert listed.spread is None and listed.num_members is None
    assert list(one.to_frame().columns) == ["views", "A", "A_decision", "B", "B_decision", "reason"]


def test_what_cannot_answer_together_is_refused(runs, tmp_path):
    a = runs / "a"
    shutil.copytree(a, runs / "copy", symlinks=True)
    for twice in ([a, a], [a, runs / "copy"]):
        with pytest.raises(UserError, match="the same network"):
            dualview.load(twice)
        done = invoke("evaluate", *twice)
        assert done.exit_code == 1 and "the same network" in done.output
    done = invoke("evaluate", a, runs / "other")
    said = " ".join(done.output.split())
    assert done.exit_code == 1 and "patient(s) of the val split of" in said and "were trained on by" in said
    tables = [pd.read_csv(run / "split.csv") for run in (a, runs / "other")]
    leaked = set(tables[0].query("split == 'val'")["patient"]) & set(tables[1].query("split == 'train'")["patient"])
    assert f"error: {len(leaked)} patient(s)" in said
    done = invoke("evaluate", a, runs / "b", "--on", "other.yaml")
    assert done.exit_code == 1 and "--on is for one run" in done.output


def test_other_findings_are_named(make_run, tmp_path):
    one = make_run()
    other = make_run(folder="other", findings=("Nodule", "Mass", "Hernia"))
    with pytest.raises(UserError, match="lacks Effusion and has also Mass"):
        dualview.load([one, other])


def test_the_report_draws_it(runs):
    a, b = runs / "a", runs / "b"
    home = home_of(a, b)
    for folder in (home, home / "evaluation-test"):
        done = invoke("report", folder)
        assert done.exit_code == 0, done.output
        page = (folder / "report.html").read_text()
        assert "The mean logits of 2 networks" in page and home.name in page
        assert "what these networks together gain" in page and "several images of a view" not in page
    evaluate(a)
    done = invoke("report", a, home, "--out", runs / "both.html")
    assert done.exit_code == 0, done.output


def test_probabilities_of_members_of_other_weights_mix_rightly(runs):
    """`a` has learned with a weight of positives, `b` without: the mean is of what both mean by their logits."""
    a, b = dualview.load(runs / "a", device="cpu"), dualview.load(runs / "b", device="cpu")
    assert any(a.trained.log_pos_weight.values()) and not any(b.trained.log_pos_weight.values())
    image = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    of_a, of_b = a.predict(pa=image).as_dict(), b.predict(pa=image).as_dict()
    together = dualview.load([runs / "a", runs / "b"], device="cpu").predict(pa=image).as_dict()
    for finding in ("A", "B"):
        mean = (logit(of_a[finding]) + logit(of_b[finding])) / 2
        np.testing.assert_allclose(logit(together[finding]), mean, atol=1e-9)
