"""Predictions of the runs of all folds as one table: each patient judged by the network that did not see them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from dualview.comparison.plan import PlannedRun
from dualview.evaluation.operating_points import OperatingPoints
from dualview.evaluation.points_file import read_operating_points
from dualview.evaluation.prediction_columns import SUFFIXES
from dualview.evaluation.prediction_table import SCORES, PredictionTable, read_predictions
from dualview.run.directory import RunDir
from dualview.views import Availability

FOLD = "split.fold"
"""Attribute of a table of all folds: the fold whose network judged the study."""
OUT_OF_FOLD = "out-of-fold.parquet"


def read_folds(runs: Mapping[int, PlannedRun], *, split: str) -> PredictionTable:
    """Predictions of a split of all folds, with the logits that each run's own probabilities are made of.

    Every test patient is in it once. A val patient is in the val of several folds, and then there is a study of that
    patient for each.

    Args:
        runs: fold -> its run.

    Raises:
        UserError: a run without predictions, or with operating points that cannot be read.
    """
    tables = {}
    for fold, run in runs.items():
        run_dir = RunDir(run.config.run.dir)
        tables[fold] = with_calibrated_logits(
            read_predictions(run_dir.predictions(split)), points=read_operating_points(run_dir.operating_points)
        )
    return pooled(tables, is_named_by_fold=split != "test")


def pooled(tables: Mapping[int, PredictionTable], *, is_named_by_fold: bool = False) -> PredictionTable:
    """One table of several folds.

    Args:
        tables: fold -> its predictions.
        is_named_by_fold: whether the fold stands before each study, for a study that is in several.
    """
    parts = list(tables.values())
    names = [name for name in parts[0].attributes if all(name in part.attributes for part in parts)]
    study_ids = [
        np.array([f"fold {fold}: {study}" for study in table.study_ids], object)
        if is_named_by_fold
        else table.study_ids
        for fold, table in tables.items()
    ]
    folds = [np.full(len(table), str(fold), object) for fold, table in tables.items()]
    return PredictionTable(
        findings=parts[0].findings,
        study_ids=np.concatenate(study_ids),
        patient_ids=np.concatenate([part.patient_ids for part in parts]),
        availability=np.concatenate([part.availability for part in parts]),
        evaluated=np.concatenate([part.evaluated for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        label_mask=np.concatenate([part.label_mask for part in parts]),
        logits={score: np.concatenate([part.logits[score] for part in parts]) for score in SCORES},
        attributes={
            **{name: np.concatenate([part.attributes[name] for part in parts]) for name in names},
            FOLD: np.concatenate(folds),
        },
        thresholds={
            score: np.concatenate([part.thresholds[score] for part in parts])
            for score in parts[0].thresholds
            if all(score in part.thresholds for part in parts)
        },
    )


def with_calibrated_logits(table: PredictionTable, *, points: OperatingPoints | None) -> PredictionTable:
    """The table with logits whose sigmoid is the probability, and each study's threshold; as it is without points.

    Runs of different folds have counted different weights of positives, which would set their logits apart, and have
    chosen different thresholds, each on its own val.
    """
    if points is None:
        return table
    scales = np.array(
        [[points.scale(route, finding) for finding in table.findings] for route in Availability], np.float64
    )  # (3, K, 2)
    by_route = np.stack([points.thresholds(table.findings, route) for route in Availability])  # (3, K)
    logits = {}
    for score, values in table.logits.items():
        of_study = scales[table.judged_by(score)]
        logits[score] = (values - points.shift(table.findings)) / of_study[..., 0] + of_study[..., 1]
    thresholds = {score: by_route[table.judged_by(score)] for score in SUFFIXES}
    return replace(table, logits=logits, thresholds=thresholds)


def out_of_fold_file(run: PlannedRun) -> Path:
    """Where the predictions of all folds of a run's seed are written: beside the folders of its folds."""
    return run.config.run.dir.parent / OUT_OF_FOLD


def about_folds(table: PredictionTable) -> str | None:
    """What pooling the predictions of several networks does to their ranking; None: they are not of folds."""
    if FOLD not in table.attributes:
        return None
    return (
        f"predictions of {len(set(table.attributes[FOLD]))} folds, each by a network of its own: AUROC, and with it "
        "what the lateral is worth, counts pairs of two networks too, whose scores have no common scale, and is rather "
        "too low; that of pairs within a fold is in the table of dualview compare"
    )
