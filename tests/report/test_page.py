"""What the page says, and what it must not."""

import json
import os
import platform
import re
import shutil

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from sklearn.metrics import auc, roc_curve
from typer.testing import CliRunner

from dualview.cli import app
from dualview.commands.report import write_report
from dualview.commands.tables import value_of_lateral_table
from dualview.config.public import NOT_SHOWN, public_settings
from dualview.evaluation.statistics.curves import thinned
from dualview.report import forest, pictures, tables
from dualview.report.curves import curves, group_curves
from dualview.report.page import differing_studies, render
from dualview.report.record import read_records

from .conftest import made_up, write_run


def without_plotly(html: str) -> str:
    """The page without the library in it, which is not ours."""
    before, _, rest = html.partition("/**\n* plotly.js")
    return before + rest.partition("</script>")[2]


def figures_of(html: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="figures">(.*?)</script>', html, re.S)[1])


def test_no_identifier_path_or_host_is_on_the_page(trained_run, tmp_path):
    for images in ([], ["--images", "--num-images", "2"]):
        result = CliRunner().invoke(app, ["report", str(trained_run), "--out", str(tmp_path / "page.html"), *images])
        assert result.exit_code == 0, result.output
        html = (tmp_path / "page.html").read_text()
        ids = pd.read_parquet(trained_run / "evaluation-test" / "predictions.parquet", columns=["study", "patient"])
        secrets = [*ids["study"], *ids["patient"], "PATIENT-xyz", "STUDY-uvw", "IMAGE-abc", str(trained_run.parent)]
        secrets += [str(tmp_path), os.getcwd()]
        assert [secret for secret in secrets if secret in html] == []
        assert not re.search(rf"\b{re.escape(platform.node())}\b", without_plotly(html))
        assert ("data:image/png" in without_plotly(html)) == bool(images)


def test_only_studies_that_were_asked_for_are_named(trained_run, tmp_path):
    chosen, other = pd.read_parquet(trained_run / "evaluation-test" / "predictions.parquet")["study"][:2]
    arguments = ["report", str(trained_run), "--out", str(tmp_path / "page.html"), "--images", "--study", chosen]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    html = (tmp_path / "page.html").read_text()
    assert f"study {chosen}:" in html
    assert other not in html


def test_paths_are_taken_out_of_the_settings(trained_run):
    settings = public_settings(read_records([trained_run])[0].config)
    assert settings["run"]["dir"] == settings["data"]["root"] == settings["data"]["csv"] == NOT_SHOWN
    assert settings["train"]["max_steps"] == 4


def test_names_that_are_html_are_text(made_up_run):
    html = render(read_records([made_up_run]))
    assert "Mass <b>" not in html
    assert "Mass &lt;b&gt;&amp;amp;&lt;/b&gt; &lt;/script&gt;" in html
    assert len(figures_of(html)) == 9


def test_the_page_asks_for_nothing(made_up_run):
    html = without_plotly(render(read_records([made_up_run])))
    assert "default-src 'none'" in html
    assert re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', html) == []


def test_undefined_is_said_with_its_reason(made_up_run):
    html = render(read_records([made_up_run]))
    assert "Not drawn, because undefined: Hernia." in html
    assert re.search(r'class="undefined">undefined<small>no positive study among \d+ with a known label', html)
    assert re.search(r"\bnan\b", without_plotly(html)) is None


def test_numbers_are_those_of_the_evaluation(made_up_run):
    record = read_records([made_up_run])[0]
    masked = record.evaluation.masked
    table = tables.value_of_lateral(record)
    gains = [row[5].sort for row in table.rows]
    assert gains[:-1] == sorted(gains[:-1], reverse=True)
    assert gains[-1] is None
    first = table.rows[0]
    value = masked.value_of_lateral.findings[first[0].text]
    assert first[5].text == f"{value.auroc.value:+.3f}"
    assert first[6].text.endswith(value.verdict)
    same_patients, as_they_came = tables.missing_views(record)
    assert [row[0].text for row in same_patients.rows] == ["both views", "lateral withheld", "PA withheld"]
    assert same_patients.rows[0][3].text == f"{masked.both.macro['auroc'].value:.3f}"
    assert as_they_came.rows[-1][0].text == "which views exist, and nothing else"
    assert [table.caption for table in tables.subgroups(record)] == ["sex"]


def test_findings_of_few_patients_stand_behind_the_judged_ones_in_every_order(tmp_path):
    """`Rare` gains most, of 4 positive patients, and is shown behind all that can be judged."""
    predictions = made_up(240, findings=("Rare", "Nodule", "Edema", "Hernia"))
    both = np.flatnonzero(predictions.availability == 0)
    _, first_of = np.unique(predictions.patient_ids[both], return_index=True)
    positive = both[first_of][:4]
    predictions.labels[:, 0], predictions.label_mask[:, 0] = 0, True
    predictions.labels[positive, 0] = 1
    predictions.logits["route"][positive, 0], predictions.logits["lateral_hidden"][positive, 0] = 9, -9
    record = read_records([write_run(tmp_path / "run", predictions)])[0]
    value = record.evaluation.masked.value_of_lateral
    assert value.too_few == ["Rare"] and value.findings["Rare"].auroc.value > 0.9
    table = tables.value_of_lateral(record)
    assert [row[0].text for row in table.rows][-2:] == ["Rare", "Hernia"]
    rare = table.rows[-2]
    assert rare[0].kind == "behind" and table.rows[0][0].kind == ""
    assert rare[6].text == "△ too few to judge" and rare[6].detail.startswith("4 positive,")
    assert (rare[5].detail, rare[7].text, rare[8].text) == ("", "-", "-")  # no interval, and no test alone
    for order in forest.FOREST_ORDERS:
        figure = forest.forest(record)[f"auroc|{order}"]
        assert figure["layout"]["yaxis"]["ticktext"][-1] == "Rare"
        assert figure["layout"]["xaxis"]["range"][1] > value.findings["Rare"].auroc.value  # which no interval holds
    assert record.findings[pictures._finding(record, None)] != "Rare"
    assert "1 cannot be judged" in render([record])


def test_what_is_perfect_says_among_how_many_and_tests_stand_beside_intervals(tmp_path):
    predictions = made_up(240, findings=("Nodule", "Edema", "Hernia"))
    predictions.logits["route"][:, 0] = 9 * (predictions.labels[:, 0] - 0.5)
    record = read_records([write_run(tmp_path / "run", predictions)])[0]
    result = record.evaluation.masked.both.findings["Nodule"]
    html = render([record])
    assert f"no error among {result.num_positive} x {result.num_negative} pairs" in html
    point = record.evaluation.groups["both"].findings["Nodule"].operating_point
    assert point.sensitivity.value == 1 and 0.85 < point.sensitivity.low < 1
    rows = {row[0].text: row for row in tables.value_of_lateral(record).rows}
    checks = record.evaluation.masked.value_of_lateral.findings["Edema"]
    assert rows["Edema"][7].sort == checks.swap.p_value_together
    assert rows["Edema"][8].sort == checks.delong.p_value
    if checks.verdict == "undecided":
        assert f"gains from {checks.detectable_gain:.3f}" in rows["Edema"][6].detail
    error, intercept, slope = tables.per_finding(record)[3:]
    assert error.rows[0][4].detail.endswith(" by chance")
    edema = record.evaluation.groups["all"].findings["Edema"]
    cells = [next(row for row in table.rows if row[0].text == "Edema")[4] for table in (intercept, slope)]
    assert [cell.sort for cell in cells] == [edema.calibration_intercept.value, edema.calibration_slope.value]
    assert all(" to " in cell.detail for cell in cells)


def test_page_and_terminal_say_what_is_compared_and_warn_of_an_under_trained_joint_head(tmp_path):
    predictions = made_up(240, findings=("Nodule", "Edema", "Hernia"))
    both = (predictions.availability == 0)[:, None]
    # Of Edema the joint head has learned nothing.
    chance = np.random.default_rng(1).normal(size=predictions.labels.shape)
    joint = np.where([False, True, False], chance, predictions.logits["route"])
    predictions.logits["joint"] = np.where(both, joint, np.nan)
    predictions.logits["pa"] = np.where(both, 9 * (predictions.labels - 0.5) * [0, 1, 1], np.nan)
    predictions.logits["lateral"] = np.where(both, 0 * predictions.labels, np.nan)
    record = read_records([write_run(tmp_path / "run", predictions)])[0]
    html = render([record])
    rich_table = value_of_lateral_table(record.evaluation)
    for said in (html, rich_table.caption):
        flat = " ".join(said.split())
        assert "what this trained network gains" in flat
        assert re.search(
            "ntervals are over patients, not over trainings: .*dualview compare.* with 3 or more seeds is", flat
        )
        assert "oint head under-trained" in flat
        assert re.search(r"Edema 0\.\d{3} \(PA head 1\.000, vote \d\.\d{3}\)", flat) and "Nodule 0." not in flat
    cells = {row[0].text: [cell.text for cell in row[1:]] for row in tables.heads(record).rows}
    assert cells["Edema"][1] == "1.000" and cells["Edema"][-1] == "under-trained" and cells["Nodule"][-1] == ""


def test_curves_keep_their_area_and_ends():
    generator = np.random.default_rng(0)
    positive = generator.random(5000) < 0.3
    probabilities = np.clip(0.2 * positive + generator.random(5000) * 0.8, 0, 1)
    made = curves(probabilities, positive=positive, what="all")
    false_positive, sensitivity, _ = roc_curve(positive, probabilities)
    assert len(made.roc) <= 200
    assert made.roc[0] == (0, 0) and made.roc[-1] == (1, 1)
    assert auc(*np.array(made.roc).T) == pytest.approx(auc(false_positive, sensitivity), abs=1e-3)
    assert made.precision_recall[0][0] == 0 and made.precision_recall[-1][0] == 1
    assert sum(size for _, _, size in made.reliability) == 5000
    few = np.arange(5.0)
    assert thinned(few, few, at_most=9) == [(n, n) for n in range(5)]


def test_curves_of_the_page_give_the_auroc_of_the_evaluation(made_up_run):
    record = read_records([made_up_run])[0]
    for curve in group_curves(record)["Nodule"]:
        wanted = record.evaluation.groups[curve.what].findings["Nodule"].auroc.value
        assert auc(*np.array(curve.roc).T) == pytest.approx(wanted, abs=2e-3)


def test_every_figure_is_one_that_plotly_takes(made_up_run):
    """Colours have names that only the page knows; everything else is checked by plotly itself."""
    for variants in figures_of(render(read_records([made_up_run]))).values():
        for figure in variants.values():
            text = re.sub(r'"@[a-z0-9]+"', '"#123456"', json.dumps([figure["data"], figure["layout"]]))
            data, layout = json.loads(text)
            go.Figure(data=data, layout=layout)
            assert figure["label"]


def test_the_forest_is_sorted_as_asked(made_up_run):
    record = read_records([made_up_run])[0]
    variants = forest.forest(record)
    assert set(variants) == {f"{metric}|{order}" for metric in forest.GAIN_TITLES for order in forest.FOREST_ORDERS}
    names = variants["auroc|name"]["layout"]["yaxis"]["ticktext"]
    assert [name[:4] for name in names] == ["<b>m", "Edem", "Mass", "Nodu"]
    gains = record.evaluation.masked.value_of_lateral.findings
    by_gain = variants["auroc|difference"]["layout"]["yaxis"]["ticktext"][1:]
    values = [gain.auroc.value for gain in gains.values() if gain.verdict != "undefined"]
    assert len(by_gain) == len(values) == 3
    drawn = [x for trace in variants["auroc|difference"]["data"] if trace["mode"] == "markers" for x in trace["x"]]
    assert sorted(drawn[:-1]) == sorted(values)


def test_a_network_of_one_view_has_no_forest_and_says_so(tmp_path):
    predictions = made_up(60, findings=("A", "B"))
    for hidden in ("lateral_hidden", "pa_hidden"):
        predictions.logits[hidden][:] = np.nan
    html = render(read_records([write_run(tmp_path / "run", predictions, model="single")]))
    assert "single looks at one view only" in html
    assert "r0-forest" not in html
    assert figures_of(html)["r0-roc"].keys() == {"0|groups", "1|groups"}


def test_several_runs_stand_side_by_side_and_other_patients_are_told(made_up_run, tmp_path):
    findings = ("Nodule", "Edema")
    same = write_run(tmp_path / "made-up", made_up(240, findings=findings, seed=1))
    other = write_run(tmp_path / "other", made_up(120, findings=findings))
    records = read_records([made_up_run, same, other])
    assert [record.name for record in records] == ["made-up", "made-up (2)", "other"]
    assert differing_studies(records[:2]) == []
    html = render(records)
    assert "other was tested on other studies than made-up: 120 and 240, 120 of them in common" in html
    assert "not of this run" in html
    assert {"compare-auroc", "compare-loss", "compare-val"} < set(figures_of(html))
    assert len(figures_of(html)["compare-loss"][""]["data"]) == 3


def test_where_the_page_goes(made_up_run, tmp_path):
    one, two = (shutil.copytree(made_up_run, tmp_path / "runs" / name) for name in ("one", "two"))
    assert write_report([one]) == one / "report.html"
    assert write_report([one, two]) == tmp_path / "runs" / "report.html"
    assert write_report([one], out=tmp_path / "new" / "page.html").is_file()
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["one", "report.html", "two"]


def test_a_run_without_evaluation_is_told_what_to_do_and_nothing_is_written(made_up_run, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.yaml").write_text("{}")
    result = CliRunner().invoke(
        app, ["report", str(made_up_run), str(bare), str(tmp_path / "no"), "--out", "page.html"]
    )
    assert result.exit_code == 1
    assert f"dualview evaluate {bare}" in result.output
    assert "is no run directory" in result.output
    assert os.listdir(bare) == ["config.yaml"]
    result = CliRunner().invoke(app, ["report", str(made_up_run), "--study", "x"])
    assert "add --images" in result.output


def test_64_findings_make_a_page_of_reasonable_size(tmp_path):
    findings = tuple(f"Finding number {number} of a long name" for number in range(64))
    run = write_run(tmp_path / "run", made_up(900, findings=findings))
    assert write_report([run]).stat().st_size < 12e6
