"""Names of findings in the public datasets, and how they translate."""

NO_FINDING = "No Finding"

# Columns of CheXpert and MIMIC-CXR-JPG, in their order (Irvin et al. 2019, table 1).
CHEXPERT = (
    NO_FINDING, "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation",
    "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
NOT_A_PATHOLOGY = ("Support Devices",)  # columns that may be positive in a study without any pathology

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
# Whole labels are matched here. torchxrayvision matches parts of words, which takes subcutaneous emphysema for
# emphysema, a pseudonodule for a nodule and a pericardial effusion for a pleural one.
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
