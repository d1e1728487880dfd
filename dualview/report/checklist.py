"""Checklists of reporting, and for each item where it stands on the page, or that it is not recorded.

CLAIM 2024: Tejani et al., Radiology: Artificial Intelligence 2024; 6(4): e240300. 44 items.
TRIPOD+AI: Collins et al., BMJ 2024; 385: e078378. 27 items, 52 with their letters.
Titles are in words of our own; the numbers are those of the two papers.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

MANUSCRIPT = "for the manuscript"


@dataclass(frozen=True)
class Item:
    """One item: where the page may answer it, and which text of the section `study` may."""

    number: str
    title: str
    sections: tuple[str, ...] = ()  # ids of sections of the page, as far as they are there
    texts: tuple[str, ...] = ()  # keys of the section `study` of the settings


CLAIM = (
    Item("1", "title names the technology"),
    Item("2", "structured abstract"),
    Item("3", "background, intended use", (), ("background", "intended_use")),
    Item("4", "aims and hypotheses", (), ("objectives",)),
    Item("5", "retrospective or prospective", (), ("design",)),
    Item("6", "goal of the study", (), ("objectives", "intended_use")),
    Item("7", "data sources", ("origin",)),
    Item("8", "who was included and excluded", ("flow",), ("eligibility",)),
    Item("9", "preprocessing", ("settings",)),
    Item("10", "choice of parts of the data", ("settings",)),
    Item("11", "de-identification", (), ("deidentification",)),
    Item("12", "missing data", ("labels",)),
    Item("13", "acquisition of the images", (), ("acquisition",)),
    Item("14", "reference standard: what it is", ("reference",)),
    Item("15", "reference standard: why this one", (), ("annotators",)),
    Item("16", "who annotated", ("readers",), ("annotators",)),
    Item("17", "how the test set was annotated", ("readers",), ("annotators",)),
    Item("18", "how far annotators agree", (), ("annotators",)),
    Item("19", "how data were assigned to partitions", ("partition",)),
    Item("20", "level at which partitions are disjoint", ("partition",)),
    Item("21", "intended size of the test set", ("precision",)),
    Item("22", "architecture", ("settings",)),
    Item("23", "software and versions", ("settings",)),
    Item("24", "initial weights", ("settings",)),
    Item("25", "training", ("training",)),
    Item("26", "how the final model was chosen", ("choice",)),
    Item("27", "ensembles", ("ensemble",)),
    Item("28", "metrics", ("findings", "points")),
    Item("29", "uncertainty", ("findings", "lateral")),
    Item("30", "robustness", ("subgroups", "missing")),
    Item("31", "explainability", ("images",)),
    Item("32", "internal testing", ("findings",)),
    Item("33", "external testing", ("external",)),
    Item("34", "registration of a trial", (), ("registration",)),
    Item("35", "numbers included and excluded, flow chart", ("flow",)),
    Item("36", "demographics by partition", ("by split",)),
    Item("37", "performance, also in subgroups", ("findings", "subgroups")),
    Item("38", "accuracy with intervals", ("findings", "points")),
    Item("39", "analysis of failures", ("failures", "points")),
    Item("40", "limitations", (), ("limitations",)),
    Item("41", "implications for practice", (), ("implications", "intended_use")),
    Item("42", "full protocol", (), ("protocol",)),
    Item("43", "availability of software, model and data", (), ("availability",)),
    Item("44", "funding", (), ("funding",)),
)
TRIPOD = (
    Item("1", "title"),
    Item("2", "abstract"),
    Item("3a", "context in health care", (), ("background",)),
    Item("3b", "target population and users", (), ("intended_use",)),
    Item("3c", "known health inequalities", (), ("inequalities",)),
    Item("4", "objectives", (), ("objectives",)),
    Item("5a", "sources of data", ("origin",)),
    Item("5b", "dates of the data", ("dates",)),
    Item("6a", "setting and centres", ("origin",), ("setting",)),
    Item("6b", "eligibility", ("flow",), ("eligibility",)),
    Item("6c", "treatments received"),
    Item("7", "preparation of the data", ("settings",)),
    Item("8a", "outcome and how it was assessed", ("reference",)),
    Item("8b", "who assessed the outcome", ("readers",), ("annotators",)),
    Item("8c", "blinding to predictors", (), ("annotators",)),
    Item("9a", "choice of predictors", ("settings",)),
    Item("9b", "definition of predictors", ("settings",), ("acquisition",)),
    Item("9c", "who assessed predictors"),
    Item("10", "sample size", ("precision",)),
    Item("11", "missing data", ("labels",)),
    Item("12a", "how data were used and divided", ("partition",)),
    Item("12b", "how predictors were handled", ("settings",)),
    Item("12c", "type of model and how it was built", ("training", "choice")),
    Item("12d", "differences between clusters", ("external",)),
    Item("12e", "measures of performance", ("findings", "decision")),
    Item("12f", "updating of the model", ("updating", "recalibration")),
    Item("12g", "how predictions were calculated", ("points",)),
    Item("13", "class imbalance", ("calibration",)),
    Item("14", "fairness", ("subgroups",), ("inequalities",)),
    Item("15", "output of the model, thresholds", ("points",)),
    Item("16", "development and evaluation data compared", ("by split",)),
    Item("17", "ethics", (), ("ethics",)),
    Item("18a", "funding", (), ("funding",)),
    Item("18b", "conflicts of interest", (), ("interests",)),
    Item("18c", "protocol", (), ("protocol",)),
    Item("18d", "registration", (), ("registration",)),
    Item("18e", "sharing of data", (), ("availability",)),
    Item("18f", "sharing of code", (), ("availability",)),
    Item("19", "patients and public involved", (), ("involvement",)),
    Item("20a", "flow of participants", ("flow",)),
    Item("20b", "characteristics of participants", ("demographics",)),
    Item("20c", "comparison with development data", ("by split",)),
    Item("21", "numbers in each analysis", ("data", "findings")),
    Item("22", "full specification of the model", ("settings",)),
    Item("23a", "performance with intervals, subgroups", ("findings", "subgroups")),
    Item("23b", "performance between clusters", ("external",)),
    Item("24", "results of updating", ("updating", "recalibration")),
    Item("25", "interpretation", (), ("implications",)),
    Item("26", "limitations", (), ("limitations",)),
    Item("27a", "poor or missing input", ("missing",)),
    Item("27b", "what users must do and know", (), ("intended_use",)),
    Item("27c", "next steps", (), ("implications",)),
)
GUIDELINES = {
    "CLAIM 2024 (Tejani et al., doi:10.1148/ryai.240300)": CLAIM,
    "TRIPOD+AI (Collins et al. 2024, doi:10.1136/bmj-2023-078378)": TRIPOD,
}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An item and its places: (id of an element of the page, what the link says); none: not recorded."""

    number: str
    title: str
    places: list[tuple[str, str]]


def answers(*, there: Mapping[str, tuple[str, str]], written: Collection[str]) -> dict[str, list[Answer]]:
    """Guideline -> its items, each with the places that are there.

    Args:
        there: name of a section in `Item.sections` -> (id of its element, what a link to it says).
        written: keys of the section `study` that have a text.
    """
    return {
        guideline: [
            Answer(
                number=item.number,
                title=item.title,
                places=list(
                    dict.fromkeys(
                        [there[name] for name in item.sections if name in there]
                        + [there["written"] for key in item.texts if key in written and "written" in there]
                    )
                ),
            )
            for item in items
        ]
        for guideline, items in GUIDELINES.items()
    }
