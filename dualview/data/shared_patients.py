"""Patients who may stand in several sources: what is done where they are the same people, what is said where not."""

from collections.abc import Sequence

import numpy as np

from dualview.data.remarks import Remark
from dualview.data.splits import NOT_GIVEN, TRAIN_OR_VAL

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


def equal_identifiers(patient_ids: Sequence[np.ndarray], *, names: Sequence[np.ndarray]) -> list[tuple[Remark, ...]]:
    """For each source, how many of its patient identifiers other sources have too, and how many of these leak.

    Args:
        patient_ids: per source (S,) str, as the source has them.
        names: per source (S,) split of each study.
    """
    remarks = []
    for number, (ids, split) in enumerate(zip(patient_ids, names, strict=True)):
        others = [other for other in range(len(patient_ids)) if other != number]
        elsewhere = frozenset[str]().union(*(patient_ids[other] for other in others))
        trained_on = frozenset[str]().union(*(patient_ids[other][names[other] == "train"] for other in others))
        shared = sorted(set(ids) & elsewhere)
        tested = sorted(set(ids[split != "train"]) & trained_on)
        remarks.append(
            tuple(
                Remark(kind, len(patients), patients[0])
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
