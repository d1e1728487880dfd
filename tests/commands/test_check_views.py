"""`dualview data --check-views` as a user types it."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from dualview.cli import app
from dualview.config import PhantomConfig
from dualview.data.sources.phantom import draw
from dualview.views import View

SWAPPED = {"000002_pa.png": "L", "000005_lateral.png": "PA", "000009_pa.png": "L"}  # file -> wrong view


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    """A CSV of 20 phantoms with both views, as PNGs; three images have the other view, one is no image."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # without weights of torchxrayvision
    table, read = draw(PhantomConfig(num_studies=20, both=1, pa_only=0, lateral_only=0), seed=0, image_size_px=64)
    rows = ["patient,study,view,path,A", "other,extra,PA,broken.png,0"]
    (tmp_path / "broken.png").write_bytes(b"no image")
    for study in table.study_ids:
        for view in View:
            name = f"{study}_{view.key}.png"
            pixels = (read(f"{study}/{view.key}")[0].numpy() + 1) * 127.5
            Image.fromarray(pixels.round().astype(np.uint8)).save(tmp_path / name)
            rows.append(f"p{study},s,{SWAPPED.get(name, 'PA' if view == View.PA else 'L')},{name},{int(study) % 2}")
    (tmp_path / "metadata.csv").write_text("\n".join(rows))
    (tmp_path / "c.yaml").write_text("data: {source: csv, findings: [A], image_size_px: 64, num_workers: 0}")
    return [str(tmp_path / "c.yaml"), f"data.root={tmp_path}", "--check-views"]


def run(*arguments):
    result = CliRunner().invoke(app, ["data", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_wrong_views_are_listed_and_written(arguments, tmp_path):
    files = ["--suspects", str(tmp_path / "suspects.csv"), "--contact-sheet", str(tmp_path / "sheet.png")]
    printed = " ".join(run(*arguments, *files).split())
    assert "3 image(s) whose picture contradicts" in printed
    assert "views of 40 of 41 images, judged by a classifier trained on this table, cross-validated by" in printed
    assert "it agrees with the table on 92.5 %" in printed
    assert "broken.png: is not an image in a known format" in printed
    suspects = pd.read_csv(tmp_path / "suspects.csv")
    names = {"PA": "PA", "L": "lateral"}
    assert dict(zip(suspects["path"], suspects["view"], strict=True)) == {
        file: names[view] for file, view in SWAPPED.items()
    }
    assert suspects["probability"].is_monotonic_increasing and suspects["probability"].max() < 0.5
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    for number, path in enumerate(suspects["path"]):
        left = 8 + number * (140 + 2 * 8)
        shown = sheet[8 : 8 + 64, left : left + 64].astype(float)
        assert np.abs(shown - np.asarray(Image.open(tmp_path / path))).max() <= 1


def test_it_is_one_json_object_and_the_sheet_has_a_place_of_its_own(arguments):
    check = json.loads(run(*arguments, "--json"))["check_views"]
    assert {suspect["path"] for suspect in check["suspects"]} == set(SWAPPED)
    assert (check["num_images"], check["num_judged"]) == (41, 40)
    assert check["bad"] == [{"path": "broken.png", "reason": "is not an image in a known format"}]
    with Image.open(check["contact_sheet"]) as sheet:
        assert sheet.width == 3 * (140 + 2 * 8)


def test_the_image_store_gives_the_same_suspects(arguments, tmp_path):
    config = arguments[:-1]
    store = f"data.store={tmp_path / 'store'}"
    assert json.loads(run(*arguments, store, "--json"))["check_views"]["num_judged"] == 40  # not made yet
    assert CliRunner().invoke(app, ["prepare", *config, store]).exit_code == 0
    (tmp_path / "broken.png").write_bytes(b"NO IMAGE")
    stale = CliRunner().invoke(app, ["data", *arguments, store])
    assert stale.exit_code == 1 and "is stale" in stale.output
    (tmp_path / "broken.png").write_bytes(b"no image")
    check = json.loads(run(*arguments, store, "--json"))["check_views"]
    assert {suspect["path"] for suspect in check["suspects"]} == set(SWAPPED)
    assert len(check["bad"]) == 1


def test_a_table_of_one_view_shows_its_account_and_then_the_error(arguments, tmp_path):
    rows = (tmp_path / "metadata.csv").read_text().splitlines()
    (tmp_path / "metadata.csv").write_text("\n".join(row for row in rows if ",L," not in row))
    result = CliRunner().invoke(app, ["data", *arguments])
    assert result.exit_code == 1
    assert "left out because" in result.output
    assert "--check-views cannot say anything: the table has 20 PA of 19 patient(s) and 0 lateral" in " ".join(
        result.output.split()
    )


def test_a_file_for_suspects_needs_the_check(arguments):
    result = CliRunner().invoke(app, ["data", *arguments[:-1], "--suspects", "s.csv"])
    assert result.exit_code == 1 and "add --check-views" in result.output


@pytest.mark.parametrize("option", ["--suspects", "--dropped", "--contact-sheet"])
def test_a_file_in_a_folder_that_is_not_there_ends_it_at_once(arguments, tmp_path, option):
    result = CliRunner().invoke(app, ["data", *arguments, option, str(tmp_path / "gone" / "file")])
    assert result.exit_code == 1
    assert "cannot be written, as there is no folder" in " ".join(result.output.split())
