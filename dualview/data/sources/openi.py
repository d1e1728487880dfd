"""Open-i, the Indiana University collection (Demner-Fushman et al. 2016, doi:10.1093/jamia/ocv080), in both forms.

- Two CSVs (as on Kaggle): indiana_projections.csv (uid, filename, projection) and indiana_reports.csv
  (uid, MeSH, Problems, ...), images in images/images_normalized/ or images/.
- The NLM's XML reports (ecgen-radiology/*.xml: uId, MeSH/major, parentImage) with a table of DICOM
  metadata (imageid, View Position), as torchxrayvision ships one; images as IMAGEID.png. Views are those of
  openi_views.py, since View Position calls laterals PA.

A report is a study and, as no more is known, a patient. Labels are the first parts of MeSH headings,
in lower case: "Opacity/lung/base/left" is "opacity". A report without a heading is unlabelled, one
that is "normal" is negative for all.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from dualview.config import DataConfig, SourceConfig
from dualview.data.people import IMPLAUSIBLE, ages, ages_at, sexes
from dualview.data.sources.image_rows import ImageRows, LabelNames, SourceTable, check_root
from dualview.data.sources.label_join import rows_of_labels
from dualview.data.sources.openi_views import PROJECTIONS, assign_positions
from dualview.data.sources.text_table import text_table
from dualview.data.sources.vocabularies import OPENI_TO_XRV
from dualview.errors import UserError

REPORTS = "indiana_reports.csv"
METADATA_FILES = ("nlmcxr_dicom_metadata.csv.gz", "nlmcxr_dicom_metadata.csv")
XML = ("NLMCXR_reports.tgz", "ecgen-radiology")
FRONTAL, LATERAL = ("Frontal", "PA", "AP"), ("Lateral", "LATERAL", "LL", "RL", "LARGE LATERAL")
OPENI_NOT_FINDINGS = ("normal", "no indexing", "technical quality of image unsatisfactory")
UNLABELLED = frozenset({"no indexing", "technical quality of image unsatisfactory"})


def read(source: SourceConfig, *, data: DataConfig, seed: int) -> SourceTable:
    """Studies of the CSVs beside `data.csv` (the projections, or the DICOM metadata) or in `data.root`.

    Raises:
        UserError: no form of the data set is there, problems of a table, or files that are not there.
    """
    check_root(source)
    folder = source.csv.parent if source.csv is not None else source.root
    assert folder is not None  # SourceConfig has checked it.
    metadata = [folder / name for name in METADATA_FILES if (folder / name).is_file()]
    is_metadata = source.csv is not None and source.csv.name in METADATA_FILES
    has_reports = (folder / REPORTS).is_file() or not metadata
    if (folder / PROJECTIONS).is_file() and has_reports and not is_metadata:
        rows, headings = _from_csv(folder, source=source)
    elif metadata:
        rows, headings = _from_xml(folder, metadata=source.csv or metadata[0], source=source)
    else:
        raise UserError(f"no table in {folder}: looked for {PROJECTIONS}, {', '.join(METADATA_FILES)}; give data.csv")
    rows.assign_views(rows.frame["position"], frontal=FRONTAL, lateral=LATERAL)
    rows.check_files()
    studies = rows.studies(attributes=["date", "sex", "age"])

    names = np.empty(len(studies.table), object)
    for s, uid in enumerate(studies.table.study_ids):
        names[s] = headings.get(uid, frozenset()) - UNLABELLED
    return replace(studies, label_names=LabelNames(studies=names, to_xrv=OPENI_TO_XRV, not_findings=OPENI_NOT_FINDINGS))


def _heading(text: str) -> str:
    return text.strip().lower().partition("/")[0].strip()


def _from_csv(folder: Path, *, source: SourceConfig) -> tuple[ImageRows, dict[str, frozenset[str]]]:
    file = source.csv or folder / PROJECTIONS
    projections = text_table(file, columns=["uid", "filename", "projection"], hint="Is it Kaggle's form of Open-i?")
    reports = text_table(folder / REPORTS, columns=["uid", "MeSH"], hint="Is it Kaggle's form of Open-i?")
    headings = {
        uid: frozenset(filter(None, map(_heading, cell.split(";"))))
        for uid, cell in zip(reports["uid"], reports["MeSH"], strict=True)
    }
    where = next(
        (name for name in ("images/images_normalized", "images") if (folder / name).is_dir()),
        "images/images_normalized",
    )
    frame = projections.assign(
        patient=projections["uid"],
        study=projections["uid"],
        path=where + "/" + projections["filename"],
        position=projections["projection"],
        sex="",
        age="",
        date="",
    )
    rows = ImageRows(frame, file=file, source=source)
    rows.add_remarks(rows_of_labels([frame["study"]], labelled=reports["uid"], file=folder / REPORTS, source=source)[1])
    return rows, headings


def _from_xml(folder: Path, *, metadata: Path, source: SourceConfig) -> tuple[ImageRows, dict[str, frozenset[str]]]:
    table = text_table(
        metadata,
        columns=["imageid", "View Position"],
        optional=["Patient's Sex", "Patient's Birth Date", "Study Date"],
        hint="Is it torchxrayvision's table of Open-i?",
    )
    age, is_implausible = ages(ages_at(table["Study Date"], born=table["Patient's Birth Date"]))
    headings: dict[str, frozenset[str]] = {}
    report_of: dict[str, str] = {}
    for name, report in _reports(folder):
        nodes = report.iterfind(".//MeSH/major")
        headings[name] = frozenset(filter(None, (_heading(node.text or "") for node in nodes)))
        report_of |= {image.attrib["id"]: name for image in report.iterfind(".//parentImage")}
    uid_of = table["imageid"].map(report_of)
    frame = table.assign(
        patient=uid_of.fillna(""),
        study=uid_of.fillna(""),
        path=table["imageid"] + ".png",
        sex=sexes(table["Patient's Sex"]),
        age=age,
        date=table["Study Date"],
    )
    rows = ImageRows(frame, file=metadata, source=source)
    rows.remark(is_implausible, IMPLAUSIBLE)
    rows.drop(uid_of.isna(), "no report has the image")
    assign_positions(rows, folders=[folder, *([source.root] if source.root is not None else [])])
    return rows, headings


def _reports(folder: Path) -> Iterator[tuple[str, ElementTree.Element]]:
    """Identifier and content of the XML files of the archive, or of the folder it unpacks to.

    Raises:
        UserError: neither is there, or one cannot be read.
    """
    archive, unpacked = (folder / name for name in XML)
    if archive.is_file():
        try:
            with tarfile.open(archive) as tar:
                for member in tar:
                    file = tar.extractfile(member) if member.name.endswith(".xml") else None
                    if file is not None:
                        yield _report(file.read(), name=f"{archive}: {member.name}")
        except UserError:
            raise
        except Exception as error:  # A damaged archive makes its library raise anything.
            raise UserError(f"{archive} is damaged or cut short ({error}); copy or download it again") from None
    elif unpacked.is_dir():
        for path in sorted(unpacked.glob("*.xml")):
            yield _report(path.read_bytes(), name=str(path))
    else:
        raise UserError(f"no reports in {folder}: looked for {' and '.join(XML)}")


def _report(content: bytes, *, name: str) -> tuple[str, ElementTree.Element]:
    """Raises: UserError where a report is no XML, or it or one of its images has no identifier."""
    try:
        report = ElementTree.fromstring(content)  # noqa: S314 - expat refuses entity bombs (2.4.1 and later)
    except Exception as error:  # ParseError; LookupError and ValueError for encodings that are not known.
        raise UserError(f"{name} is not XML ({error}); copy or download it again") from None
    uid = report.find("uId")
    identifier = "" if uid is None else uid.attrib.get("id", "")
    if not identifier or not all(image.attrib.get("id") for image in report.iterfind(".//parentImage")):
        raise UserError(f"{name} is no report of Open-i: its uId, or one of its images (parentImage), has no id")
    return identifier, report
