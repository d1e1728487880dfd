"""What a run knows of its study beside results: data sets, flow, patients, labels, partition, choice of the weights.

No identifier, path or date of a patient is in it: of dates the years of a whole data set, of ages the quartiles.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np

from dualview.config import Config, SourceConfig
from dualview.config.uses import SOURCES
from dualview.data.counts import left_out_of_training
from dualview.data.load import Data
from dualview.data.people import is_age, is_sex, plausible_years, sex_of
from dualview.data.sources.about import ABOUT, reference_standard
from dualview.data.sources.dates import NEVER, times_of
from dualview.data.sources.image_rows import SourceTable
from dualview.data.splits import NOT_GIVEN, TRAIN_OR_VAL, given_splits
from dualview.data.table import StudyTable
from dualview.errors import UserError
from dualview.evaluation.account_types import (
    AgeAccount,
    CheckpointChoice,
    LabelAccount,
    SourceAccount,
    SplitAccount,
    StudyAccount,
)
from dualview.evaluation.best_metric import in_words
from dualview.evaluation.prediction_table import PredictionTable
from dualview.run import metric_keys
from dualview.run.trained import TrainedNetwork
from dualview.views import ALL_STUDIES, ROUTES, Availability

SEX_TITLES = {"F": "female", "M": "male", "O": "other", "": "not recorded"}
MICROSECONDS_PER_DAY = 86_400_000_000


def study_account(
    config: Config,
    *,
    whole: Data,
    taken: Data,
    split: str,
    table: PredictionTable,
    came: StudyTable,
    network: TrainedNetwork,
    checkpoint_name: str,
    software: str,
) -> StudyAccount:
    """The account of an evaluation of a run.

    Args:
        whole: all studies.
        taken: those that the network can take.
        split: the one that was evaluated.
        table: its predictions, by the views that could be read.
        came: its studies, row by row, by the views that they came with.
        checkpoint_name: as it was asked for.
        software: name and version of what evaluates.
    """
    is_less = table.evaluated & (table.availability != came.availability)
    sections = list(zip(whole.sources, config.data.all_sources, strict=True))
    return StudyAccount(
        evaluated_on=date.today().isoformat(),
        software=software,
        study={key: text for key, text in config.study.model_dump().items() if text},
        sources=[_source(source, section, splits=whole.whole_splits) for source, section in sections],
        splits={
            name: split_account(
                studies.attributes,
                patients=studies.patient_ids,
                availability=studies.availability,
                taken=len(taken.splits[name]),
            )
            for name, studies in whole.splits.items()
        },
        partition=_partition(whole.sources, config=config),
        leakage=_leakage(config),
        left_out_of_training=left_out_of_training(whole),
        studies_not_read=int((~table.evaluated).sum()),
        studies_with_a_view_not_read=int(is_less.sum()),
        missing_views=_missing_views(config),
        labels=_labels(taken, split=split, config=config),
        choice=_choice(network, checkpoint_name=checkpoint_name),
    )


def account_of_other_data(
    config: Config,
    *,
    studies: Data,
    split: str | None,
    trained_on: str,
    table: PredictionTable,
    network: TrainedNetwork,
    checkpoint_name: str,
    software: str,
) -> StudyAccount:
    """The account of an evaluation on data that the run was not made from.

    Args:
        config: of the run, with the other data in the place of its own.
        studies: those that the network can take, all as `test`.
        split: which of their splits they are; None: all their studies, undivided.
        trained_on: what is known of patients whom the run may have seen, as a sentence.
        table: predictions of them, row by row.
    """
    came = studies.test
    is_less = table.evaluated & (table.availability != came.availability)
    sections = list(zip(studies.sources, config.data.all_sources, strict=True))
    which = "All studies of these data" if split is None else f"The {split} split of these data"
    patients = split_account(
        came.attributes, patients=came.patient_ids, availability=came.availability, taken=len(came)
    )
    return StudyAccount(
        evaluated_on=date.today().isoformat(),
        software=software,
        study={},  # What the run's section `study` says is of its own data.
        sources=[_source(source, section, splits={"test": came}) for source, section in sections],
        splits={"test": patients},
        partition=[f"{which}: nothing was trained or chosen on them here."],
        leakage=[trained_on],
        studies_not_read=int((~table.evaluated).sum()),
        studies_with_a_view_not_read=int(is_less.sum()),
        missing_views=_missing_views(config),
        choice=_choice(network, checkpoint_name=checkpoint_name),
    )


def account_of_predictions(table: PredictionTable, *, software: str) -> StudyAccount:
    """What predictions of another software say of their study: sex and age where they are among the columns."""
    patients = split_account(
        table.attributes, patients=table.patient_ids, availability=table.availability, taken=len(table)
    )
    return StudyAccount(
        evaluated_on=date.today().isoformat(),
        software=software,
        study={},
        splits={"test": patients},
        studies_not_read=int((~table.evaluated).sum()),
    )


def split_account(
    attributes: Mapping[str, np.ndarray], *, patients: np.ndarray, availability: np.ndarray, taken: int
) -> SplitAccount:
    """Who the patients of (S,) studies are; of each, sex and age are those of the first study that says them.

    Args:
        attributes: name -> (S,) text.
        availability: (S,) of `Availability`.
        taken: studies that the network can take.
    """
    of_patient = np.unique(patients.astype(str), return_inverse=True)[1]
    num_patients = int(of_patient.max()) + 1 if len(of_patient) else 0
    sex, age = None, None
    # Each of several data sets may have a column of its own, which is blank for the studies of the others.
    if columns := list(filter(is_sex, attributes)):
        known = np.full(len(patients), "", object)
        for column in columns:
            of_column = np.array([sex_of(text) for text in attributes[column].astype(str)], object)
            known = np.where(known == "", of_column, known)
        first = _first_known(of_patient, num_patients, known=known, is_known=known != "", otherwise="")
        sex = {title: int((first == code).sum()) for code, title in SEX_TITLES.items()}
    if columns := list(filter(is_age, attributes)):
        years = np.full(len(patients), np.nan)
        for column in columns:
            years = np.where(np.isfinite(years), years, plausible_years(attributes[column]))
        first = _first_known(of_patient, num_patients, known=years, is_known=np.isfinite(years), otherwise=np.nan)
        age = _ages(first[np.isfinite(first)])
    return SplitAccount(
        patients=num_patients,
        studies=len(patients),
        availability={ROUTES[kind]: int((availability == kind).sum()) for kind in Availability},
        sex=sex,
        age=age,
        taken=taken,
    )


def _first_known(
    of_patient: np.ndarray, num_patients: int, *, known: np.ndarray, is_known: np.ndarray, otherwise: Any
) -> np.ndarray:
    """(P,) value of each patient's first study that has one."""
    values = np.full(num_patients, otherwise, known.dtype)
    rows = np.flatnonzero(is_known)[::-1]  # Of several rows of a patient the last that is written is the first.
    values[of_patient[rows]] = known[rows]
    return values


