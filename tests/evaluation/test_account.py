"""What evaluation.json says of the study is what pandas counts, and names nobody."""

import numpy as np
import pandas as pd

from dualview.config import SourceConfig
from dualview.config.uses import SOURCES
from dualview.data.sources.about import ABOUT, reference_standard
from dualview.evaluation.account import split_account


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
