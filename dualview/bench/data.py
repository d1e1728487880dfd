"""How fast images arrive: from the store, decoded on the fly, through torchxrayvision, and beside a training step.

Everything is measured in one run, on one core, on the same 16-bit PNGs, which are drawn into a temporary folder.
"""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import torch
from accelerate.utils import send_to_device
from PIL import Image
from rich.table import Table

from dualview.config import AugmentConfig, Config, PhantomConfig
from dualview.data.augment import to_input_batch
from dualview.data.dataset import Key, StudyDataset
from dualview.data.images.store_build import items_of, write
from dualview.data.load import Data, load_data, store_settings
from dualview.data.loading import TrainingSampler, training_loader
from dualview.data.sources.phantom import draw
from dualview.losses import head_loss_sums
from dualview.models import build_model
from dualview.views import View

MICRO_BATCH = 8
UNTIMED_STEPS = 2


@dataclass(frozen=True, kw_only=True)
class DataResult:
    """Images per second on one core, medians over rounds; None where torchxrayvision is not installed."""

    image_size_px: int
    file_size_px: int
    device: str
    store_plain: float
    store_augmented: float
    files_plain: float
    torchxrayvision: float | None
    augment_on_device: float  # augmentation of a batch alone, without reading
    wait_fraction: float  # share of a training step's time that waits for data from the store
    seconds_per_step: float
    wait_fraction_augment_on_device: float

    def to_dict(self) -> dict[str, object]:
        """The measurements, and the ratios of the ways to read."""
        return {
            **asdict(self),
            "store_augmented_against_files": self.store_augmented / self.files_plain,
            "store_augmented_against_torchxrayvision": self.torchxrayvision
            and self.store_augmented / self.torchxrayvision,
        }


