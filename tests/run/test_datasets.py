"""The datasets of a run: what is trained on, and every split as it is evaluated."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dualview.config import Config
from dualview.data.load import load_data
from dualview.run.datasets import evaluation_datasets, load_studies, training_dataset
from dualview.run.resume import with_overrides


@pytest.fixture
def config(tmp_path):
    """20 patients with two frontals each, a black one listed first and a white one."""
    rows = []
    for n in range(20):
        for number, value in enumerate((20, 200)):
            pixels = np.full((64, 64), value, np.uint8)
            pixels[0, 0] = value + 1  # an image of one value is refused as a placeholder
            Image.fromarray(pixels).save(tmp_path / f"{n}-{number}.png")
            rows.append((f"p{n}", f"s{n}", "PA", f"{n}-{number}.png", n % 2))
    pd.DataFrame(rows, columns=["patient", "study", "view", "path", "A"]).to_csv(tmp_path / "metadata.csv", index=False)

    def make(several_images: str) -> Config:
        data = {
            "source": "csv", "root": tmp_path, "findings": ["A"], "image_size_px": 64, "augment": {"noise_std": 0.5},
            "several_images": several_images,
        }  # fmt: skip
        return Config.model_validate({"data": data})

    return make


@pytest.mark.parametrize("several_images", ["first", "random", "all"])
def test_every_split_is_evaluated_on_the_first_image_of_each_study_as_it_is(config, several_images):
    settings = config(several_images)
    data = load_data(settings.data, seed=0)
    for split, dataset in evaluation_datasets(data, settings).items():
        assert len(dataset) == len(data.splits[split])
        assert dataset.table.study_ids.tolist() == data.splits[split].study_ids.tolist()
        for epoch in range(3):
            batch = dataset.collate([dataset[epoch, row] for row in range(len(dataset))]).batch
            assert batch.pa.std() < 1e-3  # no noise
            assert (batch.pa < -0.5).all()  # the black ones


@pytest.mark.parametrize(("several_images", "per_study"), [("first", 1), ("random", 1), ("all", 2)])
def test_training_takes_the_images_that_the_configuration_says(config, several_images, per_study):
    settings = config(several_images)
    data = load_data(settings.data, seed=0)
    dataset = training_dataset(data, settings)
    assert len(dataset) == per_study * len(data.train)
    batch = dataset.collate([dataset[0, row] for row in range(len(dataset))]).batch
    assert (batch.pa.flatten(1).std(dim=1) > 0.1).all()  # noise
    assert bool((batch.pa.flatten(1).mean(dim=1) > 0).any()) == (several_images != "first")  # white ones


def test_a_part_of_the_data_is_evaluated_on_the_findings_of_the_network(tmp_path):
    """Of the network's findings the part has one; the other is unknown in it, where the user says so."""
    rows = [
        {
            "Image Index": f"{n}.png",
            "Patient ID": n,
            "Finding Labels": ("No Finding", "Mass")[n % 2],
            "View Position": "PA",
        }
        for n in range(20)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "part.csv", index=False)
    data = {"source": "nih", "root": tmp_path, "check_files": False, "findings": ["Hernia", "Mass"]}
    trained = Config.model_validate({"data": data})
    config = with_overrides(trained, [f"data.csv={tmp_path / 'part.csv'}", "data.on_missing_finding=drop"])
    studies = load_studies(config, job=None, findings=("Hernia", "Mass"))
    for table in (studies.whole.train, studies.data.test, studies.evaluated["val"].table):
        assert table.findings == ("Hernia", "Mass")
        assert not table.label_mask[:, 0].any() and table.label_mask[:, 1].all()
    assert load_studies(config, job=None).whole.train.findings == ("Mass",)
    assert load_studies(config, job=None, findings=("Mass", "Nodule")).data.train.findings == ("Mass", "Nodule")


def test_the_split_of_the_run_can_be_given_to_its_evaluation(tmp_path):
    """As the message about patients who were trained on recommends."""
    assert with_overrides(Config(), [f"data.split.file={tmp_path}/split.csv"]).data.split.file == tmp_path / "split.csv"
