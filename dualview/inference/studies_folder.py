"""Studies to predict, from a folder of images in any arrangement.

- DICOM files, known by their content: study, view and part of the body are those of their tags, read as for training
  (data/sources/dicom.py).
- Other images say what they are by their names: `S1_pa.png` and `S1_lateral.jpg` are study S1, and so are
  `S1/pa.png` and `S1/lateral.jpg`; a view has the names of data/sources/dicom_views.py, in any case, where `frontal`
  stands for pa. Below a further folder the study is `folder/S1`. A number before the view tells images of one study
  apart, as in CheXpert's `patient1/study1/view1_frontal.jpg`, which is of study `patient1/study1` (`_counters`);
  of the folder itself `view1_frontal.jpg` is of a study that has its name.

Views take the branches that the run's settings give them. The folder is listed, and DICOM headers are read, before the
first study is known to be complete; so this keeps a few hundred bytes per file, where a CSV needs almost nothing. Of
several images of a view the first is used, as in evaluation, and where it cannot be read the next. An image without a
study or view becomes a row of its own, under its path, with the reason.
"""

import hashlib
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dualview.config import SourceConfig
from dualview.data.sources import dicom
from dualview.data.sources.dicom_views import FRONTAL, Branches, branch_of, branches, named_view
from dualview.errors import UserError
from dualview.folders import (
    DICOM_SUFFIXES,
    PICTURE_SUFFIXES,
    begins_dicom,
    head_of,
    list_files,
    may_be_image,
    picture_format,
)
from dualview.inference.studies import StudyRequest, request_of
from dualview.views import View

logger = logging.getLogger(__name__)

NAMED = re.compile(
    r"(?:(?P<study>.*?)[_\-. ])?(?P<view>p\.?a\.?|a\.?p\.?|(?:(?:left|right)[_\-. ])?[^\W\d_]{2,})", re.IGNORECASE
)
COUNTER = re.compile(r"(?P<of>view|img|image|im|pic|picture|)[_\-. ]?(?P<number>\d+)", re.IGNORECASE)
UNNAMED = "the name does not say study and view; call it STUDY_pa or STUDY_lateral, or STUDY/pa or STUDY/lateral"


class _Image(NamedTuple):
    """What is known of one image."""

    name: str
    study: str  # study, blank where it is not known
    view: View | None
    reason: str  # why there is no view
    place: int = 0  # place among the images of the study
    note: str = ""  # what is said where the image is the first of its view
    rank: int = 0  # position in `dicom.RANKS`, the first choice first