def measure(
    *,
    rounds: int = 5,
    image_size_px: int = 224,
    file_size_px: int = 1024,
    num_studies: int = 64,
    steps: int = 8,
    device: str = "cpu",
    track: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> DataResult:
    """Draw files, prepare a store, and time every way in each round; then train some steps from the store."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        config = _make_files(Path(folder), file_size_px=file_size_px, image_size_px=image_size_px, num=num_studies)
        from_files = load_data(config.data, seed=0)
        _store(from_files, config)
        from_store = load_data(config.data, seed=0, store=config.data.store)
        ways: dict[str, Callable[[], Iterator[int]]] = {
            "store_plain": lambda: _batches(from_store, image_size_px, augment=None, repeat=20),
            "store_augmented": lambda: _batches(from_store, image_size_px, augment=AugmentConfig(), repeat=4),
            "files_plain": lambda: _batches(from_files, image_size_px, augment=None),
            "augment_on_device": lambda: _augment_alone(from_store, image_size_px, device=device),
        }
        if (peer := _torchxrayvision(Path(folder), image_size_px=image_size_px)) is not None:
            ways["torchxrayvision"] = peer
        speeds: dict[str, list[float]] = {name: [] for name in ways}
        for way in ways.values():
            next(way())  # An untimed batch opens files and makes tables.
        for _ in track(range(rounds)):
            for name, way in ways.items():
                started = time.perf_counter()
                images = sum(way())
                speeds[name].append(images / (time.perf_counter() - started))
        torch.set_num_threads(threads)
        waits = [
            _train(from_store, image_size_px=image_size_px, steps=steps, device=device, on_device=on_device)
            for on_device in (False, True)
        ]
    medians = {name: median(values) for name, values in speeds.items()}
    return DataResult(
        image_size_px=image_size_px,
        file_size_px=file_size_px,
        device=torch.cuda.get_device_name() if device == "cuda" else device,
        torchxrayvision=medians.pop("torchxrayvision", None),
        wait_fraction=waits[0][0],
        seconds_per_step=waits[0][1],
        wait_fraction_augment_on_device=waits[1][0],
        **medians,
    )


def as_table(result: DataResult) -> Table:
    """The result for a terminal."""
    table = Table(title=f"{result.image_size_px} px from 16-bit PNGs of {result.file_size_px} px")
    table.add_column("way")
    table.add_column("images/s, one core", justify="right")
    rows = {
        "store, plain": result.store_plain,
        "store, augmented": result.store_augmented,
        "decoded on the fly": result.files_plain,
        "torchxrayvision's dataset": result.torchxrayvision,
        f"augmentation alone, {result.device}": result.augment_on_device,
    }
    for name, speed in rows.items():
        table.add_row(name, "not installed" if speed is None else f"{speed:,.0f}")
    table.caption = (
        f"training on {result.device}: {result.wait_fraction:.2%} of {result.seconds_per_step:.3f} s a step waits for "
        f"data ({result.wait_fraction_augment_on_device:.2%} with data.augment_on=device)"
    )
    return table


def _make_files(folder: Path, *, file_size_px: int, image_size_px: int, num: int) -> Config:
    """Phantom chests as noisy 16-bit PNGs, a table of them, and the configuration that reads it."""
    table, read = draw(PhantomConfig(num_studies=num), seed=0, image_size_px=file_size_px)
    grain = np.random.default_rng(0)
    rows = []
    for row, study in enumerate(table.study_ids):
        for view in View:
            for path in table.images[view][row]:
                unit = (read(path)[0].numpy() + 1) / 2
                noisy = unit * 60000 + grain.normal(2000, 300, unit.shape)  # Real detectors do not compress well.
                name = f"{path.replace('/', '_')}.png"
                Image.fromarray(noisy.clip(0, 65535).astype(np.uint16)).save(folder / name)
                rows.append({"patient": study, "study": study, "view": ("PA", "L")[view], "path": name, "A": row % 2})
    pd.DataFrame(rows).to_csv(folder / "metadata.csv", index=False)
    return Config.model_validate(
        {
            "data": {
                "source": "csv", "root": folder, "findings": ["A"], "image_size_px": image_size_px,
                "num_workers": 2, "store": folder / "store", "split": {"train": 0.9, "val": 0.1, "test": 0},
            }
        }
    )  # fmt: skip


def _store(data: Data, config: Config) -> None:
    """Prepare the store of all images."""
    assert config.data.store is not None and data.files is not None
    write(
        config.data.store,
        items=items_of(table.images for table in data.whole_splits.values()),
        reader=data.files,
        settings=store_settings(config.data),
        num_workers=0,
        track=lambda work, _total, _description: work,
    )


def _dataset(data: Data, image_size_px: int, *, augment: AugmentConfig | None, on_device: bool = False) -> StudyDataset:
    return StudyDataset(
        data.train, read=data.read, image_size_px=image_size_px, seed=0, augment=augment,
        augment_on="device" if on_device else "worker",
    )  # fmt: skip


def _batches(data: Data, image_size_px: int, *, augment: AugmentConfig | None, repeat: int = 1) -> Iterator[int]:
    """Images of each micro-batch, read and packed as for training."""
    dataset = _dataset(data, image_size_px, augment=augment)
    for epoch in range(repeat):
        for start in range(0, len(dataset), MICRO_BATCH):
            rows = range(start, min(start + MICRO_BATCH, len(dataset)))
            batch = dataset.collate([dataset[Key(epoch, row)] for row in rows]).batch
            yield len(batch.pa) + len(batch.lateral)


def _augment_alone(data: Data, image_size_px: int, *, device: str) -> Iterator[int]:
    """Images of one micro-batch, augmented on the device again and again."""
    dataset = _dataset(data, image_size_px, augment=AugmentConfig(), on_device=True)
    loaded = dataset.collate([dataset[Key(0, row)] for row in range(MICRO_BATCH)])
    assert loaded.keys is not None
    pa, keys = loaded.batch.pa.to(device), loaded.keys[0].to(device)
    batch = loaded.batch._replace(pa=pa, lateral=pa[:0])
    for _ in range(20):
        to_input_batch(batch, keys=(keys, keys[:0]), augment=AugmentConfig())
        if device == "cuda":
            torch.cuda.synchronize()
        yield len(pa)


def _torchxrayvision(folder: Path, *, image_size_px: int) -> Callable[[], Iterator[int]] | None:
    """The same PA files through the peer's PadChest class, cropped and resized as its training script does."""
    try:
        import torchxrayvision as xrv  # noqa: PLC0415 - torchxrayvision is compared with and no dependency
    except ImportError:
        return None
    files = sorted(path.name for path in folder.glob("*_pa.png"))
    pd.DataFrame(
        {
            "ImageID": files, "Projection": "PA", "Labels": "['nodule']", "PatientBirth": 1950, "PatientID": files,
            "StudyDate_DICOM": 20100101, "PatientSex_DICOM": "F",
        }
    ).to_csv(folder / "padchest.csv", index=False)  # fmt: skip
    dataset = xrv.datasets.PC_Dataset(str(folder), csvpath=str(folder / "padchest.csv"), unique_patients=False)

    def images() -> Iterator[int]:
        crop, resize = xrv.datasets.XRayCenterCrop(), xrv.datasets.XRayResizer(image_size_px)
        for position in range(len(dataset)):
            resize(crop(dataset[position]["img"]))
            yield 1

    return images


def _train(data: Data, *, image_size_px: int, steps: int, device: str, on_device: bool) -> tuple[float, float]:
    """Train some steps from the store: the fraction of the time spent waiting for data, and seconds per step."""
    model = build_model("auxloss", num_findings=1, seed=0).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters())
    dataset = _dataset(data, image_size_px, augment=AugmentConfig(), on_device=on_device)
    sampler = TrainingSampler(
        data.train.availability, micro_batch_size=MICRO_BATCH, accumulation_steps=1, max_steps=steps + UNTIMED_STEPS,
        seed=0, rank=0, world_size=1,
    )  # fmt: skip
    batches = iter(training_loader(dataset, sampler=sampler, num_workers=1, pin_memory=device == "cuda"))
    waited = total = 0.0
    for step in range(steps + UNTIMED_STEPS):
        started = time.perf_counter()
        loaded = next(batches)
        arrived = time.perf_counter()
        batch, keys = send_to_device(loaded.batch, device), loaded.keys
        inputs = to_input_batch(
            batch, keys=None if keys is None else send_to_device(keys, device), augment=AugmentConfig()
        )
        loss = head_loss_sums(model(inputs), batch=inputs).total
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()
        if step >= UNTIMED_STEPS:
            waited += arrived - started
            total += time.perf_counter() - started
    return waited / total, total / steps
