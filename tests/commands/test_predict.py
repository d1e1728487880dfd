"""`dualview predict`: every study of a CSV or folder once, in order, with a probability or the reason for none."""

import csv
import itertools
import pkgutil
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import dualview
from dualview.batch import StudyBatch
from dualview.cli import app
from dualview.commands import predict as predicting
from dualview.commands.predict import predict
from dualview.config import SourceConfig
from dualview.data.images.files import FileImages
from dualview.distributed import Job
from dualview.errors import Preempted, UserError
from dualview.evaluation.operating_points import OperatingPoint, OperatingPoints
from dualview.inference import studies_csv
from dualview.inference.csv_parts import Parts
from dualview.run.directory import RunDir
from dualview.run.trained import load_trained
from tests.support.pictures import write_dicom

FINDINGS = ["Nodule", "Effusion", "Hernia"]


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(predicting, "CHUNK_STUDIES", 4)


@pytest.fixture
def images(draw_png, tmp_path):
    """Six pictures, and one that is none."""
    folder = tmp_path / "images"
    for seed in range(6):
        draw_png(folder / f"{seed}.png", seed=seed)
    (folder / "broken.png").write_bytes(b"nothing")
    return folder


STUDIES = [  # study, pa, lateral, what is used
    ("007", "0.png", "1.png", "pa+lateral"),
    ("1e5", "2.png", "", "pa"),
    ("NA", "", "3.png", "lateral"),
    ("none, at all", "", "", ""),
    ("absent", "absent.png", "4.png", "lateral"),
    ("broken", "5.png", "broken.png", "pa"),
    ("both broken", "broken.png", "absent.png", ""),
    ("again", "1.png", "0.png", "pa+lateral"),
    ("Ä", "3.png", "", "pa"),
    ("last", "4.png", "5.png", "pa+lateral"),
]
REASONS = {
    "none, at all": "no image is given",
    "absent": "pa: no such file",
    "broken": "lateral: is not an image in a known format",
    "both broken": "pa: is not an image in a known format; lateral: no such file",
}


def write_csv(path: Path, rows, header=("study", "pa", "lateral")):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture
def table(images):
    return write_csv(images / "studies.csv", [row[:3] for row in STUDIES])


def read(out):
    return pd.read_csv(out, dtype=str, keep_default_na=False)


def ask(run_dir, **options):
    return predict(run_dir, device="cpu", num_workers=0, **options)


def by_hand(run_dir, images, pa, lateral):
    """Probabilities of one study, out of the model itself."""
    read_image = FileImages(images, image_size_px=64)
    batch = StudyBatch.from_views(
        pa=[read_image(pa) if pa else None], lateral=[read_image(lateral) if lateral else None]
    )
    model = load_trained(RunDir(run_dir)).model
    with torch.no_grad():
        return torch.sigmoid(model(batch).by_route(batch).double())[0].numpy()


def test_any_availability_has_its_row_in_order(make_run, images, table, tmp_path):
    run_dir, out = make_run(), tmp_path / "out" / "predictions.csv"
    result = ask(run_dir, csv=table, out=out, batch_size=2)
    assert (result.counts.studies, result.counts.predicted, result.was_there) == (10, 8, False)
    rows = read(out)
    assert list(rows.columns) == [
        "study",
        "views",
        *itertools.chain(*((f, f"{f}_decision") for f in FINDINGS)),
        "reason",
    ]
    assert rows["study"].tolist() == [study for study, *_ in STUDIES]
    assert rows["views"].tolist() == [used for *_, used in STUDIES]
    assert rows["reason"].tolist() == [REASONS.get(study, "") for study, *_ in STUDIES]
    for row, (study, pa, lateral, used) in zip(rows.to_dict("records"), STUDIES, strict=True):
        written = [row[finding] for finding in FINDINGS]
        if not used:
            assert written == [""] * 3
            continue
        expected = by_hand(run_dir, images, pa if "pa" in used else "", lateral if "lateral" in used else "")
        np.testing.assert_allclose(np.array(written, float), expected, rtol=1e-5, err_msg=study)
        assert all(len(text.lstrip("0.").replace(".", "")) <= 6 for text in written)
    assert (rows[[f"{finding}_decision" for finding in FINDINGS]] == "").all().all()
    assert sorted(path.name for path in out.parent.iterdir()) == ["predictions.csv", "predictions.csv.json"]


