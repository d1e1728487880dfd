"""Predictions of any software, read from the columns that docs/evaluation.md names, for `dualview assess`.

A CSV or parquet file with a row per study:

    study, patient, availability, and per finding F: label:F, and logit:F or probability:F;
    where a view was withheld of complete studies, in the same scale: logit_lateral_hidden:F, logit_pa_hidden:F;
    where each study has a threshold of its own: threshold:F, threshold_lateral_hidden:F, threshold_pa_hidden:F
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import logit

from dualview.data.sources.identifiers import form_of, unusable
from dualview.data.sources.problems import Problems, repeated
from dualview.errors import UserError
from dualview.evaluation.cells import Cells, Numbers, names_of_columns, read_cells
from dualview.evaluation.operating_points import to_probabilities
from dualview.evaluation.prediction_table import LARGEST, SCORES, SMALLEST, PredictionTable
from dualview.evaluation.subgroups import columns_of
from dualview.views import ROUTES, Availability, View

IDENTIFIERS = ("study", "patient")
STUDY_COLUMNS = (*IDENTIFIERS, "availability")
SCALES = ("logit", "probability")
SUFFIXES = {"route": "", **{view.hidden_key: f"_{view.hidden_key}" for view in View}}
"""Score -> what follows the scale in the name of its column."""
THRESHOLD = "threshold"
KINDS = ("label", *(scale + suffix for suffix in SUFFIXES.values() for scale in (*SCALES, THRESHOLD)))
TOLD_APART_TO = 30  # logits up to here that are 0.001 apart have different probabilities
HINT = "Columns are study, patient, availability, and per finding F: label:F, and logit:F or probability:F"

SAYS_NOTHING = "{} is {}, which stands for nothing; give each its identifier"
WAS_ROUNDED = "{} is {}, a number that a spreadsheet has rounded: its other digits are lost; write the column as text"
TWICE = "study {} is in {} already; a study has one row, and its name no other (PATIENT/STUDY will do)"
NOT_COMPLETE = "{} is {} of a study with one view, of which none can be withheld; leave it blank"
NOT_PAIRED = (
    "{} is {} where the score with both views is not; both must be there or both be blank, to be of the same studies"
)


@dataclass(frozen=True, kw_only=True)
class ReadPredictions:
    """The table, and what should be known of it, as sentences."""

    table: PredictionTable
    remarks: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Which columns say what."""

    scales: dict[str, str]  # finding -> one of `SCALES`
    scores: dict[str, dict[str, str]]  # score of `SUFFIXES` -> finding -> column, where there is one
    thresholds: dict[str, dict[str, str]]  # score of `SUFFIXES` -> finding -> column; {}: there is none at all

    @property
    def columns(self) -> list[str]:
        labels = [f"label:{finding}" for finding in self.scales]
        by_score = (*self.scores.values(), *self.thresholds.values())
        return [*STUDY_COLUMNS, *labels, *(name for columns in by_score for name in columns.values())]


def read_prediction_columns(
    file: Path, *, findings: Sequence[str] | None = None, by: Sequence[str] = ()
) -> ReadPredictions:
    """Read and check a file of predictions.

    Args:
        findings: those that it must have; only they are read. None: all that it has.
        by: further columns to divide studies by, or two of them joined by + (subgroups.py).

    Raises:
        UserError: the file cannot be read, or what is wrong with its columns or rows, all of it together.
    """
    names = names_of_columns(file)
    _refuse_missing(file, STUDY_COLUMNS, names=names)
    layout = _layout(file, names, findings=findings)
    others = [name for name in names if ":" not in name and name not in STUDY_COLUMNS]
    has = f"{file} has {', '.join(others) or 'none to divide by'}"
    by = list(dict.fromkeys(name for pair in columns_of(by, there=names, otherwise=has).values() for name in pair))
    if identifying := [name for name in by if name in IDENTIFIERS]:
        raise UserError(
            f"--by {identifying[0]}: identifiers divide nobody into groups, and would stand on the page; {has}"
        )
    cells = read_cells(file, columns=list(dict.fromkeys([*layout.columns, *by])))
    identifiers = {name: cells.texts(name) for name in IDENTIFIERS}
    _add_wrong_identifiers(cells, identifiers)
    availability = _availability(cells)
    labels = np.stack([_labels(cells, f"label:{finding}") for finding in layout.scales], axis=1)
    logits = _logits(cells, layout, availability=availability)
    thresholds = _thresholds(cells, layout)
    cells.problems.raise_if_any()
    table = PredictionTable(
        findings=tuple(layout.scales),
        study_ids=identifiers["study"],
        patient_ids=identifiers["patient"],
        availability=availability,
        evaluated=np.isfinite(logits["route"]).any(axis=1),
        labels=np.nan_to_num(labels).astype(np.float32),
        label_mask=np.isfinite(labels),
        logits=logits,
        attributes={name: cells.values(name) for name in by},
        thresholds=thresholds,
    )
    if not table.evaluated.any():
        raise UserError(f"{file}: no study has a score; columns logit:F or probability:F are blank")
    unused = [name for name in names if name and name not in cells.columns]
    return ReadPredictions(table=table, remarks=tuple(_remarks(file, table, layout=layout, unused=unused)))


