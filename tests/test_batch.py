"""StudyBatch: packing, rows, and refusals."""

import pytest
import torch

from dualview.batch import HeadLogits, Rows, StudyBatch


def test_rows_of_a_mask_by_hand():
    rows = Rows.of(torch.tensor([[True, True], [False, True], [True, False], [True, True]]))
    assert rows.pa.tolist() == [0, 2, 3]
    assert rows.lateral.tolist() == [0, 1, 3]
    assert rows.both.tolist() == [0, 3]
    assert rows.both_in_pa.tolist() == [0, 2]
    assert rows.both_in_lateral.tolist() == [0, 2]


def test_dense_and_listed_images_make_the_same_batch():
    images = torch.rand(3, 2, 1, 8, 8)
    view_mask = torch.tensor([[True, True], [True, False], [False, True]])
    dense = StudyBatch.from_dense(images, view_mask=view_mask)
    listed = StudyBatch.from_views(pa=[images[0, 0], images[1, 0], None], lateral=[images[0, 1], None, images[2, 1]])
    assert torch.equal(dense.pa, listed.pa)
    assert torch.equal(dense.lateral, listed.lateral)
    assert torch.equal(dense.pa, images[[0, 1], 0])
    assert torch.equal(dense.lateral, images[[0, 2], 1])


def test_a_batch_without_a_lateral_has_no_lateral_pixels():
    batch = StudyBatch.from_dense(torch.rand(2, 2, 1, 8, 8), view_mask=torch.tensor([[True, False]] * 2))
    assert batch.lateral.shape == (0, 1, 8, 8)


def test_by_route_takes_each_study_from_its_own_head():
    """Rows: both, lateral only, PA only. Joint says 1, PA head 2, lateral head 3."""
    view_mask = torch.tensor([[True, True], [False, True], [True, False]])
    batch = StudyBatch.from_dense(torch.rand(3, 2, 1, 8, 8), view_mask=view_mask)
    predictions = HeadLogits(
        joint=torch.full((1, 2), 1.0),
        pa=torch.full((2, 2), 2.0),
        lateral=torch.full((2, 2), 3.0),
        rows=batch.rows.by_head,
    )
    assert predictions.by_route(batch).tolist() == [[1, 1], [3, 3], [2, 2]]


def test_by_route_takes_heads_of_different_precision():
    """As under autocast: the lateral head ran in bfloat16, the PA head had no rows."""
    batch = StudyBatch.from_dense(torch.rand(2, 2, 1, 8, 8), view_mask=torch.tensor([[False, True]] * 2))
    nothing = torch.zeros(0, 2)
    lateral = torch.ones(2, 2, dtype=torch.bfloat16)
    logits = HeadLogits(joint=nothing, pa=nothing, lateral=lateral, rows=batch.rows.by_head)
    assert logits.by_route(batch).tolist() == [[1, 1], [1, 1]]


def test_refusals_say_what_is_wrong():
    image = torch.rand(1, 8, 8)
    with pytest.raises(ValueError, match=r"studies \[1\] of the batch have no image"):
        StudyBatch.from_views(pa=[image, None], lateral=[None, None])
    with pytest.raises(ValueError, match="one per study"):
        StudyBatch.from_views(pa=[image], lateral=[None, None])
    with pytest.raises(ValueError, match="must share one shape"):
        StudyBatch.from_views(pa=[image, torch.rand(1, 9, 9)], lateral=[None, None])
    with pytest.raises(ValueError, match="view_mask"):
        StudyBatch.from_dense(torch.rand(2, 1, 8, 8), view_mask=torch.ones(2, 2, dtype=torch.bool))


def test_a_vote_is_the_mean_of_three_logits_of_complete_studies(make_batch):
    batch = make_batch("pbl", num_findings=1)
    predictions = HeadLogits(
        joint=torch.tensor([[3.0]]),
        pa=torch.tensor([[10.0], [6.0]]),
        lateral=torch.tensor([[0.0], [20.0]]),
        rows=batch.rows.by_head,
    )
    assert predictions.by_route(batch).flatten().tolist() == [10, 3, 20]
    assert predictions.by_route(batch, vote=True).flatten().tolist() == [10, 3, 20]  # (3 + 6 + 0) / 3 is 3 as well
    voted = predictions._replace(joint=torch.tensor([[9.0]])).by_route(batch, vote=True)
    assert voted.flatten().tolist() == [10, 5, 20]


def test_a_head_that_sees_every_study_says_so_though_it_has_as_many_rows_as_there_are_complete_ones():
    """One head for all: with no complete study or with complete ones only, lengths alone could not tell."""
    batch = StudyBatch.from_dense(torch.rand(2, 2, 1, 8, 8), view_mask=torch.tensor([[True, False]] * 2))
    logits = HeadLogits.of_every_study(torch.tensor([[1.0], [2.0]]))
    assert logits.rows.joint.tolist() == [0, 1]
    assert len(logits.rows.pa) == len(logits.rows.lateral) == 0
    assert logits.by_route(batch).tolist() == [[1], [2]]