def test_the_command_the_api_and_arrays_agree_with_decisions(make_run, draw_png, tmp_path):
    run_dir = make_run()
    pixels = [draw_png(tmp_path / f"{seed}.png", seed=seed) for seed in range(4)]
    network = dualview.load(run_dir, device="cpu")
    plain = network.predict(pa=pixels[:3], lateral=[pixels[3], None, None])
    points = {"Nodule": OperatingPoint(threshold=float(plain.probabilities[1:, 0].mean()))}
    OperatingPoints(
        rule="youden", chosen_on="val", temperature={"both": 2.0, "pa_only": 1.0, "lateral_only": 1.0},
        routes={"both": points, "pa_only": points, "lateral_only": {}},
    ).write(run_dir / "operating_points.json")  # fmt: skip
    network = dualview.load(run_dir, device="cpu")
    of_arrays = network.predict(pa=pixels[:3], lateral=[pixels[3], None, None])
    paths = [tmp_path / f"{seed}.png" for seed in range(4)]
    of_paths = network.predict(pa=paths[:3], lateral=[paths[3], None, None])
    table = write_csv(tmp_path / "s.csv", [("a", "0.png", "3.png"), ("b", "1.png", ""), ("c", "2.png", "")])
    out = tmp_path / "p.csv"
    done = CliRunner().invoke(
        app, ["predict", str(run_dir), "--csv", str(table), "--out", str(out), "--device", "cpu", "--workers", "0"]
    )
    assert done.exit_code == 0, done.output
    assert "3 studies" in done.output
    rows = read(out)
    np.testing.assert_allclose(of_paths.probabilities, of_arrays.probabilities, atol=1e-6)
    np.testing.assert_allclose(rows[FINDINGS].astype(float), of_paths.probabilities, rtol=1e-5)
    assert rows["Nodule_decision"].tolist() == [str(int(value)) for value in of_paths.decisions[:, 0]]
    assert set(rows["Nodule_decision"]) == {"0", "1"}
    assert (rows["Hernia_decision"] == "").all()
    frame = of_paths.to_frame()
    assert list(frame.columns) == list(rows.columns)[1:]


def test_rows_of_images_as_for_training_are_studies_too(make_run, images, tmp_path):
    run_dir = make_run(data={"columns": {"study": "StudyID", "view": "Position"}, "ignored_views": ["OBLIQUE"]})
    rows = [
        ("p1", "s1", "PA", "0.png"), ("p1", "s1", "LATERAL", "1.png"), ("p1", "s1", "PA", "5.png"),
        ("p2", "s1", "AP", "2.png"), ("p2", "s2", "LLD", "3.png"), ("p2", "s3", "OBLIQUE", "3.png"),
        ("p3", "s4", "L", "3.png"), ("p3", "s4", "LLD", "4.png"),
    ]  # fmt: skip
    table = write_csv(images / "images.csv", rows, ("patient", "StudyID", "Position", "path"))
    ask(run_dir, csv=table, out=tmp_path / "a.csv")
    answers = read(tmp_path / "a.csv")
    assert answers[["study", "patient", "views", "reason"]].values.tolist() == [
        ["s1", "p1", "pa+lateral", ""],
        ["s1", "p2", "pa", ""],
        ["s2", "p2", "", "view is LLD"],
        ["s3", "p2", "", "view is OBLIQUE"],
        ["s4", "p3", "lateral", "view is LLD"],
    ]
    as_studies = [("s1", "0.png", "1.png"), ("x", "2.png", ""), ("y", "", ""), ("z", "", ""), ("s4", "", "3.png")]
    ask(run_dir, csv=write_csv(images / "studies.csv", as_studies), out=tmp_path / "b.csv")
    pd.testing.assert_frame_equal(answers[FINDINGS], read(tmp_path / "b.csv")[FINDINGS])


def test_where_the_first_image_of_a_table_cannot_be_read_the_next_is(make_run, images, tmp_path):
    (images / "torn.png").write_bytes(b"torn")
    rows = [("p1", "s1", "PA", "torn.png"), ("p1", "s1", "PA", "0.png"), ("p2", "s2", "PA", "0.png")]
    run_dir = make_run()
    ask(
        run_dir,
        csv=write_csv(images / "images.csv", rows, ("patient", "study", "view", "path")),
        out=tmp_path / "a.csv",
    )
    answers = read(tmp_path / "a.csv")
    assert answers["reason"].tolist() == [
        "pa: is not an image in a known format (another image of the view is used)",
        "",
    ]
    assert answers[FINDINGS].iloc[0].tolist() == answers[FINDINGS].iloc[1].tolist()