def _ages(years: np.ndarray) -> AgeAccount | None:
    if not len(years):
        return None
    lower, median, upper = (round(float(value), 1) for value in np.quantile(years, [0.25, 0.5, 0.75]))
    return AgeAccount(num_known=len(years), lower_quartile=lower, median=median, upper_quartile=upper)


# -- data sets -------------------------------------------------------------------------------------


def _source(source: SourceTable, section: SourceConfig, *, splits: Mapping[str, StudyTable]) -> SourceAccount:
    about, standard = ABOUT.get(section.source), reference_standard(section)
    is_shifted = about is not None and about.dates_are_shifted
    first, last = (None, None) if is_shifted else _years(source.table, date_format=section.date_format)
    return SourceAccount(
        name=source.name,
        title=about.title if about else None,
        citation=about.citation if about else None,
        licence=about.licence if about else None,
        origin=about.origin if about else None,
        first_year=first,
        last_year=last,
        reference_by=standard.by,
        reference_standard=standard.says or None,
        labelled_by=_labelled_by(splits, name=source.name),
        flow=list(source.flow),
    )


def _years(table: StudyTable, *, date_format: str | None) -> tuple[int | None, int | None]:
    """First and last year of the studies that have a date; None where dates are missing or cannot be read."""
    if "date" not in table.attributes:
        return None, None
    try:
        times = times_of(table.attributes["date"], date_format=date_format)
    except UserError:
        return None, None
    known = times[times != NEVER]
    if not len(known):
        return None, None
    return _year(known.min()), _year(known.max())


