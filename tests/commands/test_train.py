"""Training in one process: it learns, it repeats itself, it stops when told, and it refuses what it cannot do."""

import json
import re
import shutil

import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner

import dualview.commands.train as training
import dualview.training.step as training_step
from dualview.batch import StudyBatch
from dualview.cli import app
from dualview.commands.train import train
from dualview.config import PhantomConfig, load
from dualview.data.load import Data
from dualview.data.sources.phantom import FINDINGS, draw
from dualview.errors import UserError
from dualview.losses import head_loss_sums
from dualview.models import build_model
from dualview.run import datasets
from dualview.views import GROUPS
from tests.support.runs import records, same_bits, tiny_config, weights


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The run of tiny_config, and what it gave back."""
    run_dir = tmp_path_factory.mktemp("trained") / "run"
    return run_dir, train(tiny_config(run_dir))


def test_two_runs_of_one_seed_are_bit_equal_and_another_seed_is_not(tmp_path):
    dropout = {"dropout": 0.2}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(tiny_config(tmp_path / name, run={"seed": seed}, model=dropout))
    a, b, c = (weights(tmp_path / name) for name in "abc")
    assert same_bits(a, b)
    assert not torch.equal(a["joint.weight"], c["joint.weight"])


def test_workers_change_nothing(trained, tmp_path):
    train(tiny_config(tmp_path / "run", data={"num_workers": 2}))
    assert same_bits(weights(tmp_path / "run"), weights(trained[0]))


def test_the_run_directory_holds_what_the_readme_says(trained):
    run, result = trained
    assert load(run / "config.yaml") == tiny_config(run)
    assert (run / "checkpoints" / "best").resolve().name == f"step-{result.best_step:06d}"
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics["test"]) == set(GROUPS)
    predictions = pd.read_parquet(run / "predictions-test.parquet")
    assert len(predictions) == metrics["test"]["all"]["num_studies"] == 12
    pa_only = predictions[predictions["availability"] == "pa_only"]
    assert pa_only["Nodule/lateral_logit"].isna().all()
    assert pa_only["Nodule/joint_logit"].isna().all()
    assert (pa_only["Nodule/route_logit"] == pa_only["Nodule/pa_logit"]).all()
    both = predictions[predictions["availability"] == "both"]
    assert (both["Nodule/route_logit"] == both["Nodule/joint_logit"]).all()
    assert both["Nodule/route_logit"].notna().all()


def test_every_promised_value_is_logged(trained):
    logged = set().union(*records(trained[0]))
    expected = {f"loss/{head}" for head in ("total", "joint", "pa", "lateral")}
    expected |= {
        f"optim/{name}_{part}" for name in ("learning_rate", "gradient_norm") for part in ("pa", "lateral", "joint")
    }
    expected |= {f"routing/{name}" for name in ("rows_pa", "rows_lateral", "rows_both", "idle_micro_batches_lateral")}
    expected |= {f"speed/{name}" for name in ("images_per_second", "studies_per_second", "data_wait_fraction")}
    expected |= {f"val/auroc_macro_{group}" for group in GROUPS} | {"val_auroc_both/Nodule", "val/loss"}
    assert expected <= logged
    summary = records(trained[0])[-1]["summary"]
    assert {"best/step", "best/val_value", "test/auroc_macro_all", "test_auroc_pa_only/Nodule"} <= set(summary)


def test_the_logged_loss_is_joint_plus_branches_and_rows_are_counted(trained):
    first = records(trained[0])[0]
    assert first["loss/total"] == pytest.approx(first["loss/joint"] + first["loss/pa"] + first["loss/lateral"])
    assert first["routing/rows_pa"] + first["routing/rows_lateral"] - first["routing/rows_both"] == 4


@pytest.mark.parametrize("kind", ["uncertainty", "temperature"])
def test_learned_weights_are_logged_and_kept_in_the_checkpoint(tmp_path, kind):
    """The last logged weights are those that the saved scalar means; 4 steps of Adam at 1e-3 from 1, 0.3 and 0.3."""
    train(tiny_config(tmp_path / "run", loss={"learned_weights": kind}, optim={"learning_rate": 1e-3}))
    of_steps = [record for record in records(tmp_path / "run") if "loss/total" in record]
    logged = [of_steps[-1][f"loss/weight_{head}"] for head in ("joint", "pa", "lateral")]
    scalars = weights(tmp_path / "run")["loss.values"]
    expected = (-scalars).exp() if kind == "uncertainty" else 1 / (scalars**2 + 1e-4)
    assert logged == pytest.approx(expected.tolist(), rel=1e-5)
    assert logged != pytest.approx([1, 0.3, 0.3], rel=1e-5)
    assert logged == pytest.approx([1, 0.3, 0.3], rel=1e-2)
    parts = ("joint", "pa", "lateral", "log_terms")
    assert of_steps[-1]["loss/total"] == pytest.approx(sum(of_steps[-1][f"loss/{part}"] for part in parts))
    assert "optim/learning_rate_loss" in of_steps[-1]


@pytest.mark.parametrize(
    ("network", "view", "mix", "learning_rate"),
    [
        ("auxloss", "pa", (0.5, 0.25, 0.25), 1e-2),
        ("dualnet", "pa", (0.5, 0.25, 0.25), 1e-2),
        ("hemis", "pa", (0.5, 0.25, 0.25), 1e-2),
        ("attention", "pa", (0.5, 0.25, 0.25), 1e-3),
        ("single", "pa", (0.5, 0.5, 0), 1e-2),
        ("single", "lateral", (0.5, 0, 0.5), 1e-2),
        ("stacked", "pa", (1, 0, 0), 1e-2),
    ],
    ids=str,
)
def test_sixteen_phantoms_are_overfitted(tmp_path, monkeypatch, network, view, mix, learning_rate):
    """AUROC 1.0 of all four findings on the very studies trained on, as evaluation sees them; by heart where a view
    does not show a finding."""
    phantoms = dict(zip(("both", "pa_only", "lateral_only"), mix, strict=True)) | {"num_studies": 16}
    table, read = draw(PhantomConfig.model_validate(phantoms), seed=0, image_size_px=64)
    data = Data(
        train=table, val=table, test=table.select([]), read=read, files=None, sources=(),
        whole_splits={"train": table, "val": table.select([]), "test": table.select([])},
    )  # fmt: skip
    monkeypatch.setattr(datasets, "load_data", lambda *_args, **_kwargs: data)
    config = tiny_config(
        tmp_path / "run",
        data={"augment": {"rotation_degrees": 0, "noise_std": 0}},
        train={"max_steps": 100, "eval_every_steps": 100, "log_every_steps": 100, "micro_batch_size": 8},
        optim={"learning_rate": learning_rate, "warmup_steps": 5},
        model={"name": network, "view": view},
        loss={"pos_weight": "none"},
    )
    of_findings = train(config).metrics["val"]["all"].findings
    assert {finding: of.auroc for finding, of in of_findings.items()} == dict.fromkeys(FINDINGS, 1.0)


def test_runs_of_one_data_seed_compare_on_the_same_patients(tmp_path, caplog):
    """Two seeds, and a third with a third of the training patients; 60 phantoms: 36 train, 12 val, 12 test."""
    caplog.set_level("INFO")
    data = {"seed": 3}
    limited = {**data, "split": {"max_train_patients": 12}, "train_on": ["both"]}
    for name, seed, of_run in (("a", 0, data), ("b", 1, data), ("c", 1, limited)):
        train(tiny_config(tmp_path / name, run={"seed": seed}, data=of_run))
    a, b, c = (tmp_path / name for name in "abc")
    assert (a / "split.csv").read_text() == (b / "split.csv").read_text() == (c / "split.csv").read_text()
    studies = [pd.read_parquet(run / "predictions-test.parquet")["study"].tolist() for run in (a, b, c)]
    assert len(studies[0]) == 12 and studies[0] == studies[1] == studies[2]
    assert not torch.equal(weights(a)["joint.weight"], weights(b)["joint.weight"])
    left_out = [int(n) for n in re.findall(r"leave out (\d+) training studies and (\d+) patients", caplog.text)[0]]
    assert left_out[0] == left_out[1] and 24 < left_out[0] < 36  # a phantom patient has one study
    counts = [int(n) for n in re.findall(r"studies train (\d+), val 12, test 12;", caplog.text)]
    assert counts == [36, 36, 36 - left_out[0]]


def test_studies_that_a_network_cannot_take_are_left_out_and_counted(tmp_path, caplog):
    mix = {"num_studies": 60, "both": 0.5, "pa_only": 0.3, "lateral_only": 0.2}
    caplog.set_level("INFO")
    for model, kinds, left_out in (
        ({"name": "single", "view": "lateral"}, {"lateral_only"}, 18),
        ({"name": "stacked"}, {"both"}, 30),
    ):
        run = tmp_path / model["name"]
        train(tiny_config(run, data={"phantom": mix}, model=model))
        counts = re.findall(r"left out: train (\d+), val (\d+), test (\d+)", caplog.text)[-1]
        assert sum(map(int, counts)) == left_out
        assert set(pd.read_parquet(run / "predictions-test.parquet")["availability"]) == kinds
        assert len(pd.read_csv(run / "split.csv")) == 60  # of all, so that another network can take it


def test_early_stopping_counts_evaluations_without_improvement(tmp_path):
    steps = {"max_steps": 50, "eval_every_steps": 1, "early_stopping_evaluations": 2}
    result = train(tiny_config(tmp_path / "run", train=steps, optim={"learning_rate": 1e-12}))
    aurocs = [r["val/value"] for r in records(tmp_path / "run") if "val/value" in r]
    assert result.num_steps == len(aurocs) < 50
    assert max(aurocs[-2:]) <= max(aurocs[:-2]) == result.best_value


def test_a_micro_batch_larger_than_the_data_set_is_one_step_of_all(tmp_path):
    train(tiny_config(tmp_path / "run", train={"max_steps": 1, "micro_batch_size": 500}))
    assert records(tmp_path / "run")[0]["routing/labelled_studies"] == 36  # 60 % of 60


@pytest.mark.parametrize(
    "mix", [{"both": 0, "pa_only": 0, "lateral_only": 1}, {"both": 0, "pa_only": 1, "lateral_only": 0}]
)
def test_one_view_everywhere_trains_that_branch_and_leaves_the_other(tmp_path, mix):
    train(tiny_config(tmp_path / "run", data={"phantom": {"num_studies": 60, **mix}}))
    idle = "pa" if mix["lateral_only"] else "lateral"
    last = [r for r in records(tmp_path / "run") if f"optim/gradient_norm_{idle}" in r][-1]
    assert last[f"optim/gradient_norm_{idle}"] == 0
    assert last[f"routing/idle_micro_batches_{idle}"] == 1
    assert weights(tmp_path / "run")[f"{idle}.features.norm0.num_batches_tracked"] == 0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("channels_last", [True, False])
def test_precisions_and_memory_orders_train(tmp_path, precision, channels_last):
    steps = {"max_steps": 2, "precision": precision, "channels_last": channels_last}
    train(tiny_config(tmp_path / "run", train=steps))
    assert all(value.isfinite().all() for value in weights(tmp_path / "run").values())


def test_a_diverged_training_stops_after_max_bad_steps_and_names_the_studies(tmp_path):
    config = tiny_config(
        tmp_path / "run",
        optim={"learning_rate": 1e30},
        train={"max_steps": 20, "eval_every_steps": 20, "log_every_steps": 1, "max_bad_steps": 3},
    )
    with pytest.raises(UserError, match=r"not finite in 3 steps in a row.*learning_rate"):
        train(config)
    lines = (tmp_path / "run" / "bad_steps.txt").read_text().splitlines()
    assert len(lines) == 3
    assert all("loss nan: " in line and line.count(",") > 2 for line in lines)


def test_a_single_bad_step_is_skipped_counted_and_leaves_no_trace(tmp_path, monkeypatch):
    """The loss of step 3 is infinite: weights, moments and statistics stay those of step 2."""
    real = training_step.take_step
    forward = training_step.forward

    def take_step(*args, step, **kwargs):
        def broken(*args, **kwargs):
            losses = forward(*args, **kwargs)
            return losses._replace(pa=losses.pa + torch.inf)

        with monkeypatch.context() as patch:
            if step == 2:
                patch.setattr(training_step, "forward", broken)
            return real(*args, step=step, **kwargs)

    monkeypatch.setattr(training, "take_step", take_step)
    steps = {"max_steps": 5, "eval_every_steps": 10, "checkpoint_every_steps": 1, "keep_checkpoints": 9}
    train(tiny_config(tmp_path / "run", train=steps))
    two, three, four = (weights(tmp_path / "run", f"step-{n:06d}") for n in (2, 3, 4))
    assert same_bits(two, three)
    assert not torch.equal(four["joint.weight"], three["joint.weight"])
    assert [record["optim/bad_steps_total"] for record in records(tmp_path / "run") if "loss/total" in record] == [
        0, 0, 1, 1, 1,
    ]  # fmt: skip
    assert "step 3, micro-batch 0, rank 0: loss inf" in (tmp_path / "run" / "bad_steps.txt").read_text()


# -- bad input, as a user meets it: exit status 1, one message, no traceback --


@pytest.fixture
def train_on_hospital(hospital, tmp_path):
    """Trains on 24 PA images and 8 laterals by the command, with changes of the configuration."""
    root = hospital("bpp" * 8)
    config = tiny_config(
        tmp_path / "run",
        data={"source": "csv", "root": root, "findings": ["A"]},
        train={"max_steps": 8, "eval_every_steps": 8},
    )
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml())

    def run(*overrides: str):
        result = CliRunner().invoke(app, ["train", str(path), *overrides])
        assert "Traceback" not in result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    run.root, run.dir = root, tmp_path / "run"
    return run


def test_good_input_exits_with_zero_and_prints_the_table(train_on_hospital):
    result = train_on_hospital()
    assert result.exit_code == 0, result.output
    assert "test AUROC" in result.output
    assert "macro" in result.output


def truncate(root):
    path = root / "0PA.png"
    path.write_bytes(path.read_bytes()[:600])


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_truncated_image_is_an_error_or_a_missing_view(train_on_hospital, num_workers):
    truncate(train_on_hospital.root)
    result = train_on_hospital(f"data.num_workers={num_workers}")
    assert result.exit_code == 1
    assert "0PA.png: cannot be decoded" in result.output
    assert "data.on_bad_image=treat_view_as_missing" in result.output
    shutil.rmtree(train_on_hospital.dir)
    result = train_on_hospital("data.on_bad_image=treat_view_as_missing", f"data.num_workers={num_workers}")
    assert result.exit_code == 0, result.output
    assert "0PA.png" in (train_on_hospital.dir / "bad_images.txt").read_text()


def change_cell(old, new):
    def change(root):
        path = root / "metadata.csv"
        path.write_text(path.read_text().replace(old, new))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "1PA.png").unlink(), "metadata.csv:4: no image file"),
        (change_cell("1PA.png,1", "1PA.png,2"), "metadata.csv:4: A is '2'"),
        (change_cell("p1,1,PA", "p1,1,oblique"), "metadata.csv:4: view is 'oblique'"),
        (change_cell("2PA.png", "1PA.png"), "image 1PA.png stands in line 4 already"),
        (change_cell("1PA.png", ""), "metadata.csv:4: path is blank"),
        (change_cell("path", "file"), "has no column 'path'"),
        (lambda root: Image.new("L", (1, 1)).save(root / "3PA.png"), "3PA.png: is 1x1 px"),
        (lambda root: Image.new("L", (64, 64)).save(root / "3PA.png"), "3PA.png: has one value everywhere"),
        (lambda root: (root / "metadata.csv").write_text("patient,study,view,path,A\n"), "has no rows"),
        (shutil.rmtree, "is not a folder"),
    ],
)
def test_bad_data_gets_one_clear_message(train_on_hospital, damage, message):
    damage(train_on_hospital.root)
    result = train_on_hospital()
    assert result.exit_code == 1
    assert message in result.output
    assert result.output.count("error:") == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.max_step=3"], "train.max_step: unknown key; did you mean 'max_steps'?"),
        (["optim.learning_rate=fast"], "optim.learning_rate: found 'fast'"),
        (["data.split.train=0.98", "data.split.val=0.01", "data.split.test=0.01"], "split is empty"),
        (["data.findings=[B]"], "has no column 'B'"),
        (["run.dir=/proc/nowhere"], "run.dir /proc/nowhere cannot be written"),
        (["model.weights=/no/such.pt"], "no such file /no/such.pt"),
        (["model.weights=imagenet"], "torchvision has none for model.backbone densenet_tiny"),
        (["run.device=cuda"], "this process sees no GPU"),
    ],
)
def test_bad_settings_get_one_clear_message(train_on_hospital, overrides, message):
    if "run.device=cuda" in overrides and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    result = train_on_hospital(*overrides)
    assert result.exit_code == 1
    assert message in result.output
    assert result.output.count("error:") == 1


def test_a_directory_with_another_run_is_left_alone(train_on_hospital):
    assert train_on_hospital().exit_code == 0
    before = (train_on_hospital.dir / "metrics.jsonl").read_bytes()
    result = train_on_hospital("train.resume=never")
    assert result.exit_code == 1
    assert "is not empty, it holds checkpoints" in result.output
    assert (train_on_hospital.dir / "metrics.jsonl").read_bytes() == before


def test_no_such_config_is_an_error(tmp_path):
    result = CliRunner().invoke(app, ["train", str(tmp_path / "none.yaml")])
    assert result.exit_code == 1
    assert "no such config file" in result.output


def test_the_config_command_prints_what_would_run(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("optim: {learning_rate: 3e-4}")
    result = CliRunner().invoke(app, ["config", str(path), "train.max_steps=5"])
    assert result.exit_code == 0
    printed = yaml.safe_load(result.output)
    assert (printed["optim"]["learning_rate"], printed["train"]["max_steps"]) == (3e-4, 5)


def test_real_x_rays_train(covid_cxr, tmp_path):
    root = CliRunner().invoke(
        app,
        [
            "train",
            "configs/covid_cxr.yaml",
            f"data.root={covid_cxr}",
            f"run.dir={tmp_path / 'run'}",
            "run.device=cpu",
            "model.backbone=densenet_tiny",
            "data.image_size_px=64",
            "data.num_workers=0",
            "train.max_steps=5",
            "tracking.wandb=disabled",
        ],
    )
    assert root.exit_code == 0, root.output
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert set(metrics["test"]["all"]["findings"]) == {"COVID-19", "Pneumonia (any)"}


@pytest.mark.parametrize("probability", [0, 0.5])
def test_a_horizontal_flip_is_warned_of(tmp_path, caplog, probability):
    data = {"augment": {"horizontal_flip_probability": probability}}
    train(tiny_config(tmp_path / "run", data=data, train={"max_steps": 1}))
    assert ("mirrors images" in caplog.text) == (probability > 0)


def test_a_weight_counts_like_more_studies(make_batch):
    """Loss sum over weight sum: weights of 2 and 1 are what the first study twice and the second once are."""
    model = build_model("auxloss", num_findings=3, backbone="densenet_tiny", seed=0).eval()
    batch = make_batch("bp")
    doubled = StudyBatch.from_views(
        pa=[batch.pa[0], batch.pa[0], batch.pa[1]],
        lateral=[batch.lateral[0], batch.lateral[0], None],
        labels=batch.labels[[0, 0, 1]],
    )
    weighted = batch._replace(weight=torch.tensor([2.0, 1.0]))
    one = head_loss_sums(model(weighted), batch=weighted).total / weighted.weight.sum()
    other = head_loss_sums(model(doubled), batch=doubled).total / 3
    torch.testing.assert_close(one, other)


def test_the_best_checkpoint_is_a_wandb_artifact_where_that_is_wanted(tmp_path, read_back):
    tracking = {"wandb": "offline", "log_checkpoint": True}
    result = train(tiny_config(tmp_path / "run", tracking=tracking))
    (artifact,) = (record["artifact"] for record in read_back(result.wandb_dir) if record["type"] == "artifact")
    kept = {content["path"]: content["local_path"] for content in artifact["manifest"]["contents"]}
    for name in ("model.safetensors", "config.yaml"):
        with open(kept[name], "rb") as file:
            assert file.read() == (tmp_path / "run/checkpoints/best" / name).read_bytes()
    assert f"step-{result.best_step}" in artifact["aliases"]
