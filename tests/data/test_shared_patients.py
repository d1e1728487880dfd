"""Several sources with the same patient identifiers: divided once, or counted."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest

from dualview.config import Config, DataConfig
from dualview.config.load import load
from dualview.data.counts import count_data
from dualview.data.load import load_data
from dualview.data.shared_patients import equal_identifiers, strictest_given
from dualview.errors import UserError
from dualview.run.datasets import Studies, check_training
from dualview.views import View


def sources_of(tmp_path, **patients):
    """One csv source per name; `patients` is name -> ids, each with two studies, or (id, split) pairs."""
    entries = []
    for name, ids in patients.items():
        rows = []
        for number, entry in enumerate(ids):
            patient, split = entry if isinstance(entry, tuple) else (entry, "")
            rows += [f"{patient},{patient}-{s},PA,{patient}-{s}.png,{number % 2},{split}\n" for s in (1, 2)]
        (tmp_path / f"{name}.csv").write_text(f"patient,study,view,path,A,split\n{''.join(rows)}")
        entries.append({"source": "csv", "name": name, "csv": tmp_path / f"{name}.csv", "findings": ["A"],
                        "check_files": False})  # fmt: skip
    return entries


def data_of(entries, **config) -> DataConfig:
    return DataConfig.model_validate({"sources": entries, "check_files": False, **config})


ONE, TWO = [f"p{n}" for n in range(40)], [f"p{n}" for n in range(20, 60)]


def patients_in(data, split, source=None) -> set[str]:
    table = data.splits[split]
    rows = np.ones(len(table), bool) if source is None else table.attributes["source"] == source
    return set(table.patient_ids[rows])


@pytest.mark.parametrize("seed", range(3))
def test_shared_patients_are_in_one_split_of_the_union(tmp_path, seed):
    data = load_data(data_of(sources_of(tmp_path, one=ONE, two=TWO), shared_patients=True), seed=seed)
    splits = [patients_in(data, split) for split in data.splits]
    assert set().union(*splits) == {*ONE, *TWO} and sum(map(len, splits)) == 60
    assert [len(split) for split in splits] == [36, 12, 12]
    assert patients_in(data, "test", "one") & {*TWO} == patients_in(data, "test", "two") & {*ONE}
    assert count_data(data)["patients"] == 60
    pairs = [pair for table in data.splits.values() for pair in zip(table.patient_ids, table.study_ids, strict=True)]
    assert len(set(pairs)) == len(pairs) == 160  # a study of one source is none of another
    assert {path.partition(":")[0] for (path,) in data.train.images[View.PA]} == {"one", "two"}


def test_a_smaller_training_set_takes_shared_patients_whole(tmp_path):
    split = {"max_train_patients": 10}
    data = load_data(data_of(sources_of(tmp_path, one=ONE, two=TWO), shared_patients=True, split=split), seed=0)
    taken = patients_in(data, "train")
    assert len(taken) == 10
    whole = data.whole_splits["train"]
    assert len(data.train) == np.isin(whole.patient_ids.astype(str), sorted(taken)).sum()


def test_without_it_equal_identifiers_are_counted_and_said(tmp_path, caplog):
    config = data_of(sources_of(tmp_path, one=ONE, two=TWO, three=["q1", "q2", *"abcdefgh"]))
    data = load_data(config, seed=0)
    kind = "patient identifier that another source has too; if it means the same people, set data.shared_patients=true"
    found = {source.name: {remark.kind: remark.count for remark in source.remarks} for source in data.sources}
    assert found["one"][kind] == found["two"][kind] == 20 and found["three"] == {}
    leaking = "patient identifier in val or test here that another source trains on"
    trained = {patient.removeprefix("one:") for patient in patients_in(data, "train", "one")}
    tested = {patient.removeprefix("two:") for split in ("val", "test") for patient in patients_in(data, split, "two")}
    assert found["two"][leaking] == len(trained & tested) > 0
    assert {patient.partition(":")[0] for patient in data.train.patient_ids} == {"one", "two", "three"}
    job = SimpleNamespace(is_main=True, share=lambda value: value)
    with caplog.at_level(logging.WARNING):
        check_training(
            Studies(data=data, whole=data, train=None, evaluated={}), Config(data=config), is_new=True, job=job
        )
    assert f"one: 20 x {kind}" in caplog.text
    shared = load_data(config.model_copy(update={"shared_patients": True}), seed=0)
    assert all(source.remarks == () for source in shared.sources)


def test_official_splits_that_disagree_take_the_strictest(tmp_path):
    """p0 to p19 are test in `one`; `two` trains on p10 to p49, of whom ten are so tested."""
    one = [(f"p{n}", "test" if n < 20 else "val" if n < 25 else "train") for n in range(40)]
    two = [(f"p{n}", "train") for n in range(10, 50)]
    entries = sources_of(tmp_path, one=one, two=two)
    data = load_data(data_of(entries, shared_patients=True, split={"column": "split"}), seed=0)
    assert patients_in(data, "test") == {f"p{n}" for n in range(20)}
    assert patients_in(data, "val") == {f"p{n}" for n in range(20, 25)}
    assert patients_in(data, "train", "two") == {f"p{n}" for n in range(25, 50)}
    (remark,) = data.sources[0].remarks
    assert remark.count == 15 and "test is taken before val" in remark.kind


def test_strictest_given_by_hand():
    patients = np.array(["a", "b", "a", "c", "b", "d"], object)
    given = np.array(["train", "", "test", "train or val", "val", ""], object)
    strictest, remarks = strictest_given(patients, given=given)
    assert strictest.tolist() == ["test", "val", "test", "train or val", "val", ""]
    assert [(remark.count, remark.example) for remark in remarks] == [(1, "a")]


def test_the_example_of_an_equal_identifier_is_written_as_its_source_has_it():
    ids = [np.array(["P007"], object), np.array(["p7"], object)]
    remarks = equal_identifiers(ids, names=[np.array(["train"], object)] * 2)
    assert [remark.example for source in remarks for remark in source] == ["P007", "p7"]


def test_equal_identifiers_by_hand():
    ids = [np.array(["1", "2", "3"], object), np.array(["3", "4", "1"], object), np.array(["9"], object)]
    names = [np.array(["train", "val", "test"], object), np.array(["train", "train", "test"], object),
             np.array(["train"], object)]  # fmt: skip
    counts = [[remark.count for remark in remarks] for remarks in equal_identifiers(ids, names=names)]
    assert counts == [[2, 1], [2, 1], []]


def test_identifiers_that_sources_write_in_two_ways_are_not_two_patients(tmp_path):
    one, two = [f"{n}" for n in range(1, 41)], [f"{n:03}" for n in range(21, 61)]
    entries = sources_of(tmp_path, one=one, two=two)
    counts = {source.name: max(remark.count for remark in source.remarks)
              for source in load_data(data_of(entries), seed=0).sources}  # fmt: skip
    assert counts == {"one": 20, "two": 20}
    with pytest.raises(
        UserError, match=r"20 patient identifier\(s\) differ only in form from another, such as '21' and"
    ):
        load_data(data_of(entries, shared_patients=True), seed=0)
    entries = [entry | {"identifiers": "exact"} for entry in entries]
    assert count_data(load_data(data_of(entries, shared_patients=True), seed=0))["patients"] == 80


def test_one_source_has_nobody_to_share(tmp_path):
    (tmp_path / "c.yaml").write_text("data: {shared_patients: true}")
    with pytest.raises(UserError, match=r"shared_patients is for data.sources, and there is one source"):
        load(tmp_path / "c.yaml")