def test_problems_of_a_table_are_reported_together_before_anything_is_written(make_run, images, tmp_path):
    run_dir, out = make_run(), tmp_path / "out.csv"

    def refused(table):
        with pytest.raises(UserError) as caught:
            ask(run_dir, csv=table, out=out)
        assert not list(tmp_path.glob("out.csv*"))
        return str(caught.value)

    rows = [("a", "0.png", ""), ("", "1.png", ""), ("b", "", "2.png"), ("a", "3.png", "")]
    text = refused(write_csv(images / "s.csv", rows))
    assert "has 2 problem(s)" in text
    assert f"{images}/s.csv:3: study is blank" in text
    assert f"{images}/s.csv:5: study 'a' stands in line 2 already; give each study one row" in text
    header = ("patient", "study", "view", "path")
    rows = [("p", "a", "PA", "0.png"), ("p", "b", "PA", "1.png"), ("p", "a", "L", "2.png"), ("p", "c", "L", "")]
    text = refused(write_csv(images / "i.csv", rows, header))
    assert f"{images}/i.csv:4: study 'a' comes back after line 2; put the rows of a study one after another" in text
    assert f"{images}/i.csv:5: path is blank" in text
    assert "has the columns name, file. Give one row per study" in refused(
        write_csv(images / "n.csv", [("a", "b")], ("name", "file"))
    )
    assert "no such table" in refused(images / "absent.csv")
    assert "has no rows" in refused(write_csv(images / "e.csv", []))
    assert "more cells than the header" in refused(write_csv(images / "m.csv", [("a", "0.png", "", "x")]))
    with pytest.raises(UserError, match="either --csv or --folder"):
        ask(run_dir, out=out)


def test_one_file_is_not_both_views_and_rows_of_images_need_no_patient(tmp_path):
    rows = [("a", "0.png", "1.png"), ("b", "", ""), ("c", "2.png", "2.png")]
    with pytest.raises(UserError, match=r"1 problem.*\n.*:4: pa and lateral are one file, 2.png"):
        studies_csv.RequestCsv(write_csv(tmp_path / "s.csv", rows), source=SourceConfig()).check()
    rows = [("a", "PA", "0.png"), ("a", "L", "1.png"), ("b", "PA", "2.png")]
    table = write_csv(tmp_path / "i.csv", rows, ("study", "view", "path"))
    assert studies_csv.RequestCsv(table, source=SourceConfig()).check() == 2


def test_studies_far_apart_and_across_reads_are_told_apart(make_run, images, monkeypatch):
    """A study whose rows lie across two reads of the table is one study; one that returns 2,000 rows later is found."""
    monkeypatch.setattr(studies_csv, "ROWS_AT_ONCE", 51)
    header = ("patient", "study", "view", "path")
    rows = [("p", f"s{n // 2}", "PA" if n % 2 == 0 else "L", f"{n}.png") for n in range(2000)]
    table = studies_csv.RequestCsv(write_csv(images / "i.csv", rows, header), source=SourceConfig())
    assert table.check() == 1000
    studies = list(table)
    assert [study.row for study in studies] == list(range(1000))
    assert {study.view_mask for study in studies} == {(True, True)}
    assert studies[501].images == ("1002.png", "1003.png")
    table = write_csv(images / "i.csv", [*rows, ("p", "s3", "PA", "x.png")], header)
    with pytest.raises(UserError, match=r":2002: study 's3' comes back after line 8"):
        studies_csv.RequestCsv(table, source=SourceConfig()).check()


def test_a_network_of_one_view_says_what_it_needs(make_run, table, tmp_path):
    ask(make_run("stacked"), csv=table, out=tmp_path / "a.csv")
    rows = read(tmp_path / "a.csv").set_index("study")
    assert rows["views"].tolist() == [used if used == "pa+lateral" else "" for *_, used in STUDIES]
    assert rows.loc["1e5", "reason"] == "the network (stacked) needs pa and lateral"
    assert rows.loc["absent", "reason"] == "pa: no such file; the network (stacked) needs pa and lateral"


