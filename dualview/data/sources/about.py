"""What is known of each public data set: where it is from, under which terms, and who or what read its images.

A reader whose labels come about in several ways says which of them in an attribute, `labelled_by`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from dualview.config import SourceConfig

Reader = Literal["software", "people", "software and people", "construction"]
NO_TERMS = "the terms of its authors"


@dataclass(frozen=True, kw_only=True)
class ReferenceStandard:
    """How labels came about."""

    by: Reader | None  # None: nobody has said
    says: str


@dataclass(frozen=True, kw_only=True)
class About:
    """A data set as its authors describe it."""

    title: str
    citation: str
    licence: str
    origin: str  # hospitals, and the years of the whole data set
    reference: Mapping[str, ReferenceStandard]  # `data.labeler`, or "" where there is one -> how labels came about
    dates_are_shifted: bool = False  # dates of a patient are moved by a secret time, so years mean nothing


def _software(says: str) -> ReferenceStandard:
    return ReferenceStandard(by="software", says=says)


_CHEXPERT = "reports read by software, the CheXpert labeler (Irvin et al. 2019)"
_OF_STANFORD = "Stanford Hospital, October 2002 to July 2017"
_PHYSIONET = "PhysioNet Credentialed Health Data License 1.5.0"

ABOUT: Mapping[str, About] = {
    "phantom": About(
        title="phantoms", citation="docs/phantom.md of dualview", licence="free", origin="drawn by this software",
        reference={"": ReferenceStandard(by="construction", says="known, as the images are drawn from the labels")},
    ),
    "padchest": About(
        title="PadChest", citation="Bustos et al. 2020, arXiv:1901.07441", licence=NO_TERMS,
        origin="Hospital San Juan, Alicante, 2009 to 2017",
        reference={"": ReferenceStandard(
            by="software and people",
            says="reports: 27 % read by physicians, the others by a recurrent network trained on these",
        )},
    ),
    "mimic_cxr": About(
        title="MIMIC-CXR-JPG", citation="Johnson et al. 2019, arXiv:1901.07042", licence=_PHYSIONET,
        origin="Beth Israel Deaconess Medical Center, Boston, 2011 to 2016", dates_are_shifted=True,
        reference={
            "chexpert": _software(f"{_CHEXPERT}; radiologists' labels of test studies where their table is there"),
            "negbio": _software(
                "reports read by software, NegBio (Peng et al. 2018); radiologists' labels of test studies where their "
                "table is there"
            ),
            "cxr_lt": _software("reports read by software, as CXR-LT (Holste et al. 2024) gives them"),
        },
    ),
    "chexpert": About(
        title="CheXpert", citation="Irvin et al. 2019, arXiv:1901.07031",
        licence="Stanford University Dataset Research Use Agreement", origin=_OF_STANFORD,
        reference={"": ReferenceStandard(
            by="software and people",
            says=f"train: {_CHEXPERT}; valid: majority of three radiologists; test: majority of five radiologists",
        )},
    ),
    "chexpert_plus": About(
        title="CheXpert Plus", citation="Chambon et al. 2024, arXiv:2405.19538",
        licence="Stanford University Dataset Research Use Agreement", origin=_OF_STANFORD,
        reference={"": _software("reports read by software, CheXbert (Smit et al. 2020)")},
    ),
    "nih": About(
        title="NIH ChestX-ray14", citation="Wang et al. 2017, doi:10.1109/CVPR.2017.369",
        licence="free use; the NIH Clinical Center asks to be named",
        origin="NIH Clinical Center, Bethesda, 1992 to 2015",
        reference={"": _software("reports read by software, text mining by the authors (Wang et al. 2017)")},
    ),
    "vindr": About(
        title="VinDr-CXR", citation="Nguyen et al. 2022, doi:10.1038/s41597-022-01498-w", licence=_PHYSIONET,
        origin="Hospital 108 and Hanoi Medical University Hospital, 2018 to 2020",
        reference={"": ReferenceStandard(
            by="people",
            says="images read by radiologists: train the majority of three, test the consensus of five",
        )},
    ),
    "openi": About(
        title="Open-i, the Indiana University collection",
        citation="Demner-Fushman et al. 2016, doi:10.1093/jamia/ocv080",
        licence=NO_TERMS, origin="Indiana Network for Patient Care",
        reference={"": ReferenceStandard(by="people", says="reports read by people, who gave them headings of MeSH")},
    ),
    "covid_cxr": About(
        title="COVID-19 image data collection", citation="Cohen et al. 2020, arXiv:2006.11988",
        licence="that of each image, in its table", origin="public sources of many countries",
        reference={"": ReferenceStandard(by="people", says="diagnoses of the publications that the images are from")},
    ),
}  # fmt: skip
"""Source of `config.uses.SOURCES` -> what is known of it; `csv` and `dicom` are the user's own."""


def reference_standard(source: SourceConfig) -> ReferenceStandard:
    """How the labels of a source came about: what `data.reference_standard` says, else what its authors say."""
    if source.reference_standard is not None:
        return ReferenceStandard(by=None, says=source.reference_standard)
    about = ABOUT.get(source.source)
    if about is None:
        return ReferenceStandard(by=None, says="")
    return about.reference.get(source.labeler) or about.reference[""]