# -- columns ---------------------------------------------------------------------------------------


def _refuse_missing(file: Path, columns: Sequence[str], *, names: Sequence[str], hint: str = HINT) -> None:
    if missing := [name for name in columns if name not in names]:
        raise UserError(
            f"{file} has no column {', '.join(map(repr, missing))}; it has {', '.join(filter(None, names))}. {hint}"
        )


def _layout(file: Path, names: Sequence[str], *, findings: Sequence[str] | None) -> _Layout:
    """What the columns of the findings say.

    Raises:
        UserError: columns that are missing, contradict each other, or are misspelt.
    """
    parts = [name.partition(":") for name in names]
    found: dict[str, set[str]] = {}
    for kind, colon, finding in parts:
        if colon and kind in KINDS:
            found.setdefault(finding, set()).add(kind)
    if findings is not None:
        _refuse_missing(file, [f"label:{finding}" for finding in findings], names=names)
        found = {finding: found[finding] for finding in findings}
    problems = Problems(file)
    for kind, colon, finding in parts:
        is_near = kind.strip().casefold() in KINDS or (findings is None and finding in found)
        if colon and kind not in KINDS and is_near:
            problems.add(0, "column {} is not known; of a finding F there can be {}", repr(f"{kind}:{finding}"),
                         ", ".join(f"{kind}:F" for kind in KINDS))  # fmt: skip
    for finding, kinds in found.items():
        _add_contradictions(problems, finding, kinds)
    problems.raise_if_any()
    if not found:
        _refuse_missing(file, ["label:F"], names=names, hint=f"There is no finding. {HINT}")
    scales = {finding: next(scale for scale in SCALES if scale in kinds) for finding, kinds in found.items()}
    scores: dict[str, dict[str, str]] = {
        score: {
            finding: f"{scale}{suffix}:{finding}"
            for finding, scale in scales.items()
            if f"{scale}{suffix}" in found[finding]
        }
        for score, suffix in SUFFIXES.items()
    }
    thresholds: dict[str, dict[str, str]] = {
        score: {
            finding: f"{THRESHOLD}{suffix}:{finding}" for finding in scales if f"{THRESHOLD}{suffix}" in found[finding]
        }
        for score, suffix in SUFFIXES.items()
    }
    return _Layout(scales=scales, scores=scores, thresholds=thresholds if any(thresholds.values()) else {})


def _add_contradictions(problems: Problems, finding: str, kinds: set[str]) -> None:
    """Add what is wrong with the columns of one finding."""
    used = [scale for scale in SCALES if any(kind.startswith(scale) for kind in kinds)]
    if not finding.strip():
        problems.add(0, "a column {} names no finding behind the colon", " and ".join(f"{kind}:" for kind in kinds))
    elif len(used) > 1:
        problems.add(0, "finding {} has logits and probabilities; keep one of them, in all of its columns", finding)
    elif "label" not in kinds:
        problems.add(0, "finding {} has a score and no label; add the column label:{}", finding, finding)
    elif not used:
        problems.add(0, "finding {} has a label and no score; add logit:{} or probability:{}, or leave the label out",
                     finding, finding, finding)  # fmt: skip
    elif used[0] not in kinds:
        problems.add(0, "finding {} has a score with a view withheld and none of what is there; add {}", finding,
                     f"{used[0]}:{finding}")  # fmt: skip


# -- rows ------------------------------------------------------------------------------------------


