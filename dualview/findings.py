"""Names of findings in the public datasets, how they translate, and what to do with uncertain labels.

Policies for an uncertain label (a report that hedges; -1 in CheXpert and MIMIC-CXR):

    ignore        unknown: masked out of the loss                      U-Ignore, Irvin et al. 2019, arXiv:1901.07031
    zero          negative                                             U-Zeros, ibid.
    one           positive                                             U-Ones, ibid.
    smooth(a,b)   drawn once from the uniform distribution on [a, b]   U-Zeros+LSR and U-Ones+LSR, Pham et al. 2021,
                                                                       arXiv:1911.06475: (0, 0.3) and (0.55, 0.85)

Irvin et al. (table 3) found U-Ones best for Atelectasis and Edema and U-Zeros for Consolidation.
"""

import re
from dataclasses import dataclass

NO_FINDING = "No Finding"

# Columns of CheXpert and MIMIC-CXR-JPG, in their order (Irvin et al. 2019, table 1).
CHEXPERT = (
    NO_FINDING, "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation",
    "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
NOT_A_PATHOLOGY = ("Support Devices",)  # may be there in a study without any pathology

# The 18 pathologies of torchxrayvision, in its order (`default_pathologies`, Cohen et al. 2022, arXiv:2111.00595).
XRV = (
    "Atelectasis", "Consolidation", "Infiltration", "Pneumothorax", "Edema", "Emphysema", "Fibrosis", "Effusion",
    "Pneumonia", "Pleural_Thickening", "Cardiomegaly", "Nodule", "Mass", "Hernia", "Lung Lesion", "Fracture",
    "Lung Opacity", "Enlarged Cardiomediastinum",
)  # fmt: skip

CHEXPERT_TO_XRV = {
    **{name: [name] for name in CHEXPERT if name in XRV},
    "Effusion": ["Pleural Effusion"],
}
# By whole label. torchxrayvision matches parts of words, which takes subcutaneous emphysema for emphysema, a
# pseudonodule for a nodule and a pericardial effusion for a pleural one.
PADCHEST_TO_XRV = {
    "Atelectasis": [
        "atelectasis", "total atelectasis", "lobar atelectasis", "segmental atelectasis", "laminar atelectasis",
        "round atelectasis", "atelectasis basal",
    ],
    "Consolidation": ["consolidation", "air bronchogram"],
    "Infiltration": [
        "infiltrates", "interstitial pattern", "ground glass pattern", "reticular interstitial pattern",
        "reticulonodular interstitial pattern", "alveolar pattern", "consolidation", "air bronchogram",
    ],
    "Pneumothorax": ["pneumothorax", "hydropneumothorax"],
    "Edema": ["pulmonary edema"],
    "Emphysema": ["emphysema"],
    "Fibrosis": ["pulmonary fibrosis"],
    "Effusion": [
        "pleural effusion", "loculated pleural effusion", "loculated fissural effusion", "hydropneumothorax",
        "empyema", "hemothorax",
    ],
    "Pneumonia": ["pneumonia", "atypical pneumonia"],
    "Pleural_Thickening": ["pleural thickening", "apical pleural thickening", "calcified pleural thickening"],
    "Cardiomegaly": ["cardiomegaly"],
    "Nodule": ["nodule", "multiple nodules"],
    "Mass": ["mass", "pulmonary mass", "mediastinal mass", "pleural mass"],
    "Hernia": ["hiatal hernia"],
    "Fracture": [
        "fracture", "clavicle fracture", "humeral fracture", "vertebral fracture", "rib fracture",
        "callus rib fracture",
    ],
}  # fmt: skip
# First parts of the collection's MeSH headings ("Opacity/lung/base" is "opacity"), in lower case.
OPENI_TO_XRV = {
    "Atelectasis": ["pulmonary atelectasis"],
    "Consolidation": ["consolidation"],
    "Infiltration": ["infiltrate"],
    "Pneumothorax": ["pneumothorax", "hydropneumothorax"],
    "Edema": ["pulmonary edema"],
    "Emphysema": ["emphysema", "pulmonary emphysema", "bullous emphysema"],
    "Fibrosis": ["pulmonary fibrosis", "fibrosis"],
    "Effusion": ["pleural effusion", "hydropneumothorax", "hemothorax"],
    "Pneumonia": ["pneumonia"],
    "Cardiomegaly": ["cardiomegaly"],
    "Nodule": ["nodule"],
    "Mass": ["mass"],
    "Hernia": ["hernia, hiatal", "hernia, diaphragmatic"],
    "Fracture": ["fractures, bone"],
    "Lung Opacity": ["opacity", "airspace disease"],
}


@dataclass(frozen=True)
class UncertainPolicy:
    """Bounds of the label that an uncertain one becomes in training; None: it is unknown."""

    bounds: tuple[float, float] | None

    @classmethod
    def parse(cls, text: str) -> "UncertainPolicy":
        """The policy that a text names.

        Raises:
            ValueError: it names none; the text of the error says what is allowed.
        """
        known = {"ignore": None, "zero": (0.0, 0.0), "one": (1.0, 1.0)}
        if text in known:
            return cls(known[text])
        number = r"\s*(\d*\.?\d+)\s*"
        if match := re.fullmatch(rf"smooth\({number},{number}\)", text):
            low, high = float(match[1]), float(match[2])
            if low <= high <= 1:
                return cls((low, high))
        raise ValueError(f"'{text}' is no policy; allowed are ignore, zero, one and smooth(a,b) with 0 <= a <= b <= 1")
