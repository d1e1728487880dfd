"""The image store: the pixels of the files, whole or not there, stale when something changed, staged whole."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from dualview.commands.prepare import prepare
from dualview.commands.train import train
from dualview.config import Config
from dualview.data.augment import to_input
from dualview.data.dataset import read_first
from dualview.data.images.files import FileImages
from dualview.data.images.store import MANIFEST, SHARD_BYTES, StoreImages, stage
from dualview.data.images.store_build import refuse_full_disk
from dualview.data.load import load_data
from dualview.errors import BadImage, UserError
from dualview.progress import Track
from dualview.views import View

S = 64
silent: Track = lambda items, total, description: items  # noqa: E731


@pytest.fixture
def console():
    from rich.console import Console  # noqa: PLC0415

    return Console(quiet=True)


@pytest.fixture
def folder(tmp_path):
    """24 patients, half with a lateral, 16-bit PNGs; one image is broken."""
    root = tmp_path / "images"
    root.mkdir()
    generator = np.random.default_rng(0)
    rows = ["patient,study,view,path,A"]
    for n in range(24):
        for view in ("PA", "L")[: 1 + n % 2]:
            picture = np.kron(generator.integers(0, 65536, (10, 12)), np.ones((10, 10))).astype(np.uint16)
            Image.fromarray(picture).save(root / f"{n}{view}.png")
            rows.append(f"p{n},s{n},{view},{n}{view}.png,{n // 2 % 2}")
    (root / "3L.png").write_bytes(b"no image")
    (root / "metadata.csv").write_text("\n".join(rows))
    return root


def config_for(folder, **data):
    data = {"source": "csv", "root": folder, "findings": ["A"], "image_size_px": S, "num_workers": 0,
            "store": folder.parent / "store", "on_bad_image": "treat_view_as_missing", **data}  # fmt: skip
    return Config.model_validate({"data": data})


@pytest.mark.parametrize("bits", [8, 16])
def test_the_store_holds_the_pixels_of_the_files_to_its_depth(folder, console, bits):
    config = config_for(folder, store_bits=bits)
    done = prepare(config, console=console)
    assert done.num_images == 36
    assert done.bad == {"3L.png": "is not an image in a known format"}
    store, files = StoreImages(done.folder), FileImages(folder, image_size_px=S)
    for path in ("0PA.png", "1PA.png", "1L.png", "23L.png"):
        torch.testing.assert_close(to_input(store(path)[None])[0], files(path), atol=1.01 / (2**bits - 1), rtol=0)
    with pytest.raises(BadImage, match="not an image"):
        store("3L.png")
    assert read_first(("3L.png", "5L.png"), read=store).bad == (("3L.png", done.bad["3L.png"]),)
    assert torch.equal(read_first(("3L.png", "5L.png"), read=store).image, store("5L.png"))
    index = pd.read_parquet(done.folder / "index.parquet")
    assert index.groupby("view").size().tolist() == [24, 12]
    assert not list(folder.parent.glob("*.partial"))


def test_a_data_set_without_laterals_has_a_store_too(folder, console):
    config = config_for(folder, ignored_views=["L"])
    done = prepare(config, console=console)
    assert np.load(done.folder / "lateral.npy", mmap_mode="r").shape == (0, S, S)
    assert StoreImages(done.folder)("0PA.png").shape == (1, S, S)


def test_a_copied_reader_maps_the_files_instead_of_copying_them(folder, console):
    import pickle  # noqa: PLC0415

    done = prepare(config_for(folder), console=console)
    store = StoreImages(done.folder)
    image = store("0PA.png")
    copied = pickle.dumps(store)
    assert len(copied) < 20_000  # the arrays have 295 KB
    assert torch.equal(pickle.loads(copied)("0PA.png"), image)  # noqa: S301 - our own
    assert store._arrays[View.PA].base is not None  # the file's pages, not a copy


def test_prepare_again_does_nothing_and_names_what_changed(folder, console):
    config = config_for(folder)
    first = prepare(config, console=console)
    again = prepare(config, console=console)
    assert again.was_there and again.bad == first.bad
    (folder / "0PA.png").touch()  # a new time alone is no change
    assert prepare(config, console=console).was_there
    content = bytearray((folder / "0PA.png").read_bytes())
    content[-20] ^= 1
    (folder / "0PA.png").write_bytes(content)
    (folder / "1PA.png").write_bytes(b"shorter")
    with pytest.raises(UserError, match=r"2 file\(s\) have changed since: 1PA.png \(size 7 .*; 0PA.png \(content\)"):
        prepare(config, console=console)


def test_training_refuses_a_stale_store_and_says_why(folder, console):
    config = config_for(folder)
    prepare(config, console=console)
    other = config_for(folder, image_size_px=96, aspect="pad")
    with pytest.raises(UserError, match=r"image_size_px is 96, the store has 64\n.*aspect is pad, the"):
        load_data(other.data, seed=0, store=other.data.store)
    table = (folder / "metadata.csv").read_text()
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)).save(folder / "new.png")
    (folder / "metadata.csv").write_text(table + "\np99,s99,PA,new.png,1")
    with pytest.raises(UserError, match=r"1 image\(s\) of the data are not in it, the first new.png"):
        load_data(config.data, seed=0, store=config.data.store)
    (folder / "metadata.csv").write_text(table)
    (folder / "0PA.png").unlink()
    unlooked = config_for(folder, check_files=False)
    load_data(unlooked.data, seed=0, store=config.data.store)  # the files may be elsewhere by now


def test_there_is_no_store_where_there_is_none(folder):
    config = config_for(folder)
    with pytest.raises(UserError, match=r"no image store at .*; run dualview prepare"):
        load_data(config.data, seed=0, store=config.data.store)


def test_a_store_that_does_not_fit_is_refused_before_it_is_begun(tmp_path):
    with pytest.raises(UserError, match=r"needs 1024.0 GiB .* free. Choose"):
        refuse_full_disk(tmp_path / "store", num_bytes=2**40)
    refuse_full_disk(tmp_path / "store", num_bytes=1000)


PREPARE = """
import sys, time
from dualview.config import load
from dualview.data.images import files as images, store_build as store_writing
from dualview.commands.prepare import prepare
from rich.console import Console
from pathlib import Path
store_writing.SAVE_SECONDS = 0
real = images.FileImages.unit_of
def slow(self, path, picture):
    time.sleep(0.05)
    return real(self, path, picture)
