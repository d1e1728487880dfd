"""Which network a comparison comes to: chosen on val, and only then looked at on test."""

from dataclasses import dataclass

from dualview.comparison.result import ComparisonRow, compare_predictions
from dualview.evaluation.metrics import MACRO
from dualview.evaluation.prediction_table import PredictionTable
from dualview.views import GROUPS

NO_RESAMPLES = 2  # A choice needs means only.


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The network with the highest mean macro AUROC on val, among those that can judge the same studies."""

    setting: str
    group: str  # name in `GROUPS` whose studies decide
    ranked: list[ComparisonRow]  # macro AUROC on val of all candidates, best first
    others: list[str]  # variants that cannot judge these studies

    @property
    def variant(self) -> str:
        return self.ranked[0].variant


def choose_on_val(runs: dict[tuple[str, str], list[PredictionTable]], *, baseline: str) -> dict[str, Choice | None]:
    """Choose a network for each setting; None where no val study tells any two classes apart.

    Networks are compared on studies that all candidates can judge: on all studies where at least two networks can judge
    them all, else on complete ones, PA only, lateral only; else where any network can. Of equal ones the first is
    taken.

    Args:
        runs: (setting, variant) -> predictions of val of each seed.
        baseline: any variant.

    Raises:
        UserError: runs that do not have the same patients or labels.
    """
    rows = compare_predictions(runs, baseline=baseline, num_resamples=NO_RESAMPLES)
    return {setting: _choose(rows, setting=setting) for setting in dict.fromkeys(setting for setting, _ in runs)}


def _choose(rows: list[ComparisonRow], *, setting: str) -> Choice | None:
    for fewest in (2, 1):
        for group in GROUPS:
            of_group = [
                row
                for row in rows
                if (row.setting, row.group, row.finding, row.metric) == (setting, group, MACRO, "auroc")
            ]
            candidates = [row for row in of_group if row.mean is not None]
            if len(candidates) >= fewest:
                return Choice(
                    setting=setting,
                    group=group,
                    ranked=sorted(candidates, key=lambda row: -(row.mean or 0)),
                    others=[row.variant for row in of_group if row.mean is None],
                )
    return None
