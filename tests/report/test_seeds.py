"""Several trainings of one network on a page: intervals over seeds and patients, or a reason why not."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t as student
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from dualview.cli import app
from dualview.comparison.seeds import gain_over_seeds, in_one_order
from dualview.config import Config
from dualview.evaluation.document import EvaluatedCheckpoint
from dualview.evaluation.operating_points import no_operating_points
from dualview.evaluation.prediction_table import SCORES, PredictionTable
from dualview.evaluation.statistics.bootstrap import resample_patients
from dualview.report.page import render
from dualview.report.record import read_records
from dualview.report.seeds import all_seeds, aurocs_over_seeds, table_over_seeds, why_not_seeds
from dualview.run.provenance import describe_run
from dualview.views import Availability

from .conftest import made_up, write_run
from .test_page import without_plotly

FINDINGS = ("Nodule", "Mass", "Edema", "Hernia")


def trained_again(table: PredictionTable, *, seed: int, scatter: float = 0.5) -> PredictionTable:
    """The same studies as another training would score them."""
    generator = np.random.default_rng([seed, 99])
    logits = {name: values + scatter * generator.normal(size=values.shape) for name, values in table.logits.items()}
    return replace(table, logits=logits)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """Three trainings of one network, a fourth of another network, and a fifth that was tested on other studies."""
    folder = tmp_path_factory.mktemp("seeds")
    first = made_up(120, findings=FINDINGS)
    for seed in (1, 2, 3):
        table = trained_again(first, seed=seed)
        if seed == 2:  # the order of a table says nothing
            table = table.select(np.random.default_rng(0).permutation(len(table)))
        write_run(folder / f"seed-{seed}", table, seed=seed)
    shutil.copytree(folder / "seed-3", folder / "hemis")
    config = Config.model_validate(
        {"run": {"dir": folder / "hemis", "seed": 4}, "model": {"name": "hemis"}, "data": {"root": "/secret/place"}}
    )
    (folder / "hemis/config.yaml").write_text(describe_run(config))
    write_run(folder / "others", made_up(60, findings=FINDINGS, name="OTHER"), seed=5)
    return folder


def words(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", without_plotly(html)).split())


def test_the_interval_is_that_of_seeds_and_patients_by_hand():
    """One finding, three seeds: s^2 / 3 of the seeds' gains, and the variance of their mean over resamples."""
    generator = np.random.default_rng(0)
    labels = (np.arange(80) % 2)[:, None].astype(np.float32)
    patients = np.array([f"p{n // 2}" for n in range(80)], object)
    tables = []
    for _ in range(3):
        logits = {name: np.full((80, 1), np.nan) for name in SCORES}
        logits["route"] = 1.5 * labels + generator.normal(size=(80, 1))
        logits["lateral_hidden"] = 0.8 * labels + generator.normal(size=(80, 1))
        tables.append(
            PredictionTable(
                findings=("A",), study_ids=np.arange(80).astype(str).astype(object), patient_ids=patients,
                availability=np.full(80, Availability.BOTH, np.int8), evaluated=np.ones(80, bool), labels=labels,
                label_mask=np.ones((80, 1), bool), logits=logits,
            )
        )  # fmt: skip
    found = (
        gain_over_seeds(tables, points=[no_operating_points(("A",))] * 3, num_resamples=50).value.findings["A"].auroc
    )

    def gain(table, weights=None):
        both, hidden = (roc_auc_score(labels[:, 0], table.logits[name][:, 0], sample_weight=weights)
                        for name in ("route", "lateral_hidden"))  # fmt: skip
        return both - hidden

    gains = np.array([gain(table) for table in tables])
    counts = resample_patients(patients, num_resamples=50)
    means = [np.mean([gain(table, counts[:, b]) for table in tables]) for b in range(50)]
    of_patients = np.var(means, ddof=1) * 40 / 39  # each of 40 patients has a positive and a negative study
    of_seeds = gains.var(ddof=1) / 3
    variance = of_patients + of_seeds
    reach = student.ppf(0.975, variance**2 / (of_seeds**2 / 2)) * variance**0.5
    assert (found.value, found.low, found.high) == pytest.approx(
        (gains.mean(), gains.mean() - reach, gains.mean() + reach)
    )
    assert (found.simultaneous_low, found.simultaneous_high) == pytest.approx((found.low, found.high))  # one finding


def test_seeds_that_scatter_make_the_intervals_wider():
    first = made_up(240, findings=FINDINGS)
    hidden = first.logits["lateral_hidden"]
    widths = []
    for scatter in (0.0, 3.0):
        tables = [
            replace(first, logits={**first.logits, "lateral_hidden": hidden + scatter * shift * first.labels})
            for shift in (-1, 0, 1)
        ]  # fmt: skip
        value = gain_over_seeds(tables, points=[no_operating_points(FINDINGS)] * 3, num_resamples=200).value
        one = value.findings["Nodule"].auroc
        widths.append(one.high - one.low)
        assert one.simultaneous_low <= one.low
        assert one.simultaneous_high >= one.high
        assert value.undefined == ["Hernia"]
    assert widths[1] > 2 * widths[0]