images.FileImages.unit_of = slow
prepare(load(Path(sys.argv[1])), console=Console(quiet=True))
"""


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_killed_prepare_goes_on_and_nothing_is_half_written(folder, console, tmp_path, num_workers):
    config = config_for(folder, num_workers=num_workers)
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    process = subprocess.Popen([sys.executable, "-c", PREPARE, str(tmp_path / "config.yaml")])
    journal = folder.parent / "store.partial" / "journal.jsonl"
    deadline = time.monotonic() + 60
    while not (journal.exists() and journal.read_text().count("\n") >= 8):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder.parent / "store").exists()
    journal.write_text(journal.read_text() + '{"n": 3')  # a line that the kill cut
    done_before = journal.read_text().count("\n")
    decoded = []
    real = FileImages.unit_of
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileImages, "unit_of", lambda *read: decoded.append(read[1]) or real(*read))
        resumed = prepare(config_for(folder), console=console)
    assert len(decoded) - 16 <= 36 - done_before + 2  # 16 or 18 of the estimate; none of those done
    monkey = config_for(folder, store=folder.parent / "whole")
    whole = prepare(monkey, console=console)
    assert resumed.bad == whole.bad
    for name in ("pa.npy", "lateral.npy"):
        assert np.array_equal(np.load(resumed.folder / name), np.load(whole.folder / name))


def test_a_prepare_killed_before_its_last_rename_is_completed_without_decoding(folder, console, monkeypatch):
    def rename(path, target):
        if target.name == "store":
            raise KeyboardInterrupt
        os.replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            prepare(config_for(folder), console=console)
    assert not (folder.parent / "store").exists()
    decoded = []
    real = FileImages.unit_of
    monkeypatch.setattr(FileImages, "unit_of", lambda *read: decoded.append(read[1]) or real(*read))
    done = prepare(config_for(folder), console=console)
    assert len(decoded) <= 18  # those of the estimate
    assert sorted(path.name for path in done.folder.iterdir()) == [
        "index.parquet", "lateral.npy", "manifest.json", "pa.npy",
    ]  # fmt: skip


def test_an_interrupted_store_of_other_settings_is_not_taken_up(folder, console):
    partial = folder.parent / "store.partial"
    partial.mkdir()
    (partial / "plan.json").write_text(json.dumps({"settings": {}, "images": 0}))
    with pytest.raises(UserError, match="interrupted dualview prepare with other settings"):
        prepare(config_for(folder), console=console)


def test_staging_copies_whole_stores_and_repairs_interrupted_copies(folder, console, tmp_path, monkeypatch):
    monkeypatch.setattr("dualview.data.images.store.SHARD_BYTES", 50_000)
    monkeypatch.setattr("dualview.data.images.store_build.SHARD_BYTES", 50_000)
    done = prepare(config_for(folder), console=console)
    local = tmp_path / "local"
    staged = stage(done.folder, local)
    files = ("pa.npy", "lateral.npy", "index.parquet")
    for name in files:
        assert (staged / name).read_bytes() == (done.folder / name).read_bytes()
    (staged / MANIFEST).unlink()  # as if it had been interrupted: cut, and with a shard half written
    content = bytearray((staged / "pa.npy").read_bytes())
    content[60_000:60_100] = bytes(100)
    (staged / "pa.npy").write_bytes(content[:-30_000])
    with pytest.raises(UserError, match="no image store"):
        StoreImages(staged)
    assert stage(done.folder, local) == staged
    for name in files:
        assert (staged / name).read_bytes() == (done.folder / name).read_bytes()
    damaged = bytearray((done.folder / "pa.npy").read_bytes())
    damaged[120_000] ^= 1
    (done.folder / "pa.npy").write_bytes(damaged)
    with pytest.raises(UserError, match=r"pa.npy is damaged \(shard 2\)"):
        stage(done.folder, tmp_path / "other")
    assert SHARD_BYTES == 64 * 2**20


def trained(config, run_dir, **changes):
    values = config.model_dump(mode="json")
    values["run"] |= {"dir": run_dir, "device": "cpu"}
    values["data"] |= changes
    values["model"]["backbone"] = "densenet_tiny"
    values["train"] |= {"max_steps": 3, "micro_batch_size": 4}
    values["tracking"]["wandb"] = "disabled"
    train(Config.model_validate(values))
    return torch.load(run_dir / "checkpoints/last/state.pt", weights_only=True)["optimizer"]["state"]


def test_training_from_a_staged_store_augmented_on_the_device_is_bit_equal(folder, console, tmp_path, monkeypatch):
    config = config_for(folder)
    prepare(config, console=console)
    monkeypatch.setenv("NODE_TMP", str(tmp_path / "node"))
    one = trained(config, tmp_path / "one")
    two = trained(config, tmp_path / "two", stage_to="$NODE_TMP", augment_on="device")
    assert Path(tmp_path / "node").is_dir()
    for state, other in zip(one.values(), two.values(), strict=True):
        assert torch.equal(state["exp_avg"], other["exp_avg"])


def test_a_variable_that_is_not_set_is_named(folder, console, tmp_path):
    config = config_for(folder, stage_to="$NOT_SET_HERE")
    prepare(config, console=console)
    with pytest.raises(UserError, match=r"stage_to is \$NOT_SET_HERE, and this variable is not set"):
        trained(config, tmp_path / "run")
