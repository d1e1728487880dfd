"""Fixtures shared by all tests."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dualview.batch import StudyBatch

os.environ.setdefault("WANDB_MODE", "offline")
COVID_CXR = Path(__file__).parents[2] / "shared" / "data" / "covid-cxr"


@pytest.fixture(autouse=True)
def _one_thread_and_fresh_seed():
    torch.set_num_threads(1)  # threads that wait for each other make a busy machine ten times slower
    torch.manual_seed(0)


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
def make_batch():
    """Random StudyBatch for a text of availabilities, such as "bbpl": b both, p PA only, l lateral only."""

    def make(kinds: str, *, num_findings: int = 3, size: int = 64, dtype=torch.float32, seed: int = 0) -> StudyBatch:
        generator = torch.Generator().manual_seed(seed)
        images = torch.rand(len(kinds), 2, 1, size, size, generator=generator, dtype=dtype) * 2 - 1
        view_mask = torch.tensor([[kind in "bp", kind in "bl"] for kind in kinds])
        labels = torch.randint(0, 2, (len(kinds), num_findings), generator=generator).to(dtype)
        return StudyBatch.from_dense(images, view_mask=view_mask, labels=labels)

    return make
