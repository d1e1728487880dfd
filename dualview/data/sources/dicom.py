"""A folder of DICOM files, in any arrangement: one image per file, grouped by PatientID and StudyInstanceUID.

The view is taken from ViewPosition (0018,5101); where that says nothing from the codes of
ViewCodeSequence (0054,0220; DICOM PS3.16, CID 4010); then from words of SeriesDescription; else the image
is left out as of unknown view. Labels come from a table at `data.csv`, one row per study: the column
`data.columns.study` holds the StudyInstanceUID or the AccessionNumber.
"""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from dualview.config import DataConfig, SourceConfig
from dualview.data.sources.csv import add_wrong_labels, label_codes
from dualview.data.sources.image_rows import ImageRows, Label, SourceTable, check_root, text_table
from dualview.errors import UserError

FRONTAL, LATERAL = ("PA", "AP"), ("LATERAL",)
POSITION_OF_TAG = {"PA": "PA", "AP": "AP", "LATERAL": "LATERAL", "LL": "LATERAL", "RL": "LATERAL", "L": "LATERAL"}
# SNOMED CT and SNOMED RT codes of CID 4010 "DX View".
VIEW_CODES = {
    "272479007": "PA", "R-10214": "PA", "272460009": "AP", "R-10206": "AP", "399067008": "LATERAL",
    "R-10236": "LATERAL", "399198007": "LATERAL", "R-10232": "LATERAL", "399173006": "LATERAL", "R-10228": "LATERAL",
}  # fmt: skip
WORDS = {
    "LATERAL": re.compile(r"\b(lat|lateral|seitlich|profil|ll|rl)\b", re.IGNORECASE),
    "PA": re.compile(r"\b(pa|p\.a\.)\b", re.IGNORECASE),
    "AP": re.compile(r"\b(ap|a\.p\.)\b", re.IGNORECASE),
}
TAGS = (
    "PatientID", "StudyInstanceUID", "AccessionNumber", "StudyDate", "StudyTime", "ViewPosition", "ViewCodeSequence",
    "SeriesDescription", "PatientSex", "PatientAge", "Manufacturer", "Modality",
)  # fmt: skip
MODALITIES = ("CR", "DX", "DR", "RF", "XR", "OT", "")
LOADED = (
    "path",
    "problem",
    "patient",
    "study",
    "accession",
    "date",
    "position",
    "sex",
    "age",
    "manufacturer",
    "modality",
)


def read(source: SourceConfig, *, data: DataConfig, seed: int) -> SourceTable:
    """Studies of all DICOM files under `data.root`.

    Raises:
        UserError: pydicom is not installed, no usable file, or problems of the table of labels.
    """
    check_root(source)
    if source.root is None or not source.root.is_dir():
        raise UserError(f"data.root {source.root} is not a folder; source dicom reads the files themselves")
    files = sorted(
        (Path(folder) / name).relative_to(source.root).as_posix()
        for folder, _, names in os.walk(source.root)
        for name in names
        if name != "DICOMDIR" and not name.startswith(".")
    )
    if not files:
        raise UserError(f"data.root {source.root} holds no file")
    frame = read_headers(source.root, files)
    frame.insert(0, "line", np.arange(len(frame)) + 1)
    rows = ImageRows(frame, file=source.root, source=source)
    rows.drop(rows.frame["problem"] != "", rows.frame["problem"])
    rows.drop(~rows.frame["modality"].isin(MODALITIES), "modality is " + rows.frame["modality"])
    rows.drop((rows.frame["patient"] == "") | (rows.frame["study"] == ""), "PatientID or StudyInstanceUID is blank")
    rows.assign_views(rows.frame["position"], frontal=FRONTAL, lateral=LATERAL)
    findings, labels = _labels(rows.frame, source=source)
    return rows.studies(findings=findings, labels=labels, attributes=["date", "sex", "age", "manufacturer"])


def read_headers(root: Path, files: list[str]) -> pd.DataFrame:
    """A row of texts per file with the columns `LOADED`; `problem` says why a file cannot be used, or is blank.

    Raises:
        UserError: pydicom is not installed.
    """
    with ThreadPoolExecutor() as pool:  # Threads help, as most of the time is waiting for the disk.
        headers = list(pool.map(lambda name: _header(root, name), files))
    return pd.DataFrame(headers, columns=list(LOADED), dtype=object)


def _header(root: Path, name: str) -> tuple[str, ...]:
    """`LOADED` of one file; `problem` says why it cannot be used."""
    try:
        import pydicom  # noqa: PLC0415 - an extra
    except ImportError:
        raise UserError("source dicom needs pydicom: pip install 'dualview[dicom]'") from None
    blank = ("",) * (len(LOADED) - 2)
    try:
        header = pydicom.dcmread(root / name, stop_before_pixels=True, specific_tags=list(TAGS))
        values = {tag: str(header.get(tag, "") or "").strip() for tag in TAGS if tag != "ViewCodeSequence"}
        position = view_of(
            values["ViewPosition"],
            codes=[str(item.get("CodeValue", "")) for item in header.get("ViewCodeSequence") or []],
            description=values["SeriesDescription"],
        )
    except Exception:  # A broken file makes pydicom raise anything.
        return (name, "is not a DICOM file", *blank)
    return (
        name, "", values["PatientID"], values["StudyInstanceUID"], values["AccessionNumber"],
        f"{values['StudyDate']} {values['StudyTime']}".strip(), position, values["PatientSex"],
        values["PatientAge"].lstrip("0").removesuffix("Y"), values["Manufacturer"], values["Modality"],
    )  # fmt: skip


def view_of(position: str, *, codes: list[str], description: str) -> str:
    """PA, AP or LATERAL; blank where nothing says so, or words contradict each other.

    Args:
        position: ViewPosition.
        codes: code values of ViewCodeSequence.
        description: SeriesDescription.
    """
    if position.upper() in POSITION_OF_TAG:
        return POSITION_OF_TAG[position.upper()]
    if position:
        return position  # another view, such as LLD
    coded = {VIEW_CODES[code] for code in codes if code in VIEW_CODES}
    if not coded:
        coded = {view for view, words in WORDS.items() if words.search(description)}
    return coded.pop() if len(coded) == 1 else ""


def _labels(frame: pd.DataFrame, *, source: SourceConfig) -> tuple[list[str], np.ndarray]:
    """Findings and labels (rows, K) from the table of labels; without a table all are unknown.

    Raises:
        UserError: problems of the table.
    """
    findings = {finding: names[0] for finding, names in source.findings.items()}
    if source.csv is None or not findings:
        return list(findings), np.full((len(frame), len(findings)), Label.UNKNOWN, np.int8)
    key = source.columns.study
    table = text_table(
        source.csv, columns=[key, *findings.values()], hint="Name yours in data.columns.study, data.findings"
    )
    label_rows = ImageRows(table, file=source.csv, source=source)
    for line, study in table.loc[table[key].duplicated() | (table[key] == ""), ["line", key]].itertuples(index=False):
        label_rows.problems.add(line, "{} {} is blank or comes twice; each study needs one row", key, repr(study))
    add_wrong_labels(label_rows.problems, table, columns=findings)
    label_rows.problems.raise_if_any()
    at = pd.Index(table[key])
    by_uid, by_accession = at.get_indexer(frame["study"]), at.get_indexer(frame["accession"])
    row = np.where(by_uid >= 0, by_uid, np.where(frame["accession"] != "", by_accession, -1))
    coded = label_codes(table, columns=findings)
    return list(findings), np.where(row[:, None] >= 0, coded[row], np.int8(Label.UNKNOWN))