@pytest.mark.slow  # tests/comparison/test_result.py simulates what these intervals are made of.
def test_where_nothing_is_gained_few_sets_of_seeds_name_a_finding():
    """Three findings, three trainings, 40 times; the same truth with and without the lateral."""
    named, times = 0, 40
    for number in range(times):
        generator = np.random.default_rng([number, 5])
        labels = (generator.random((150, 3)) < 0.3).astype(np.float32)
        names = np.arange(150).astype(str).astype(object)
        tables = []
        for _ in range(3):
            logits = {name: np.full(labels.shape, np.nan) for name in SCORES}
            for name in ("route", "lateral_hidden"):
                logits[name] = 1.5 * labels + generator.normal(size=labels.shape)
            tables.append(
                PredictionTable(
                    findings=tuple("ABC"), study_ids=names, patient_ids=names,
                    availability=np.full(150, Availability.BOTH, np.int8), evaluated=np.ones(150, bool), labels=labels,
                    label_mask=np.ones(labels.shape, bool), logits=logits,
                )
            )  # fmt: skip
        value = gain_over_seeds(tables, points=[no_operating_points(tuple("ABC"))] * 3, num_resamples=100).value
        named += bool(value.helped or value.hurt)
    assert named / times <= 0.05 + 2 * (0.05 * 0.95 / times) ** 0.5


def test_a_page_of_several_seeds_is_of_the_first_with_the_gains_of_all(seeds):
    runs = [str(seeds / f"seed-{seed}") for seed in (1, 2, 3)]
    done = CliRunner().invoke(app, ["report", *runs, "--seeds", "--out", str(seeds / "page.html")])
    assert done.exit_code == 0, done.output
    text = words((seeds / "page.html").read_text())
    assert "3 trainings that differ in run.seed only (1, 2, 3)" in text
    assert "Everything else is of the first, seed-1" in text
    assert "what 3 trainings of this network gain" in text
    assert "Intervals are over patients and seeds." in text
    assert "over patients, not over trainings" not in text
    assert "AUROC gained over 3 seeds" in text
    assert "Side by side" not in text


def test_the_numbers_of_the_page_are_those_of_the_runs(seeds):
    records = read_records([seeds / f"seed-{seed}" for seed in (1, 2, 3)])
    table = table_over_seeds(all_seeds(records))
    nodule = next(row for row in table.rows if row[0].text == "Nodule")
    looks = [record.evaluation.masked for record in records]
    aurocs = [look.both.findings["Nodule"].auroc.value for look in looks]
    gains = [look.value_of_lateral.findings["Nodule"].auroc.value for look in looks]
    assert nodule[2].text == f"{np.mean(aurocs):.3f} ± {np.std(aurocs, ddof=1):.3f}"
    assert nodule[2].detail == f"{min(aurocs):.3f} to {max(aurocs):.3f}"
    assert nodule[5].sort == pytest.approx(np.mean(gains))
    assert nodule[7].text == ", ".join(f"{gain:+.3f}" for gain in gains)
    macros = [look.value_of_lateral.macro["auroc"].value for look in looks]
    assert table.foot[0][5].sort == pytest.approx(np.mean(macros))


def test_auroc_over_seeds_is_that_of_each_run_on_all_studies(seeds):
    records = read_records([seeds / f"seed-{seed}" for seed in (1, 2, 3)])
    table = aurocs_over_seeds(all_seeds(records))
    for row in table.rows[:3]:
        values = [record.evaluation.groups["all"].findings[row[0].text].auroc.value for record in records]
        assert [cell.sort for cell in row[2:]] == values
        assert row[1].text == f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"
    assert table.rows[3][1].text == "undefined"


def test_trainings_that_take_one_view_have_a_page_too(tmp_path):
    table = made_up(60, findings=FINDINGS)
    blank = np.full(table.labels.shape, np.nan)
    table = replace(table, logits={**table.logits, "lateral_hidden": blank, "pa_hidden": blank})
    runs = [write_run(tmp_path / f"seed-{n}", trained_again(table, seed=n), model="single", seed=n) for n in (1, 2)]
    over_seeds = all_seeds(read_records(runs))
    assert over_seeds.gain is None
    text = words(render([over_seeds.records[0]], over_seeds=over_seeds))
    assert (
        "2 trainings that differ in run.seed only (1, 2): a table has the AUROC of each finding over these seeds"
        in text
    )
    assert "AUROC of all studies over seeds" in text


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        (["hemis"], "hemis differs from seed-1 in model.name"),
        (["others"], "others was tested on other studies than seed-1"),
        (["seed-1"], "has the same run.seed as seed-1"),
        ([], "--seeds is for several runs"),
    ],
)
def test_runs_that_differ_in_more_are_refused_and_say_in_what(seeds, others, expected):
    runs = [str(seeds / name) for name in ("seed-1", *others)]
    done = CliRunner().invoke(app, ["report", *runs, "--seeds", "--out", str(seeds / "refused.html")])
    assert done.exit_code == 1
    assert expected in " ".join(done.output.split())
    assert not (seeds / "refused.html").exists()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"several_images_at_test": "mean"}, "several_images_at_test mean, not first"),
        ({"checkpoint": EvaluatedCheckpoint(name="last", step=40)}, "checkpoint last, not best"),
        ({"split": "val"}, "split val, not test"),
    ],
)
def test_seeds_that_were_evaluated_in_other_ways_are_no_seeds(seeds, changes, expected):
    first, second = read_records([seeds / "seed-1", seeds / "seed-2"])
    other = replace(second, evaluation=replace(second.evaluation, **changes))
    assert why_not_seeds([first, other]) == [f"seed-2 was evaluated otherwise than seed-1 ({expected})"]
    assert why_not_seeds([first, second]) == []


def test_without_the_option_they_stand_side_by_side(seeds):
    records = read_records([seeds / "seed-1", seeds / "hemis"])
    assert why_not_seeds(records) == ["hemis differs from seed-1 in model.name"]
    html = render(records)
    assert "Side by side" in html
    assert "over patients, not over trainings" in words(html)


def test_other_labels_of_the_same_studies_are_other_tests():
    first = made_up(60, findings=FINDINGS)
    assert in_one_order([first, first.select(np.arange(60)[::-1])]) is not None
    assert in_one_order([first, replace(first, labels=1 - first.labels)]) is None
    assert in_one_order([first, first.select(np.arange(59))]) is None
