"""Train, val and test: a patient is in one of them only."""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from dualview.config import SplitConfig
from dualview.data.sources.identifiers import form_of
from dualview.data.sources.problems import Problems
from dualview.data.sources.text_table import text_rows
from dualview.data.table import StudyTable
from dualview.errors import UserError
from dualview.files import write_whole

SPLITS = ("train", "val", "test")
TRAIN_OR_VAL, NOT_GIVEN = "train or val", ""


def split_by_patient(table: StudyTable, *, config: SplitConfig, seed: int) -> dict[str, StudyTable]:
    """The studies of a table in their splits; see `split_names`.

    Raises:
        UserError: as `split_names`.
    """
    names = split_names(table, given=given_splits(table, config=config), config=config, seed=seed)
    return {name: table.select(np.flatnonzero(names == name)) for name in SPLITS}


def split_names(table: StudyTable, *, given: np.ndarray, config: SplitConfig, seed: int) -> np.ndarray:
    """(S,) split of each study: what the file says, else what is given, else drawn by fractions.

    Those of `TRAIN_OR_VAL` are divided in the proportion of the two fractions. Where something is drawn,
    patients are stratified by what views their studies have and by the rarest finding they have, so that rare
    laterals and rare findings reach every split. A function of the table, the fractions and the seed.

    With `data.split.folds`, test is one of them, and the others are divided as those of `TRAIN_OR_VAL`.

    Args:
        given: (S,) as `given_splits` has it.

    Raises:
        UserError: a split that was asked for is empty, or a patient is in two; with folds, the data come with a split,
            or there are fewer patients than folds.
    """
    if config.file is not None:
        names = _from_file(table, file=config.file)
    elif config.folds is not None:
        names = _from_folds(table, given=given, config=config, num_folds=config.folds, seed=seed)
    else:
        names = given.copy()
        without_test = config.train + config.val
        for which, fractions in (
            (TRAIN_OR_VAL, (config.train / without_test, config.val / without_test, 0.0)),
            (NOT_GIVEN, (config.train, config.val, config.test)),
        ):
            rows = np.flatnonzero(given == which)
            if len(rows):
                names[rows] = _draw(table.select(rows), fractions=fractions, seed=seed)
    _refuse_patients_in_two(table, names)
    is_drawn = config.file is None and (given == NOT_GIVEN).any()
    has_test = config.folds is not None or config.test > 0
    wanted = [name for name in SPLITS if name != "test" or (has_test and is_drawn)]
    if empty := [name for name in wanted if not (names == name).any()]:
        counts = ", ".join(f"{name} {(names == name).sum()}" for name in SPLITS)
        raise UserError(
            f"the {' and '.join(empty)} split is empty ({counts} studies of {len(set(table.patient_ids))} patients). "
            "Change the fractions of data.split, the split that the data comes with (data.split.official, .column, "
            ".file), or bring more patients"
        )
    return names


def given_splits(table: StudyTable, *, config: SplitConfig) -> np.ndarray:
    """(S,) what is known of each study's split before any is drawn: one of `SPLITS`, `TRAIN_OR_VAL`, `NOT_GIVEN`.

    An official test set stays one whatever is drawn. val is drawn from the official training set, and from
    the official val, where there is none or where `data.split.official` is false.
    """
    if table.split is None:
        return np.full(len(table), NOT_GIVEN, object)
    if config.column is not None:
        return table.split
    if config.official and (table.split == "val").any():
        return table.split
    if not (table.split == "test").any():
        return np.full(len(table), NOT_GIVEN, object)
    return np.where(table.split == "test", "test", TRAIN_OR_VAL).astype(object)


def fold_numbers(table: StudyTable, *, num_folds: int, seed: int) -> np.ndarray:
    """(S,) fold of the patient of each study, from 1 to `num_folds`.

    The patients of each stratum are dealt out in random order, one stratum after the other, so that folds differ by one
    patient at most, in all and in every stratum. A function of the patients, their views and labels, the number of
    folds and the seed; not of the order of the table.
    """
    patients, patient_of = np.unique(table.patient_ids.astype(str), return_inverse=True)
    generator = np.random.default_rng([seed, 5])
    strata = _strata(table, patient_of, smallest=num_folds)
    dealt = np.concatenate([generator.permutation(np.flatnonzero(strata == stratum)) for stratum in np.unique(strata)])
    folds = np.empty(len(patients), int)
    folds[dealt] = np.arange(len(patients)) % num_folds + 1
    study_folds: np.ndarray = folds[patient_of]
    return study_folds


