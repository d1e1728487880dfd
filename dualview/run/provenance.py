"""What ran: the resolved configuration, headed by versions and commit."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path

from dualview.config import Config

PACKAGES = ("dualview", "torch", "torchvision", "accelerate", "wandb", "numpy", "pillow", "scikit-learn")


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
    tree = Path(__file__).parents[2]
    if not (tree / ".git").exists():
        return "unknown"
    command = ["git", "-C", str(tree), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
