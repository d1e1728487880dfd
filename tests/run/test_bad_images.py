"""Images that cannot be read end a run only where a study has lost a view to them."""

import pytest
import torch

from dualview.batch import StudyBatch
from dualview.data.dataset import Loaded
from dualview.errors import UserError
from dualview.run.bad_images import BadImages
from dualview.run.directory import RunDir


class OneProcess:
    """A job that has no other processes."""

    def gather_texts(self, texts):
        return sorted(texts)


def loaded(*bad, replaced=()):
    batch = StudyBatch.from_views(pa=[torch.zeros(1, 16, 16)], lateral=[None], image_shape=(1, 16, 16))
    return Loaded(batch, tuple((path, "is torn") for path in bad), replaced=replaced)


def test_an_image_with_another_in_its_place_is_listed_and_the_run_goes_on(tmp_path, caplog):
    bad_images = BadImages(RunDir(tmp_path), policy="error", job=OneProcess())
    bad_images.take(loaded("a.dcm", replaced=("a.dcm",)))
    bad_images.settle(1)
    assert (tmp_path / "bad_images.txt").read_text() == "a.dcm: is torn\n"
    assert "1 image(s) so far cannot be used" in caplog.text and "others of their view replace 1" in caplog.text
    bad_images.take(loaded("b.dcm"))
    with pytest.raises(UserError, match=r"1 image\(s\) cannot be used\n  - b\.dcm: is torn"):
        bad_images.settle(1)


def test_a_view_that_is_missing_is_told_apart_from_one_that_is_replaced(tmp_path, caplog):
    bad_images = BadImages(RunDir(tmp_path), policy="treat_view_as_missing", job=OneProcess())
    bad_images.take(loaded("a.dcm", "b.dcm", replaced=("b.dcm",)))
    bad_images.settle(2)
    assert (tmp_path / "bad_images.txt").read_text() == "a.dcm: is torn\nb.dcm: is torn\n"
    assert "1 count as missing, others of their view replace 1" in caplog.text
