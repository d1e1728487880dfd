"""What the configuration knows of each data set and each network by name: which keys they use.

A line here, and a file of the same name in data/sources/ or models/, is all that a new one needs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

ANY = frozenset({
    "source", "name", "weight", "split.file", "reference_standard",
    # These keys let `dualview predict` read tables of images, whatever the run was trained on.
    "columns.study", "columns.patient", "columns.view", "columns.path",
    "frontal_views", "lateral_views", "ignored_views", "body_parts", "identifiers",
})  # fmt: skip
"""Keys that act on any data set."""
FILES = ANY | {
    "root", "csv", "findings", "check_files", "intensity_max", "min_positive_patients", "cohort.availability",
    "cohort.one_image_per_view",
}  # fmt: skip
"""Keys of a data set in files."""
TABLE = FILES | {"on_missing_file"}
"""Keys of a data set whose table names its image files."""
DATES = frozenset({"cohort.one_study_per_patient", "cohort.tie_seed", "date_format"})
"""Keys of a cohort for data sets that know the date of each study."""
LABEL_NAMES = frozenset({
    "cohort.labelled_only", "cohort.drop_labels", "cohort.neutral_labels", "on_missing_finding",
})  # fmt: skip
"""Keys for data sets that name what a study has."""
CHEXPERT_LABELS = frozenset({"vocabulary", "uncertain", "unmentioned", "split.official"})

SOURCES: Mapping[str, frozenset[str]] = {
    "phantom": ANY,
    "csv": TABLE | DATES | {"attributes", "split.column"},
    "covid_cxr": TABLE | {"on_missing_finding"},
    "padchest": TABLE | DATES | LABEL_NAMES | {"vocabulary", "cohort.adults_only", "cohort.drop_repeated_rows"},
    "mimic_cxr": TABLE | DATES | CHEXPERT_LABELS | {"labeler"},
    "chexpert": TABLE | CHEXPERT_LABELS,
    "openi": TABLE | LABEL_NAMES | {"vocabulary"},
    "dicom": FILES | DATES | {"vocabulary", "on_missing_file"},
    "nih": TABLE | LABEL_NAMES | {"vocabulary", "split.official"},
    "vindr": TABLE | LABEL_NAMES | {"vocabulary", "split.official"},
    "chexpert_plus": TABLE | CHEXPERT_LABELS | {"labelled_section"},
}
"""Source -> the keys of `data` that its reader, or what is done with what it reads, looks at."""


@dataclass(frozen=True, kw_only=True)
class NetworkUse:
    """What the configuration must know of a network."""

    keys: frozenset[str]  # keys that the network looks at; `{view}` stands for `model.view`
    needs_all_views: bool = False  # whether it refuses a study that lacks one of its views
    needs_dense_blocks: bool = False  # whether its backbone must be a DenseNet
    has_dropout: bool = False  # whether it has dropout beside that of a DenseNet


BRANCHES = frozenset({"model.shared_branch", "optim.learning_rate_pa", "optim.learning_rate_lateral"})
JOINT = frozenset({"optim.learning_rate_joint"})
THREE_HEADS = BRANCHES | JOINT | {
    "model.joint_rule", "loss.pa_weight", "loss.lateral_weight", "loss.curriculum_probability", "loss.learned_weights",
    "loss.distill_weight",
}  # fmt: skip
MERGE = frozenset({"model.merge_after_block"})

NETWORKS: Mapping[str, NetworkUse] = {
    "auxloss": NetworkUse(keys=THREE_HEADS | MERGE),
    "dualnet": NetworkUse(keys=BRANCHES | JOINT | MERGE),
    "hemis": NetworkUse(keys=BRANCHES | JOINT, needs_dense_blocks=True),
    "attention": NetworkUse(keys=BRANCHES | JOINT, has_dropout=True),
    "single": NetworkUse(keys=frozenset({"model.view", "optim.learning_rate_{view}"}), needs_all_views=True),
    "stacked": NetworkUse(keys=JOINT, needs_all_views=True),
}
"""Network -> what it uses of the keys that not every network uses."""
NETWORK_KEYS = THREE_HEADS | MERGE | {"model.view"}


def keys_set(section: BaseModel, *, at: str = "") -> list[str]:
    """Keys, as `field` or `section.field`, whose values are not the defaults."""
    found = []
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            found += keys_set(value, at=f"{at}{name}.")
        elif value != field.default:
            found.append(at + name)
    return found


AnyModel = TypeVar("AnyModel", bound=BaseModel)


def with_defaults(section: AnyModel, keys: Iterable[str]) -> AnyModel:
    """A copy in which these keys, as `field` or `section.field`, have their defaults."""
    update: dict[str, Any] = {}
    for key in keys:
        name, _, within = key.partition(".")
        if within:
            update[name] = with_defaults(update.get(name, getattr(section, name)), [within])
        else:
            update[name] = type(section).model_fields[name].default
    return section.model_copy(update=update)
