"""What evaluation.json says of the study is what pandas counts, and names nobody."""

from types import SimpleNamespace

import numpy as np
import pandas as pd

from dualview.config import Config, SourceConfig
from dualview.config.uses import SOURCES
from dualview.data.load import load_data
from dualview.data.sources.about import ABOUT, reference_standard
from dualview.evaluation.account import split_account, study_account
from dualview.run.datasets import for_network


def test_demographics_are_those_of_pandas_by_patient():
    generator = np.random.default_rng(0)
    frame = pd.DataFrame({
        "patient": generator.integers(0, 60, 200).astype(str),
        "sex": generator.choice(["M", "Female", "", "O", "unknown"], 200),
        "age": generator.choice(["", "34", "061Y", "150", *map(str, range(20, 90))], 200),
        "kind": generator.integers(0, 3, 200),
    })  # fmt: skip
    counted = split_account(
        {"sex": frame["sex"].to_numpy(object), "Patient Age": frame["age"].to_numpy(object)},
        patients=frame["patient"].to_numpy(object), availability=frame["kind"].to_numpy(), taken=7,
    )  # fmt: skip
    known = frame[frame["sex"].isin(["M", "Female", "O"])].drop_duplicates("patient")["sex"].value_counts()
    num_patients = frame["patient"].nunique()
    assert counted.sex == {
        "female": known["Female"], "male": known["M"], "other": known["O"], "not recorded": num_patients - known.sum()
    }  # fmt: skip
    years = pd.to_numeric(frame["age"].replace("061Y", "61"), errors="coerce")
    ages = frame.assign(years=years.where(years <= 120)).dropna(subset="years").drop_duplicates("patient")["years"]
    assert counted.age is not None and counted.age.num_known == len(ages)
    quartiles = ages.quantile([0.25, 0.5, 0.75]).round(1).tolist()
    assert [counted.age.lower_quartile, counted.age.median, counted.age.upper_quartile] == quartiles
    assert (counted.patients, counted.studies, counted.taken) == (num_patients, 200, 7)
    assert list(counted.availability.values()) == [(frame["kind"] == kind).sum() for kind in range(3)]


def test_each_of_several_data_sets_says_sex_and_age_in_a_column_of_its_own():
    counted = split_account(
        {
            "sex": np.array(["M", "", ""], object), "Gender": np.array(["", "Female", ""], object),
            "age": np.array(["", "", "30"], object), "Patient Age": np.array(["", "50", ""], object),
        },
        patients=np.array(["a", "b", "c"], object), availability=np.array([0, 0, 0]), taken=3,
    )  # fmt: skip
    assert counted.sex == {"female": 1, "male": 1, "other": 0, "not recorded": 1}
    assert counted.age is not None and (counted.age.num_known, counted.age.median) == (2, 40)


def test_what_has_no_column_is_not_recorded():
    counted = split_account({}, patients=np.array(["a"], object), availability=np.array([0]), taken=1)
    assert counted.sex is None and counted.age is None


def test_every_public_data_set_says_who_read_its_images():
    for name in SOURCES:
        source = SourceConfig(source=name, root=".", findings=["Mass"], csv="t.csv")
        assert reference_standard(source).says if name in ABOUT else name in ("csv", "dicom")
    own = SourceConfig(source="nih", root=".", reference_standard="two radiologists")
    assert reference_standard(own).says == "two radiologists"
    labelled = SourceConfig(source="mimic_cxr", root=".", labeler="negbio")
    assert "NegBio" in reference_standard(labelled).says


def test_labels_are_counted_among_the_studies_that_the_network_is_trained_on(tmp_path):
    images = pd.DataFrame({
        "patient": [f"p{n}" for n in range(60)], "study": "s", "view": ["PA", "LATERAL"] * 30,
        "path": [f"{n}.png" for n in range(60)], "F": [""] * 10 + ["1", "0", "0", "1"] * 12 + ["1", "0"],
    })  # fmt: skip
    images.to_csv(tmp_path / "t.csv", index=False)
    data = {"source": "csv", "root": tmp_path, "csv": tmp_path / "t.csv", "findings": ["F"], "check_files": False}
    config = Config.model_validate({"data": data, "model": {"name": "single", "view": "pa"}})
    whole = load_data(config.data, seed=0)
    taken = for_network(whole, config, job=SimpleNamespace(is_main=False))
    tested = SimpleNamespace(evaluated=np.ones(len(taken.test), bool), availability=taken.test.availability)
    account = study_account(
        config, whole=whole, taken=taken, split="test", table=tested, came=taken.test, checkpoint_name="best",
        network=SimpleNamespace(run=SimpleNamespace(read_log=list), config=config, is_best=True, step=1),
        software="dualview",
    )  # fmt: skip
    of_view = images[images["view"] == "PA"].set_index("patient")["F"]
    for counted, table in ((account.labels["F"].unknown_in_training, taken.train),
                           (account.labels["F"].unknown_in_split, taken.test)):  # fmt: skip
        assert counted == (of_view[list(table.patient_ids)] == "").sum()
    assert len(whole.train) > len(taken.train) and (~whole.train.label_mask).sum() > (~taken.train.label_mask).sum()
