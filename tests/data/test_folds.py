"""Folds: every patient is tested once, whatever the order of the table."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from dualview.config import Config, DataConfig, SplitConfig
from dualview.data.load import load_data
from dualview.data.splits import fold_numbers, split_by_patient
from dualview.errors import UserError
from dualview.run.resume import with_overrides
from tests.data.test_dataset import many_patients, table_of


def folds_of(table, *, folds=5, seed=0, **changes):
    """Of each fold, the patients of train, val and test."""
    splits = [
        split_by_patient(table, config=SplitConfig(folds=folds, fold=fold, **changes), seed=seed)
        for fold in range(1, folds + 1)
    ]
    return [{name: sorted(set(part.patient_ids)) for name, part in of_fold.items()} for of_fold in splits]


@pytest.mark.parametrize(("num_studies", "folds"), [(100, 5), (94, 7), (20, 2)])
def test_every_patient_is_tested_in_one_fold_and_in_no_other_split_of_it(num_studies, folds):
    table = many_patients(num_studies)
    everyone = sorted(set(table.patient_ids))
    times = dict.fromkeys(everyone, 0)
    for of_fold in folds_of(table, folds=folds):
        assert sorted(of_fold["train"] + of_fold["val"] + of_fold["test"]) == everyone
        for patient in of_fold["test"]:
            times[patient] += 1
    assert set(times.values()) == {1}


def test_val_is_drawn_from_the_rest_in_the_proportion_of_the_fractions():
    """50 patients: 10 tested; of the other 40, val is 0.2 / 0.8, or 0.1 / 0.9 rounded."""
    assert {len(of_fold["val"]) for of_fold in folds_of(many_patients())} == {10}
    assert {len(of_fold["val"]) for of_fold in folds_of(many_patients(), train=0.9, val=0.1, test=0)} == {4}


def test_folds_are_a_function_of_patients_and_seed_and_not_of_the_order_of_the_table():
    table = many_patients()
    turned = table.select(np.random.default_rng(0).permutation(len(table)))
    assert folds_of(turned) == folds_of(table)
    assert folds_of(table, seed=1) != folds_of(table)


def test_rare_findings_and_laterals_reach_every_fold():
    """Ten of 100 patients have the finding and ten others a lateral: two of each in each of five folds."""
    table = table_of(*[((f"p{i}",), (f"l{i}",) if i % 10 == 1 else ()) for i in range(100)])
    table = replace(table, labels=(np.arange(100) % 10 == 0).astype(np.float32)[:, None])
    folds = fold_numbers(table, num_folds=5, seed=0)
    for number in range(1, 6):
        assert table.labels[folds == number].sum() == 2
        assert (np.flatnonzero(folds == number) % 10 == 1).sum() == 2


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"folds": 1, "fold": 1}, "greater than or equal to 2"),
        ({"folds": 5, "fold": 6}, "fold is 6; with folds 5 it is from 1 to 5"),
        ({"folds": 5, "fold": 0}, "greater than or equal to 1"),
        ({"fold": 2}, "there are no folds"),
        ({"folds": 5}, "set data.split.fold=1 (to 5), or let `dualview compare` train a run for each"),
        ({"folds": 5, "fold": 1, "file": "split.csv"}, "file says which patients are tested"),
        ({"folds": 5, "fold": 1, "column": "split"}, "column says which patients are tested"),
    ],
)
def test_folds_that_make_no_sense_are_refused(changes, expected):
    with pytest.raises(ValidationError) as error:
        SplitConfig.model_validate(changes)
    assert expected in str(error.value)


def test_more_folds_than_patients_are_refused():
    with pytest.raises(UserError, match=r"data\.split\.folds is 11, and there are 10 patients"):
        split_by_patient(many_patients(20), config=SplitConfig(folds=11, fold=1), seed=0)


def test_a_split_that_the_data_come_with_is_not_divided_anew():
    given = replace(many_patients(), split=np.array(["train", "train", "val", "val"] * 25, object))
    with pytest.raises(UserError, match=r"the data come with a split: set data\.split\.official=false"):
        split_by_patient(given, config=SplitConfig(folds=5, fold=1), seed=0)
    assert sum(len(of_fold["test"]) for of_fold in folds_of(given, official=False)) == 50
    tested = replace(given, split=np.array(["train", "train", "test", "test"] * 25, object))
    with pytest.raises(UserError, match="a test set of 50 studies, which stays one: leave folds out"):
        split_by_patient(tested, config=SplitConfig(folds=5, fold=1, official=False), seed=0)


def test_a_smaller_training_set_is_of_the_fold_and_leaves_its_test_whole():
    values = {"phantom": {"num_studies": 60}, "split": {"folds": 5, "fold": 2}}
    whole = load_data(DataConfig.model_validate(values), seed=0)
    values["split"]["max_train_patients"] = 10
    small = load_data(DataConfig.model_validate(values), seed=0)
    assert (len(whole.train), len(small.train), len(small.test), len(small.val)) == (36, 10, 12, 12)
    assert set(small.train.study_ids) < set(whole.train.study_ids)


def test_the_split_file_of_a_fold_can_stand_in_for_it():
    """`evaluate` advises it where the table has changed since."""
    config = Config.model_validate({"data": {"split": {"folds": 5, "fold": 2}}})
    new = with_overrides(config, ["data.split.file=split.csv"]).data.split
    assert (new.folds, new.fold, str(new.file)) == (None, None, "split.csv")
    with pytest.raises(UserError, match=r"data\.split\.fold cannot be changed"):
        with_overrides(config, ["data.split.fold=3"])
