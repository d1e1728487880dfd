"""A folder of DICOM files, in any arrangement: one image per file, grouped by PatientID and StudyInstanceUID.

View and part of the body are read by one table (dicom_views.py, body_parts.py): an image of another part, or of a view
that is neither frontal nor lateral, is left out and counted. Of several images of a view one that was made to be looked
at comes first: derived images, secondary captures and raw data FOR PROCESSING come after it, in this order.
Labels come from a table at `data.csv`, one row per study: the column `data.columns.study` holds the StudyInstanceUID
or the AccessionNumber.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd

from dualview.config import DataConfig, SourceConfig
from dualview.data.people import IMPLAUSIBLE, ages, ages_at, sexes
from dualview.data.remarks import Remark, count_remarks
from dualview.data.sources.body_parts import body_part
from dualview.data.sources.csv import add_wrong_labels, label_codes
from dualview.data.sources.dicom_headers import read_headers
from dualview.data.sources.dicom_views import branch_of, branches, view_of
from dualview.data.sources.image_rows import ImageRows, Label, SourceTable, check_root
from dualview.data.sources.label_join import rows_of_labels
from dualview.data.sources.problems import Problems
from dualview.data.sources.text_table import text_rows
from dualview.errors import UserError, told_by_reason
from dualview.folders import list_files, may_be_image

MODALITIES = ("CR", "DX", "DR", "RF", "RG", "XR", "OT", "")
SERIES_TEXTS = ["series_description", "protocol", "processing"]  # columns that describe one view, not a whole study
TEXTS_OF_PARTS = [*SERIES_TEXTS, "performed", "requested", "study_description"]
FOR_PROCESSING_CLASSES = ("1.2.840.10008.5.1.4.1.1.1.1.1", "1.2.840.10008.5.1.4.1.1.1.2.1")
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # the class, and how the classes of its siblings begin
RANKS = ("", "a derived image", "a secondary capture", "raw data FOR PROCESSING")
"""What an image is, the first choice first."""
RAW = len(RANKS) - 1


class Found(NamedTuple):
    """DICOM files, with the images of each study and view in the order in which they are to be tried."""

    frame: pd.DataFrame  # columns of `described`
    remarks: tuple[Remark, ...]
    unreadable: list[tuple[str, str]]  # (path, reason) of files and folders that cannot be opened


def read(source: SourceConfig, *, data: DataConfig, seed: int) -> SourceTable:
    """Studies of all DICOM files under `data.root`.

    With `data.several_images` or `data.several_images_at_test` other than `first`, and with
    `cohort.one_image_per_view`, images that are not the first choice are left out where a study has a better one of the
    view; otherwise they are tried where that cannot be read.

    Raises:
        UserError: pydicom is not installed, files or folders that cannot be opened, no usable file, or problems of the
            table of labels.
    """
    check_root(source)
    if source.root is None or not source.root.is_dir():
        raise UserError(f"data.root {source.root} is not a folder; source dicom reads the files themselves")
    listing = list_files(source.root)
    files = [name for name in listing.files if not is_index(name)]
    if not files and not listing.unreadable:
        raise UserError(f"data.root {source.root} holds no file")
    found = described(source.root, files, sources=[source])
    unreadable = sorted(listing.unreadable + found.unreadable)
    others = pd.DataFrame(unreadable, columns=["path", "reason"], dtype=object)
    frame = pd.concat([found.frame, others.assign(view=-1, rank=0)], ignore_index=True)
    frame.insert(0, "line", np.arange(len(frame)) + 1)
    rows = ImageRows(frame, file=source.root, source=source)
    rows.add_remarks(found.remarks)
    rows.drop(rows.frame["reason"] != "", rows.frame["reason"], rule="file is no chest image of a view that is used")
    rows.drop((rows.frame["patient"] == "") | (rows.frame["study"] == ""), "PatientID or StudyInstanceUID is blank")
    wanted = [(path, reason) for path, reason in unreadable if may_be_image(path)]
    if wanted and source.on_missing_file != "drop":
        raise _cannot_be_opened(wanted, rows=rows)
    if source.identifiers == "checked":
        _add_studies_of_several(rows)
    best = rows.frame.groupby(["patient", "study", "view"])["rank"].transform("min")
    if {data.several_images, data.several_images_at_test} != {"first"} or source.cohort.one_image_per_view:
        worse = rows.frame["rank"] > best
        reason = rows.frame["rank"].map(lambda rank: f"{RANKS[rank]}, and there is a better image of the view")
        rows.drop(worse, reason, rule="there is a better image of the view")
        best = rows.frame["rank"]
    is_first = ~rows.frame.duplicated(["patient", "study", "view"])
    for rank in range(1, len(RANKS)):
        rows.remark(is_first & (best == rank), no_better(rank))
    findings, labels = _labels(rows, source=source)
    return rows.studies(findings=findings, labels=labels, attributes=["date", "sex", "age", "manufacturer"])


def no_better(rank: int) -> str:
    """What is said of an image that is used although it is not of the first choice."""
    return f"{RANKS[rank]} is used, as the study has no better image of the view"


def is_index(name: str) -> bool:
    """Whether a file is the index of a DICOM medium (PS3.10, 8.6)."""
    return Path(name).name.upper() == "DICOMDIR"


def described(root: Path, files: list[str], *, sources: list[SourceConfig]) -> Found:
    """What the headers of files say, for training and for prediction alike.

    The columns are `path`, `patient`, `study`, `accession`, `date`, `sex`, `age`, `manufacturer`; `view` (of `View`)
    and `rank` (int, position in `RANKS`); `reason`, why an image is left out, blank where it is used.

    Args:
        sources: settings that say which views take which branch: the first that knows a view decides.

    Raises:
        UserError: pydicom is not installed, or a view in two lists of a source.
    """
    headers, remarks = read_headers(root, files)
    of_views = [branches(source) for source in sources]
    chests = [name for source in sources for name in source.body_parts]
    unreadable = list(
        headers.loc[headers["unreadable"] != "", ["path", "unreadable"]].itertuples(index=False, name=None)
    )
    frame = headers[headers["unreadable"] == ""].reset_index(drop=True)
    said = _by_distinct(
        frame[["position", "views", "orientation", *SERIES_TEXTS]],
        lambda position, codes, orientation, *texts: view_of(
            position, codes=codes, orientation=orientation, descriptions=texts
        ),
    )
    parts = _by_distinct(
        frame[["examined", "regions", *TEXTS_OF_PARTS]],
        lambda examined, regions, *texts: body_part(examined, regions=regions, descriptions=texts, chests=chests),
    )
    views = [branch_of(of_views, view=view.view, own=view.own) for view in said]
    modality = frame["modality"]
    reason = frame["problem"]
    reason = reason.mask((reason == "") & ~modality.isin(MODALITIES), "modality is " + modality)
    reason = reason.mask(reason == "", pd.Series([part.reason for part in parts], dtype=object))
    no_view = [
        "" if branch is not None else f"view is {view.view}" if view.view else "view is not given"
        for branch, view in zip(views, said, strict=True)
    ]
    reason = reason.mask(reason == "", pd.Series(no_view, dtype=object))
    at_study = ages_at(frame["date"], born=frame["born"])
    age, is_implausible = ages(frame["age"].where(frame["age"] != "", at_study))
    frame = frame.drop(columns="born").assign(
        date=(frame["date"] + " " + frame["time"]).str.strip().where(frame["date"] != "", ""),
        sex=sexes(frame["sex"]),
        age=age,
        is_implausible=is_implausible,
        view=np.array([-1 if branch is None else int(branch) for branch in views], dtype=int),
        rank=_ranks(frame),
        reason=reason,
    )
    frame = _in_order(frame)
    frame = _without_copies(frame)
    used = frame[frame["reason"] == ""]
    oddities: list[tuple[str, str]] = [(IMPLAUSIBLE, path) for path in used["path"][used["is_implausible"]]]
    oddities += [
        (what.remark, used["path"][row]) for row in used.index for what in (said[row], parts[row]) if what.remark
    ]
    several = used[(used["instance"] != "") & used.duplicated("instance")]
    oddities += [("SOPInstanceUID stands in another study or view as well", path) for path in several["path"]]
    return Found(frame, (*remarks, *count_remarks(oddities)), unreadable)


Answer = TypeVar("Answer")


def _by_distinct(columns: pd.DataFrame, answer: Callable[..., Answer]) -> list[Answer]:
    """The answer to each row; equal rows are asked once, as a folder has few different ones."""
    answers: dict[tuple[object, ...], Answer] = {}
    rows = list(columns.itertuples(index=False, name=None))
    for row in rows:
        if row not in answers:
            answers[row] = answer(*row)
    return [answers[row] for row in rows]


def _ranks(frame: pd.DataFrame) -> np.ndarray:
    """(rows,) int, position in `RANKS` of what each image is."""
    is_raw = frame["intent"].str.upper().str.startswith("FOR PROC") | frame["sop_class"].isin(FOR_PROCESSING_CLASSES)
    sop_class = frame["sop_class"]
    is_capture = (sop_class == SECONDARY_CAPTURE) | sop_class.str.startswith(f"{SECONDARY_CAPTURE}.")
    is_derived = frame["image_type"].str.upper().str.contains(r"^DERIVED|^[^\\]*\\SECONDARY")  # PS3.3, C.7.6.1.1.2
    ranks: np.ndarray = np.select([is_raw, is_capture, is_derived], [3, 2, 1], 0)
    return ranks


def _in_order(frame: pd.DataFrame) -> pd.DataFrame:
    """Studies as they come; the images of each by rank, then by the numbers of series and image, then by path."""
    study = pd.factorize(frame["patient"] + "\0" + frame["study"])[0]
    numbers = [
        pd.to_numeric(frame[column], errors="coerce").fillna(np.inf) for column in ("instance_number", "series_number")
    ]
    keys = [np.arange(len(frame)), *numbers, frame["rank"], study]
    return frame.iloc[np.lexsort([np.asarray(key) for key in keys])]


def _without_copies(frame: pd.DataFrame) -> pd.DataFrame:
    """With a reason for images that stand in another file as well; the largest stays, as smaller ones may be torn."""
    named = (frame["reason"] == "") & (frame["instance"] != "")
    largest_first = frame[named].sort_values("num_bytes", ascending=False, kind="stable")
    is_copy = largest_first.duplicated(["patient", "study", "view", "instance"]).reindex(frame.index, fill_value=False)
    return frame.assign(reason=frame["reason"].mask(is_copy, "is a copy of another file (equal SOPInstanceUID)"))


def _cannot_be_opened(unreadable: list[tuple[str, str]], *, rows: ImageRows) -> UserError:
    """The error that names them."""
    error = UserError(
        f"data.root {rows.file}: {len(unreadable)} file(s) or folder(s) cannot be read\n{told_by_reason(unreadable)}\n"
        "Mend or fetch them, or set data.on_missing_file=drop to leave them out"
    )
    error.details = [f"{path}: {reason}" for path, reason in unreadable]
    error.account = (rows.account,)
    return error


def _add_studies_of_several(rows: ImageRows) -> None:
    """Add images whose StudyInstanceUID, which no other study in the world has, stands under another patient before."""
    frame = rows.frame
    of_study = frame.groupby("study", sort=False)
    first, line_of_first = of_study["patient"].transform("first"), of_study["line"].transform("first")
    for n in np.flatnonzero(frame["patient"] != first):
        rows.problems.add(
            frame["line"].iloc[n],
            "is of patient {}, but {} of the same study is of {}: one of them could be trained on and the other "
            "tested; mend PatientID, or say that the studies differ: data.identifiers=exact",
            repr(frame["patient"].iloc[n]),
            rows.problems.line(int(line_of_first.iloc[n])),
            repr(first.iloc[n]),
        )


def _labels(rows: ImageRows, *, source: SourceConfig) -> tuple[list[str], np.ndarray]:
    """Findings and labels (rows, K) from the table of labels; without a table all are unknown.

    Raises:
        UserError: problems of the table, or studies that it does not know.
    """
    frame = rows.frame
    findings = {finding: names[0] for finding, names in source.findings.items()}
    if source.csv is None or not findings or frame.empty:
        return list(findings), np.full((len(frame), len(findings)), Label.UNKNOWN, np.int8)
    key = source.columns.study
    read = text_rows(
        source.csv, columns=[key, *findings.values()], hint="Name yours in data.columns.study, data.findings"
    )
    table, lines = read.cells, read.lines
    problems = Problems(source.csv)
    for n in np.flatnonzero(table[key].duplicated() | (table[key] == "")):
        study = repr(table[key].iloc[n])
        problems.add(lines[n], "{} {} is blank or comes twice; each study needs one row", key, study)
    add_wrong_labels(problems, table, lines=lines, columns=findings)
    problems.raise_if_any(account=rows.account)
    row, remarks = rows_of_labels(
        [frame["study"], frame["accession"]], labelled=table[key], file=source.csv, source=source
    )
    rows.add_remarks(remarks)
    coded = label_codes(table, columns=findings)
    return list(findings), np.where(row[:, None] >= 0, coded[row], np.int8(Label.UNKNOWN))