def test_a_stopped_prediction_goes_on_and_gives_the_same_bytes(make_run, table, tmp_path, monkeypatch):
    run_dir = make_run()
    ask(run_dir, csv=table, out=tmp_path / "whole.csv")
    whole, out = (tmp_path / "whole.csv").read_bytes(), tmp_path / "out.csv"
    written, write = [], Parts.write

    def stop_after_first(self, number, rows):
        write(self, number, rows)
        written.append(number)
        monkeypatch.setattr(Job, "stop_requested", True, raising=False)

    monkeypatch.setattr(Parts, "write", stop_after_first)
    monkeypatch.setattr(Job, "__init__", _without_stop(Job.__init__))
    with pytest.raises(Preempted, match="stopped by a signal"):
        ask(run_dir, csv=table, out=out)
    assert written == [0] and not out.exists()

    def write_on(self, number, rows):
        write(self, number, rows)
        written.append(number)

    monkeypatch.setattr(Parts, "write", write_on)
    monkeypatch.setattr(Job, "stop_requested", False, raising=False)
    seen = []
    monkeypatch.setattr(predicting, "_rows", _noting(predicting._rows, seen))
    assert ask(run_dir, csv=table, out=out, overwrite=True).was_there is False  # does not begin again
    assert written == [0, 1, 2]
    assert {study.row for read in seen for study in read.studies} == set(range(4, 10))
    assert out.read_bytes() == whole


def _without_stop(init):
    def wrapped(self, *arguments, **options):
        init(self, *arguments, **options)
        del self.stop_requested  # the class's is asked instead

    return wrapped


def _noting(function, seen):
    def wrapped(read, **options):
        seen.append(read)
        return function(read, **options)

    return wrapped


@pytest.mark.parametrize("moment", ["in a part", "in the joining", "after the joining", "at the removal"])
def test_killed_at_any_moment_it_ends_with_the_same_bytes(make_run, table, tmp_path, monkeypatch, moment):
    run_dir, out = make_run(), tmp_path / "out.csv"
    ask(run_dir, csv=table, out=tmp_path / "whole.csv")

    class Killed(BaseException):
        pass

    def kill():
        raise Killed

    target, number = {
        "in a part": (
            "dualview.files.os.fsync",
            5,
        ),  # that of the second part; each file takes two, the first is partial.json
        "in the joining": ("dualview.inference.csv_parts.csv.reader", 2),
        "after the joining": (
            "dualview.inference.csv_parts.write_whole",
            5,
        ),  # of what the CSV was made from, after three parts
        "at the removal": ("dualview.inference.csv_parts.shutil.rmtree", 2),  # the first makes room for the parts
    }[moment]
    with monkeypatch.context() as patched:
        original, counter = pkgutil.resolve_name(target), itertools.count(1)
        patched.setattr(
            target,
            lambda *values, **named: kill() if next(counter) == number else original(*values, **named),
        )
        with pytest.raises(Killed):
            ask(run_dir, csv=table, out=out)
    ask(run_dir, csv=table, out=out)
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert sorted(path.name for path in tmp_path.glob("out.csv*")) == ["out.csv", "out.csv.json"]


def test_what_is_there_already_is_kept_or_refused(make_run, table, images, tmp_path):
    run_dir, out = make_run(), tmp_path / "out.csv"
    out.write_text("mine\n")
    with pytest.raises(UserError, match=r"is there already, and not known to be of this command\. Nothing was"):
        ask(run_dir, csv=table, out=out)
    assert out.read_text() == "mine\n"
    assert ask(run_dir, csv=table, out=out, overwrite=True).counts.studies == 10
    before = out.stat().st_mtime_ns
    again = ask(run_dir, csv=table, out=out)
    assert again.was_there and again.counts.predicted == 8
    assert out.stat().st_mtime_ns == before
    with pytest.raises(UserError, match=r"was made with another batch size \(32, now 8\)"):
        ask(run_dir, csv=table, out=out, batch_size=8)
    other = make_run(folder="other", findings=("Mass",))
    with pytest.raises(UserError, match="was made with another checkpoint"):
        ask(other, csv=table, out=out)
    write_csv(table, [("a", "0.png", "")])
    with pytest.raises(UserError, match="was made with another input"):
        ask(run_dir, csv=table, out=out)
    with pytest.raises(UserError, match="is a folder"):
        ask(run_dir, csv=table, out=images)


