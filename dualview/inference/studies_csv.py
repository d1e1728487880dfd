"""Studies to predict, from a CSV that may be longer than the memory.

Two forms, told apart by their columns:

- one row per study: `study`, `pa`, `lateral`; the two are paths, blank where there is no image;
- one row per image, as for training: study, view and path, and the patient where there is one, under the names that
  the run was trained with (`data.columns`). Rows of one study must follow one another, or a study could not
  be answered before the last row is read.

Other columns are not looked at. Texts stay texts. A first pass finds what is wrong with the table; all it keeps is a
number of 8 bytes per study, or two.
"""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd

from dualview.config import SourceConfig
from dualview.data.sources import csv
from dualview.data.sources.identifiers import add_unusable, form_of
from dualview.data.sources.problems import Problems
from dualview.data.sources.text_table import header_of, text_chunks
from dualview.errors import UserError
from dualview.inference.studies import StudyRequest, request_of
from dualview.views import View

ROWS_AT_ONCE = 1000
MOST_PROBLEMS = 1000  # number of problems that are kept
ALIKE = "study {} differs only in form from {} in line {}; write each in one way"
LINE = "line\0"  # a name that no column of a user has, as no table holds a NUL


class RequestCsv:
    """The studies of a CSV, in its order: `check()` once, then iterate as often as wanted.

    Args:
        file: the table, compressed or not.
        source: of the run, for the names of columns and views.

    Raises:
        UserError: no file, no CSV, or columns of neither form.
    """

    def __init__(self, file: Path, *, source: SourceConfig) -> None:
        self.file = file
        names = source.columns
        header = header_of(file)
        self._columns: list[str]
        image_columns = [names.study, names.view, names.path]
        if "study" in header and {"pa", "lateral"} & set(header):
            self.by_image = False
            self._columns = [name for name in header if name in ("study", "pa", "lateral")]
            self._study, self._patient = "study", None
        elif set(image_columns) <= set(header):
            self.by_image = True
            self._study, self._view, self._path = image_columns
            self._patient = names.patient if names.patient in header else None
            self._columns = [*image_columns, *([self._patient] if self._patient else [])]
        else:
            raise UserError(
                f"{file} has the columns {', '.join(header)}. Give one row per study with study, pa, lateral (paths, "
                f"blank where there is no image), or one row per image with {', '.join(image_columns)} (data.columns "
                "of the run)"
            )
        # In a table with one row per study no two rows can become one study, or one study two.
        self._checks_identifiers = self.by_image and source.identifiers == "checked"
        self.has_patients = self._patient is not None
        ignored = source.ignored_views
        frontal = csv.FRONTAL if source.frontal_views is None else source.frontal_views
        lateral = csv.LATERAL if source.lateral_views is None else source.lateral_views
        self._view_of = {name: View.LATERAL for name in lateral if name not in ignored}
        self._view_of |= {name: View.PA for name in frontal if name not in ignored}
        self._ignored = set(ignored)

    def check(self) -> int:
        """Read the table once without looking at images; returns the number of studies.

        Raises:
            UserError: all problems of the table together, each with file:line.
        """
        problems = Problems(self.file, most=MOST_PROBLEMS)
        hashes: list[np.ndarray] = []
        forms: list[np.ndarray] = []
        last = None
        for frame in self._frames(problems):
            self._add_blanks(problems, frame)
            self._add_one_file(problems, frame)
            keys, starts = self._starts(frame, last=last)
            last = keys.iloc[-1]
            hashes.append(pd.util.hash_array(keys[starts].to_numpy(object)))
            if self._checks_identifiers:
                add_unusable(problems, self._identifiers(frame), further_remedy="")
                forms.append(_hashes_of_forms(keys[starts]))
        if not hashes:
            problems.raise_if_any()
            raise UserError(f"{self.file} has no rows")
        every = np.concatenate(hashes)
        del hashes
        if self._checks_identifiers:
            self._add_alike(problems, every, forms=np.concatenate(forms))
        every.sort()
        twice = np.unique(every[1:][every[1:] == every[:-1]])
        if len(twice):
            self._add_returning(problems, twice)
        problems.raise_if_any()
        return len(every)

    def __iter__(self) -> Iterator[StudyRequest]:
        studies = self._by_image() if self.by_image else self._by_study()
        for row, study in enumerate(studies):
            yield study._replace(row=row)

    def _by_study(self) -> Iterator[StudyRequest]:
        for frame in self._frames():
            blank = [""] * len(frame)
            columns = [frame[name].tolist() if name in frame else blank for name in (self._study, "pa", "lateral")]
            for study, pa, lateral in zip(*columns, strict=True):
                yield StudyRequest(images=(pa or None, lateral or None), study=study)

    def _by_image(self) -> Iterator[StudyRequest]:
        for (patient, study), rows in groupby(self._image_rows(), key=lambda row: row[:2]):
            images: tuple[list[str], list[str]] = ([], [])
            reasons: list[str] = []
            ignored: list[str] = []
            for _, _, name, path in rows:
                view = self._view_of.get(name)
                if view is None:
                    (ignored if name in self._ignored else reasons).append(f"view is {name or 'not given'}")
                else:
                    images[view].append(path)
            if not any(images):
                reasons += ignored
            yield request_of(images, reasons=reasons, study=study, patient=patient)

    def _image_rows(self) -> Iterator[tuple[str, str, str, str]]:
        for frame in self._frames():
            patients = frame[self._patient].tolist() if self._patient else [""] * len(frame)
            others = [frame[name].tolist() for name in (self._study, self._view, self._path)]
            yield from zip(patients, *others, strict=True)

    def _starts(self, frame: pd.DataFrame, *, last: str | None) -> "tuple[pd.Series[str], pd.Series[bool]]":
        """What tells the study of each row from others, and whether a row is the first of its study.

        Args:
            frame: some rows.
            last: what tells the study of the row before them; None for no row.
        """
        keys = frame[self._study] if self._patient is None else frame[self._patient] + "\0" + frame[self._study]
        is_named = frame[self._study] != ""
        return keys, is_named & (keys != keys.shift(fill_value=last)) if self.by_image else is_named

    def _add_blanks(self, problems: Problems, frame: pd.DataFrame) -> None:
        remedies = {self._study: "every row needs one"}
        if self.by_image:
            remedies[self._path] = "leave out the row of a view that does not exist"
        for name, remedy in remedies.items():
            for line in frame[LINE][frame[name] == ""]:
                problems.add(line, "{} is blank; {}", name, remedy, of=name)

    def _add_one_file(self, problems: Problems, frame: pd.DataFrame) -> None:
        """Add studies whose two views are one file, of those with one row per study."""
        if {"pa", "lateral"} <= set(frame):
            is_one = (frame["pa"] == frame["lateral"]) & (frame["pa"] != "")
            for line, path in zip(frame[LINE][is_one], frame["pa"][is_one], strict=True):
                problems.add(line, "pa and lateral are one file, {}; leave the view blank that does not exist", path)

    def _identifiers(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows that name a study, with the columns of `add_unusable`."""
        patients = "" if self._patient is None else frame[self._patient]
        frame = pd.DataFrame(
            {"line": frame[LINE], "patient": patients, "study": frame[self._study], "path": frame[self._path]}
        )
        return frame[frame["study"] != ""]

    def _add_alike(self, problems: Problems, hashes: np.ndarray, *, forms: np.ndarray) -> None:
        """Find studies that differ only in form, and say where both are.

        Args:
            hashes: (S,) of what tells studies apart.
            forms: (S,) of their forms.
        """
        order = np.lexsort((hashes, forms))
        forms, hashes = forms[order], hashes[order]
        alike = np.unique(forms[1:][(forms[1:] == forms[:-1]) & (hashes[1:] != hashes[:-1])])
        if not len(alike):
            return
        first: dict[str, tuple[str, int]] = {}
        last = None
        for frame in self._frames():
            keys, starts = self._starts(frame, last=last)
            last = keys.iloc[-1]
            chosen = starts & np.isin(_hashes_of_forms(keys), alike)
            for key, line in zip(keys[chosen], frame[LINE][chosen], strict=True):
                other, earlier = first.setdefault(_form(key), (key, line))
                if key != other:
                    problems.add(line, ALIKE, ascii(key.replace("\0", "/")), ascii(other.replace("\0", "/")), earlier)

    def _add_returning(self, problems: Problems, hashes: np.ndarray) -> None:
        """Find the rows behind hashes that come more than once, and say where each study was first."""
        first: dict[str, int] = {}
        last = None
        for frame in self._frames():
            keys, starts = self._starts(frame, last=last)
            last = keys.iloc[-1]
            chosen = starts & np.isin(pd.util.hash_array(keys.to_numpy(object)), hashes)
            for key, line, study in zip(keys[chosen], frame[LINE][chosen], frame[self._study][chosen], strict=True):
                if key not in first:
                    first[key] = line
                else:
                    problems.add(
                        line,
                        "study {} comes back after line {}; put the rows of a study one after another (sort the table "
                        "by patient and study)"
                        if self.by_image
                        else "study {} stands in line {} already; give each study one row",
                        repr(study),
                        first[key],
                    )

    def _frames(self, problems: Problems | None = None) -> Iterator[pd.DataFrame]:
        """The table a few rows at a time: texts, stripped, and LINE, the line in the file."""
        chunks = text_chunks(
            self.file,
            columns=self._columns,
            hint="",
            problems=problems or Problems(self.file, most=MOST_PROBLEMS),
            rows_at_once=ROWS_AT_ONCE,
        )
        for rows in chunks:
            rows.cells.insert(0, LINE, rows.lines)
            yield rows.cells


def _form(key: str) -> str:
    return "\0".join(map(form_of, key.split("\0")))


def _hashes_of_forms(keys: "pd.Series[str]") -> np.ndarray:
    return pd.util.hash_array(keys.map(_form).to_numpy(object))
