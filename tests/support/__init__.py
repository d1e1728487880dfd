"""What several test files share: small runs, made-up hospitals, and groups of processes."""

from pathlib import Path

ROOT = Path(__file__).parents[2]  # of the repository
