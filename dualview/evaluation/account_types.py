"""What evaluation.json says of the study beside its results, as types: patients, labels, partition, choice."""

from dataclasses import dataclass, field

from dualview.data.sources.about import Reader
from dualview.data.sources.flow import FlowStep


@dataclass(frozen=True, kw_only=True)
class SourceAccount:
    """One data set: where it is from, who read its images, and what each rule leaves of it."""

    name: str  # what `data.sources` calls it
    title: str | None  # name of a public data set; null: the user's own
    citation: str | None  # null as the title
    licence: str | None  # null as the title
    origin: str | None  # hospitals and years of the whole data set, as its authors say; null as the title
    first_year: int | None  # of the studies that are used, by their dates; null: not recorded, or dates are shifted
    last_year: int | None  # null as the first
    reference_by: Reader | None  # who or what read images or reports; null: in the words of `reference_standard` alone
    reference_standard: str | None  # how labels came about; null: not recorded
    labelled_by: dict[str, dict[str, int]]  # split -> who labelled -> studies; {}: the table does not say
    flow: list[FlowStep]  # what was read, then what each rule leaves; of all splits


@dataclass(frozen=True, kw_only=True)
class AgeAccount:
    """Ages of the patients of a split, in years, each at the first of the studies in the order of the table."""

    num_known: int  # number of patients whose age is known
    lower_quartile: float  # 25th percentile, in years
    median: float  # in years
    upper_quartile: float  # 75th percentile, in years


@dataclass(frozen=True, kw_only=True)
class SplitAccount:
    """Who the patients of a split are."""

    patients: int  # number of patients
    studies: int  # number of studies
    availability: dict[str, int]  # both, pa_only, lateral_only -> studies
    sex: dict[str, int] | None  # female, male, other, not recorded -> patients; null: no column of it
    age: AgeAccount | None  # null: no column of it, or no patient whose age is known
    taken: int  # number of the studies that the network can take; others lack a view that it needs


@dataclass(frozen=True, kw_only=True)
class LabelAccount:
    """What is not known of a finding, and what training makes of it."""

    policy: str  # what training makes of uncertain labels (`data.uncertain`), by source where they differ
    uncertain_in_training: int  # number of training studies whose report hedges, before that policy
    unknown_in_training: int  # number of training studies without a label, after it
    unknown_in_split: int  # number of studies of the evaluated split without a label


@dataclass(frozen=True, kw_only=True)
class CheckpointChoice:
    """How the weights that are evaluated were chosen."""

    rule: str  # as a sentence
    num_validations: int  # number of validations of the training, each of other weights
    value: float | None  # `train.best_metric` on val of these weights; null: not in the log


@dataclass(frozen=True, kw_only=True)
class StudyAccount:
    """What guidelines of reporting (CLAIM 2024, TRIPOD+AI) ask beside results, and a run knows."""

    evaluated_on: str  # date of the evaluation, YYYY-MM-DD
    software: str  # version that evaluated
    study: dict[str, str]  # key of the section `study` -> what people wrote there
    sources: list[SourceAccount] = field(default_factory=list)  # data sets; []: predictions of another software
    splits: dict[str, SplitAccount] = field(default_factory=dict)  # split -> its patients; with assess, test alone
    partition: list[str] = field(default_factory=list)  # how patients were divided, as sentences; []: not recorded
    leakage: list[str] = field(default_factory=list)  # what was checked, as sentences; []: not recorded
    left_out_of_training: dict[str, int] = field(default_factory=dict)  # patients, studies -> left out by the settings
    studies_not_read: int = 0  # number of studies of the evaluated split of which no image could be read
    studies_with_a_view_not_read: int = 0  # number of studies evaluated with fewer views than they came with
    missing_views: str | None = None  # what the network does without a view, as a sentence; null: not recorded
    labels: dict[str, LabelAccount] = field(default_factory=dict)  # finding -> its labels; {}: not recorded
    choice: CheckpointChoice | None = None  # null: not recorded