def test_memory_does_not_grow_with_the_number_of_studies(make_run, images, tmp_path, monkeypatch):
    """Peak of Python's memory over 2,000 and 10,000 studies without a readable image, which need no network.

    What may grow is 8 bytes per study, twice while they are put together, and some numbers per chunk.
    """
    monkeypatch.setattr(predicting, "CHUNK_STUDIES", 256)
    run_dir = make_run()
    peaks = {}
    for number in (500, 2_000, 10_000):  # the first is for imports and caches
        rows = ((f"study {n}", f"patient {n}/absent.png", "", "x" * 250) for n in range(number))
        table = write_csv(images / f"{number}.csv", rows, ("study", "pa", "lateral", "more than pandas' buffer"))
        tracemalloc.start()
        ask(run_dir, csv=table, out=tmp_path / f"{number}-out.csv")
        peaks[number] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks[10_000] - peaks[2_000] < 8_000 * 20, peaks
    answers = read(tmp_path / "10000-out.csv")
    assert answers["study"].tolist() == [f"study {n}" for n in range(10_000)]
    assert set(answers["reason"]) == {"pa: no such file"}


# -- how bright, and what is odd ---------------------------------------------------------------------


@pytest.fixture
def detector(tmp_path):
    """`detector("dark", 4095)`: a folder and a CSV of 4 studies of 12-bit values, in files of as many bits or more."""

    def write(name, white):
        folder = tmp_path / name
        folder.mkdir()
        for study in range(4):
            for view in ("pa", "lateral"):
                stored = np.random.default_rng([study, len(view)]).integers(0, 4096, (64, 64))
                Image.fromarray((stored * white // 4095).astype(np.uint16)).save(folder / f"{study}_{view}.png")
        rows = [(str(study), f"{study}_pa.png", f"{study}_lateral.png") for study in range(4)]
        return folder, write_csv(folder / "studies.csv", rows)

    return write


CSV_RUN = {"source": "csv", "root": "/images", "findings": FINDINGS}


def test_what_is_white_is_that_of_the_run_for_files_and_arrays_alike(make_run, detector, tmp_path, caplog):
    """12-bit values in 16-bit files give the answers that the same pictures give in all their bits."""
    (dark, dark_csv), (_, bright_csv) = detector("dark", 4095), detector("bright", 65535)
    plain = make_run(folder="plain", data=CSV_RUN)
    told = make_run(folder="told", data={**CSV_RUN, "intensity_max": 4095})
    ask(plain, csv=bright_csv, out=tmp_path / "bright.csv")
    assert "too dark" not in caplog.text
    expected = read(tmp_path / "bright.csv")
    options = {"csv": {"csv": dark_csv}, "folder": {"folder": dark}}
    for name, option in options.items():
        ask(told, **option, out=tmp_path / f"{name}.csv")
        ask(plain, **option, out=tmp_path / f"{name}-option.csv", intensity_max=4095)
        for made in (f"{name}.csv", f"{name}-option.csv"):
            for finding in FINDINGS:
                found, right = (table[finding].astype(float) for table in (read(tmp_path / made), expected))
                np.testing.assert_allclose(found, right, rtol=2e-3)
    array = np.asarray(Image.open(dark / "0_pa.png"))
    of_file = dualview.load(told, device="cpu").predict(pa=dark / "0_pa.png").probabilities
    np.testing.assert_array_equal(dualview.load(told, device="cpu").predict(pa=array).probabilities, of_file)
    assert "too dark" not in caplog.text


def test_dark_images_are_a_warning_with_the_remedy(make_run, detector, tmp_path, caplog):
    _, table = detector("dark", 4095)
    ask(make_run(data=CSV_RUN), csv=table, out=tmp_path / "out.csv")
    (message,) = [text for text in caplog.messages if "too dark to be true" in text]
    assert "8 of 8 images" in message and "--intensity-max" in message and "4095 if 12 bits" in message
    with pytest.raises(UserError, match="--intensity-max is 0"):
        ask(tmp_path / "run", csv=table, out=tmp_path / "other.csv", intensity_max=0)


def test_oddities_of_images_are_one_line_per_kind(make_run, tmp_path, capfd):
    for study in range(6):
        stored = np.random.default_rng(study).integers(0, 4096, (64, 64))
        write_dicom(tmp_path / "images" / f"{study}.dcm", stored, WindowCenter=0, WindowWidth=0, ViewPosition="PA",
                    StudyInstanceUID=f"1.{study}", PatientID=f"p{study}")  # fmt: skip
    run_dir, out = make_run(), tmp_path / "out.csv"
    result = CliRunner().invoke(
        app, ["predict", str(run_dir), "--folder", str(tmp_path / "images"), "--out", str(out), "--workers", "2"]
    )
    assert result.exit_code == 0, result.output
    kind = "has a window without a usable centre and width; it counts as absent"
    assert result.output.count(kind) == 1 and f"6  {kind}, such as 0.dcm" in result.output
    assert "Traceback" not in result.output and (read(out)["reason"] == "").all()
