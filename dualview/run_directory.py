"""The run directory: claimed before anything is loaded, and described by the configuration in it."""

import fcntl
import importlib.metadata
import logging
import os
import platform
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal, TextIO

from dualview.config import Config
from dualview.data.dataset import Loaded
from dualview.distributed import Job
from dualview.errors import Preempted, UserError, listed

logger = logging.getLogger(__name__)

PACKAGES = ("dualview", "torch", "torchvision", "accelerate", "wandb", "numpy", "pillow", "scikit-learn")


LOCK, RUN_ID, PREEMPTED = ".lock", "run_id.txt", "preempted.txt"


@contextmanager
def claim(run_dir: Path, *, resume: Literal["auto", "never"], job: Job) -> Iterator[str]:
    """Take a new or empty run directory, or one of an earlier run to go on with, and hold it for the block.

    All ranks call; the main process acts. Gives the run's id, which stays the same through interruptions.

    Raises:
        UserError: the directory is in use by another process, holds a run that `resume` says not to
            touch, holds something else, is no directory, or cannot be written.
    """
    with ExitStack() as stack:
        run_id = stack.enter_context(_claimed(run_dir, resume=resume)) if job.is_main else ""
        yield job.share(run_id)


@contextmanager
def _claimed(run_dir: Path, *, resume: Literal["auto", "never"]) -> Iterator[str]:
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        found = sorted(path.name for path in run_dir.iterdir() if path.name != LOCK)
        lock = (run_dir / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise UserError(f"run.dir {run_dir} cannot be written: {error.strerror}. Choose another run.dir") from None
    with lock:
        _lock(lock, run_dir=run_dir)
        id_file = run_dir / RUN_ID
        if found and not id_file.exists():
            raise UserError(
                f"run.dir {run_dir} is not empty and not a run of dualview, it holds {_some(found)}. "
                "Nothing was changed. Choose a new run.dir"
            )
        if found and resume == "never":
            raise UserError(
                f"run.dir {run_dir} is not empty, it holds {_some(found)}. Nothing was changed. "
                "Choose a new run.dir, or continue that run with train.resume=auto"
            )
        if not found:
            id_file.write_text(secrets.token_hex(4) + "\n", encoding="utf-8")
        (run_dir / PREEMPTED).unlink(missing_ok=True)
        try:
            yield id_file.read_text(encoding="utf-8").strip()
        except Preempted as stopped:  # by this file a job script knows that the run wants to be started again
            (run_dir / PREEMPTED).write_text(f"{stopped}\n", encoding="utf-8")
            raise


def _lock(file: TextIO, *, run_dir: Path) -> None:
    """Lock for as long as the file is open; the system takes it back from a process that dies."""
    try:
        # of the POSIX kind, which the data loader's forked processes do not inherit
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.seek(0)
        raise UserError(
            f"run.dir {run_dir} is in use by {file.read().strip() or 'another process'}. Nothing was changed. "
            "Wait for that run, stop it, or choose another run.dir"
        ) from None
    except OSError as error:  # a file system without locks
        logger.warning("%s cannot be locked (%s): take care that no second run uses it", run_dir, error.strerror)
        return
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()}\n")
    file.flush()


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


class BadImages:
    """What happens to images that cannot be read: the run ends, or they are listed and it goes on.

    The list is `bad_images.txt` in the run directory, each image once for each rank that met it. Names of
    files can identify patients, so neither the log nor wandb gets more than their number.
    """

    def __init__(self, run_dir: Path, *, policy: Literal["error", "treat_view_as_missing"], job: Job) -> None:
        self.file = run_dir / "bad_images.txt"
        self.policy = policy
        self._job = job
        self._reasons: dict[str, str] = {}  # by path, of this rank since its start

    def take(self, loaded: Loaded) -> None:
        """Remember the bad images of a micro-batch fresh from the loader."""
        new = {path: reason for path, reason in loaded.bad_images if path not in self._reasons}
        self._reasons |= new
        if new and self.policy == "treat_view_as_missing":
            listed_before = set(self.file.read_text("utf-8").splitlines()) if self.file.exists() else set()
            lines = [f"{path}: {reason}" for path, reason in new.items()]
            self.file.parent.mkdir(parents=True, exist_ok=True)  # on a node that does not share the main one's disk
            with self.file.open("a", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in lines if line not in listed_before)
            logger.warning(
                "%d image(s) so far cannot be used and count as missing, see %s", len(self._reasons), self.file
            )

    def settle(self, num_bad_images: int) -> None:
        """End the run where the policy says so. All ranks call with the same count over all ranks.

        Raises:
            UserError: there are bad images and the policy is `error`; it names those of all ranks.
        """
        if num_bad_images and self.policy == "error":
            found = self._job.gather_texts([f"{path}: {reason}" for path, reason in self._reasons.items()])
            raise UserError(
                f"{len(found)} image(s) cannot be used\n{listed(found)}\nMend or remove them, or set "
                "data.on_bad_image=treat_view_as_missing to go on with the views that can be read"
            )


def describe_run(config: Config) -> str:
    """The resolved configuration as YAML, headed by the versions that ran it."""
    versions = [f"{name} {_version(name)}" for name in PACKAGES]
    header = [f"python {platform.python_version()}, {', '.join(versions)}", f"git commit {_git_commit()}"]
    return "".join(f"# {line}\n" for line in header) + config.to_yaml()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _git_commit() -> str:
    """Commit of dualview's own source tree, `unknown` for an installed package."""
    tree = Path(__file__).parent.parent
    if not (tree / ".git").exists():
        return "unknown"
    command = ["git", "-C", str(tree), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
