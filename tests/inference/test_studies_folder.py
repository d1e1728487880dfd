"""`dualview predict --folder`: DICOM files by their tags, pictures by their names."""

import os

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import dualview
from dualview.commands.predict import predict
from dualview.config import SourceConfig
from dualview.errors import UserError
from dualview.inference.studies_folder import list_studies
from dualview.views import View
from tests.support.dicom_files import write_dicom


def ask(run_dir, folder, out):
    predict(run_dir, folder=folder, out=out, device="cpu", num_workers=0)
    return pd.read_csv(out, dtype=str, keep_default_na=False).set_index("study")


def test_dicom_files_are_grouped_by_their_tags(make_run, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 80, 80), dtype=np.uint8)
    folder = tmp_path / "in"
    write_dicom(folder / "x" / "1", pixels[0], study="1.2", ViewPosition="PA")
    write_dicom(folder / "y" / "2.dcm", pixels[1], study="1.2", ViewPosition="LL")
    write_dicom(folder / "z" / "3", pixels[2], study="1.3", SeriesDescription="Chest lateral")
    write_dicom(folder / "z" / "4", pixels[3], study="1.4", ViewPosition="LLD")
    write_dicom(folder / "z" / "5", pixels[3], study="1.5", ViewPosition="PA", Modality="CT")
    write_dicom(folder / "z" / "6", pixels[4], study="1.6", ViewPosition="AP")
    (folder / "z" / "7.dcm").write_bytes(b"torn")
    (folder / "notes.txt").write_text("not looked at")
    (folder / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    run_dir = make_run()
    rows = ask(run_dir, folder, tmp_path / "out.csv")
    assert rows[["views", "reason"]].reset_index().values.tolist() == [
        ["1.2", "pa+lateral", ""],
        ["1.3", "lateral", ""],
        ["1.4", "", "view is LLD"],
        ["1.5", "", "modality is CT"],
        ["1.6", "pa", ""],
        ["z/7.dcm", "", "is not a DICOM file"],
    ]
    network = dualview.load(run_dir, device="cpu")
    expected = network.predict(pa=[pixels[0], None, pixels[4]], lateral=[pixels[1], pixels[2], None])
    written = rows.loc[["1.2", "1.3", "1.6"], list(network.findings)].astype(float)
    np.testing.assert_allclose(written, expected.probabilities, rtol=1e-5)


def test_pictures_are_grouped_by_their_names(make_run, draw_png, tmp_path):
    folder = tmp_path / "in"
    names = [
        "S1_pa.png", "S1_LATERAL.png", "S2_frontal.png", "S3-Lat.PNG", "S 4 pa.png", "S5/pa.png", "S5/lateral.png",
        "site/S1_pa.png", "site/S6/Frontal.png", "S7.png", "pa.png", "S8_pa_2.png", "spa.png",
    ]  # fmt: skip
    pixels = {name: draw_png(folder / name, seed=seed) for seed, name in enumerate(names)}
    Image.fromarray(pixels["S1_pa.png"]).convert("RGB").save(folder / "S9_lat.jpeg", quality=95)
    (folder / "S10_pa.tif").write_bytes(b"torn")
    (folder / ".hidden_pa.png").write_bytes(b"")
    run_dir = make_run()
    rows = ask(run_dir, folder, tmp_path / "out.csv")
    assert rows["views"].to_dict() == {
        "S1": "pa+lateral", "S2": "pa", "S3": "lateral", "S 4": "pa", "S5": "pa+lateral", "site/S1": "pa",
        "site/S6": "pa", "S9": "lateral", "S10": "", "S7.png": "", "pa.png": "", "S8_pa_2.png": "", "spa.png": "",
    }  # fmt: skip
    for name in ("S7.png", "pa.png", "S8_pa_2.png", "spa.png"):
        assert rows.loc[name, "reason"].startswith("the name does not say study and view; call it STUDY_pa")
    assert rows.loc["S10", "reason"] == "pa: is not an image in a known format"
    network = dualview.load(run_dir, device="cpu")
    expected = network.predict(pa=pixels["S5/pa.png"], lateral=pixels["S5/lateral.png"]).probabilities
    np.testing.assert_allclose(rows.loc[["S5"], list(network.findings)].astype(float), expected, rtol=1e-5)


def test_a_folder_that_changed_is_another_input(draw_png, tmp_path):
    draw_png(tmp_path / "S1_pa.png", seed=0)
    draw_png(tmp_path / "S2_pa.png", seed=1)
    (studies, before), (_, again) = list_studies(tmp_path), list_studies(tmp_path)
    assert [(study.study, study.row) for study in studies] == [("S1", 0), ("S2", 1)]
    assert before == again
    os.utime(tmp_path / "S1_pa.png", ns=(1, 1))
    touched = list_studies(tmp_path)[1]
    (tmp_path / "S2_pa.png").rename(tmp_path / "S2_lat.png")
    assert len({before, touched, list_studies(tmp_path)[1]}) == 3


def test_a_folder_without_images_is_refused(make_run, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("")
    with pytest.raises(UserError, match="holds no DICOM file and no"):
        ask(make_run(), tmp_path / "in", tmp_path / "out.csv")
    with pytest.raises(UserError, match="is not a folder"):
        list_studies(tmp_path / "absent")


def listed(folder, **settings):
    """(study, images of both views, reasons) of a folder's studies, for a run on a table with these settings."""
    source = SourceConfig.model_validate({"source": "csv", "root": ".", "csv": "a.csv", "findings": ["A"], **settings})
    return [(study.study, study.images, study.reasons) for study in list_studies(folder, sources=[source])[0]]


def touch_pictures(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"\xff\xd8\xff\xe0")


def test_numbers_that_count_the_images_of_a_folder_are_no_part_of_its_study(tmp_path):
    touch_pictures(
        tmp_path,
        *("patient1/study1/view1_frontal.jpg", "patient1/study1/view2_lateral.jpg"),
        *("patient1/study2/view1_frontal.JFIF", "patient2/study1/view1_frontal.jpg"),
        *("patient2/study1/view2_frontal.jpg", "patient2/study1/view3_lateral.jpg"),
        *("p3/1_PA.PNG", "p3/2_LL.PNG", "p4/img1-front.png", "p4/img2-profil.png"),
        # These are studies: numbers come back with both views, or there are more images than one study has.
        *("site/1_pa.png", "site/1_lat.png", "site/2_pa.png", "site/2_lat.png"),
        *("b/1_pa.png", "b/2_pa.png", "b/3_lat.png"),
        *("view1_frontal.jpg", "view2_lateral.jpg"),
    )  # fmt: skip
    studies = {study: images for study, images, _ in listed(tmp_path)}
    assert studies == {
        "patient1/study1": ("patient1/study1/view1_frontal.jpg", "patient1/study1/view2_lateral.jpg"),
        "patient1/study2": ("patient1/study2/view1_frontal.JFIF", None),
        "patient2/study1": ("patient2/study1/view1_frontal.jpg", "patient2/study1/view3_lateral.jpg"),
        "p3": ("p3/1_PA.PNG", "p3/2_LL.PNG"), "p4": ("p4/img1-front.png", "p4/img2-profil.png"),
        "site/1": ("site/1_pa.png", "site/1_lat.png"), "site/2": ("site/2_pa.png", "site/2_lat.png"),
        "b/1": ("b/1_pa.png", None), "b/2": ("b/2_pa.png", None), "b/3": (None, "b/3_lat.png"),
        tmp_path.name: ("view1_frontal.jpg", "view2_lateral.jpg"),
    }  # fmt: skip


def test_views_take_the_branches_of_the_run(tmp_path):
    pixels = np.zeros((20, 20), np.uint8)
    write_dicom(tmp_path / "1.dcm", pixels, study="1", ViewPosition="AP SUPINE")
    write_dicom(tmp_path / "2.dcm", pixels, study="2", ViewPosition="PA")
    write_dicom(tmp_path / "3.dcm", pixels, study="3", ViewPosition="LLD")
    touch_pictures(tmp_path, "S4_ap.png", "S5_lao.png", "S6_left_lateral.png", "S6-front.png")
    own = dict.fromkeys("123456", ())
    defaults = {study.strip("S"): (images, reasons) for study, images, reasons in listed(tmp_path)}
    assert defaults == own | {
        "1": (("1.dcm", None), ()), "2": (("2.dcm", None), ()), "3": ((None, None), ("view is LLD",)),
        "4": (("S4_ap.png", None), ()), "5": ((None, None), ("view is LAO",)),
        "6": (("S6-front.png", "S6_left_lateral.png"), ()),
    }  # fmt: skip
    pa_only = {study: reasons for study, _, reasons in listed(tmp_path, frontal_views=["PA"], lateral_views=["L"])}
    assert pa_only == {
        "1": ("view is AP",), "2": (), "3": ("view is LLD",), "S4": ("view is AP",), "S5": ("view is LAO",), "S6": (),
    }  # fmt: skip
    lying = {study: images[0] for study, images, _ in listed(tmp_path, frontal_views=["PA", "LLD"])}
    assert lying["3"] == "3.dcm" and lying["1"] is None


def test_another_part_of_the_body_and_what_cannot_be_opened_have_their_reasons(tmp_path):
    pixels = np.zeros((20, 20), np.uint8)
    write_dicom(tmp_path / "1.dcm", pixels, study="1", ViewPosition="AP", BodyPartExamined="CSPINE")
    write_dicom(tmp_path / "2.dcm", pixels, study="1", ViewPosition="LL", StudyDescription="HWS 2 Ebenen")
    (tmp_path / "S2_pa.png").symlink_to("absent")
    os.mkfifo(tmp_path / "S3_pa.png")
    (tmp_path / "S4_pa.png").touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "S5_pa.dcm").write_bytes(b"\x89PNG\r\n\x1a\n")  # by content a picture
    assert listed(tmp_path) == [
        ("1", (None, None), ("body part is CSPINE", "the description names another body part (spine)")),
        ("S2_pa.png", (None, None), ("is a link to a file that is not there",)),
        ("S3_pa.png", (None, None), ("is a FIFO, not a file",)),
        ("S4_pa.png", (None, None), ("is empty (0 bytes)",)),
        ("S5", ("S5_pa.dcm", None), ()),
    ]


def test_patients_whose_studies_have_one_identifier_are_not_mixed(tmp_path, caplog):
    pixels = np.zeros((20, 20), np.uint8)
    for name, patient, view in (("1.dcm", "a", "PA"), ("2.dcm", "a", "LL"), ("3.dcm", "b", "LL")):
        write_dicom(tmp_path / name, pixels, study="1", PatientID=patient, ViewPosition=view)
    touch_pictures(tmp_path, "1.2.3_pa")
    assert listed(tmp_path) == [
        ("1.2.3", ("1.2.3_pa", None), ()), ("a/1", ("1.dcm", "2.dcm"), ()), ("b/1", (None, "3.dcm"), ())
    ]  # fmt: skip
    assert "3 image(s) have a StudyInstanceUID of several patients" in caplog.text


def test_raw_data_are_answered_only_where_there_is_nothing_else_and_the_row_says_so(tmp_path):
    pixels = np.zeros((20, 20), np.uint8)
    raw = {"PresentationIntentType": "FOR PROCESSING"}
    write_dicom(tmp_path / "1.dcm", pixels, study="1", ViewPosition="PA", **raw)
    write_dicom(tmp_path / "2.dcm", pixels, study="1", ViewPosition="PA")
    write_dicom(tmp_path / "3.dcm", pixels, study="1", ViewPosition="LL", **raw)
    only = "lateral: raw data FOR PROCESSING is used, as the study has no better image of the view"
    assert listed(tmp_path) == [("1", ("2.dcm", "3.dcm"), (only,))]


def test_where_the_first_image_cannot_be_read_the_next_is(make_run, draw_png, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (80, 80), dtype=np.uint8)
    folder = tmp_path / "in"
    write_dicom(folder / "1.dcm", pixels, study="1.2", ViewPosition="PA", PresentationIntentType="FOR PROCESSING")
    torn = write_dicom(folder / "2.dcm", pixels, study="1.2", ViewPosition="PA")
    torn.write_bytes(torn.read_bytes()[:-1000])
    shown = draw_png(folder / "S2" / "view2_frontal.png", seed=1)
    (folder / "S2" / "view1_frontal.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    run_dir = make_run()
    rows = ask(run_dir, folder, tmp_path / "out.csv")
    assert rows["views"].to_dict() == {"1.2": "pa", "S2": "pa"}
    for reason in rows["reason"]:
        assert reason.startswith("pa: ") and reason.endswith("(another image of the view is used)")
    network = dualview.load(run_dir, device="cpu")
    expected = network.predict(pa=[pixels, shown]).probabilities
    np.testing.assert_allclose(rows.loc[["1.2", "S2"], list(network.findings)].astype(float), expected, rtol=1e-5)


def test_where_all_images_count_those_that_are_no_first_choice_do_not(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (80, 80), dtype=np.uint8)
    for number, intent in enumerate(("FOR PROCESSING", "FOR PRESENTATION", "FOR PRESENTATION")):
        tags = {"PresentationIntentType": intent, "InstanceNumber": number}
        write_dicom(tmp_path / f"{number}.dcm", pixels + np.uint8(number), study="1", ViewPosition="PA", **tags)
    write_dicom(tmp_path / "9.dcm", pixels, study="1", ViewPosition="LL", PresentationIntentType="FOR PROCESSING")
    (first,), _ = list_studies(tmp_path)
    assert first.every(View.PA) == ("1.dcm", "2.dcm", "0.dcm")  # raw data where nothing else can be read
    (every,), _ = list_studies(tmp_path, takes_all=True)
    assert every.every(View.PA) == ("1.dcm", "2.dcm") and every.every(View.LATERAL) == ("9.dcm",)