def list_studies(
    folder: Path, *, sources: Sequence[SourceConfig] = (), takes_all: bool = False
) -> tuple[list[StudyRequest], str]:
    """Studies by the first of their files in alphabetical order, and a SHA-256 of names, sizes and times of all files.

    Args:
        sources: of the run, for the views that take each branch; without any the defaults.
        takes_all: all images of a view count; then DICOM files that are not the first choice, such as raw data, are
            left out where the study has a better one of the view, as in training.

    Raises:
        UserError: no such folder, no image in it, or DICOM files and pydicom is not installed.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder")
    settings = list(sources) or [SourceConfig()]
    listing = list_files(folder)
    pictures, dicoms, num_others = [], [], 0
    unreadable = [(name, reason) for name, reason in listing.unreadable if may_be_image(name)]
    for name in listing.files:
        if dicom.is_index(name):
            continue
        head, reason = head_of(folder / name)
        suffix = Path(name).suffix.lower()
        if reason and may_be_image(name):
            unreadable.append((name, reason))
        elif picture_format(head) or (suffix in PICTURE_SUFFIXES and not begins_dicom(head)):
            pictures.append(name)
        elif begins_dicom(head) or suffix in DICOM_SUFFIXES:
            dicoms.append(name)
        else:
            num_others += 1
    if not pictures and not dicoms and not unreadable:
        raise UserError(f"{folder} holds no DICOM file and no {', '.join(PICTURE_SUFFIXES)}")
    if num_others:
        logger.info("%d file(s) are neither DICOM nor pictures and are not looked at", num_others)
    found = _named(folder, pictures, of_views=[branches(source) for source in settings])
    if dicoms:
        found += _tagged(folder, dicoms, sources=settings)
    found += [_Image(name, "", None, reason) for name, reason in unreadable]
    digest = hashlib.sha256()
    for name in sorted([*pictures, *dicoms, *(name for name, _ in unreadable)]):
        digest.update(f"{name}\0{_state(folder / name)}\n".encode("utf-8", "surrogateescape"))
    return _studies(found, takes_all=takes_all), digest.hexdigest()


def _studies(found: list[_Image], *, takes_all: bool) -> list[StudyRequest]:
    """Images put together; studies by the first name, images of a study by their place and then by name."""
    studies: dict[str, list[_Image]] = {}
    for image in sorted(found):
        studies.setdefault(image.study or image.name, []).append(image)
    requests = []
    for row, (study, images) in enumerate(studies.items()):
        images.sort(key=lambda image: image.place)
        by_view = [[image for image in images if image.view == view] for view in View]
        if takes_all:
            by_view = [
                [one for one in of_view if one.rank == min(each.rank for each in of_view)] for of_view in by_view
            ]
        reasons = [image.reason for image in images if image.view is None]
        reasons += [f"{view.key}: {by_view[view][0].note}" for view in View if by_view[view] and by_view[view][0].note]
        pa, lateral = ([image.name for image in of_view] for of_view in by_view)
        request = request_of((pa, lateral), reasons=reasons, study=study)
        requests.append(request._replace(row=row))
    return requests


def _named(folder: Path, names: list[str], *, of_views: list[Branches]) -> list[_Image]:
    """What the names of pictures say."""
    parsed: dict[str, tuple[str, str, str]] = {}  # name -> folder, study within it, view
    found = []
    for name in names:
        path = Path(name)
        match = NAMED.fullmatch(path.stem if path.suffix[1:].isalnum() else path.name)
        view = named_view(match["view"]) if match else ""
        parent = "" if path.parent == Path() else path.parent.as_posix()
        if match is None or not view or not (match["study"] or parent):
            found.append(_Image(name, "", None, UNNAMED))
        else:
            parsed[name] = (parent, match["study"] or "", view)
    counters = _counters(list(parsed.values()))
    for name, (parent, within, view) in parsed.items():
        study = "/".join(part for part in (parent, "" if (parent, within) in counters else within) if part)
        study = study or folder.resolve().name  # This folder holds the pictures of one study.
        branch = View.PA if view == "FRONTAL" else branch_of(of_views, view=view)
        found.append(_Image(name, study, branch, "" if branch is not None else f"view is {view}"))
    return found


def _counters(parsed: list[tuple[str, str, str]]) -> set[tuple[str, str]]:
    """Of (folder, study within it, view) those (folder, study within it) that only count the images of a folder.

    `view1` always does. `img1`, or 1 alone, does where a folder below has no more than one frontal and one lateral
    picture, and each its own number, one after the other: otherwise it is the study's name.
    """
    folders: dict[str, list[tuple[str, str]]] = {}
    for folder, within, view in parsed:
        folders.setdefault(folder, []).append((within, "frontal" if view in FRONTAL else view))
    counters = set()
    for folder, pictures in folders.items():
        matches = {within: COUNTER.fullmatch(within) for within, _ in pictures}
        counters |= {(folder, within) for within, match in matches.items() if match and match["of"].lower() == "view"}
        numbers = sorted(int(match["number"]) for match in matches.values() if match)
        views = [view for _, view in pictures]
        is_pair = folder != "" and len(pictures) == len(numbers) == len(set(views)) == 2
        if is_pair and numbers[0] in (0, 1) and numbers[1] == numbers[0] + 1:
            counters |= {(folder, within) for within in matches}
    return counters


def _tagged(folder: Path, names: list[str], *, sources: list[SourceConfig]) -> list[_Image]:
    """What the tags of DICOM files say."""
    described = dicom.described(folder, names, sources=sources)
    for remark in described.remarks:
        logger.warning("%s", remark)
    frame = described.frame
    # Careless anonymisation gives one identifier to the studies of several patients.
    num_patients = frame["patient"].where(frame["patient"] != "").groupby(frame["study"]).transform("nunique")
    is_shared = (num_patients > 1) & (frame["study"] != "")
    if is_shared.any():
        logger.warning("%d image(s) have a StudyInstanceUID of several patients; their studies are PATIENT/STUDY",
                       is_shared.sum())  # fmt: skip
    columns = frame.assign(study=frame["study"].mask(is_shared, frame["patient"] + "/" + frame["study"]))
    columns = columns[["path", "study", "view", "rank", "reason"]]
    found = []
    for place, (name, study, view, rank, reason) in enumerate(columns.itertuples(index=False)):
        why = reason or ("" if study else "StudyInstanceUID is blank")
        note = dicom.no_better(rank) if rank == dicom.RAW else ""
        found.append(_Image(name, study, None if why else View(view), why, place, note, rank))
    return found + [_Image(name, "", None, reason) for name, reason in described.unreadable]


def _state(file: Path) -> str:
    """Size and time of a file; blank for a link to nowhere."""
    try:
        state = file.stat()
    except OSError:
        return ""
    return f"{state.st_size} {state.st_mtime_ns}"