def _add_wrong_identifiers(cells: Cells, identifiers: dict[str, np.ndarray]) -> None:
    """Add identifiers that are blank, stand for nothing or are rounded, and studies that come twice."""
    problems, lines = cells.problems, cells.lines
    for name, values in identifiers.items():
        for blank in np.flatnonzero(values == ""):
            problems.add(lines[blank], "{} is blank; give each study its study and its patient", name, of=name)
        for row, is_nothing in unusable(values):
            template = SAYS_NOTHING if is_nothing else WAS_ROUNDED
            problems.add(lines[row], template, name, repr(values[row]), of=name)
    for n, first in repeated(identifiers["study"]):
        if identifiers["study"][n]:
            problems.add(lines[n], TWICE, repr(identifiers["study"][n]),
                         problems.line(int(lines[first])))  # fmt: skip


def _availability(cells: Cells) -> np.ndarray:
    """(S,) int8 of `Availability`; what is none of them is -1, and added to the problems."""
    texts = cells.texts("availability")
    known = {text: ROUTES.index(text) for text in ROUTES}
    for n in np.flatnonzero(~np.isin(texts.astype(str), ROUTES)):
        cells.problems.add(cells.lines[n], "availability is {}; allowed are {}", repr(texts[n]), ", ".join(ROUTES))
    return np.array([known.get(text, -1) for text in texts], np.int8)


def _labels(cells: Cells, name: str) -> np.ndarray:
    """(S,) 1, 0, or NaN where the label is not known."""
    labels = cells.numbers(name)
    is_wrong = ~labels.is_blank & ~np.isin(labels.values, (0, 1))
    _add(cells, name, labels, is_wrong=is_wrong, template="{} is {}; allowed are 1, 0, and blank where it is not known")
    return labels.values


def _logits(cells: Cells, layout: _Layout, *, availability: np.ndarray) -> dict[str, np.ndarray]:
    """Score of `SCORES` -> (S, K) logits, NaN where there is none."""
    logits = {score: np.full((len(cells.lines), len(layout.scales)), np.nan) for score in SCORES}
    is_complete, has_one_view = availability == Availability.BOTH, availability > Availability.BOTH
    for k, (finding, scale) in enumerate(layout.scales.items()):
        route = cells.numbers(layout.scores["route"][finding])
        for score, columns in layout.scores.items():
            if finding not in columns:
                continue
            name = columns[finding]
            found = route if score == "route" else cells.numbers(name)
            logits[score][:, k] = _as_logits(cells, name, found, scale=scale)
            if score == "route" or found.is_blank.all():
                continue  # A column without any value says as much as one that is not there.
            _add(cells, name, found, is_wrong=has_one_view & ~found.is_blank, template=NOT_COMPLETE)
            is_alone = is_complete & (found.is_blank != route.is_blank)
            _add(cells, name, found, is_wrong=is_alone, template=NOT_PAIRED, blank="blank", there="there")
    return logits


def _thresholds(cells: Cells, layout: _Layout) -> dict[str, np.ndarray]:
    """Score -> (S, K) thresholds, NaN where there is none; {} without a column of any."""
    thresholds = {score: np.full((len(cells.lines), len(layout.scales)), np.nan) for score in layout.thresholds}
    for k, finding in enumerate(layout.scales):
        for score, columns in layout.thresholds.items():
            if finding not in columns:
                continue
            found = cells.numbers(columns[finding])
            is_wrong = ~found.is_blank & ~((found.values >= 0) & (found.values <= 1))
            template = "{} is {}; a threshold is a probability from 0 to 1, or blank where there is none"
            _add(cells, columns[finding], found, is_wrong=is_wrong, template=template)
            thresholds[score][:, k] = found.values
    return thresholds


def _as_logits(cells: Cells, name: str, numbers: Numbers, *, scale: str) -> np.ndarray:
    """(S,) logits of a column; what is none is added to the problems."""
    values = numbers.values
    is_wrong = ~numbers.is_blank & ~np.isfinite(values)
    template = "{} is {}; it must be a finite number, or blank where there is none"
    _add(cells, name, numbers, is_wrong=is_wrong, template=template)
    if scale == "logit":
        return values
    is_outside = (values < 0) | (values > 1)
    _add(cells, name, numbers, is_wrong=is_outside, template="{} is {}; a probability is from 0 to 1")
    return np.asarray(logit(np.clip(values, SMALLEST, LARGEST)), np.float64)


