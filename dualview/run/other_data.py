"""A run's network on other data than its own: which settings are those of the data, and whom the run knows of them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dualview.config import Config, DataConfig, SourceConfig
from dualview.config.load import DataSection
from dualview.config.uses import keys_set
from dualview.data.sources.identifiers import form_of
from dualview.data.sources.text_table import text_rows
from dualview.data.splits import SPLITS
from dualview.data.table import StudyTable
from dualview.errors import UserError
from dualview.run.directory import RunDir

OF_THE_DATA = (
    *SourceConfig.model_fields, "sources", "shared_patients", "split", "phantom", "seed", "store", "store_bits",
    "stage_to",
)  # fmt: skip
"""Keys of `data` that say what there is and where it lies; all others are about the network, and the run's count."""
OF_THE_DATA_IF_SAID = ("num_workers", "on_bad_image")
"""Keys that the data may set; where they do not, the run's count."""
SAME_PEOPLE = (frozenset({"chexpert", "chexpert_plus"}),)
"""Public data sets with the same patients under the same identifiers."""


def config_on(config: Config, other: DataSection) -> tuple[Config, list[str]]:
    """The settings of a run with other data, and what of the data's settings does not count, as `data.key value`."""
    data = other.data
    theirs = [*OF_THE_DATA, *(key for key in OF_THE_DATA_IF_SAID if key in data.model_fields_set)]
    of_run = {name: getattr(config.data, name) for name in DataConfig.model_fields if name not in theirs}
    ignored = [
        f"data.{key} ({_value(data, key)}, the run has {_value(config.data, key)})"
        for key in keys_set(data)
        if key.partition(".")[0] in of_run and _value(data, key) != _value(config.data, key)
    ]
    return config.model_copy(update={"data": data.model_copy(update={**of_run, "seed": other.seed})}), ignored


def _value(data: DataConfig, key: str) -> object:
    value: object = data
    for name in key.split("."):
        value = getattr(value, name)
    return value


# -- patients whom the run knows -------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Patients of other data whose identifiers stand in a run's split.csv, by split of the run."""

    same: dict[str, set[str]]  # the same people
    alike: dict[str, set[str]]  # the same identifiers, of people who may be others
    reason: str  # why equal identifiers mean the same people; blank: they may not

    def count(self, split: str) -> int:
        return len(self.same[split] | self.alike[split])


def overlap_with(run: RunDir, studies: StudyTable, *, of_run: Config, other: Config, said: bool | None) -> Overlap:
    """Look for the patients of these studies among those of a run.

    Args:
        studies: of the other data, as several sources name their patients.
        of_run, other: settings of the run, and those with the other data in their place.
        said: what the other data's `data.shared_patients` says. False: nobody is the same. None: nothing, and then the
            same data set means the same people, and so does the run's own `data.shared_patients`.

    Raises:
        UserError: the run has no split.csv.
    """
    same: dict[str, set[str]] = {split: set() for split in SPLITS}
    alike: dict[str, set[str]] = {split: set() for split in SPLITS}
    if said is False:
        return Overlap(same=same, alike=alike, reason="")
    if not run.split.exists():
        raise UserError(f"{run.split} is not there; without it nobody knows which patients the run was trained on")
    rows = text_rows(run.split, columns=["patient", "split"], hint="It is written by training").cells
    splits = rows["split"].to_numpy(object)
    form: Callable[[str], str] = form_of
    if any(source.identifiers == "exact" for config in (of_run, other) for source in config.data.all_sources):
        form = str
    ours = _by_source(rows["patient"].to_numpy(object), data=of_run.data, form=form)
    theirs = _by_source(studies.patient_ids, data=other.data, form=form)
    reasons = []
    for their_source, their_ids in theirs:
        for our_source, our_ids in ours:
            reason = _why_same(our_source, their_source, of_run=of_run, other=other, said=said)
            if "phantom" in {our_source.source, their_source.source} and reason is None:
                continue  # Phantoms of another seed, and people, are others, whatever they are called.
            here = set(their_ids) - {None}
            found = {split: here & set(our_ids[splits == split]) for split in SPLITS}
            for split, patients in found.items():
                (alike if reason is None else same)[split].update(patients)
            reasons += [reason] if reason is not None and any(found.values()) else []
    return Overlap(same=same, alike=alike, reason="; ".join(dict.fromkeys(reasons)))


def _by_source(
    patient_ids: np.ndarray, *, data: DataConfig, form: Callable[[str], str]
) -> list[tuple[SourceConfig, np.ndarray]]:
    """Each source with (S,) forms of its own patients' identifiers, None for those of others."""
    sources = data.all_sources
    if len(sources) == 1 or data.shared_patients:
        forms = _each([str(patient) for patient in patient_ids], form)
        return [(source, forms) for source in sources]
    found = []
    for source in sources:
        prefix = f"{source.name or source.source}:"
        own = [str(patient).removeprefix(prefix) if str(patient).startswith(prefix) else None
               for patient in patient_ids]  # fmt: skip
        found.append((source, _each(own, form)))
    return found


def _each(texts: Iterable[str | None], form: Callable[[str], str]) -> np.ndarray:
    return np.array([None if text is None else form(text) for text in texts], object)


def _why_same(
    ours: SourceConfig, theirs: SourceConfig, *, of_run: Config, other: Config, said: bool | None
) -> str | None:
    """Why equal identifiers of two sources mean the same people; None: nobody says so."""
    if said:
        return "data.shared_patients is true"
    if ours.source == theirs.source == "phantom":
        return "they are phantoms of the same data.seed" if of_run.data_seed == other.data_seed else None
    if of_run.data.shared_patients:
        return "data.shared_patients of the run is true"
    kinds = {ours.source, theirs.source}
    if any(kinds <= people for people in SAME_PEOPLE) or (len(kinds) == 1 and not kinds <= {"csv", "dicom"}):
        return f"{' and '.join(sorted(kinds))} have the same patients"
    return "it is the same table" if len(kinds) == 1 and _place(ours) == _place(theirs) else None


def _place(source: SourceConfig) -> Path | None:
    """The table, or the folder, that a source is read from."""
    place = source.csv
    if place is None and source.root is not None:
        place = source.root / "metadata.csv" if source.source == "csv" else source.root
    return None if place is None else place.resolve()


def refuse_trained_on(overlap: Overlap, *, run: RunDir) -> None:
    """Raises: UserError where the run was trained on patients of these studies."""
    if trained_on := overlap.same["train"]:
        raise UserError(
            f"{len(trained_on)} patient(s) of these data were trained on, as {run.split} says ({overlap.reason}): how "
            "a network does on them says nothing about new patients. Leave them out of the table, or take a split "
            f"without them, such as --split test data.split.file={run.split} where these are the data of the run; if "
            "equal identifiers mean other people, data.shared_patients=false"
        )
