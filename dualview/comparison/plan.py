"""Which runs a comparison is made of: settings x variants x seeds x folds, each a configuration of its own."""

from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from dualview.config import Config
from dualview.config.load import check, read_values, set_value
from dualview.config.sections import Section
from dualview.errors import UserError, listed

Changes = dict[str, Any]  # section.field -> value


class CompareConfig(Section):
    """What is compared. The other sections of the file are those of a run, and hold for every run."""

    dir: Path = Path("runs/compare")
    """Directory of all runs and of the result."""
    seeds: list[int] = Field([1, 2, 3], min_length=1)
    """`run.seed` of the runs of each variant; the split is that of `data.seed` in all of them."""
    baseline: str
    """The variant that the others are compared with."""
    variants: dict[str, Changes] = Field(min_length=1)
    """Name -> section.field: value; what makes the variant."""
    settings: dict[str, Changes] = Field({"": {}}, min_length=1)
    """Name -> section.field: value; the whole comparison once for each, such as sizes of the training set."""
    resamples: int = Field(2000, ge=100)
    """Resamples of the test patients for confidence intervals."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Confidence of the intervals."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        problems = []
        if self.baseline not in self.variants:
            problems.append(f"baseline is '{self.baseline}'; there are {', '.join(self.variants)}")
        if len(set(self.seeds)) < len(self.seeds):
            problems.append(f"seeds {self.seeds} has one twice")
        for name in (*self.variants, *self.settings):
            if any(not (letter.isalnum() or letter in "-_") for letter in name):
                problems.append(f"'{name}' names a folder: use letters, digits, - and _")
        if problems:
            raise ValueError("; ".join(problems))
        return self


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run of the comparison."""

    setting: str
    variant: str
    seed: int
    fold: int | None  # fold that it tests, from 1; None: there are no folds
    config: Config

    @property
    def name(self) -> str:
        return _folder(self.setting, self.variant, seed=self.seed, fold=self.fold)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A comparison and its runs, in the order of the file: seed by seed, so that a first answer comes early."""

    compare: CompareConfig
    runs: list[PlannedRun]

    def num_folds(self, setting: str) -> int | None:
        """Number of folds whose predictions are put together in a setting; None: it has one test split."""
        return max((run.fold for run in self.runs if run.setting == setting and run.fold is not None), default=None)


def read_plan(path: Path, *, overrides: list[str] | None = None) -> Plan:
    """Read a comparison file: sections as of a run, and `compare`.

    Every run takes the file, then the changes of its setting, then those of its variant. Where these have
    `data.split.folds` and no `data.split.fold`, there is a run for each fold.

    Raises:
        UserError: whatever is wrong with the file or with any of the runs; all of it at once, each problem once.
    """
    values, problems = read_values(path, overrides=overrides or [])
    compare, compare_problems = check(CompareConfig, values.pop("compare", {}), at="compare")
    problems += compare_problems
    if compare is None:
        raise UserError(f"{path}: {len(problems)} problem(s) in the comparison\n{listed(problems)}")
    runs = []
    tested: dict[str, dict[str, Any]] = {}  # setting -> variant -> number of folds, and the one that is set
    for seed, (setting, changes), (variant, variant_changes) in product(
        compare.seeds, compare.settings.items(), compare.variants.items()
    ):
        with_changes: dict[str, Any] = {}
        for key, value in (*_flat(deepcopy(values)), *changes.items(), *variant_changes.items()):
            if (problem := set_value(with_changes, key=key, value=value)) is not None:
                problems.append(f"compare, {setting or variant}: {problem}")
        folds = _folds(with_changes)
        tested.setdefault(setting, {})[variant] = folds
        for fold in folds:
            config, run_problems = check(
                Config, _of_run(with_changes, compare=compare, setting=setting, variant=variant, seed=seed, fold=fold)
            )
            problems += [f"{setting + '/' if setting else ''}{variant}: {problem}" for problem in run_problems]
            if config is not None:
                # The file sets for all variants what one of them needs; each run is written without what it has no
                # use for.
                runs.append(PlannedRun(setting=setting, variant=variant, seed=seed, fold=fold, config=config.effective))
    problems += [
        f"compare{', ' if setting else ''}{setting}: variants differ in data.split.folds ("
        + ", ".join(f"{variant} {'none' if folds == [None] else len(folds)}" for variant, folds in variants.items())
        + "); all of a setting must be tested in one way"
        for setting, variants in tested.items()
        if len({len(folds) if folds != [None] else None for folds in variants.values()}) > 1
    ]
    if problems:
        problems = list(dict.fromkeys(problems))
        raise UserError(f"{path}: {len(problems)} problem(s) in the comparison\n{listed(problems)}")
    return Plan(compare=compare, runs=runs)


def _folds(values: dict[str, Any]) -> list[int | None]:
    """The folds that plain values ask to train, or None alone; what is wrong with them is found with the rest."""
    data = values.get("data")
    split = data.get("split") if isinstance(data, dict) else None
    if not isinstance(split, dict) or split.get("fold") is not None:
        return [None]
    folds = str(split.get("folds"))
    return list(range(1, int(folds) + 1)) if folds.isdecimal() and int(folds) > 1 else [None]


def _of_run(
    values: dict[str, Any], *, compare: CompareConfig, setting: str, variant: str, seed: int, fold: int | None
) -> dict[str, Any]:
    """The values of one run: with its folder, its seed, its fold and what a comparison takes for granted."""
    values = deepcopy(values)
    folder = _folder(setting, variant, seed=seed, fold=fold)
    defaults = {
        "data.seed": 0, "tracking.group": compare.dir.name, "tracking.name": folder, "tracking.tags": [variant],
    }  # fmt: skip
    for key, value in defaults.items():
        section, field = key.split(".")
        if values.get(section, {}).get(field) is None:
            set_value(values, key=key, value=value)
    set_value(values, key="run.dir", value=str(compare.dir / folder))
    set_value(values, key="run.seed", value=seed)
    if fold is not None:
        set_value(values, key="data.split.fold", value=fold)
    return values


def _folder(setting: str, variant: str, *, seed: int, fold: int | None) -> str:
    parts = [setting, variant, f"seed-{seed}", "" if fold is None else f"fold-{fold}"]
    return "/".join(part for part in parts if part)


def _flat(values: dict[str, Any]) -> list[tuple[str, Any]]:
    """The sections of a file as (section.field, value)."""
    return [
        (f"{section}.{field}", value)
        for section, fields in values.items()
        for field, value in (fields.items() if isinstance(fields, dict) else [("", fields)])
    ]
