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
# Labels of NIH ChestX-ray14 (Wang et al. 2017), all of them torchxrayvision's names.
NIH = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis", "Hernia",
    "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax",
)  # fmt: skip
# Columns of VinDr-CXR's tables of labels: 22 local ones, 5 global ones, No finding (Nguyen et al. 2022, table 3).
VINDR = (
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture", "Consolidation", "Edema",
    "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity", "Lung cavity", "Lung cyst", "Mediastinal shift",
    "Nodule/Mass", "Pleural effusion", "Pleural thickening", "Pneumothorax", "Pulmonary fibrosis", "Rib fracture",
    "Other lesion", "COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "Other diseases", "No finding",
)  # fmt: skip
# Classes of the VinBigData challenge's table of boxes.
VINDR_BOXES = (
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Consolidation", "ILD", "Infiltration",
    "Lung Opacity", "Nodule/Mass", "Other lesion", "Pleural effusion", "Pleural thickening", "Pneumothorax",
    "Pulmonary fibrosis", "No finding",
)  # fmt: skip
# "Nodule/Mass" says neither which of the two, nor that the other is absent: both are unknown.
VINDR_TO_XRV = {
    "Atelectasis": ["Atelectasis"],
    "Consolidation": ["Consolidation"],
    "Infiltration": ["Infiltration"],
    "Pneumothorax": ["Pneumothorax"],
    "Edema": ["Edema"],
    "Emphysema": ["Emphysema"],
    "Fibrosis": ["Pulmonary fibrosis"],
    "Effusion": ["Pleural effusion"],
    "Pneumonia": ["Pneumonia"],
    "Pleural_Thickening": ["Pleural thickening"],
    "Cardiomegaly": ["Cardiomegaly"],
    "Lung Lesion": ["Nodule/Mass"],
    "Fracture": ["Clavicle fracture", "Rib fracture"],
    "Lung Opacity": ["Lung Opacity"],
}  # fmt: skip
# Labels of CXR-LT (Holste et al. 2024, doi:10.1016/j.media.2024.103224) that are torchxrayvision's under another name.
CXR_LT_RENAMED = {"Effusion": "Pleural Effusion", "Pleural_Thickening": "Pleural Thickening"}
