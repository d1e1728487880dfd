"""From checked rows of an image table, one row per image, to one row per study."""

import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from dualview.config import DataConfig
from dualview.data.table import StudyTable
from dualview.errors import UserError, listed
from dualview.views import View

HEADER_LINES = 1


@dataclass(frozen=True, kw_only=True)
class ImageRow:
    """One usable row. `labels` holds 1, 0 or None (unknown) per finding."""

    line: int  # in the file, the header being line 1
    patient: str
    study: str
    view: View
    path: str
    labels: tuple[int | None, ...]
    split: str | None = None


@dataclass
class Problems:
    """What is wrong with the rows of one file, to be reported together."""

    file: Path
    found: list[tuple[int, str]] = field(default_factory=list)

    def add(self, line: int, problem: str) -> None:
        self.found.append((line, problem))

    def raise_if_any(self) -> None:
        """Raises: UserError naming file:line of each."""
        if self.found:
            lines = [f"{self.file}:{line}: {problem}" for line, problem in sorted(self.found)]
            raise UserError(f"{self.file} has {len(lines)} problem(s)\n{listed(lines)}")


def read_table(config: DataConfig, *, columns: list[str]) -> tuple[Path, pd.DataFrame]:
    """The image table as text cells, stripped, blank where empty; index = line in the file.

    Identifiers stay text: "331a", "007" and PadChest's 39 digits are not numbers.

    Raises:
        UserError: no root, no file, no CSV, no rows, or columns that are not there.
    """
    assert config.root is not None  # checked by DataConfig
    if not config.root.is_dir():
        raise UserError(f"data.root {config.root} is not a folder; give the folder that holds the images")
    file = config.csv or config.root / "metadata.csv"
    if not file.is_file():
        raise UserError(f"no such table: {file}; give data.csv, or put metadata.csv into data.root")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # cells beyond the header
            table = pd.read_csv(
                file,
                dtype=str,
                keep_default_na=False,
                skip_blank_lines=False,
                index_col=False,  # or a row longer than the header would shift all cells by one
                encoding="utf-8-sig",
            )
    except pd.errors.ParserWarning:
        raise UserError(
            f"{file}: rows have more cells than the header has columns; quote cells that hold commas"
        ) from None
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError, OSError) as error:
        raise UserError(f"{file} cannot be read as CSV in UTF-8: {error}") from None
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise UserError(
            f"{file} has no column {', '.join(repr(column) for column in missing)}; it has {', '.join(table.columns)}. "
            "Name yours in data.columns, data.findings or data.split.column"
        )
    table = table.apply(lambda column: column.fillna("").str.strip())
    table.index = pd.RangeIndex(1 + HEADER_LINES, len(table) + 1 + HEADER_LINES)
    table = table[(table != "").any(axis=1)]  # blank lines
    if table.empty:
        raise UserError(f"{file} has no rows")
    return file, table


def view_of(value: str, *, config: DataConfig) -> View | None:
    """The view that a cell names; None for a view to be ignored.

    Raises:
        ValueError: the cell names no view that the config knows; the text says what is allowed.
    """
    if value in config.frontal_views:
        return View.PA
    if value in config.lateral_views:
        return View.LATERAL
    if value in config.ignored_views:
        return None
    raise ValueError(
        f"view is {value!r}; known are {config.frontal_views} (data.frontal_views), {config.lateral_views} "
        f"(data.lateral_views) and {config.ignored_views} (data.ignored_views)"
    )


def studies_from(
    rows: list[ImageRow], *, findings: tuple[str, ...], config: DataConfig, problems: Problems
) -> StudyTable:
    """Group rows by (patient, study), in order of first appearance.

    Problems of rows taken together are added to `problems` and all are raised: an image listed
    twice, labels of one study that contradict each other, a patient in two splits, files not there.

    Raises:
        UserError: any problem, or no study left.
    """
    assert config.root is not None
    first_line: dict[str, int] = {}
    patient_split: dict[str, tuple[str | None, int]] = {}
    studies: dict[tuple[str, str], list[ImageRow]] = {}
    for row in rows:
        if row.path in first_line:
            problems.add(
                row.line, f"image {row.path} stands in line {first_line[row.path]} already; list each image once"
            )
            continue
        first_line[row.path] = row.line
        split, line = patient_split.setdefault(row.patient, (row.split, row.line))
        if split != row.split:
            problems.add(row.line, f"split is {row.split}, but the same patient is in {split} in line {line}")
        if config.check_files and not (config.root / row.path).is_file():
            problems.add(row.line, f"no image file {config.root / row.path}")
        studies.setdefault((row.patient, row.study), []).append(row)

    labels = np.zeros((len(studies), len(findings)), dtype=np.float32)
    label_mask = np.zeros_like(labels, dtype=bool)
    images: tuple[np.ndarray, np.ndarray] = (np.empty(len(studies), object), np.empty(len(studies), object))
    for s, of_study in enumerate(studies.values()):
        for view in View:
            images[view][s] = tuple(row.path for row in of_study if row.view == view)
        for k, finding in enumerate(findings):
            known = [(row.line, row.labels[k]) for row in of_study if row.labels[k] is not None]
            for line, label in known:
                if label != known[0][1]:
                    problems.add(
                        line, f"{finding} is {label}, but {known[0][1]} in line {known[0][0]} of the same study"
                    )
            label_mask[s, k] = bool(known)
            labels[s, k] = known[0][1] if known else 0
    problems.raise_if_any()
    if not studies:
        raise UserError(f"{problems.file} leaves no study: every row's view is in data.ignored_views")
    splits = [of_study[0].split for of_study in studies.values()]
    return StudyTable(
        findings=findings,
        study_ids=np.array([study for _, study in studies], dtype=object),
        patient_ids=np.array([patient for patient, _ in studies], dtype=object),
        images=images,
        labels=labels,
        label_mask=label_mask,
        split=None if None in splits else np.array(splits, dtype=object),
    )
