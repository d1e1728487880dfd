"""Writes the table in docs/datasets.md of what `loss.normalise` makes of real labels, those of torchxrayvision's wheel.

python docs/generate/loss_weights.py

A label's weight in the loss is the size of the loss's gradient where the probability is 1/2, times 2; it is taken from
`study_losses` itself.
"""

import importlib.util
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from dualview.config import DataConfig
from dualview.data.sources.readers import read_source
from dualview.data.table import StudyTable
from dualview.losses import Normalise, study_losses

PAGE = Path(__file__).parents[1] / "datasets.md"
BEGIN, END = "<!-- docs/generate/loss_weights.py -->\n", "<!-- end -->\n"
spec = importlib.util.find_spec("torchxrayvision")
TABLES = Path(spec.origin).parent / "data" if spec and spec.origin else Path("/nowhere")
SHOWN = ("Pneumonia", "Lung Lesion", "Fracture", "Pleural Effusion", "No Finding")


def chexpert() -> StudyTable:
    """The public training table of CheXpert, uncertain and blank labels unknown."""
    data = DataConfig.model_validate(
        {"source": "chexpert", "csv": TABLES / "chexpert_train.csv.gz", "check_files": False, "uncertain": "ignore"}
    )
    return read_source(data, data=data, seed=0).table


def label_weights(table: StudyTable, *, normalise: Normalise) -> np.ndarray:
    """(S, K) weight of each label in the loss, 0 where it is unknown."""
    logits = torch.zeros(table.labels.shape, dtype=torch.float64, requires_grad=True)
    study_losses(
        logits,
        labels=torch.from_numpy(table.labels).double(),
        label_mask=torch.from_numpy(table.label_mask),
        normalise=normalise,
    ).sum().backward()
    assert logits.grad is not None
    return 2 * logits.grad.abs().numpy()


def factors(table: StudyTable, *, normalise: Normalise) -> np.ndarray:
    """(K,) mean weight of a positive label over that of a negative label of the same finding."""
    weights = label_weights(table, normalise=normalise)
    positive, negative = table.positive, table.label_mask & ~table.positive

    def mean(of: np.ndarray) -> np.ndarray:
        return np.where(of, weights, 0).sum(axis=0) / of.sum(axis=0)

    return mean(positive) / mean(negative)


def shares(table: StudyTable, *, normalise: Normalise) -> np.ndarray:
    """(K,) share of the positive labels in the weight of a finding: the prevalence that the loss sees."""
    weights = label_weights(table, normalise=normalise)
    return np.where(table.positive, weights, 0).sum(axis=0) / weights.sum(axis=0)


def page_table() -> str:
    """Rows of some findings, and the median and extremes of all."""
    table = chexpert()
    factor = {name: factors(table, normalise=name) for name in get_args(Normalise)}
    share = {name: shares(table, normalise=name) for name in get_args(Normalise)}
    rows = []
    for finding in SHOWN:
        k = table.findings.index(finding)
        cells = [f"{factor[name][k]:.2f} | {share[name][k]:.3f}" for name in get_args(Normalise)]
        rows.append(f"| {finding} | {' | '.join(cells)} |")
    for title, of in (("median of 14", np.median), ("largest", np.max)):
        cells = [f"{of(factor[name]):.2f} | " for name in get_args(Normalise)]
        rows.append(f"| {title} | {' | '.join(cells)} |")
    heads = [f"`{name}`: factor | share of positives" for name in get_args(Normalise)]
    return "\n".join([f"| finding | {' | '.join(heads)} |", "|---|" + "---|" * 4, *rows]) + "\n"


def with_table(text: str) -> str:
    """A page whose table stands between the two marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{page_table()}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
