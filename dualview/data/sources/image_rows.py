"""From rows of an image table, one row per image, to one row per study, with an account of what was left out."""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from dualview.config import SourceConfig
from dualview.data.images.files import Aspect, FileImages, ImageReader
from dualview.data.remarks import Remark
from dualview.data.sources.flow import JOINED, FlowStep, count_rows, reasons_of
from dualview.data.sources.identifiers import add_alike, add_unusable
from dualview.data.sources.problems import Problems
from dualview.data.sources.same_files import add_listed_twice
from dualview.data.table import StudyTable
from dualview.errors import UserError
from dualview.folders import NO_FILE, why_unreadable
from dualview.views import View


class Label(IntEnum):
    """What a row says of a finding."""

    NEGATIVE = 0
    POSITIVE = 1
    UNCERTAIN = 2
    UNKNOWN = 3


class OpenImages(Protocol):
    """What makes the reader of a source's images."""

    def __call__(self, *, image_size_px: int, aspect: Aspect) -> ImageReader: ...


@dataclass(frozen=True, kw_only=True)
class LabelNames:
    """What a data set that names what a study has, instead of a column per finding, calls it."""

    studies: np.ndarray  # (S,) of frozenset[str], the names that each study has
    to_xrv: Mapping[str, Sequence[str]]  # finding of torchxrayvision -> names that make it positive
    not_findings: Collection[str]  # names that are never a finding of their own


@dataclass(frozen=True, kw_only=True)
class ReadImages:
    """The account of the images of a source."""

    name: str
    num_images_read: int
    dropped: pd.DataFrame  # columns path and reason
    remarks: tuple[Remark, ...] = ()  # what was read although it is not as it should be
    flow: tuple[FlowStep, ...] = ()  # what was read, then what each rule leaves, in the order of the rules


@dataclass(frozen=True, kw_only=True)
class SourceTable(ReadImages):
    """What one source gives: its studies, how their images are read, and the images that it does not give."""

    table: StudyTable
    open_images: OpenImages
    label_names: LabelNames | None = None  # names that become labels later; None: `table` has its labels
    known_bad: tuple[str, ...] = ()  # images that others have found missing or broken


def nothing_dropped() -> pd.DataFrame:
    """`SourceTable.dropped` without an image."""
    return pd.DataFrame({"path": [], "reason": []}, dtype=object)


