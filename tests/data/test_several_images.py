"""All images of a study: which are read, in which combinations a network sees them, and one answer out of many."""

import numpy as np
import pytest
import torch

from dualview.data.dataset import StudyDataset
from dualview.data.several_images import AllImagesDataset, StudyImages, combined
from dualview.errors import BadImage
from dualview.views import View
from tests.data.test_dataset import S, table_of


def read(path):
    if path.startswith("bad"):
        raise BadImage(path, reason="is bad")
    return torch.full((1, S, S), float(path[1:]))


def loaded(*studies):
    dataset = AllImagesDataset(StudyDataset(table_of(*studies), read=read, image_size_px=S, seed=0))
    return dataset.collate([dataset[0, row] for row in range(len(studies))])


def seen(studies: StudyImages, most: int):
    """(study, value of its PA or None, value of its lateral or None) of every row that a network sees."""
    rows = []
    for of_rows, batch in studies.batches(most):
        assert batch.num_studies <= most
        columns = []
        for view in View:
            images, values = iter((batch.pa, batch.lateral)[view]), []
            for has in batch.view_mask[:, view]:
                values.append(next(images).mean().item() if has else None)
            columns.append(values)
        rows += list(zip(of_rows.tolist(), *columns, strict=True))
    return rows


STUDIES = [(("p1", "p2"), ("l3", "l4", "l5")), (("p6",), ()), ((), ("l7", "l8")), (("bad1",), ())]
COMBINATIONS = [
    (0, 1, 3), (0, 1, 4), (0, 1, 5), (0, 2, 3), (0, 2, 4), (0, 2, 5), (1, 6, None), (2, None, 7), (2, None, 8),
]  # fmt: skip


@pytest.mark.parametrize("most", [1, 4, 100])
def test_every_pair_is_seen_once_and_never_more_than_a_batch(most):
    assert seen(loaded(*STUDIES).studies, most) == COMBINATIONS


def test_a_bad_image_is_told_once_and_the_others_count():
    all_images = loaded((("p1", "bad1", "p2"), ("bad2", "bad3")), (("p3",), ("l4", "bad4")))
    assert seen(all_images.studies, 8) == [(0, 1, None), (0, 2, None), (1, 3, 4)]
    assert [path for path, _ in all_images.bad_images] == ["bad1", "bad2", "bad3", "bad4"]
    assert all_images.replaced == ("bad1", "bad4")


def test_a_network_of_one_view_sees_each_image_once():
    studies = loaded(*STUDIES).studies
    assert seen(studies.seen_by([View.PA], needs_all=True), 8) == [(0, 1, None), (0, 2, None), (1, 6, None)]
    assert seen(studies.seen_by(list(View), needs_all=True), 8) == COMBINATIONS[:6]
    assert seen(studies.seen_by(list(View), needs_all=False), 8) == COMBINATIONS
    assert studies.view_mask.tolist() == [[True, True], [True, False], [False, True], [False, False]]


def test_logits_are_combined_study_by_study():
    logits = np.array([[1.0, -2], [3, 0], [5, 5], [-1, 7]])
    studies = np.array([0, 0, 2, 0])
    mean = combined(logits, studies=studies, num_studies=3, how="mean")
    np.testing.assert_array_equal(mean, [[1, 5 / 3], [np.nan, np.nan], [5, 5]])
    largest = combined(logits, studies=studies, num_studies=3, how="max")
    np.testing.assert_array_equal(largest, [[3, 7], [np.nan, np.nan], [5, 5]])
    assert np.isnan(combined(np.full((2, 1), np.nan), studies=np.array([0, 0]), num_studies=1, how="max")).all()
