"""The run directory: claimed before anything is loaded, and described by the configuration in it."""

import importlib.metadata
import logging
import platform
import subprocess
from pathlib import Path
from typing import Literal

from dualview.config import Config
from dualview.data.dataset import Loaded
from dualview.distributed import Job
from dualview.errors import UserError, listed

logger = logging.getLogger(__name__)

PACKAGES = ("dualview", "torch", "torchvision", "accelerate", "wandb", "numpy", "pillow", "scikit-learn")


def claim(run_dir: Path, *, job: Job) -> None:
    """Make the run directory, or take an empty one. All ranks call; the main process acts.

    Raises:
        UserError: it holds another run, is no directory, or cannot be written.
    """
    if job.is_main:
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            found = sorted(path.name for path in run_dir.iterdir())
            probe = run_dir / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UserError(f"run.dir {run_dir} cannot be written: {error.strerror}. Choose another run.dir") from None
        if found:
            raise UserError(
                f"run.dir {run_dir} is not empty, it holds {', '.join(found[:4])}{', ...' if len(found) > 4 else ''}. "
                "Nothing was changed. Choose a new run.dir, or move the old run away"
            )
    job.barrier()


class BadImages:
    """What happens to images that cannot be read: the run ends, or they are listed and it goes on.

    The list is `bad_images.txt` in the run directory, each image once for each rank that met it. Names of
    files can identify patients, so neither the log nor wandb gets more than their number.
    """

    def __init__(self, run_dir: Path, *, policy: Literal["error", "treat_view_as_missing"], job: Job) -> None:
        self.file = run_dir / "bad_images.txt"
        self.policy = policy
        self._job = job
        self._reasons: dict[str, str] = {}  # by path, of this rank

    def take(self, loaded: Loaded) -> None:
        """Remember the bad images of a micro-batch fresh from the loader."""
        new = {path: reason for path, reason in loaded.bad_images if path not in self._reasons}
        self._reasons |= new
        if new and self.policy == "treat_view_as_missing":
            with self.file.open("a", encoding="utf-8") as file:
                file.writelines(f"{path}: {reason}\n" for path, reason in new.items())
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
