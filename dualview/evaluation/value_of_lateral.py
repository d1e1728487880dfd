"""The table of what the lateral view is worth, as terminals, wandb and the report all show it, each in its own way."""

from dataclasses import dataclass

from dualview.evaluation.document import Difference, Estimate, MacroEstimate, Masked, Verdict
from dualview.evaluation.metrics import MACRO
from dualview.views import MASKINGS


@dataclass(frozen=True, kw_only=True)
class ValueRow:
    """A finding of complete studies: AUROC scored three ways, and what the lateral adds."""

    name: str  # name of the finding, or `MACRO`
    num_positive: int
    num_negative: int
    aurocs: tuple[Estimate, ...]  # AUROC of each masking of `views.MASKINGS`
    undefined: tuple[str | None, ...]  # why each masking of `views.MASKINGS` has no AUROC; None: it has one
    auroc_gained: Difference
    average_precision_gained: Difference
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class MacroRow:
    """The same of the mean over findings."""

    name: str = MACRO
    aurocs: tuple[MacroEstimate, ...]  # AUROC of each masking of `views.MASKINGS`
    auroc_gained: MacroEstimate
    average_precision_gained: MacroEstimate


@dataclass(frozen=True, kw_only=True)
class ValueTable:
    """Findings in the order of the network, and their mean."""

    rows: list[ValueRow]
    macro: MacroRow


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
                aurocs=tuple(result.auroc for result in results),
                undefined=tuple(result.undefined for result in results),
                auroc_gained=gained.auroc,
                average_precision_gained=gained.average_precision,
                verdict=gained.verdict,
            )
        )
    macro = MacroRow(
        aurocs=tuple(looks[masking].macro["auroc"] for masking in MASKINGS),
        auroc_gained=value.macro["auroc"],
        average_precision_gained=value.macro["average_precision"],
    )
    return ValueTable(rows=rows, macro=macro)