class ImageRows:
    """Rows of an image table on their way to studies.

    `frame` has a row per image, at least with `line` (in the file), `patient`, `study`, `view` (of
    `View`) and `path` by the time of `studies`. What is left out goes through `drop`, with a reason.

    Args:
        frame: rows with `line`.
        file: the table, or the folder whose files the rows are.
        problems: of the same file, found before.
    """

    def __init__(
        self, frame: pd.DataFrame, *, file: Path, source: SourceConfig, problems: Problems | None = None
    ) -> None:
        self.frame = frame
        self.file = file
        self.source = source
        # Rows that come from the files of a folder are named by their files.
        self.problems = problems or Problems(file, names=_paths_of_lines(frame) if file.is_dir() else {})
        self._num_read = len(frame)
        self._flow = [FlowStep(rule="read", left=count_rows(frame), reasons={})]
        self._dropped: list[pd.DataFrame] = []
        self._remarks: list[Remark] = []

    @property
    def account(self) -> ReadImages:
        """What was read and left out until now."""
        return ReadImages(
            name=self.source.called,
            num_images_read=self._num_read,
            dropped=pd.concat([nothing_dropped(), *self._dropped], ignore_index=True),
            remarks=tuple(self._remarks),
            flow=tuple(self._flow),
        )

    def remark(self, mask: "pd.Series[bool] | np.ndarray", kind: str) -> None:
        """Count the rows of the frame where `mask` is True: they are read, but not as they should be."""
        if mask.any():
            paths = self.frame.loc[mask, "path"]
            self.add_remarks([Remark(kind, len(paths), str(paths.iloc[0]))])

    def add_remarks(self, remarks: Iterable[Remark]) -> None:
        """Add to the account what was counted elsewhere."""
        self._remarks += remarks

    def drop(
        self, mask: "pd.Series[bool] | np.ndarray", reason: "str | pd.Series[str]", *, rule: str | None = None
    ) -> None:
        """Leave out the rows where `mask` is True; `reason` is a text, or one per row of the frame.

        Args:
            rule: what reasons per row have in common, for the account of the flow.
        """
        if not mask.any():
            return
        out = self.frame.loc[mask, ["path"]]
        out = out.assign(reason=reason if isinstance(reason, str) else reason[mask])
        self._dropped.append(out)
        self._note_joined()
        self.frame = self.frame[~mask]
        reasons = reasons_of(out["reason"])
        what = str(out["reason"].iloc[0]) if not reasons or rule is None else rule
        self._flow.append(FlowStep(rule=what, left=count_rows(self.frame), reasons=reasons))

    def _note_joined(self) -> None:
        """Add a step where a reader has given rows another study or patient since the last rule."""
        now, before = count_rows(self.frame), self._flow[-1].left
        if (now.studies, now.patients) != (before.studies, before.patients):
            self._flow.append(FlowStep(rule=JOINED, left=now, reasons={}))

    def assign_views(
        self, values: "pd.Series[str]", *, frontal: Sequence[str], lateral: Sequence[str], strict: bool = False
    ) -> None:
        """Add `view` from a column of view names, and leave out rows of any other view.

        Args:
            frontal, lateral: names, where the configuration does not give its own.
            strict: names that `data.ignored_views` does not have either are problems.

        Raises:
            UserError: a name is in both lists.
        """
        ignored = self.source.ignored_views
        frontal = [name for name in frontal if name not in ignored]
        lateral = [name for name in lateral if name not in ignored]
        frontal = frontal if self.source.frontal_views is None else self.source.frontal_views
        lateral = lateral if self.source.lateral_views is None else self.source.lateral_views
        if shared := sorted(set(frontal) & set(lateral)):
            raise UserError(f"{shared} stand in both data.frontal_views and data.lateral_views; put each view in one")
        self.frame = self.frame.assign(view=np.where(values.isin(lateral), int(View.LATERAL), int(View.PA)))
        other = ~values.isin([*frontal, *lateral])
        if strict:
            for line, value in zip(self.frame["line"][other], values[other], strict=True):
                if value not in ignored:
                    self.problems.add(
                        line,
                        "view is {}; known are {} (data.frontal_views), {} (data.lateral_views) and {} "
                        "(data.ignored_views)",
                        repr(value),
                        frontal,
                        lateral,
                        ignored,
                        of=value,
                    )
        reasons = values.map(lambda value: f"view is {value}" if value else "view is not given")
        self.drop(other, reasons, rule="view is not used")

    def check_files(self) -> None:
        """Look for every file, if the configuration says so; those that cannot be read are problems, or dropped."""
        if not self.source.check_files:
            return
        root = str(self.source.root)
        # 400,000 files are looked up: os.path takes a tenth of pathlib's time.
        reasons = np.array([why_unreadable(os.path.join(root, path)) for path in self.frame["path"]], dtype=object)
        unreadable = reasons != ""
        if self.source.on_missing_file == "drop":
            reason = pd.Series(reasons, index=self.frame.index, dtype=object)
            self.drop(unreadable, reason, rule="image file cannot be read")
            return
        for line, path, reason in zip(
            self.frame["line"][unreadable], self.frame["path"][unreadable], reasons[unreadable], strict=True
        ):
            what = "no image file {}" if reason == NO_FILE else f"image file {{}} {reason}"
            self.problems.add(line, what, f"{root}/{path}")

    def studies(
        self, *, findings: Sequence[str] = (), labels: np.ndarray | None = None, attributes: Sequence[str] = ()
    ) -> SourceTable:
        """Group the rows by (patient, study), in order of first appearance, and images in the order of rows.

        Problems of rows taken together are added to those found before and all are raised: an image
        listed twice, labels of one study that contradict each other, a patient in two splits.

        Args:
            findings: K names.
            labels: (rows, K) int8 of `Label`; what any row of a study knows, the study knows.
            attributes: columns to keep, as the study's first row has them.

        Raises:
            UserError: any problem, or no study left.
        """
        frame = self.frame
        if labels is None:
            labels = np.zeros((len(frame), len(findings)), np.int8)
        self._check_rows()
        if frame.empty:
            self.problems.raise_if_any(account=self.account)
            nothing_left = UserError(f"{self.file} leaves no study: {self._reasons()}")
            nothing_left.account = (self.account,)
            raise nothing_left
        study_of_row = pd.factorize(frame["patient"] + "\0" + frame["study"])[0]
        order = np.argsort(study_of_row, kind="stable")
        starts = np.flatnonzero(np.diff(study_of_row[order], prepend=-1))
        first = order[starts]  # row in which each study appears first
        positive, negative, uncertain = (
            np.logical_or.reduceat(labels[order] == label, starts, axis=0)
            for label in (Label.POSITIVE, Label.NEGATIVE, Label.UNCERTAIN)
        )
        for s, k in np.argwhere(positive & negative):
            self._add_contradiction(study_of_row == s, finding=findings[k], labels=labels[:, k])
        self.problems.raise_if_any(account=self.account)

        images = (np.empty(len(starts), object), np.empty(len(starts), object))
        for view in View:
            paths: list[list[str]] = [[] for _ in starts]
            rows = np.flatnonzero(frame["view"].to_numpy() == view)
            for s, path in zip(study_of_row[rows], frame["path"].to_numpy()[rows], strict=True):
                paths[s].append(path)
            for s, study_paths in enumerate(paths):
                images[view][s] = tuple(study_paths)

        def column(name: str) -> np.ndarray:
            return frame[name].to_numpy(dtype=object)[first]

        known = positive | negative
        table = StudyTable(
            findings=tuple(findings),
            study_ids=column("study"),
            patient_ids=column("patient"),
            images=images,
            labels=positive.astype(np.float32),
            label_mask=known,
            uncertain=uncertain & ~known,
            split=column("split") if "split" in frame and (frame["split"] != "").all() else None,
            attributes={name: column(name) for name in attributes},
        )
        self._note_joined()
        return SourceTable(
            **vars(self.account),
            table=table,
            open_images=partial(FileImages, self.source.root, intensity_max=self.source.intensity_max),
        )

    def _check_rows(self) -> None:
        frame = self.frame
        root, has_files = self.source.root, self.source.check_files
        self.add_remarks(add_listed_twice(self.problems, frame, root=root, has_files=has_files))
        if self.source.identifiers == "checked":
            add_unusable(self.problems, frame)
            add_alike(self.problems, frame)
        if "split" in frame:
            patients = frame.groupby("patient", sort=False)
            split, line_of_split = patients["split"].transform("first"), patients["line"].transform("first")
            for row in np.flatnonzero(frame["split"] != split):
                self.problems.add(
                    frame["line"].iloc[row],
                    "split is {}, but the same patient is in {} in {}",
                    frame["split"].iloc[row],
                    split.iloc[row],
                    self.problems.line(int(line_of_split.iloc[row])),
                )

    def _add_contradiction(self, rows: np.ndarray, *, finding: str, labels: np.ndarray) -> None:
        known = [
            (int(line), int(label))
            for line, label in zip(self.frame["line"][rows], labels[rows], strict=True)
            if label in (Label.POSITIVE, Label.NEGATIVE)
        ]
        for line, label in known:
            if label != known[0][1]:
                self.problems.add(
                    line,
                    "{} is {}, but {} in {} of the same study",
                    finding,
                    label,
                    known[0][1],
                    self.problems.line(known[0][0]),
                )

    def _reasons(self) -> str:
        if not self._dropped:
            return "it has no usable row"
        counts = pd.concat(self._dropped)["reason"].value_counts()
        return ", ".join(f"{count} image(s) left out because {reason}" for reason, count in counts.head(5).items())


def _paths_of_lines(frame: pd.DataFrame) -> dict[int, str]:
    return dict(zip(frame["line"].tolist(), frame["path"].tolist(), strict=True))


def check_root(source: SourceConfig) -> None:
    """Raises: UserError where images are wanted and `data.root` is no folder."""
    if source.check_files and (source.root is None or not source.root.is_dir()):
        raise UserError(
            f"data.root {source.root} is not a folder; give the folder that holds the images, or set "
            "data.check_files=false to work from the tables alone"
        )


def find_table(source: SourceConfig, *, names: Sequence[str]) -> Path:
    """`data.csv`, or the first of these names that is in `data.root`.

    Raises:
        UserError: neither `data.csv` nor one of the names is there.
    """
    if source.csv is not None:
        return source.csv
    assert source.root is not None  # SourceConfig has checked it.
    for name in names:
        if (source.root / name).is_file():
            return source.root / name
    raise UserError(f"no table in {source.root}: looked for {', '.join(names)}; give data.csv")