def _year(microseconds: np.int64) -> int:
    return date.fromordinal(int(microseconds) // MICROSECONDS_PER_DAY + 1).year


def _labelled_by(splits: Mapping[str, StudyTable], *, name: str) -> dict[str, dict[str, int]]:
    """Split -> who labelled -> studies of the source; {} where its table does not say."""
    counted = {}
    for split, table in splits.items():
        if (labelled_by := table.attributes.get("labelled_by")) is None:
            return {}
        is_own = table.attributes["source"] == name if "source" in table.attributes else np.ones(len(table), bool)
        who, numbers = np.unique(labelled_by[is_own & (labelled_by != "")].astype(str), return_counts=True)
        counted[split] = dict(zip(who.tolist(), numbers.tolist(), strict=True))
    return counted if any(counted.values()) else {}


# -- partition -------------------------------------------------------------------------------------


def _partition(sources: Sequence[SourceTable], *, config: Config) -> list[str]:
    """How patients were divided, as sentences."""
    said = ["Patients are divided, not studies or images: a patient is in one split only."]
    split = config.data.split
    fractions = f"{split.train:g} / {split.val:g} / {split.test:g}"
    drawn = f"(seed {config.data_seed}, stratified by the views that exist and the rarest finding)"
    for source, section in zip(sources, config.data.all_sources, strict=True):
        has_column = "split.column" in SOURCES[section.source]
        given = given_splits(source.table, config=split if has_column else split.model_copy(update={"column": None}))
        if split.file is not None:
            how = "as a file says, that of an earlier run (data.split.file)"
        elif split.column is not None and has_column:
            how = "as a column of the table says (data.split.column)"
        elif (given == NOT_GIVEN).any():
            how = f"drawn, train / val / test {fractions} {drawn}"
        elif (given == TRAIN_OR_VAL).any():
            ratio = f"{split.train:g} : {split.val:g}"
            how = f"test is the official one of the data set, val is drawn from the others {ratio} {drawn}"
        else:
            how = "the official split of the data set"
        said.append(f"{source.name}: {how}.")
    if split.max_train_patients is not None:
        said.append(f"Training takes {split.max_train_patients:,} patients of the train split.")
    if config.data.train_on:
        said.append(f"Training takes studies that are {' or '.join(config.data.train_on)}.")
    return said


def _leakage(config: Config) -> list[str]:
    """What was checked: an evaluation that has come this far has passed."""
    data = config.data
    exact = [source.name or source.source for source in data.all_sources if source.identifiers == "exact"]
    said = ["No patient is in two splits.", "No patient of val and test is among those that the run was trained on."]
    if exact:
        said.append(f"Identifiers are compared as they stand (data.identifiers: exact, {', '.join(exact)}).")
    else:
        said.append("Identifiers of patients that differ only in form (1001 and 01001) were looked for, and refused.")
    if len(data.all_sources) > 1:
        said.append(
            "Equal identifiers of several sources are the same people, and are in one split."
            if data.shared_patients
            else "Equal identifiers of several sources are taken for different people."
        )
    return said


# -- labels, views, weights ------------------------------------------------------------------------


def _missing_views(config: Config) -> str:
    model = config.model
    if model.needs_all_views:
        views = " and ".join(view.title for view in model.views)
        return f"{model.name} needs {views}: studies that lack it are left out, in training and here."
    return (
        "No image is invented for a view that a study lacks: the study is judged by the part of the network that sees "
        "what is there."
    )


def _labels(taken: Data, *, split: str, config: Config) -> dict[str, LabelAccount]:
    """Finding -> what is unknown of it. Uncertain labels are counted as the sources give them."""
    train, judged = taken.splits["train"], taken.splits[split]
    uncertain = _uncertain_in_training(taken)
    names = [source.name for source in taken.sources]
    labels = {}
    for k, finding in enumerate(train.findings):
        policies = [_policy(section, finding) for section in config.data.all_sources]
        together = dict.fromkeys(policies)
        said = policies[0] if len(together) == 1 else "; ".join(map(": ".join, zip(names, policies, strict=True)))
        labels[finding] = LabelAccount(
            policy=said,
            uncertain_in_training=uncertain.get(finding, 0),
            unknown_in_training=int((~train.label_mask[:, k]).sum()),
            unknown_in_split=int((~judged.label_mask[:, k]).sum()),
        )
    return labels


def _policy(section: SourceConfig, finding: str) -> str:
    """The policy for uncertain labels of a finding as the settings name it (config/uncertain.py)."""
    uncertain = section.uncertain
    return uncertain if isinstance(uncertain, str) else uncertain.get(finding, uncertain.get("default", "ignore"))


def _uncertain_in_training(taken: Data) -> dict[str, int]:
    """Finding -> training studies whose report hedges, before a policy makes labels of them."""
    train = taken.splits["train"]
    in_training = set(zip(train.patient_ids, train.study_ids, strict=True))
    counts: dict[str, int] = {}
    for source in taken.sources:
        table = source.table
        if table.uncertain is None or not table.uncertain.any():
            continue
        pairs = zip(table.patient_ids, table.study_ids, strict=True)
        is_in = np.fromiter((pair in in_training for pair in pairs), bool, len(table))
        for k, finding in enumerate(table.findings):
            counts[finding] = counts.get(finding, 0) + int(table.uncertain[is_in, k].sum())
    return counts


def _choice(network: TrainedNetwork, *, checkpoint_name: str) -> CheckpointChoice:
    """How the weights were chosen, by the log of the run."""
    train = network.config.train
    # Runs of the first versions have no key of their own for what they chose by: macro AUROC of all studies.
    keys = (metric_keys.VAL_VALUE, metric_keys.macro("val", metric="auroc", group=ALL_STUDIES))
    lines = [line for line in network.run.read_log() if "step" in line]
    key = next((key for key in keys if any(key in line for line in lines)), keys[0])
    seen = {line["step"]: line[key] for line in lines if key in line}
    rule = (
        f"the highest {in_words(train.best_metric, findings=train.best_findings)} on val; test took no part"
        if network.is_best
        else f"asked for by hand (--checkpoint {checkpoint_name}), not by a metric"
    )
    return CheckpointChoice(rule=rule, num_validations=len(seen), value=seen.get(network.step))
