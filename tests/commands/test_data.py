"""`dualview data` and `dualview prepare` as a user types them."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from dualview.cli import app


@pytest.fixture
def arguments(tmp_path):
    """A CSV of 20 patients, every other with a lateral, one row of another view, and its images."""
    rows = ["patient,study,view,path,A", "p0,s0,OBLIQUE,o.png,0"]
    for n in range(20):
        for view in ("PA", "L")[: 1 + n % 2]:
            rows.append(f"p{n},s{n},{view},{n}{view}.png,{n // 2 % 2}")
            noise = np.random.default_rng(n).integers(0, 255, (64, 64), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / f"{n}{view}.png")
    (tmp_path / "metadata.csv").write_text("\n".join(rows))
    (tmp_path / "c.yaml").write_text(
        "data: {source: csv, findings: [A], ignored_views: [OBLIQUE], image_size_px: 64, num_workers: 0}"
    )
    return [str(tmp_path / "c.yaml"), f"data.root={tmp_path}"]


def run(*arguments):
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_counts_as_json_and_as_tables(arguments):
    counts = json.loads(run("data", *arguments, "--json"))
    assert counts["images"] == {"read": 31, "used": 30, "dropped": {"view is OBLIQUE": 1}}
    assert counts["studies"] == {"total": 20, "both": 10, "pa_only": 10, "lateral_only": 0}
    assert counts["findings"]["A"] == {"positive": 10, "negative": 10, "unknown": 0, "uncertain": 0}
    assert [split["patients"] for split in counts["splits"].values()] == [12, 4, 4]
    printed = run("data", *arguments)
    assert "view is OBLIQUE" in printed
    assert "pa_only" in printed


def test_a_smaller_training_set_is_counted_and_the_store_holds_the_whole(arguments, tmp_path):
    """20 patients of one study, 12 of them to train on; 5 leave 7 out, and 30 images are stored all the same."""
    smaller = [*arguments, "data.split.max_train_patients=5", "data.train_on=[both, pa_only]"]
    counts = json.loads(run("data", *smaller, "--json"))
    assert counts["left_out_of_training"] == {"patients": 7, "studies": 7}
    assert {name: split["patients"] for name, split in counts["splits"].items()} == {"train": 5, "val": 4, "test": 4}
    assert "30 images" in run("prepare", *smaller, f"data.store={tmp_path / 'store'}")


def test_what_is_left_out_is_written_on_request(arguments, tmp_path):
    run("data", *arguments, "--dropped", str(tmp_path / "out.csv"))
    assert pd.read_csv(tmp_path / "out.csv").to_dict("records") == [
        {"source": "csv", "path": "o.png", "reason": "view is OBLIQUE"}
    ]


def test_the_contact_sheet_shows_images_and_absence(arguments, tmp_path):
    sheet = tmp_path / "sheet.png"
    run("data", *arguments, "--contact-sheet", str(sheet), "--num-studies", "4")
    picture = np.asarray(Image.open(sheet))
    assert picture.shape[1] == 3 * (2 * 64 + 8 + 16)
    pa = picture[8 + 18 : 8 + 18 + 64, 8 : 8 + 64]
    assert pa.std() > 50  # noise is there
    absent = [picture[26:90, 8 + 72 + column * 152 : 8 + 136 + column * 152] for column in range(3)]
    assert min(field.std() for field in absent) < 60 < max(field.std() for field in absent)


def test_prepare_says_what_it_made_and_then_that_it_is_there(arguments, tmp_path):
    store = f"data.store={tmp_path / 'store'}"
    assert "30 images" in " ".join(run("prepare", *arguments, store).split())
    assert "is up to date" in " ".join(run("prepare", *arguments, store).split())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "needs data.store"),
        (["data.source=phantom", "data.root=null", "data.findings={}", "data.store=x"], "nothing to prepare"),
    ],
)
def test_prepare_without_sense_is_refused(arguments, more, message):
    result = CliRunner().invoke(app, ["prepare", *arguments, *more])
    assert result.exit_code == 1
    assert message in result.output


def test_what_was_read_is_shown_before_it_fails_and_all_problems_go_to_a_file(arguments, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    for file in tmp_path.glob("*L.png"):
        file.unlink()
    left_out = tmp_path / "out.csv"
    result = CliRunner().invoke(app, ["data", *arguments, "--dropped", str(left_out)])
    assert result.exit_code == 1
    assert "31" in result.stdout and "view is OBLIQUE" in " ".join(result.stdout.split())
    assert "10 rows (lines 5, 8, 11, ...): no image file" in result.stderr
    (file,) = (tmp_path / "temporary").iterdir()
    assert str(file) in result.stderr and file.stat().st_mode & 0o077 == 0
    assert len(file.read_text().splitlines()) == 10
    assert left_out.read_text().splitlines() == ["source,path,reason", "csv,o.png,view is OBLIQUE"]


def test_problems_of_several_sources_come_together(arguments, tmp_path):
    (tmp_path / "bad.csv").write_text("patient,study,view,path,A\np,s,PA,0PA.png,perhaps\n")
    (tmp_path / "c.yaml").write_text(
        "data: {image_size_px: 64, sources: ["
        + ", ".join(
            f"{{source: csv, name: {name}, root: {tmp_path}, csv: {tmp_path / table}, findings: [A],"
            " ignored_views: [OBLIQUE]}"
            for name, table in (("one", "bad.csv"), ("two", "metadata.csv"), ("three", "bad.csv"))
        )
        + "]}"
    )
    result = CliRunner().invoke(app, ["data", arguments[0]])
    assert result.exit_code == 1 and result.stderr.count("A is 'perhaps'") == 2
    assert [name in result.stdout for name in ("one", "two", "three")] == [True] * 3


def test_rows_of_the_wrong_length_hide_no_other_problem_and_no_account(arguments, tmp_path):
    with (tmp_path / "metadata.csv").open("a") as table:
        table.write("\np21,s21,PA\np22,s22,PA,0PA.png,7\n")
    result = CliRunner().invoke(app, ["data", *arguments])
    assert result.exit_code == 1 and "has 3 problem(s)" in result.stderr
    assert ":33: row has fewer cells" in result.stderr and ":34: A is '7'" in result.stderr
    assert "32" in result.stdout and "view is OBLIQUE" in " ".join(result.stdout.split())
