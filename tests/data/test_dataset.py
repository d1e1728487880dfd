"""From study tables to batches: splits, augmentation, several images, bad images."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import dualview.data.load
from dualview.config import AugmentConfig, DataConfig, SourceConfig, SplitConfig, ViewDropoutConfig
from dualview.config.uses import SOURCES
from dualview.data.dataset import Key, StudyDataset, expand_all
from dualview.data.load import check_labels, load_data
from dualview.data.loading import TrainingSampler
from dualview.data.splits import first_in_line, places_in_line, split_by_patient, write_splits
from dualview.data.table import StudyTable
from dualview.data.view_dropout import drop_views
from dualview.errors import BadImage, UserError
from dualview.views import Availability, View

S = 16


def table_of(*studies: tuple[tuple[str, ...], tuple[str, ...]], patients: list[str] | None = None) -> StudyTable:
    """Studies given as (PA paths, lateral paths); labels alternate."""
    images = (np.empty(len(studies), object), np.empty(len(studies), object))
    for s, study in enumerate(studies):
        images[0][s], images[1][s] = study
    names = np.array([f"s{s}" for s in range(len(studies))], object)
    return StudyTable(
        findings=("A",),
        study_ids=names,
        patient_ids=names if patients is None else np.array(patients, object),
        images=images,
        labels=(np.arange(len(studies), dtype=np.float32) % 2)[:, None],
        label_mask=np.ones((len(studies), 1), bool),
    )


def read(path: str) -> torch.Tensor:
    """An image that tells its path; paths that start with "bad" cannot be read."""
    if path.startswith("bad"):
        raise BadImage(path, reason="is bad")
    return torch.full((1, S, S), sum(map(ord, path)) / 1000)


def dataset_of(table, **kwargs):
    return StudyDataset(table, read=read, image_size_px=S, seed=0, **kwargs)


def load(dataset, *rows, epoch=0):
    return dataset.collate([dataset[epoch, row] for row in rows])


# -- splits --


def many_patients(num=100):
    studies = [((f"p{i}",), (f"l{i}",) if i % 10 == 0 else ()) for i in range(num)]
    return table_of(*studies, patients=[f"patient{i // 2}" for i in range(num)])


def test_a_patient_is_in_one_split_and_no_study_is_lost():
    table = many_patients()
    splits = split_by_patient(table, config=SplitConfig(), seed=0)
    patients = [set(split.patient_ids) for split in splits.values()]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 50
    assert sorted(np.concatenate([split.study_ids for split in splits.values()])) == sorted(table.study_ids)


def test_fractions_hold_among_patients_with_and_without_laterals():
    splits = split_by_patient(many_patients(), config=SplitConfig(), seed=0)
    assert {name: len(set(split.patient_ids)) for name, split in splits.items()} == {"train": 30, "val": 10, "test": 10}
    assert {n: int(split.view_mask[:, View.LATERAL].sum()) for n, split in splits.items()} == {
        "train": 6,
        "val": 2,
        "test": 2,
    }


def test_the_split_is_a_function_of_the_seed():
    def train(seed):
        return split_by_patient(many_patients(), config=SplitConfig(), seed=seed)["train"].study_ids.tolist()

    assert train(0) == train(0)
    assert train(0) != train(1)


def test_an_empty_split_is_refused_with_its_counts():
    with pytest.raises(
        UserError, match=r"the val and test split is empty \(train 2, val 0, test 0 studies of 1 patients"
    ):
        split_by_patient(many_patients(2), config=SplitConfig(), seed=0)


def test_randomness_depends_on_epoch_and_study_only():
    table = table_of((("a",), ()), (("a",), ()))
    dataset = dataset_of(table, augment=AugmentConfig(noise_std=0.1))

    def image(epoch, row, *others):
        return load(dataset, *others, row, epoch=epoch).batch.pa[-1]

    assert torch.equal(image(0, 0), image(0, 0, 1))  # whatever else is in the batch
    assert not torch.equal(image(0, 0), image(1, 0))
    assert not torch.equal(image(0, 0), image(0, 1))


# -- several images --


def test_first_takes_the_first_and_random_takes_each_in_turn():
    table = table_of((("a", "b", "c"), ("l",)))
    values = {name: float(read(name)[0, 0, 0]) for name in "abc"}

    def taken(dataset, epoch):
        return float(dataset[epoch, 0].images[View.PA][0, 0, 0])

    assert {taken(dataset_of(table), epoch) for epoch in range(5)} == {values["a"]}
    random = dataset_of(table, several_images="random")
    assert {taken(random, epoch) for epoch in range(40)} == set(values.values())
    assert taken(random, 3) == taken(random, 3)


def test_all_makes_a_row_of_each_pairing():
    expanded = expand_all(table_of((("a", "b"), ("l", "m")), (("c",), ()), ((), ("n", "o"))))
    pairs = list(zip(*expanded.images, strict=True))
    assert pairs == [
        (("a",), ("l",)),
        (("a",), ("m",)),
        (("b",), ("l",)),
        (("b",), ("m",)),
        (("c",), ()),
        ((), ("n",)),
        ((), ("o",)),
    ]
    assert expanded.study_ids.tolist() == ["s0"] * 4 + ["s1"] + ["s2"] * 2


# -- splits that are given --


def test_a_saved_split_is_taken_by_another_run(tmp_path):
    table = many_patients()
    drawn = split_by_patient(table, config=SplitConfig(), seed=3)
    write_splits(tmp_path / "split.csv", drawn)
    again = split_by_patient(table, config=SplitConfig(file=tmp_path / "split.csv"), seed=99)
    for name, part in drawn.items():
        assert again[name].study_ids.tolist() == part.study_ids.tolist()


def test_problems_of_a_split_file_come_together(tmp_path):
    file = tmp_path / "split.csv"
    file.write_text("patient,split\npatient0,train\npatient0,val\npatient1,holdout\n")
    with pytest.raises(
        UserError,
        match=r"3 problem\(s\)(.|\n)*48 patient(.|\n)*:3: patient stands(.|\n)*:4: split is 'holdout', not one of",
    ):
        split_by_patient(many_patients(), config=SplitConfig(file=file), seed=0)


def test_a_patient_in_two_splits_is_refused_whatever_says_so():
    table = replace(many_patients(4), split=np.array(["train", "val", "train", "train"], object))
    with pytest.raises(UserError, match=r"1 patient\(s\) are in more than one split"):
        split_by_patient(table, config=SplitConfig(), seed=0)


def test_the_official_split_can_be_left_aside():
    table = replace(many_patients(), split=np.array(["train", "train", "val", "val"] * 25, object))
    official = split_by_patient(table, config=SplitConfig(), seed=0)
    assert [len(part) for part in official.values()] == [50, 50, 0]
    drawn = split_by_patient(table, config=SplitConfig(official=False), seed=0)
    assert [len(part) for part in drawn.values()] == [60, 20, 20]


def test_rare_findings_reach_every_split():
    """One patient in 20 has the finding: of 200, 10; drawn plainly, a split of 40 would often have none or four."""
    table = table_of(*[((f"p{i}",), ()) for i in range(200)])
    labels = (np.arange(200) % 20 == 0).astype(np.float32)[:, None]
    table = replace(table, labels=labels)
    for seed in range(5):
        splits = split_by_patient(table, config=SplitConfig(), seed=seed)
        assert [int(part.labels.sum()) for part in splits.values()] == [6, 2, 2]


# -- batches --


def test_collate_packs_what_exists():
    dataset = dataset_of(table_of((("a",), ("l",)), ((), ("m",)), (("b",), ())))
    batch, bad, *_ = load(dataset, 2, 0, 1)
    assert bad == ()
    assert batch.view_mask.tolist() == [[True, False], [True, True], [False, True]]
    assert torch.equal(batch.pa, torch.stack([read("b"), read("a")]))
    assert torch.equal(batch.lateral, torch.stack([read("l"), read("m")]))
    assert batch.study_index.tolist() == [2, 0, 1]
    assert batch.labels.tolist() == [[0], [0], [1]]


def test_no_study_gives_an_empty_batch():
    batch = dataset_of(table_of((("a",), ()))).collate([]).batch
    assert batch.num_studies == 0
    assert batch.pa.shape == (0, 1, S, S)
    assert batch.labels.shape == (0, 1)


def test_all_studies_lateral_only_is_an_ordinary_data_set():
    table = table_of(*[((), (f"l{i}",)) for i in range(4)])
    assert (table.availability == Availability.LATERAL_ONLY).all()
    batch, *_ = load(dataset_of(table), 0, 1, 2, 3)
    assert batch.pa.shape[0] == 0
    assert batch.lateral.shape[0] == 4


def test_a_bad_view_is_absent_and_a_study_without_any_is_left_out():
    dataset = dataset_of(table_of((("bad1",), ("l",)), (("bad2",), ()), (("a",), ())))
    batch, bad, *_ = load(dataset, 0, 1, 2)
    assert bad == (("bad1", "is bad"), ("bad2", "is bad"))
    assert batch.study_index.tolist() == [0, 2]
    assert batch.view_mask.tolist() == [[False, True], [True, False]]


def test_the_next_image_of_a_view_takes_the_place_of_a_bad_one():
    dataset = dataset_of(table_of((("bad1", "bad2", "a", "b"), ("l",)), (("bad3", "bad4"), ("m",))))
    batch, bad, _, replaced = load(dataset, 0, 1)
    assert torch.equal(batch.pa, read("a")[None])
    assert batch.view_mask.tolist() == [[True, True], [False, True]]
    assert bad == tuple((name, "is bad") for name in ("bad1", "bad2", "bad3", "bad4"))
    assert replaced == ("bad1", "bad2")


def test_a_bad_image_drawn_at_random_is_replaced_too():
    dataset = dataset_of(table_of((("a", "bad1", "b"), ())), several_images="random")
    studies = [dataset[epoch, 0] for epoch in range(40)]
    values = {float(study.images[View.PA][0, 0, 0]) for study in studies}
    assert values == {float(read(name)[0, 0, 0]) for name in "ab"}
    assert {study.replaced for study in studies} == {(), ("bad1",)}


# -- view dropout --


def test_a_hidden_view_is_absent_and_the_other_is_unchanged():
    dataset = dataset_of(table_of((("a",), ("l",))), augment=AugmentConfig())
    whole, keys = dataset[Key(0, 0)].images, dataset[Key(0, 0)].keys
    for availability, shown in ((Availability.PA_ONLY, View.PA), (Availability.LATERAL_ONLY, View.LATERAL)):
        images = dataset[Key(0, 0, availability)].images
        assert images[1 - shown] is None
        assert torch.equal(images[shown], whole[shown])
        assert dataset[Key(0, 0, availability)].keys == keys


def test_the_sampler_asks_for_what_view_dropout_leaves_and_every_study_once():
    availability = np.array([0] * 40 + [1] * 10 + [2] * 5, dtype=np.int8)
    samplers = [
        TrainingSampler(
            availability, micro_batch_size=4, accumulation_steps=1, max_steps=7,
            view_dropout=ViewDropoutConfig(p_pa=0.25, p_lateral=0.25),
            seed=0, rank=rank, world_size=2,
        )
        for rank in range(2)
    ]  # fmt: skip
    keys = [key for sampler in samplers for micro_batch in sampler for key in micro_batch]
    assert sorted(key.row for key in keys) == list(range(55))
    left = drop_views(availability, seed=0, epoch=0, p_pa=0.25, p_lateral=0.25)
    assert all(key.availability == left[key.row] for key in keys)
    assert 10 < sum(key.availability != Availability.BOTH for key in keys if key.row < 40) < 30


# -- load_data --


def csv_config(tmp_path, rows):
    (tmp_path / "images.csv").write_text("patient,study,view,path,A,B\n" + "\n".join(rows))
    return DataConfig.model_validate(
        {
            "source": "csv",
            "root": tmp_path,
            "csv": tmp_path / "images.csv",
            "findings": ["A", "B"],
            "check_files": False,
        }
    )


def test_a_finding_with_one_class_is_named_and_all_of_them_are_refused(tmp_path, caplog):
    rows = [f"p{i},{i},PA,{i}.png,{i % 2},1" for i in range(20)]
    check_labels(load_data(csv_config(tmp_path, rows), seed=0).train)
    assert "one class only in the training split: B (12 positive, 0 negative)" in caplog.text
    with pytest.raises(UserError, match="no finding has both positive and negative studies"):
        check_labels(load_data(csv_config(tmp_path, [row.replace(",0,1", ",1,1") for row in rows]), seed=0).train)


def test_a_whole_step_hides_the_same_view_on_every_rank_and_accumulation():
    availability = np.array([0] * 40 + [1] * 10, dtype=np.int8)
    dropout = ViewDropoutConfig(p_pa=0.4, p_lateral=0.4, whole_step=True)
    of_step = {}
    for rank in range(2):
        sampler = TrainingSampler(
            availability, micro_batch_size=4, accumulation_steps=2, max_steps=30, view_dropout=dropout, seed=0,
            rank=rank, world_size=2,
        )  # fmt: skip
        for number, keys in enumerate(sampler):
            shown = {key.availability for key in keys if key.row < 40}
            of_step.setdefault(number // 2, set()).update(shown)
    assert all(len(kinds) <= 1 for kinds in of_step.values())
    assert set().union(*of_step.values()) == {0, 1, 2}


# -- smaller training sets --


def compared(tmp_path, *, num=80, split_column=False, **changes):
    """Data of `num` patients, two studies each: one with both views and, of every fourth, one lateral only."""
    rows = []
    for n in range(num):
        split = f",{('train', 'train', 'train', 'val', 'test')[n % 5]}" if split_column else ""
        rows += [f"p{n},{n}a,{view},{n}{view}.png,{n % 3 // 2},{n % 2}{split}" for view in ("PA", "L")]
        view = "L" if n % 4 == 0 else "PA"
        rows.append(f"p{n},{n}b,{view},{n}b.png,{n % 3 // 2},{n % 2}{split}")
    values = csv_config(tmp_path, rows).model_dump()
    if split_column:
        text = (tmp_path / "images.csv").read_text()
        (tmp_path / "images.csv").write_text(text.replace("A,B", "A,B,split", 1))
        changes["split"] = {"column": "split", **changes.get("split", {})}
    return DataConfig.model_validate({**values, **changes})


def patients(table):
    return set(table.patient_ids)


@pytest.mark.parametrize("way", ["fractions", "column", "file"])
def test_smaller_training_sets_are_nested_and_leave_val_and_test_alone(tmp_path, way):
    split = {}
    if way == "file":
        whole = load_data(compared(tmp_path), seed=5)
        write_splits(tmp_path / "split.csv", whole.splits)
        split = {"file": tmp_path / "split.csv"}

    def data(num_patients, **changes):
        limit = {**split, "max_train_patients": num_patients}
        config = compared(tmp_path, split_column=way == "column", split=limit, **changes)
        return load_data(config, seed=1)

    whole = data(None)
    assert len(patients(whole.train)) == 48
    smaller = whole
    for num_patients in (47, 30, 12, 1):
        larger, smaller = smaller, data(num_patients)
        assert len(patients(smaller.train)) == num_patients
        assert patients(smaller.train) < patients(larger.train)
        rows = np.isin(whole.train.patient_ids, list(patients(smaller.train)))
        assert smaller.train.study_ids.tolist() == whole.train.study_ids[rows].tolist()  # all studies, in order
        for name in ("val", "test"):
            assert smaller.splits[name].study_ids.tolist() == whole.splits[name].study_ids.tolist()
        assert patients(smaller.whole_splits["train"]) == patients(whole.train)
    assert len(patients(data(1000).train)) == 48
    # first the patients, then the kinds
    of_kind = data(30, train_on=["lateral_only"])
    expected = [study for study in data(30).train.study_ids if study.endswith("b") and int(study[:-1]) % 4 == 0]
    assert of_kind.train.study_ids.tolist() == expected
    assert 0 < len(expected) < len(data(None, train_on=["lateral_only"]).train)
    for name in ("val", "test"):
        assert of_kind.splits[name].study_ids.tolist() == whole.splits[name].study_ids.tolist()


def test_the_beginning_of_the_line_holds_every_stratum_in_proportion():
    """120 patients in strata of 60, 40 and 20 (PA only, both, both with the finding): of 30, a quarter of each."""
    table = table_of(*[((f"p{i}",), (f"l{i}",) if i % 2 else ()) for i in range(120)])
    labels = np.array([i % 6 == 1 for i in range(120)], np.float32)[:, None]
    table = replace(table, labels=labels)
    for seed in range(5):
        places = places_in_line(table, seed=seed)
        for num_patients in (30, 60, 90):
            kept = first_in_line(table, places=places, num_patients=num_patients)
            assert kept.sum() == num_patients
            share = num_patients / 120
            assert abs(kept[table.availability == Availability.PA_ONLY].sum() - 60 * share) <= 1
            assert abs(kept[labels[:, 0] > 0].sum() - 20 * share) <= 1
    one, other = (first_in_line(table, places=places_in_line(table, seed=s), num_patients=30) for s in (0, 1))
    assert not np.array_equal(one, other)


def test_a_smaller_training_set_of_several_sources_takes_of_each_in_proportion(tmp_path):
    sources = []
    for name, num in (("large", 90), ("small", 30)):
        (tmp_path / name).mkdir()
        entry = compared(tmp_path / name, num=num).model_dump(include=set(SourceConfig.model_fields))
        sources.append({**entry, "name": name})
    config = DataConfig.model_validate({"sources": sources, "split": {"max_train_patients": 36}})
    train = load_data(config, seed=0).train
    of_source = {name: len({p for p in train.patient_ids if p.startswith(name)}) for name in ("large", "small")}
    assert sum(of_source.values()) == 36
    assert abs(of_source["small"] - 9) <= 3


def test_a_kind_that_is_not_there_is_refused(tmp_path):
    rows = [f"p{i},{i},PA,{i}.png,{i % 2},1" for i in range(20)]
    config = csv_config(tmp_path, rows).model_copy(update={"train_on": ["both"]})
    with pytest.raises(UserError, match=r"data.train_on is both, and no study .* None; the split has 12 studies"):
        load_data(config, seed=0)


def test_a_smoothed_label_is_the_same_in_a_smaller_training_set(tmp_path, monkeypatch):
    """The label of a study is no function of how many others there are."""
    real = dualview.data.load.read_source

    def read_source(source, *, data, seed):
        found = real(source, data=data, seed=seed)
        hedged = np.arange(len(found.table))[:, None] % 3 == 2
        table = replace(found.table, label_mask=found.table.label_mask & ~hedged, uncertain=hedged & [True, False])
        return replace(found, table=table)

    monkeypatch.setattr(dualview.data.load, "read_source", read_source)
    monkeypatch.setitem(SOURCES, "csv", SOURCES["csv"] | {"uncertain"})

    def train(num_patients):
        rows = [f"p{i},{i},PA,{i}.png,{i % 2},1" for i in range(60)]
        config = csv_config(tmp_path, rows).model_dump() | {"uncertain": "smooth(0.2,0.9)"}
        config["split"] = {"max_train_patients": num_patients}
        table = load_data(DataConfig.model_validate(config), seed=0).train
        return dict(zip(table.study_ids, table.labels[:, 0], strict=True))

    whole, part = train(None), train(15)
    assert len(part) == 15 and len({value for value in part.values() if 0.2 <= value <= 0.9}) > 2
    assert all(whole[study] == value for study, value in part.items())
