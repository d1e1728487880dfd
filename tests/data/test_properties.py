"""Whatever the table: no image used twice, no patient in two splits, and every image is accounted for."""

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dualview.config import CohortConfig, DataConfig, SplitConfig
from dualview.data.counts import count_data
from dualview.data.load import load_data
from dualview.data.sources import csv as csv_source
from dualview.data.sources.cohort import select
from dualview.data.splits import split_by_patient
from dualview.errors import UserError
from dualview.views import View

image = st.tuples(
    st.integers(0, 15),  # patient
    st.integers(0, 2),  # study of the patient
    st.sampled_from(["PA", "AP", "L", "LL", "OBLIQUE"]),
)
tables = st.lists(image, min_size=1, max_size=60)
often = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write(tmp_path, images):
    frame = pd.DataFrame(images, columns=["patient", "study", "view"]).astype(str)
    frame["path"] = [f"{number}.png" for number in range(len(frame))]
    frame["A"] = [str(int(patient) % 2) for patient in frame["patient"]]  # one label per study
    frame.to_csv(tmp_path / "images.csv", index=False)
    return DataConfig.model_validate(
        {"source": "csv", "csv": tmp_path / "images.csv", "check_files": False, "findings": ["A"],
         "ignored_views": ["OBLIQUE"]}
    )  # fmt: skip


def read(tmp_path, images):
    try:
        config = write(tmp_path, images)
        return csv_source.read(config, data=config, seed=0)
    except UserError as error:
        assert "leaves no study" in str(error)
        return None


def paths_of(table) -> list[str]:
    return [path for view in View for paths in table.images[view] for path in paths]


@often
@given(images=tables)
def test_every_image_is_used_once_or_left_out_once(tmp_path, images):
    source = read(tmp_path, images)
    if source is None:
        assert {view for _, _, view in images} == {"OBLIQUE"}
        return
    used, dropped = paths_of(source.table), source.dropped["path"].tolist()
    assert sorted(used + dropped) == sorted(f"{number}.png" for number in range(len(images)))
    assert len(used) + len(dropped) == source.num_images_read
    for view, names in ((View.PA, ("PA", "AP")), (View.LATERAL, ("L", "LL"))):
        assert source.table.num_images[:, view].sum() == sum(image[2] in names for image in images)
    expected = {(str(patient), str(study)) for patient, study, view in images if view != "OBLIQUE"}
    found = list(zip(source.table.patient_ids, source.table.study_ids, strict=True))
    assert len(found) == len(set(found)) and set(found) == expected


@often
@given(
    images=tables,
    seed=st.integers(0, 2**32 - 1),
    train=st.sampled_from([0.5, 0.6, 0.8]),
    with_test=st.booleans(),
)
def test_no_patient_is_in_two_splits_and_no_study_is_lost(tmp_path, images, seed, train, with_test):
    source = read(tmp_path, images)
    if source is None:
        return
    rest = 1 - train
    config = SplitConfig(train=train, val=rest / 2 if with_test else rest, test=rest / 2 if with_test else 0)
    try:
        splits = split_by_patient(source.table, config=config, seed=seed)
    except UserError as error:
        assert "is empty" in str(error)
        return
    patients = [set(table.patient_ids) for table in splits.values()]
    assert sum(map(len, patients)) == len(set().union(*patients)) == len(set(source.table.patient_ids))
    assert sum(map(len, splits.values())) == len(source.table)
    again = split_by_patient(source.table, config=config, seed=seed)
    assert all(np.array_equal(splits[name].study_ids, again[name].study_ids) for name in splits)
    expected = np.rint(np.cumsum([config.train, config.val]) * len(set(source.table.patient_ids)))
    assert len(patients[0]) == expected[0] and len(patients[0]) + len(patients[1]) == expected[1]


@often
@given(images=tables)
def test_the_account_adds_up(tmp_path, images):
    config = DataConfig.model_validate(write(tmp_path, images).model_dump())
    try:
        data = load_data(config, seed=0)
    except UserError:
        return
    counts = count_data(data)
    assert counts["images"]["read"] == len(images)
    assert counts["images"]["used"] + sum(counts["images"]["dropped"].values()) == len(images)
    kinds = dict(counts["studies"])
    total = kinds.pop("total")
    assert total == sum(kinds.values()) == sum(split["studies"]["total"] for split in counts["splits"].values())
    of_finding = counts["findings"]["A"]
    assert of_finding["positive"] + of_finding["negative"] + of_finding["unknown"] == total
    assert counts["patients"] == sum(split["patients"] for split in counts["splits"].values())


@often
@given(
    images=tables,
    kinds=st.lists(st.sampled_from(["both", "pa_only", "lateral_only"]), unique=True),
    single=st.booleans(),
    one_each=st.booleans(),
    tie_seed=st.integers(0, 9),
)
def test_a_cohort_keeps_what_its_rules_say_and_accounts_for_the_rest(
    tmp_path, images, kinds, single, one_each, tie_seed
):
    source = read(tmp_path, images)
    if source is None:
        return
    dates = np.array([f"2020010{int(study) + 1}" for study in source.table.study_ids], object)
    source.table.attributes["date"] = dates
    cohort = CohortConfig(
        availability=kinds, one_image_per_view=single, one_study_per_patient=one_each, tie_seed=tie_seed
    )
    try:
        chosen = select(source, cohort=cohort)
    except UserError as error:
        assert "leaves no study" in str(error)
        return
    table = chosen.table
    assert sorted(paths_of(table) + chosen.dropped["path"].tolist()) == sorted(
        f"{number}.png" for number in range(len(images))
    )
    assert not single or (table.num_images <= 1).all()
    names = np.array(["both", "pa_only", "lateral_only"])[table.availability]
    assert not kinds or set(names) <= set(kinds)
    if one_each:
        assert len(set(table.patient_ids)) == len(table)
