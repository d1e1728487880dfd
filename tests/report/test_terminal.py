"""What a terminal shows of an evaluation: whole at any usual width."""

import io
import re
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from dualview.commands.tables import assessment_table, operating_points_line, value_of_lateral_table
from dualview.evaluation.document import EvaluatedCheckpoint
from dualview.evaluation.value_of_lateral import value_of_lateral
from dualview.report.record import read_records
from dualview.run.directory import RunDir

from .conftest import made_up, write_run


def printed(table, *, width: int) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    """30 findings, the first 20 told without an error in all three ways but one, the last undefined."""
    predictions = made_up(240, findings=tuple(f"Enlarged cardiomediastinum {k}" for k in range(30)))
    both = (predictions.availability == 0)[:, None]
    perfect = np.where(both, 9 * (predictions.labels - 0.5), np.nan)
    for name, some in (("route", np.s_[:, :20]), ("lateral_hidden", np.s_[:, 2:20]), ("pa_hidden", np.s_[:, :10])):
        predictions.logits[name][some] = np.where(both, perfect, predictions.logits[name])[some]
    return read_records([write_run(tmp_path_factory.mktemp("terminal") / "run", predictions)])[0].evaluation


@pytest.mark.parametrize("width", [60, 79, 80, 95, 96, 140])
def test_no_interval_and_no_name_is_cut_however_many_findings_are_perfect(evaluation, width):
    text = printed(value_of_lateral_table(evaluation, width=width), width=width)
    assert "…" not in text and max(map(len, text.splitlines())) <= width
    words, rows = text.split(), value_of_lateral(evaluation.masked).rows
    for row in rows:
        gained = row.auroc_gained
        if gained.low is not None:
            bounds = [f"[{gained.low:+.3f},", f"{gained.high:+.3f}]"]
            assert set(bounds) <= set(words)
    flat = " ".join(words)
    perfect = [row for row in rows if any(auroc.value == 1 for auroc in row.aurocs)]
    assert len(perfect) >= 20
    assert words.count("1.000*") == sum(auroc.value == 1 for row in rows for auroc in row.aurocs)
    for row in perfect:
        assert f"{row.name}: no error among {row.num_positive} x {row.num_negative} pairs" in flat
    assert len(re.findall(r"cardiomediastinum", text)) >= len(perfect)


@pytest.mark.parametrize("width", [60, 80])
def test_without_a_view_withheld_each_auroc_keeps_its_interval(evaluation, width):
    text = printed(assessment_table(evaluation), width=width)
    results = evaluation.groups["all"].findings.values()
    assert "…" not in text and max(map(len, text.splitlines())) <= width
    for result in results:
        if result.auroc.low is not None:
            assert f" [{result.auroc.low:.3f}, {result.auroc.high:.3f}]" in text
    assert "no error" not in text  # the studies of one view are not told without an error


def test_the_line_of_thresholds_says_which_checkpoint_of_predict_uses_them(evaluation, tmp_path):
    """Of the best checkpoint the run has its own; of another those beside its evaluation by step are used."""
    run = RunDir(tmp_path / "run")
    for step in (3, 40):
        run.checkpoint(step).mkdir(parents=True)
    (run.checkpoints / "best").symlink_to("step-000040")

    def line(*, checkpoint: str, step: int, folder) -> str:
        of = replace(evaluation, checkpoint=EvaluatedCheckpoint(name=checkpoint, step=step))
        return operating_points_line(of, folder=folder, run=run.path)

    own = run.path / "evaluation-test-3"
    assert "goes on with those of the run" in line(checkpoint="40", step=40, folder=run.path / "evaluation-test-40")
    assert "`dualview predict --checkpoint 3` uses them" in line(checkpoint="3", step=3, folder=own)
    for folder in (run.path / "evaluation-test-last", tmp_path / "elsewhere"):
        said = line(checkpoint="last", step=3, folder=folder)
        assert f"it has those of `dualview evaluate {run} --checkpoint 3`" in said
