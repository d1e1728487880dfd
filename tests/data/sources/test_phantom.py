"""Phantoms: the stated best AUROC is the ideal observer's, and each finding shows only where it should."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from dualview.config import PhantomConfig
from dualview.data.sources import phantom
from dualview.data.sources.phantom import BEST_AUROC, FINDINGS, PhantomImages, Truth, draw, draw_truth
from dualview.views import Availability, View


def test_best_auroc_is_that_of_an_observer_who_sees_the_truth():
    """The likelihood ratio is monotone in what is seen: the finding itself, or the heart's visible measures."""
    truth = draw_truth(200_000, seed=0)
    for k, finding in enumerate(FINDINGS):
        labels = truth.findings[:, k]
        for group, stated in BEST_AUROC[finding].items():
            if finding == "Cardiomegaly":
                visible = {
                    "both": truth.heart.sum(axis=1),
                    "pa_only": truth.heart[:, 0],
                    "lateral_only": truth.heart[:, 1],
                }
                scores = visible[group]
            else:
                scores = labels if stated == 1 else np.zeros(len(labels))
            assert roc_auc_score(labels, scores) == pytest.approx(stated, abs=0.005)


def test_findings_are_independent_with_their_stated_prevalence():
    findings = draw_truth(50_000, seed=1).findings
    assert findings.mean(axis=0) == pytest.approx(phantom.PREVALENCE, abs=0.01)
    assert np.abs(np.corrcoef(findings.T) - np.eye(4)).max() < 0.02


def image(view, *, finding=None, heart=(1, 1)):
    findings = np.zeros((1, 4), np.int8)
    if finding:
        findings[0, FINDINGS.index(finding)] = 1
    reader = PhantomImages(Truth(findings=findings, heart=np.array([heart])), seed=0, image_size_px=64)
    return reader(f"000000/{view.key}")


@pytest.mark.parametrize(
    ("finding", "view"),
    [("Nodule", View.PA), ("Retrosternal opacity", View.LATERAL), ("Posterior effusion", View.LATERAL)],
)
def test_a_finding_changes_its_own_view_only(finding, view):
    other = View(1 - view)
    assert not torch.equal(image(view, finding=finding), image(view))
    assert torch.equal(image(other, finding=finding), image(other))


def test_heart_width_shows_in_pa_and_depth_in_the_lateral():
    assert torch.equal(image(View.PA, heart=(1, 0)), image(View.PA, heart=(1, 2)))
    assert torch.equal(image(View.LATERAL, heart=(0, 1)), image(View.LATERAL, heart=(2, 1)))
    assert image(View.PA, heart=(2, 0)).mean() > image(View.PA, heart=(0, 0)).mean()
    assert image(View.LATERAL, heart=(0, 2)).mean() > image(View.LATERAL, heart=(0, 0)).mean()


def test_the_mix_is_exact_and_absent_views_have_no_image():
    table, _ = draw(PhantomConfig(num_studies=101, both=0.5, pa_only=0.3, lateral_only=0.2), seed=0, image_size_px=64)
    counts = np.bincount(table.availability, minlength=3)
    assert counts.tolist() == [51, 30, 20]  # 50.5, 30.3, 20.2: the largest remainder rounds up
    lateral_only = table.availability == Availability.LATERAL_ONLY
    assert [len(paths) for paths in table.images[View.PA]] == [0 if only else 1 for only in lateral_only]


def test_images_are_a_function_of_seed_and_study():
    table, read = draw(PhantomConfig(num_studies=10), seed=3, image_size_px=64)
    path = next(paths[0] for paths in table.images[View.PA] if paths)
    again = pickle.loads(pickle.dumps(read))  # noqa: S301 - our own, as workers get it
    assert torch.equal(read(path), again(path))
    _, other = draw(PhantomConfig(num_studies=10), seed=4, image_size_px=64)
    assert not torch.equal(read(path), other(path))
    assert read(path).shape == (1, 64, 64)
    assert read(path).abs().max() <= 1


def test_withheld_labels_are_unknown_not_negative():
    table, _ = draw(PhantomConfig(num_studies=2000, unknown_label_fraction=0.25), seed=0, image_size_px=64)
    assert 1 - table.label_mask.mean() == pytest.approx(0.25, abs=0.02)


def test_another_hospital_has_other_prevalence_and_contrast():
    assert draw_truth(50_000, seed=1, prevalence=0.1).findings.mean(axis=0) == pytest.approx([0.1] * 4, abs=0.01)
    config = PhantomConfig(num_studies=10)
    _, read = draw(config, seed=3, image_size_px=64)
    _, flat = draw(config.model_copy(update={"contrast": 0.5}), seed=3, image_size_px=64)
    _, same = draw(config.model_copy(update={"contrast": 1.0}), seed=3, image_size_px=64)
    table, _ = draw(config, seed=3, image_size_px=64)
    path = next(paths[0] for paths in table.images[View.PA] if paths)
    assert torch.equal(read(path), same(path))
    assert float(flat(path).std()) == pytest.approx(0.5 * float(read(path).std()), rel=0.15)