def places_in_line(train: StudyTable, *, seed: int, number: int = 0) -> np.ndarray:
    """(S,) float64 in [0, 1): where the patient of each training study stands in line for a smaller training set.

    The patients of each stratum stand evenly spaced, in random order and from a random start, so that any
    beginning of the line holds every stratum in proportion, to within one patient, and is part of any longer
    one. A function of the patients, their views and labels, the seed and the number of the source.
    """
    patients, patient_of = np.unique(train.patient_ids.astype(str), return_inverse=True)
    generator = np.random.default_rng([seed, 4, number])
    strata = _strata(train, patient_of, smallest=1)
    places = np.empty(len(patients))
    for stratum in np.unique(strata):
        members = generator.permutation(np.flatnonzero(strata == stratum))
        places[members] = (np.arange(len(members)) + generator.random()) / len(members)
    study_places: np.ndarray = places[patient_of]
    return study_places


def first_in_line(train: StudyTable, *, places: np.ndarray, num_patients: int) -> np.ndarray:
    """(S,) bool: the studies of the first `num_patients` patients by their places (S,) of `places_in_line`."""
    _, first, patient_of = np.unique(train.patient_ids.astype(str), return_index=True, return_inverse=True)
    return np.isin(patient_of, np.argsort(places[first], kind="stable")[:num_patients])


def write_splits(path: Path, splits: dict[str, StudyTable]) -> None:
    """Who is in which split: patient, split; to be given as `data.split.file` to another run."""
    rows = [(patient, name) for name, table in splits.items() for patient in dict.fromkeys(table.patient_ids)]
    write_whole(path, pd.DataFrame(rows, columns=["patient", "split"]).to_csv(index=False))


def _draw(table: StudyTable, *, fractions: tuple[float, float, float], seed: int) -> np.ndarray:
    """(S,) split name of each study, by fractions of the patients for train, val and test."""
    patients, patient_of = np.unique(table.patient_ids.astype(str), return_inverse=True)
    bounds = np.rint(np.cumsum(fractions) * len(patients)).astype(int)
    strata = _strata(table, patient_of, smallest=int(np.ceil(1 / min(f for f in fractions if f > 0))))
    in_train, rest = _divide(np.arange(len(patients)), bounds[0], strata=strata, seed=seed)
    in_val, _ = _divide(rest, bounds[1] - bounds[0], strata=strata, seed=seed)
    names = np.full(len(patients), "test", object)
    names[in_train], names[in_val] = "train", "val"
    study_names: np.ndarray = names[patient_of]
    return study_names


def _from_folds(table: StudyTable, *, given: np.ndarray, config: SplitConfig, num_folds: int, seed: int) -> np.ndarray:
    """(S,) split name of each study: test is the fold of `config.fold`, the others are train and val.

    Raises:
        UserError: the data come with a split, or there are fewer patients than folds.
    """
    if num_tested := int((given == "test").sum()):
        raise UserError(
            f"data.split.folds is {num_folds}, and the data come with a test set of {num_tested:,} studies, which "
            "stays one: leave folds out"
        )
    if (given != NOT_GIVEN).any():
        raise UserError(
            f"data.split.folds is {num_folds}, and the data come with a split: set data.split.official=false, or leave "
            "folds out"
        )
    num_patients = len(set(table.patient_ids))
    if num_patients < num_folds:
        raise UserError(
            f"data.split.folds is {num_folds}, and there are {num_patients} patients: each fold needs one; set at most "
            f"{num_patients}"
        )
    is_tested = fold_numbers(table, num_folds=num_folds, seed=seed) == config.fold
    names = np.full(len(table), "test", object)
    rest, total = np.flatnonzero(~is_tested), config.train + config.val
    names[rest] = _draw(table.select(rest), fractions=(config.train / total, config.val / total, 0.0), seed=seed)
    return names


