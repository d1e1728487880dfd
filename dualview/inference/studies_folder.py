"""Studies to predict, from a folder of images in any arrangement.

- DICOM files, known by their content: study and view are those of their tags (data/sources/dicom.py).
- Other images say what they are by their names: `S1_pa.png` and `S1_lateral.jpg` are study S1, and so are
  `S1/pa.png` and `S1/lateral.jpg`; `frontal` stands for pa and `lat` for lateral, in any case. Below a further folder
  the study is `folder/S1`.

The folder is listed, and DICOM headers are read, before the first study is known to be complete; so this keeps a
few hundred bytes per file, where a CSV needs almost nothing. Of several images of a view the first by name is
used, as in evaluation. An image without a study or view becomes a row of its own, under its path, with the reason.
"""

import hashlib
import logging
import os
import re
from pathlib import Path

from dualview.data.sources import dicom
from dualview.errors import UserError
from dualview.inference.studies import StudyRequest
from dualview.views import View

logger = logging.getLogger(__name__)

IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
DICOMS = (".dcm", ".dicom", ".dic")
NAMED = re.compile(r"(?:(?P<study>.*)[_\-. ])?(?P<view>pa|frontal|lateral|lat)", re.IGNORECASE)
VIEW_OF_POSITION = dict.fromkeys(dicom.FRONTAL, View.PA) | dict.fromkeys(dicom.LATERAL, View.LATERAL)
UNNAMED = "the name does not say study and view; call it STUDY_pa or STUDY_lateral, or STUDY/pa or STUDY/lateral"


def list_studies(folder: Path) -> tuple[list[StudyRequest], str]:
    """Studies by the first of their files in alphabetical order, and a SHA-256 of names, sizes and times of all files.

    Raises:
        UserError: no such folder, no image in it, or DICOM files and pydicom is not installed.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder")
    digest = hashlib.sha256()
    pictures, dicoms, num_others = [], [], 0
    for name in _files(folder):
        suffix = Path(name).suffix.lower()
        if suffix in DICOMS or _is_dicom(folder / name):
            dicoms.append(name)
        elif suffix in IMAGES:
            pictures.append(name)
        else:
            num_others += 1
            continue
        digest.update(f"{name}\0{_state(folder / name)}\n".encode("utf-8", "surrogateescape"))
    if not pictures and not dicoms:
        raise UserError(f"{folder} holds no DICOM file and no {', '.join(IMAGES)}")
    if num_others:
        logger.info("%d file(s) are neither DICOM nor %s and are not looked at", num_others, ", ".join(IMAGES))
    found = [_named(name) for name in pictures] + (_tagged(folder, dicoms) if dicoms else [])
    studies: dict[str, tuple[list[str | None], list[str]]] = {}
    for name, study, view, reason in sorted(found):
        images, reasons = studies.setdefault(study or name, ([None, None], []))
        if view is None:
            reasons.append(reason)
        elif images[view] is None:
            images[view] = name
    listed = [
        StudyRequest((images[View.PA], images[View.LATERAL]), tuple(dict.fromkeys(reasons)), study, row=row)
        for row, (study, (images, reasons)) in enumerate(studies.items())
    ]
    return listed, digest.hexdigest()


Found = tuple[str, str, View | None, str]  # (name, study or blank, view, reason for no view)


def _named(name: str) -> Found:
    """What the name of a picture says."""
    path = Path(name)
    match = NAMED.fullmatch(path.stem)
    parent = path.parent.as_posix()
    if match is None or (not match["study"] and parent == "."):
        return name, "", None, UNNAMED
    view = View.LATERAL if match["view"].lower().startswith("lat") else View.PA
    study = "/".join(part for part in (parent, match["study"]) if part and part != ".")
    return name, study, view, ""


def _tagged(folder: Path, names: list[str]) -> list[Found]:
    """What the tags of DICOM files say."""
    headers = dicom.read_headers(folder, names)
    found: list[Found] = []
    headers = headers[["path", "problem", "study", "position", "modality"]]
    for name, problem, study, position, modality in headers.itertuples(index=False):
        if problem or not study:
            found.append((name, "", None, problem or "StudyInstanceUID is blank"))
        elif modality not in dicom.MODALITIES:
            found.append((name, study, None, f"modality is {modality}"))
        else:
            found.append((name, study, VIEW_OF_POSITION.get(position), f"view is {position or 'not given'}"))
    return found


def _files(folder: Path) -> list[str]:
    """Paths relative to the folder, sorted; hidden ones and DICOMDIR are left out."""
    return sorted(
        (Path(parent) / name).relative_to(folder).as_posix()
        for parent, _, names in os.walk(folder)
        for name in names
        if name != "DICOMDIR" and not name.startswith(".")
    )


def _state(file: Path) -> str:
    """Size and time of a file; blank for a link to nowhere."""
    try:
        state = file.stat()
    except OSError:
        return ""
    return f"{state.st_size} {state.st_mtime_ns}"


def _is_dicom(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            return opened.read(132)[128:] == b"DICM"
    except OSError:
        return False
