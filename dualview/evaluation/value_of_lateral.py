"""The table of what the lateral view is worth, as terminals, wandb and the report all show it, each in its own way."""

from dataclasses import dataclass

from dualview.evaluation.document import (
    Difference,
    Estimate,
    FindingResult,
    FindingValue,
    HeadAurocs,
    MacroEstimate,
    Masked,
    Verdict,
)
from dualview.evaluation.metrics import MACRO
from dualview.views import MASKINGS

UNDER_TRAINED = (
    "joint head under-trained: it is below the better branch head of the same network, which sees one view only, by "
    "more than chance explains, so what is lost is this training's and not the view's"
)
VERDICT_TITLES: dict[Verdict, str] = {
    "helped": "helped",
    "hurt": "hurt",
    "undecided": "undecided",
    "too_few": "too few to judge",
    "undefined": "undefined",
}
BEHIND: tuple[Verdict, ...] = ("too_few", "undefined")
"""Verdicts that are no judgement, in the order in which they stand behind the judged findings in every sorting."""


@dataclass(frozen=True, kw_only=True)
class ValueRow:
    """A finding of complete studies: AUROC scored three ways, and what the lateral adds."""

    name: str  # name of the finding, or `MACRO`
    num_positive: int
    num_negative: int
    patients: str  # "7 positive and 143 negative patients"; "" in evaluations of an earlier dualview
    aurocs: tuple[Estimate, ...]  # AUROC of each masking of `views.MASKINGS`
    undefined: tuple[str | None, ...]  # why each masking of `views.MASKINGS` has no AUROC; None: it has one
    auroc_gained: Difference
    average_precision_gained: Difference
    verdict: Verdict
    heads: HeadAurocs | None  # AUROC of each head; None: the network has not three
    checks: FindingValue | None  # its tests beside the interval; None: there is no interval to stand beside

    @property
    def is_judged(self) -> bool:
        return self.verdict not in BEHIND

    @property
    def warning(self) -> str:
        """What the joint head did not learn, as "Mass 0.652 (PA head 1.000, vote 0.980)"; "" where nothing is wrong."""
        heads = self.heads
        if heads is None or not heads.is_under_trained or heads.better_branch is None:
            return ""
        branch = "PA" if heads.pa == heads.better_branch else "lateral"
        return f"{self.name} {heads.joint:.3f} ({branch} head {heads.better_branch:.3f}, vote {heads.vote:.3f})"

    @property
    def no_error(self) -> str:
        """Whether any of its AUROCs is 1, as "Mass: no error among 12 x 88 pairs"; "" where none is."""
        is_there = any(auroc.value == 1 for auroc in self.aurocs)
        pairs = no_error_text(1, num_positive=self.num_positive, num_negative=self.num_negative)
        return f"{self.name}: {pairs}" if is_there else ""


@dataclass(frozen=True, kw_only=True)
class MacroRow:
    """The same of the mean over findings."""

    name: str = MACRO
    aurocs: tuple[MacroEstimate, ...]  # AUROC of each masking of `views.MASKINGS`
    auroc_gained: MacroEstimate
    average_precision_gained: MacroEstimate


@dataclass(frozen=True, kw_only=True)
class ValueTable:
    """Findings in the order of the network, those that are not judged behind the others, and their mean."""

    rows: list[ValueRow]
    macro: MacroRow

    @property
    def warnings(self) -> list[str]:
        """Findings whose joint head is under-trained, with what the other heads reach."""
        return [row.warning for row in self.rows if row.warning]

    @property
    def shortfalls(self) -> list[str]:
        """Findings whose joint head is below the better branch head, but by no more than chance explains."""
        return [
            f"{row.name} {row.heads.shortfall.value:+.3f}"
            for row in self.rows
            if row.heads is not None
            and row.heads.shortfall is not None
            and (row.heads.shortfall.value or 0) < 0
            and not row.heads.is_under_trained
        ]

    @property
    def without_error(self) -> list[str]:
        """Findings that are told without an error, in at least one of the three ways, and among how many pairs."""
        return [row.no_error for row in self.rows if row.no_error]


def value_of_lateral(masked: Masked) -> ValueTable:
    """What complete studies lose with the lateral withheld, finding by finding."""
    value, looks = masked.value_of_lateral, masked.looks
    rows = []
    for finding, gained in value.findings.items():
        results = [looks[masking].findings[finding] for masking in MASKINGS]
        rows.append(
            ValueRow(
                name=finding,
                num_positive=results[0].num_positive,
                num_negative=results[0].num_negative,
                patients=patients_text(results[0]),
                aurocs=tuple(result.auroc for result in results),
                undefined=tuple(result.undefined for result in results),
                auroc_gained=gained.auroc,
                average_precision_gained=gained.average_precision,
                verdict=gained.verdict,
                heads=None if masked.heads is None else masked.heads[finding],
                checks=None if gained.auroc.low is None else gained,
            )
        )
    rows.sort(key=lambda row: rank_of(row.verdict))
    macro = MacroRow(
        aurocs=tuple(looks[masking].macro["auroc"] for masking in MASKINGS),
        auroc_gained=value.macro["auroc"],
        average_precision_gained=value.macro["average_precision"],
    )
    return ValueTable(rows=rows, macro=macro)


def rank_of(verdict: Verdict) -> int:
    """0 for judged findings; those of `BEHIND` come after them."""
    return 1 + BEHIND.index(verdict) if verdict in BEHIND else 0


def patients_text(result: FindingResult) -> str:
    """How many patients a finding is judged by; "" where an earlier dualview did not count them."""
    if result.num_positive_patients is None:
        return ""
    return f"{result.num_positive_patients:,} positive and {result.num_negative_patients:,} negative patients"


def no_error_text(auroc: float | str | None, *, num_positive: int, num_negative: int) -> str:
    """What an AUROC of 1 says, "no error among 12 x 88 pairs"; "" for any other."""
    return f"no error among {num_positive:,} x {num_negative:,} pairs" if auroc == 1 else ""


def p_value(value: float) -> str:
    """A p-value in three digits."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