def _strata(table: StudyTable, patient_of: np.ndarray, *, smallest: int) -> np.ndarray:
    """(P,) stratum of each patient: what views there are, and the rarest finding; fewer than `smallest` are merged."""
    num_patients = int(patient_of.max()) + 1
    kinds = np.zeros((num_patients, 3), bool)
    kinds[patient_of, table.availability] = True
    views = kinds @ (1, 2, 4)
    positive = np.zeros((num_patients, len(table.findings)), bool)
    np.logical_or.at(positive, patient_of, table.positive)
    rarest_first = np.argsort(positive.sum(axis=0), kind="stable")
    has_any = positive.any(axis=1)
    rarest = np.where(has_any, positive[:, rarest_first].argmax(axis=1) if len(rarest_first) else 0, -1)
    strata = views * (len(table.findings) + 2) + rarest + 1
    for coarser in (views + strata.max() + 1, np.full(num_patients, -1)):
        _, stratum_of, sizes = np.unique(strata, return_inverse=True, return_counts=True)
        strata = np.where(sizes[stratum_of] < smallest, coarser, strata)
    _, stratum_of, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    if sizes.min() < smallest:  # A merged rest that is still too small joins the largest.
        strata = np.where(sizes[stratum_of] < smallest, strata[sizes[stratum_of].argmax()], strata)
    return strata


def _divide(members: np.ndarray, num_first: int, *, strata: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`num_first` of the members and the others, in equal shares of each stratum."""
    num_rest = len(members) - num_first
    if min(num_first, num_rest) <= 0:
        return members[:num_first], members[num_first:]
    _, sizes = np.unique(strata[members], return_counts=True)
    stratify = strata[members] if sizes.min() > 1 and len(sizes) <= min(num_first, num_rest) else None
    first, rest = train_test_split(
        members, train_size=int(num_first), test_size=int(num_rest), stratify=stratify, random_state=seed
    )
    return np.sort(first), np.sort(rest)


def _from_file(table: StudyTable, *, file: Path) -> np.ndarray:
    """(S,) split name of each study, as the file says of its patient.

    Raises:
        UserError: the file cannot be read, a patient stands in it twice or not at all, or an unknown split.
    """
    rows = text_rows(file, columns=["patient", "split"], hint="It is the split.csv of a run (data.split.file)")
    patients, splits = rows.cells["patient"], rows.cells["split"]
    problems = Problems(file)
    for mask, template in (
        (~splits.isin(SPLITS), f"split is {{}}, not one of {', '.join(SPLITS)}"),
        (patients.duplicated(), "patient stands in it already, now with split {}"),
        (patients == "", "patient is blank, with split {}"),
    ):
        for row in np.flatnonzero(mask):
            problems.add(rows.lines[row], template, repr(splits.iloc[row]))
    patient_splits = dict(zip(patients, splits, strict=True))
    absent = sorted(set(table.patient_ids) - set(patient_splits))
    if absent:
        form_in_file = dict(zip(patients.map(form_of), patients, strict=True))
        alike = [(patient, form_in_file[form_of(patient)]) for patient in absent if form_of(patient) in form_in_file]
        for patient, other in alike:
            line = rows.lines[np.flatnonzero(patients == other)[0]]
            problems.add(
                line, "patient {} of the data is in it as {}; write both in one way", ascii(patient), ascii(other)
            )
        problems.add(0, "{} patient(s) of the data are not in it, such as {}", len(absent), ascii(absent[0]))
    problems.raise_if_any()
    return np.array([patient_splits[patient] for patient in table.patient_ids], object)


def _refuse_patients_in_two(table: StudyTable, names: np.ndarray) -> None:
    """Raises: UserError where a patient has studies in two splits."""
    pairs = pd.DataFrame({"patient": table.patient_ids, "split": names}).drop_duplicates()
    in_two = pairs["patient"].duplicated().sum()
    if in_two:
        raise UserError(
            f"{in_two} patient(s) are in more than one split; a patient's images look alike, so results would be too "
            "good. Mend the split column or file, or set data.split.official=false"
        )
