"""Patients who may stand in several sources: what is done where they are the same people, what is said where not."""

from collections.abc import Sequence

import numpy as np

from dualview.data.remarks import Remark
from dualview.data.sources.identifiers import form_of
from dualview.data.splits import NOT_GIVEN, TRAIN_OR_VAL
from dualview.errors import UserError

STRICTEST_FIRST = ("test", "val", "train", TRAIN_OR_VAL, NOT_GIVEN)


def strictest_given(patient_ids: np.ndarray, *, given: np.ndarray) -> tuple[np.ndarray, tuple[Remark, ...]]:
    """What is given of the split of each study where sources share patients, and for whom they disagree.

    A patient is where the strictest of the sources has them: test before val before train. So no official
    test set loses a study, and nobody is trained on who is tested.

    Args:
        patient_ids: (S,) str.
        given: (S,) as `given_splits` has it.
    """
    patients, patient_of = np.unique(patient_ids.astype(str), return_inverse=True)
    strictness = np.array([STRICTEST_FIRST.index(name) for name in given])
    strictest = np.full(len(patients), len(STRICTEST_FIRST))
    np.minimum.at(strictest, patient_of, strictness)
    is_moved = (strictness != strictest[patient_of]) & (given != NOT_GIVEN)
    moved = patients[np.unique(patient_of[is_moved])]
    kind = "patient whom the sources' own splits put into different ones: test is taken before val, val before train"
    remarks = (Remark(kind, len(moved), str(moved[0])),) if len(moved) else ()
    return np.array(STRICTEST_FIRST, object)[strictest[patient_of]], remarks


def refuse_other_forms(patient_ids: np.ndarray) -> None:
    """Raises: UserError where sources that share patients write the identifier of one in two ways, by (S,) str."""
    first: dict[str, str] = {}
    differing = [
        (first[form], patient)
        for patient in dict.fromkeys(patient_ids)
        if first.setdefault(form := form_of(patient), patient) != patient
    ]
    if differing:
        one, other = map(ascii, differing[0])
        raise UserError(
            f"data.shared_patients is true, and {len(differing)} patient identifier(s) differ only in form from "
            f"another, such as {one} and {other}: they would be taken for two patients, one to train on and one to "
            "test. Write each in one way, or say that the difference is meant, in each entry of data.sources: "
            "identifiers: exact"
        )


def equal_identifiers(patient_ids: Sequence[np.ndarray], *, names: Sequence[np.ndarray]) -> list[tuple[Remark, ...]]:
    """For each source, how many of its patient identifiers other sources have too, and how many of these leak.

    Identifiers that differ only in form (001 and 1) count as equal: they may well mean one patient.

    Args:
        patient_ids: per source (S,) str, as the source has them.
        names: per source (S,) split of each study.
    """
    if len(patient_ids) == 1:
        return [()]
    forms = [np.array(list(map(form_of, ids)), object) for ids in patient_ids]
    remarks = []
    for number, (ids, split) in enumerate(zip(forms, names, strict=True)):
        others = [other for other in range(len(forms)) if other != number]
        elsewhere = frozenset[str]().union(*(forms[other] for other in others))
        trained_on = frozenset[str]().union(*(forms[other][names[other] == "train"] for other in others))
        as_written = dict(zip(ids, patient_ids[number], strict=True))
        shared = sorted(set(ids) & elsewhere)
        tested = sorted(set(ids[split != "train"]) & trained_on)
        remarks.append(
            tuple(
                Remark(kind, len(patients), str(as_written[patients[0]]))
                for kind, patients in (
                    (
                        "patient identifier that another source has too; if it means the same people, set "
                        "data.shared_patients=true",
                        shared,
                    ),
                    ("patient identifier in val or test here that another source trains on", tested),
                )
                if patients
            )
        )
    return remarks
