"""Fixtures shared by all tests."""

import gc
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dualview.batch import StudyBatch
from tests.support import ROOT
from tests.support.hospital import write_hospital
from tests.support.process_group import ProcessGroups
from tests.support.runs import write_untrained_run
from tests.support.skips import pytest_terminal_summary  # noqa: F401 - a hook of pytest

os.environ.setdefault("WANDB_MODE", "offline")
COVID_CXR = ROOT.parent / "shared" / "data" / "covid-cxr"


@pytest.fixture(autouse=True)
def _one_thread_and_fresh_seed():
    torch.set_num_threads(1)  # threads that wait for each other make a busy machine ten times slower
    torch.manual_seed(0)


@pytest.fixture(scope="module", autouse=True)
def _imports_are_not_searched_for_garbage():
    """Accelerate collects garbage at the end of every training and evaluation: 0.2 s over all that torch has loaded."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def read_back():
    """Records of an offline run of wandb, by its own reader."""

    def read(wandb_dir: Path) -> list[dict]:
        wandb = shutil.which("wandb", path=str(Path(sys.executable).parent))
        command = [wandb, "leet", "inspect", "--json", str(wandb_dir)]
        output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        return [json.loads(line) for line in output.splitlines()]

    return read


@pytest.fixture
def covid_cxr() -> Path:
    """The folder of real X-rays beside the repository."""
    if not (COVID_CXR / "metadata.csv").is_file():
        pytest.skip(f"the real X-rays are not at {COVID_CXR}")
    return COVID_CXR


@pytest.fixture
def hospital(tmp_path):
    """`hospital("bbpl", findings=("A",))` writes a folder of noise with its table, see support/hospital.py."""

    def hospital(kinds: str, *, folder: str = "images", **settings) -> Path:
        return write_hospital(tmp_path / folder, kinds, **settings)

    return hospital


@pytest.fixture(scope="session")
def on_ranks(tmp_path_factory) -> ProcessGroups:
    """`on_ranks(2, function, ...)` runs the function in two processes of one world, without a launcher."""
    return ProcessGroups(tmp_path_factory.mktemp("groups"))


@pytest.fixture
def make_batch():
    """Random StudyBatch for a text of availabilities, such as "bbpl": b both, p PA only, l lateral only."""

    def make(kinds: str, *, num_findings: int = 3, size: int = 64, dtype=torch.float32, seed: int = 0) -> StudyBatch:
        generator = torch.Generator().manual_seed(seed)
        images = torch.rand(len(kinds), 2, 1, size, size, generator=generator, dtype=dtype) * 2 - 1
        view_mask = torch.tensor([[kind in "bp", kind in "bl"] for kind in kinds])
        labels = torch.randint(0, 2, (len(kinds), num_findings), generator=generator).to(dtype)
        return StudyBatch.from_dense(images, view_mask=view_mask, labels=labels)

    return make


@pytest.fixture
def make_run(tmp_path):
    """`make_run("hemis", model={...})` writes a run directory of random weights, see support/runs.py."""

    def make(name: str = "auxloss", *, folder: str = "run", **settings) -> Path:
        return write_untrained_run(tmp_path / folder, name, **settings)

    return make


@pytest.fixture
def draw_png():
    """Write a gray PNG of random blobs, different for every seed; returns its pixels (height, width) uint8."""

    def draw(path: Path, *, seed: int, height: int = 80, width: int = 96) -> np.ndarray:
        coarse = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8), dtype=np.uint8)
        pixels = np.kron(coarse, np.ones((8, 8), np.uint8))
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        return pixels

    return draw
