"""The dashboard: what is built serialises without a server; offline it says what to do."""

import json
import sys

import pytest
import wandb_workspaces.reports.v2.interface as report_interface
from typer.testing import CliRunner
from wandb_workspaces.reports.v2 import Report
from wandb_workspaces.workspaces import Workspace

from dualview.cli import app
from dualview.commands import dashboard
from dualview.config import Config
from dualview.run.directory import RunDir

METRICS = ("loss/total", "loss/pa", "val/loss", "val/auroc_macro_both", "val/auroc_macro_pa_only", "val_auroc_both/A")
METRICS += ("routing/rows_pa", "routing/idle_micro_batches_lateral", "speed/seconds_per_step", "optim/learning_rate_pa")


@pytest.fixture
def make_run(tmp_path):
    """The files of a run that a dashboard reads."""

    def make(name, *, project="dualview"):
        run_dir = tmp_path / name
        (run_dir / "wandb" / f"offline-run-1-{name}id").mkdir(parents=True)
        (run_dir / "evaluation-test" / "wandb" / f"offline-run-2-{name}id-test-best").mkdir(parents=True)
        config = Config.model_validate({"run": {"dir": run_dir}, "tracking": {"project": project}})
        (run_dir / "config.yaml").write_text(config.to_yaml())
        (run_dir / "run_id.txt").write_text(f"{name}id\n")
        lines = [{"step": 1, **dict.fromkeys(METRICS, 0.5)}, {"summary": {"best/step": 1}}]
        (run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return run_dir

    return make


@pytest.fixture
def online(monkeypatch):
    """A server that knows every project, and is asked for nothing else."""
    monkeypatch.setattr(dashboard, "why_offline", lambda: None)
    monkeypatch.setattr(dashboard, "default_entity", lambda: "radiology")
    monkeypatch.setattr(report_interface, "_get_api", lambda: None)
    monkeypatch.setattr(report_interface, "execute_graphql", lambda *_: {"project": {"internalId": "id"}})


def run(*arguments):
    result = CliRunner().invoke(app, ["dashboard", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def all_ids(run_id):
    return [run_id, *(f"{run_id}-{split}-{name}" for split in ("test", "val", "train") for name in ("best", "last"))]


def test_the_workspace_has_its_sections_of_what_was_recorded(make_run):
    runs = [dashboard.read_run(RunDir(make_run(name))) for name in ("a", "b")]
    view = dashboard.build_workspace(runs, entity="radiology")._to_model().model_dump(by_alias=True, exclude_none=True)
    assert (view["entity"], view["project"]) == ("radiology", "dualview")
    section = view["spec"]["section"]
    shown = {
        part["name"]: [panel["config"].get("metrics") for panel in part["panels"]]
        for part in section["panelBankConfig"]["sections"]
    }
    assert list(shown) == [
        "Loss", "Validation AUROC per availability", "Routing", "Speed", "Optim", "Evaluation"
    ]  # fmt: skip
    assert shown["Loss"] == [["loss/pa", "loss/total"], ["val/loss"]]
    assert shown["Validation AUROC per availability"] == [
        ["val/auroc_macro_both", "val/auroc_macro_pa_only"], ["val_auroc_both/A"]
    ]  # fmt: skip
    assert shown["Routing"] == [["routing/rows_pa"], ["routing/idle_micro_batches_lateral"]]
    evaluation = json.dumps(section["panelBankConfig"]["sections"][-1])
    for key in ("value_of_lateral", "groups", "operating_points", "roc_pa_hidden_table", "studies"):
        assert f"evaluation/{key}" in evaluation
    (runset,) = section["runSets"]
    (only,) = runset["filters"]["filters"]
    assert (only["key"]["name"], only["value"]) == ("name", [*all_ids("aid"), *all_ids("bid")])
    assert runset["grouping"] == [{"section": "run", "name": "group"}]


def test_a_line_that_a_kill_has_torn_is_left_out(make_run):
    run_dir = make_run("a")
    whole = dashboard.read_run(RunDir(run_dir))
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "loss/jo')
    assert dashboard.read_run(RunDir(run_dir)) == whole


def test_the_report_groups_runs_and_shows_the_evaluation_tables(make_run, online):
    runs = [dashboard.read_run(RunDir(make_run("a")))]
    model = dashboard.build_report(runs, entity="radiology")._to_model()
    blocks = json.loads(model.spec.model_dump_json(by_alias=True, exclude_none=True))["blocks"]
    evaluation, training = (block["metadata"] for block in blocks if block["type"] == "panel-grid")
    for grid, ids in ((evaluation, all_ids("aid")[1:]), (training, ["aid"])):
        (runset,) = grid["runSets"]
        assert runset["grouping"] == [{"section": "run", "name": "group"}]
        assert [only["value"] for only in runset["filters"]["filters"]] == [ids]
    for table in ("value_of_lateral", "groups", "operating_points"):
        assert f"evaluation/{table}" in json.dumps(evaluation)
    assert "speed/seconds_per_step" in json.dumps(training)
    assert "the same patients" in json.dumps(blocks)


def test_both_are_saved_and_their_addresses_printed(make_run, online, monkeypatch):
    saved = []
    for kind in (Workspace, Report):

        def save(self):
            self._to_model()
            saved.append(type(self))
            return self

        monkeypatch.setattr(kind, "save", save)
        monkeypatch.setattr(kind, "url", f"https://wandb.example/{kind.__name__}")
    result = run(make_run("a"))
    assert result.exit_code == 0, result.output
    assert saved == [Workspace, Report]
    assert "https://wandb.example/Workspace" in result.output
    assert "https://wandb.example/Report" in result.output
    assert "wandb sync" in result.output


@pytest.mark.parametrize(
    ("why", "first"),
    [
        ("no API key is configured", "  - wandb login"),
        ("WANDB_MODE is offline", "  - unset WANDB_MODE, and if need be: wandb login"),
    ],
)
def test_offline_it_says_what_to_do(make_run, monkeypatch, why, first):
    monkeypatch.setattr(dashboard, "why_offline", lambda: why)
    run_dir = make_run("a")
    result = run(run_dir)
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert lines[0].startswith(f"error: wandb is offline here ({why})")
    assert lines[1:4] == [
        first,
        f"  - wandb sync {run_dir}/evaluation-test/wandb/offline-run-2-aid-test-best {run_dir}/wandb/offline-run-1-aid",
        f"  - dualview dashboard {run_dir}",
    ]


def test_a_missing_extra_says_what_to_install(make_run, online, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    result = run(make_run("a"))
    assert result.exit_code == 1
    assert "pip install 'dualview[dashboard]'" in result.output


def test_a_server_that_refuses_is_a_message(make_run, online, monkeypatch):
    def save(self):
        raise ValueError("permission denied")

    monkeypatch.setattr(Workspace, "save", save)
    result = run(make_run("a"))
    assert result.exit_code == 1
    assert "could not save the dashboard of project dualview: permission denied" in result.output


def test_runs_of_two_projects_and_what_is_no_run_are_refused(make_run, tmp_path):
    result = run(make_run("a"), make_run("b", project="other"))
    assert result.exit_code == 1
    assert "the runs are of 2 wandb projects" in result.output
    result = run(tmp_path)
    assert result.exit_code == 1
    assert "is no run directory, it has no run_id.txt, config.yaml, metrics.jsonl" in result.output
