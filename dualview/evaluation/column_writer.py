"""Predictions written in the columns that `dualview assess` reads (prediction_columns.py)."""

from pathlib import Path

import numpy as np
import pandas as pd

from dualview.evaluation.prediction_columns import KINDS, STUDY_COLUMNS, SUFFIXES, THRESHOLD
from dualview.evaluation.prediction_table import PredictionTable
from dualview.files import whole_file
from dualview.views import ROUTES


def write_prediction_columns(file: Path, table: PredictionTable) -> None:
    """Write the studies that could be evaluated as parquet, whole or not at all; logits as the table has them.

    Where two patients have a study of one name, all studies are called PATIENT/STUDY.
    """
    table = table.select(table.evaluated)
    studies = table.study_ids
    if len(set(studies)) < len(studies):
        studies = np.array([f"{patient}/{study}" for patient, study in zip(table.patient_ids, studies, strict=True)])
    columns: dict[str, object] = {
        "study": studies.astype(str),
        "patient": table.patient_ids.astype(str),
        "availability": [ROUTES[kind] for kind in table.availability],
    }
    columns |= {
        name: values
        for name, values in table.attributes.items()
        if name not in STUDY_COLUMNS and name.partition(":")[0] not in KINDS
    }
    for k, finding in enumerate(table.findings):
        known = table.label_mask[:, k]
        columns[f"label:{finding}"] = pd.Series(np.where(known, table.positive[:, k], 0)).astype("Int8").where(known)
        for score, suffix in SUFFIXES.items():
            values = table.logits[score][:, k]
            columns[f"logit{suffix}:{finding}"] = pd.Series(values).where(np.isfinite(values))
            if score in table.thresholds:
                columns[f"{THRESHOLD}{suffix}:{finding}"] = pd.Series(table.thresholds[score][:, k])
    with whole_file(file) as temporary:
        pd.DataFrame(columns).to_parquet(temporary, index=False)