def _add(
    cells: Cells, name: str, numbers: Numbers, *, is_wrong: np.ndarray, template: str, blank: str = "", there: str = ""
) -> None:
    """Add the cells (S,) that are wrong: by what stands in them, or by whether anything does."""
    for n in np.flatnonzero(is_wrong):
        said = repr(numbers.found[n]) if isinstance(numbers.found[n], str) else str(numbers.found[n])
        said = (blank if numbers.is_blank[n] else there) or said
        cells.problems.add(cells.lines[n], template, name, said, of=name)


def _remarks(file: Path, table: PredictionTable, *, layout: _Layout, unused: Sequence[str]) -> list[str]:
    """What is not wrong, and should be known."""
    remarks = []
    if unused:
        remarks.append(f"{file.name}: {len(unused)} column(s) are not used: {', '.join(unused[:10])}")
    lacking = (~np.isfinite(table.logits["route"])).sum(axis=0)
    if lacking.any():
        counts = ", ".join(f"{f} {n:,}" for f, n in zip(table.findings, lacking, strict=True) if n)
        remarks.append(f"{file.name}: studies without a score, which take no part: {counts} of {len(table):,}")
    if tied := _tied_by_size(table, layout):
        named = ", ".join(f"{finding} (up to {most:g})" for finding, most in tied.items())
        remarks.append(
            f"{file.name}: logits above {TOLD_APART_TO} have the same probability, 1 to all digits, and count as ties, "
            f"so AUROC may be wrong: {named}. If they are of another scale, bring them into 0 to 1 without changing "
            "their order, as probability:F"
        )
    patients = list(dict.fromkeys(table.patient_ids))
    if alike := repeated(np.array([form_of(patient) for patient in patients], object)):
        one, other = (ascii(patients[n]) for n in alike[0])
        remarks.append(
            f"{file.name}: {len(alike)} patient(s) differ only in form from another, such as {one} from {other}; they "
            "are taken for different patients"
        )
    return remarks


def _tied_by_size(table: PredictionTable, layout: _Layout) -> dict[str, float]:
    """Findings, with their largest logit, of which different logits are so large that their probabilities are equal."""
    tied: dict[str, float] = {}
    for k, (finding, scale) in enumerate(layout.scales.items()):
        for logits in table.logits.values() if scale == "logit" else ():
            large = np.unique(logits[logits[:, k] > TOLD_APART_TO, k])
            if len(np.unique(to_probabilities(large))) < len(large):
                tied[finding] = max(float(large[-1]), tied.get(finding, 0.0))
    return tied


# -- what training knows ---------------------------------------------------------------------------


def read_train_prevalence(file: Path, *, table: PredictionTable) -> np.ndarray:
    """(3, K) share of positives among known training labels per `Availability` of the findings of a table.

    A file with columns `availability` and, per finding F, `prevalence:F`; NaN where it is blank.

    Raises:
        UserError: the file cannot be read, or lacks a finding or a kind of study that the table has.
    """
    names = names_of_columns(file)
    columns = ["availability", *(f"prevalence:{finding}" for finding in table.findings)]
    _refuse_missing(file, columns, names=names,
                    hint="Columns are availability, and per finding F prevalence:F, its share among known training "
                    "labels")  # fmt: skip
    cells = read_cells(file, columns=columns)
    kinds = _availability(cells)
    for n, first in repeated(cells.texts("availability")):
        cells.problems.add(cells.lines[n], "{} is in {} already; each kind of study has one row", ROUTES[kinds[n]],
                           cells.problems.line(int(cells.lines[first])))  # fmt: skip
    shares = np.full((len(Availability), len(table.findings)), np.nan)
    for k, name in enumerate(columns[1:]):
        found = cells.numbers(name)
        is_wrong = ~found.is_blank & ~((found.values >= 0) & (found.values <= 1))
        _add(cells, name, found, is_wrong=is_wrong, template="{} is {}; a share is from 0 to 1, or blank")
        shares[kinds, k] = found.values
    for kind in sorted(set(table.availability) - set(kinds)):
        cells.problems.add(0, "has no row for {}, which there are studies of", ROUTES[kind])
    cells.problems.raise_if_any()
    return shares
