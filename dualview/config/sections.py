"""The configuration of a run: checked data, known before anything is loaded.

Order of precedence: default < YAML file < `section.field=value` on the command line. Unknown keys,
wrong types and impossible combinations are reported together. The docstring under each field is
its help text; `dualview config CONFIG` prints the resolved whole.
"""

import re
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from dualview.config.uncertain import UncertainPolicy
from dualview.config.uses import NETWORK_KEYS, NETWORKS, SOURCES, keys_set, with_defaults
from dualview.views import Availability, View

Fraction = Annotated[float, Field(ge=0, le=1)]
AVAILABILITY_NAMES = Literal["both", "pa_only", "lateral_only"]
SeveralImages = Literal["first", "mean", "max"]
if TYPE_CHECKING:
    SourceName = str
    NetworkName = str
else:
    # Names come from the tables of uses.py, so that a new data set or network stands in one place.
    SourceName = Literal[*SOURCES]
    NetworkName = Literal[*NETWORKS]


PREDICTED_COLUMNS = frozenset({"study", "patient", "views", "reason"})
"""Columns of what `dualview predict` writes, beside those of the findings."""


class Section(BaseModel):
    """A part of the configuration: immutable, closed to unknown keys, documented field by field."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False, coerce_numbers_to_str=True
    )


class RunConfig(Section):
    """Where the run lives and what it runs on."""

    dir: Path = Path("runs/default")
    """Directory of everything the run writes: new, empty, or of a run to be continued (`train.resume`)."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Origin of every random number: order, augmentation, dropout, initial weights; splits too, without `data.seed`."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes the GPU of this process where there is one; `cpu` never does."""
    deterministic: bool = True
    """Deterministic kernels: two runs of one seed and machine give bit-equal weights."""


class SplitConfig(Section):
    """How patients are divided. A patient is in one split only."""

    train: float = Field(0.6, gt=0, lt=1)
    """Fraction of the patients to train on (the paper's 60/20/20)."""
    val: float = Field(0.2, gt=0, lt=1)
    """Fraction of the patients to choose the best checkpoint on."""
    test: float = Field(0.2, ge=0, lt=1)
    """Fraction of the patients to report on."""
    column: str | None = None
    """Column of the CSV that holds train, val or test; then the fractions are not used."""
    file: Path | None = None
    """A `split.csv` of an earlier run (patient, split), to be used instead of the fractions."""
    official: bool = True
    """Use the split that a data set comes with, where it has one; val is drawn from its train where it has no val.
    false: only val is drawn anew; an official test set stays one, for `chexpert` valid too."""
    max_train_patients: int | None = Field(None, ge=1)
    """Train on at most this many patients of the train split, drawn from `data.seed` in the proportions of the
    split's strata; a smaller number's are among a larger's. `data.train_on` acts after it. val and test are whole."""
    folds: int | None = Field(None, ge=2)
    """Divide the patients into so many folds, of which each is tested once; `test` is not used, and val is drawn from
    the other folds in the proportion of `train` and `val`. `dualview compare` trains a run for each."""
    fold: int | None = Field(None, ge=1)
    """Number of the fold that is the test set, from 1 to `folds`."""

    @model_validator(mode="after")
    def _folds_are_complete(self) -> Self:
        problems = []
        if self.folds is None:
            if self.fold is not None:
                problems.append(f"fold is {self.fold}, and there are no folds: set data.split.folds, or leave it out")
        elif self.fold is None:
            problems.append(
                f"folds is {self.folds}, and nothing says which of them is tested: set data.split.fold=1 (to "
                f"{self.folds}), or let `dualview compare` train a run for each"
            )
        elif self.fold > self.folds:
            problems.append(f"fold is {self.fold}; with folds {self.folds} it is from 1 to {self.folds}")
        given = [key for key in ("file", "column") if getattr(self, key) is not None]
        if self.folds is not None and given:
            problems.append(
                f"folds is {self.folds}, and {' and '.join(given)} says which patients are tested: leave one out"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + val + test is {total:g}; the three fractions must add up to 1")
        return self


class PhantomConfig(Section):
    """Synthetic two-view chests with known answers (docs/phantom.md)."""

    num_studies: int = Field(1000, ge=10)
    """Studies drawn, before the split; one study per patient."""
    both: Fraction = 0.5
    """Fraction of studies with both views."""
    pa_only: Fraction = 0.3
    """Fraction of studies with the PA view only."""
    lateral_only: Fraction = 0.2
    """Fraction of studies with the lateral view only."""
    unknown_label_fraction: float = Field(0.0, ge=0, lt=1)
    """Fraction of labels withheld, to exercise unknown labels."""
    prevalence: float | None = Field(None, gt=0, lt=1)
    """Fraction of studies with each finding, as in another hospital; null: 0.4, and 0.5 for Cardiomegaly."""
    contrast: float = Field(1.0, ge=0.1, le=2)
    """How far grays are from the middle, times; below 1 images are flatter, as of another machine. What an ideal
    observer sees stays the same."""

    @model_validator(mode="after")
    def _mix_sums_to_one(self) -> Self:
        total = self.both + self.pa_only + self.lateral_only
        if abs(total - 1) > 1e-6:
            raise ValueError(f"both + pa_only + lateral_only is {total:g}; the three fractions must add up to 1")
        return self


class ColumnsConfig(Section):
    """Column names of a generic CSV with one row per image."""

    study: str = "study"
    """Study identifier, read as text: images that share it (and the patient) form one study."""
    patient: str = "patient"
    """Patient identifier, read as text."""
    view: str = "view"
    """View of the image, one of `data.frontal_views` or `data.lateral_views`."""
    path: str = "path"
    """Image file, relative to `data.root`."""


class AugmentConfig(Section):
    """Training-time changes to images, drawn from (seed, epoch, study), so equal on any number of ranks."""

    rotation_degrees: float = Field(5.0, ge=0, le=45)
    """Rotation, uniform in plus or minus this angle, per view. Source: the authors' `dataset.py`."""
    translation_fraction: float = Field(0.0, ge=0, le=0.3)
    """Shift, uniform in plus or minus this fraction of the image side, per axis and view."""
    noise_std: float = Field(0.05, ge=0, le=1)
    """Standard deviation of Gaussian noise on pixels in [-1, 1]. Source: the authors' `dataset.py`."""
    scale_fraction: float = Field(0.0, ge=0, le=0.5)
    """Zoom, uniform in 1 plus or minus this, per view."""
    shear_degrees: float = Field(0.0, ge=0, le=30)
    """Horizontal shear, uniform in plus or minus this angle, per view."""
    contrast_fraction: float = Field(0.0, ge=0, lt=1)
    """Contrast factor around the image's mean, uniform in 1 plus or minus this, per view."""
    erase_probability: Fraction = 0.0
    """Probability that a rectangle of an image is made black (random erasing, Zhong et al. 2020)."""
    erase_fraction: float = Field(0.2, ge=0.02, le=0.9)
    """Largest area of that rectangle; the smallest is 0.02."""
    horizontal_flip_probability: Fraction = 0.0
    """Mirrors the image and moves the heart to the right, so a run with it warns; 0 never does."""


class ViewDropoutConfig(Section):
    """Hides a view of training studies that have both, drawn anew each epoch from (seed, epoch, study)."""

    p_pa: Fraction = 0.0
    """Probability that the PA view is hidden."""
    p_lateral: Fraction = 0.0
    """Probability that the lateral view is hidden."""
    whole_step: bool = False
    """Hide the same view of all complete studies of an optimizer step, or of none: HeMIS-CL, the authors'
    `--drop-view-prob`."""
    ramp_epochs: int = Field(0, ge=0)
    """Both probabilities rise linearly from 0 in the first epoch to their values in this one."""

    @model_validator(mode="after")
    def _leaves_a_view(self) -> Self:
        if self.p_pa + self.p_lateral > 1:
            raise ValueError(f"p_pa + p_lateral is {self.p_pa + self.p_lateral:g}; at most 1, as one view always stays")
        return self

    def at(self, epoch: int) -> tuple[float, float]:
        """Probabilities of hiding PA and lateral in an epoch, counted from 0."""
        factor = min(epoch / self.ramp_epochs, 1.0) if self.ramp_epochs else 1.0
        return self.p_pa * factor, self.p_lateral * factor


class CohortConfig(Section):
    """Which studies of a data set take part, as rules applied in this order. By default all do."""

    adults_only: bool = False
    """`padchest`: leave out rows whose `Pediatric` is not `No`."""
    drop_repeated_rows: bool = False
    """`padchest`: of rows equal in all but the image, keep the first."""
    labelled_only: bool = False
    """Leave out studies without a label."""
    availability: list[AVAILABILITY_NAMES] = []
    """Kinds of study to take; with `one_study_per_patient` in order of preference: a patient with a study of
    the first kind is represented by it. Empty: all kinds."""
    one_image_per_view: bool = False
    """Leave out studies with several images of one view."""
    drop_labels: list[str] = []
    """Leave out studies that have one of these labels, such as `suboptimal study`."""
    one_study_per_patient: bool = False
    """Take each patient's earliest study; of several that day, one drawn by `tie_seed`."""
    tie_seed: int = 0
    """Decides between studies of one patient and day."""
    neutral_labels: list[str] = []
    """Labels that say nothing, such as the empty one; studies that have no other are left out."""


def _unusable_names(findings: Iterable[str]) -> list[str]:
    """What is wrong with names of findings: a column of the answers would have the name of another."""
    others = PREDICTED_COLUMNS | {f"{finding}_decision" for finding in findings}
    return [
        f"finding '{finding}' has the name of another column of what `dualview predict` writes; write findings as a "
        f"mapping, such as {{Other name: [{finding}]}}"
        for finding in findings
        if finding in others
    ]


class SourceConfig(Section):
    """One data set: where it is, which of its studies and findings take part."""

    source: SourceName = "phantom"
    """`phantom` is drawn from the seed; `csv` is any table with one row per image; `dicom` a folder of DICOM
    files; the others are public data sets as they come (docs/datasets.md)."""
    name: str | None = None
    """What the source is called in tables and reports; without it `source`."""
    root: Path | None = None
    """Folder that image paths are relative to."""
    csv: Path | None = None
    """Table of images; without it the data set's own file in `data.root` (for `csv`: `metadata.csv`). For
    `dicom` a table of labels, one row per study, or null."""
    columns: ColumnsConfig = ColumnsConfig()
    identifiers: Literal["checked", "exact"] = "checked"
    """`checked`: patients, or studies of a patient, that differ only in form (1001 and 1001.0, 01001, upper and lower
    case, blanks) are an error, and so are words for nothing (nan, NULL, ?) and numbers that Excel has rounded; `exact`:
    every text is an identifier as it stands."""
    date_format: str | None = None
    """How the dates of studies are written, as for Python's `strptime`, such as `%d/%m/%Y`; needed where day and month
    could be taken for each other. null: YYYYMMDD, YYYY-MM-DD and the like, with or without a time."""
    findings: dict[str, list[str]] = {}
    """Findings to learn: a list of names, or finding -> what the data set calls it: for `csv`, `chexpert`,
    `chexpert_plus`, `mimic_cxr` and `dicom` its one column, for `padchest`, `openi`, `nih`, `vindr` and `covid_cxr`
    the labels that make it positive.
    Empty: all that the data set has (not for `csv`, `covid_cxr`). Not used by `phantom`."""
    vocabulary: Literal["own", "xrv"] = "own"
    """`xrv`: torchxrayvision's 18 pathologies instead of the data set's own names; those it does not have are
    unknown. With it `findings` chooses among the 18."""
    attributes: list[str] = []
    """`csv`: further columns to keep, such as sex, age or manufacturer, by which an evaluation can be divided; a
    study has what its first row says."""
    frontal_views: list[str] | None = None
    """Values of the view column that take the PA branch. null: those of the data set; for `csv` PA, AP."""
    lateral_views: list[str] | None = None
    """Values of the view column that take the lateral branch. null: those of the data set; for `csv` L, LATERAL, LL."""
    ignored_views: list[str] = []
    """`csv`, `covid_cxr`: values of the view column whose rows are left out, and counted; any other is an error.
    The public data sets leave out, and count, every view that stands in neither list."""
    body_parts: list[str] = []
    """`dicom`, and DICOM files in `dualview predict`: further values of BodyPartExamined that are the chest. An image
    whose BodyPartExamined, or where that is blank its description, says another part is left out, and counted."""
    uncertain: str | dict[str, str] = "ignore"
    """What training makes of uncertain labels: ignore, zero, one or smooth(a,b), for all findings or per finding
    (`default` names the rest). In val and test they are unknown."""
    unmentioned: Literal["unknown", "negative"] = "unknown"
    """`chexpert`, `chexpert_plus`, `mimic_cxr`: what a blank label is, beside those that `No Finding` makes
    negative."""
    labeler: Literal["chexpert", "negbio", "cxr_lt"] = "chexpert"
    """`mimic_cxr`: whose labels; `cxr_lt` takes the labels and the split of CXR-LT, whose tables lie beside, or in
    cxr-lt-2023/ or cxr-lt-2024/."""
    labelled_section: Literal["impression", "report", "findings"] = "impression"
    """`chexpert_plus`: which part of a report was labelled. CheXpert's own labels come from the impression; most
    reports have no findings section, which then counts as No Finding."""
    reference_standard: str | None = None
    """How its labels came about, in your words, such as "two radiologists, a third where they disagreed": text for the
    report. null: what is known of a public data set."""
    cohort: CohortConfig = CohortConfig()
    min_positive_patients: int = Field(0, ge=0)
    """Leave out findings with fewer patients, counted in the whole cohort."""
    weight: float = Field(1.0, gt=0)
    """Weight of each of its studies in the training loss."""
    check_files: bool = True
    """Look for every image file before anything else; false also works without images, from the tables alone."""
    on_missing_file: Literal["error", "drop"] = "error"
    """A file that is not there ends it with a list, or is left out and counted."""
    intensity_max: float | None = Field(None, gt=0)
    """The stored value that is white, such as 4095 for 12 bits in 16-bit files, in gray files that can hold more and
    have no DICOM window or VOI LUT, or a window of all that the bits can hold. null: the largest that a file can
    hold. Where most images, or most of a view, come out too dark to be true without it, `dualview data` and
    `predict` warn, and `prepare` and `train` end."""
    on_missing_finding: Literal["error", "drop"] = "error"
    """`padchest`, `openi`, `nih`, `vindr`, `covid_cxr`: a finding of whose labels no study has any, as in a part of a
    data set, ends it, or is left out and counted: with several sources unknown in this one, in an evaluation unknown
    in these data."""

    @model_validator(mode="before")
    @classmethod
    def _findings_as_mapping(cls, values: Any) -> Any:
        """A list of findings means: each finding is found under its own name; a single name is a list of one."""
        names = values.get("findings") if isinstance(values, dict) else None
        if isinstance(names, dict):
            lists = {finding: [own] if isinstance(own, str) else own for finding, own in names.items()}
            values = {**values, "findings": lists}
        elif isinstance(names, list):
            repeated = sorted({str(name) for name in names if names.count(name) > 1})
            if repeated:
                raise ValueError(f"findings lists {repeated} more than once; name each finding once")
            values = {**values, "findings": {name: [name] for name in names}}
        return values

    @model_validator(mode="after")
    def _source_has_what_it_needs(self) -> Self:
        problems = []
        if self.source != "phantom" and self.root is None and (self.check_files or self.csv is None):
            problems.append(f"source '{self.source}' needs data.root, the folder of the images")
        if self.source in ("csv", "covid_cxr") and not self.findings:
            problems.append(f"source '{self.source}' needs data.findings, the findings to learn")
        if self.source in ("csv", "chexpert", "chexpert_plus", "mimic_cxr", "dicom") and self.vocabulary == "own":
            for finding, columns in self.findings.items():
                if len(columns) != 1:
                    problems.append(f"finding '{finding}' must name exactly one column, found {columns}")
        problems += _unusable_names(self.findings)
        if self.date_format is not None and "%" not in self.date_format:
            problems.append(f"date_format is '{self.date_format}'; write it as for strptime, such as %d/%m/%Y")
        groups = {
            "frontal_views": self.frontal_views or [],
            "lateral_views": self.lateral_views or [],
            "ignored_views": self.ignored_views,
        }
        for (name, views), (other, others) in combinations(groups.items(), 2):
            if shared := sorted(set(views) & set(others)):
                problems.append(f"{shared} stand in both {name} and {other}; put each view in one list")
        for policy in self.uncertain.values() if isinstance(self.uncertain, dict) else [self.uncertain]:
            try:
                UncertainPolicy.parse(policy)
            except ValueError as error:
                problems.append(f"uncertain: {error}")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def called(self) -> str:
        """What the source is called in tables and reports."""
        return self.name or self.source

    @property
    def unused_keys(self) -> list[str]:
        """Keys that are set, and that the reader of this source does not look at."""
        own = [key for key in keys_set(self) if key.partition(".")[0] in SourceConfig.model_fields]
        return [key for key in own if key not in SOURCES[self.source]]

    @property
    def effective(self) -> Self:
        """The same with unused keys at their defaults."""
        return with_defaults(self, self.unused_keys)

    def uncertain_policy(self, finding: str) -> UncertainPolicy:
        """The policy for the uncertain labels of a finding."""
        if isinstance(self.uncertain, str):
            return UncertainPolicy.parse(self.uncertain)
        return UncertainPolicy.parse(self.uncertain.get(finding, self.uncertain.get("default", "ignore")))


class DataConfig(SourceConfig):
    """Which studies, which findings, how images are read. One source stands here, several in `sources`."""

    sources: list[SourceConfig] = []
    """Several data sets to train on together, each with the keys above. A finding that one of them does not
    have is unknown there."""
    shared_patients: bool = False
    """Equal patient identifiers of several `sources` mean the same people, who are then divided once: whom an official
    split tests is in test, in all sources. Without it they are taken for different people, and are counted."""
    several_images: Literal["first", "random", "all"] = "first"
    """A study with several images of one view trains on the first listed; on one drawn anew each
    epoch; or on all, each pairing once per epoch."""
    several_images_at_test: SeveralImages = "first"
    """What counts of several images of one view wherever a network is asked, val during training included: the first
    listed that can be read; or the mean or the largest of the logits over all of them, and over all pairs of a PA and a
    lateral image where the network sees both."""
    on_bad_image: Literal["error", "treat_view_as_missing"] = "error"
    """An image that cannot be read ends the run, or counts as a view the study does not have."""
    image_size_px: int = Field(224, ge=32, le=2048)
    """Height and width of the network's input."""
    aspect: Literal["center_crop", "pad", "stretch"] = "center_crop"
    """How an image becomes square: cut to its centre (the authors' `ImageOps.fit`), black margins, or stretched."""
    seed: int | None = Field(None, ge=0, lt=2**32)
    """Origin of splits, smoothed labels and phantoms; null: `run.seed`. With it, runs of several `run.seed` have the
    same patients in each split."""
    split: SplitConfig = SplitConfig()
    train_on: list[AVAILABILITY_NAMES] = []
    """Kinds of study to train on, among the patients of `data.split.max_train_patients`; val and test keep all
    kinds. Empty: all."""
    phantom: PhantomConfig = PhantomConfig()
    augment: AugmentConfig = AugmentConfig()
    view_dropout: ViewDropoutConfig = ViewDropoutConfig()
    num_workers: int = Field(4, ge=0)
    """Processes that read images for each rank; 0 reads in the training process."""
    augment_on: Literal["worker", "device"] = "worker"
    """Augment in the processes that read, or a whole batch at once on the device that trains: the same pixels."""
    store: Path | None = None
    """Folder of images decoded once by `dualview prepare`; with it no image file is read in training."""
    store_bits: Literal[8, 16] = 16
    """Bits per pixel of the store; 16 keep the depth of 16-bit PNGs and DICOM."""
    stage_to: str | None = None
    """Node-local folder, such as $SLURM_TMPDIR, to copy the store to first, once per node."""

    @model_validator(mode="after")
    def _staging_has_a_store(self) -> Self:
        if self.stage_to is not None and self.store is None:
            raise ValueError("stage_to needs data.store, the store to copy")
        return self

    @model_validator(mode="after")
    def _one_source_or_several(self) -> Self:
        if not self.sources:
            if self.shared_patients:
                raise ValueError("shared_patients is for data.sources, and there is one source: leave it out")
            return self
        given = [
            name
            for name, field in SourceConfig.model_fields.items()
            if name != "check_files" and getattr(self, name) != field.default
        ]
        if given:
            raise ValueError(f"with data.sources, {', '.join(given)} must stand in its entries")
        names = [source.called for source in self.sources]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"sources: {repeated} come more than once; give each its own name")
        if "phantom" in {source.source for source in self.sources}:
            raise ValueError("sources: phantom cannot be mixed with other data")
        return self

    @property
    def all_sources(self) -> list[SourceConfig]:
        """The entries of `sources`, or this section itself; `check_files: false` here is for all."""
        if not self.sources:
            return [self]
        return [source.model_copy(update={"check_files": source.check_files and self.check_files})
                for source in self.sources]  # fmt: skip

    @property
    def unused_keys(self) -> list[str]:
        """Keys that are set here, and that the reader of no source looks at; not those of entries of `sources`."""
        used = frozenset[str]().union(*(SOURCES[source.source] for source in self.all_sources))
        split_keys = [f"split.{name}" for name in ("column", "official") if f"split.{name}" in keys_set(self)]
        own = [] if self.sources else super().unused_keys  # `sources` refuses other keys anyway
        return own + [key for key in split_keys if key not in used]

    @property
    def effective(self) -> Self:
        """The same with unused keys at their defaults, also in the entries of `sources`."""
        sources = [source.effective for source in self.sources]
        return with_defaults(self, self.unused_keys).model_copy(update={"sources": sources})


TorchvisionBackbone = Literal[
    "densenet121", "densenet161", "densenet169", "densenet201", "densenet_tiny",
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
    "convnext_tiny", "convnext_small", "convnext_base", "convnext_large",
    "efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3", "efficientnet_b4",
    "efficientnet_v2_s", "efficientnet_v2_m", "efficientnet_v2_l",
    "swin_t", "swin_s", "swin_b", "swin_v2_t", "swin_v2_s", "swin_v2_b",
]  # fmt: skip


def _known_backbone(name: str) -> str:
    if name not in get_args(TorchvisionBackbone) and not re.fullmatch(r"timm:[\w.]+", name):
        raise ValueError(f"there are {', '.join(get_args(TorchvisionBackbone))}, and timm:NAME for timm's networks")
    return name


Backbone = Annotated[str, AfterValidator(_known_backbone)]


class ModelConfig(Section):
    """What kind of network it is, and what it starts from."""

    name: NetworkName = "auxloss"
    """`auxloss`: two branches, each with its own head, and a joint head where the views meet; `dualnet`: the joint
    head alone, absent halves zero; `hemis`: mean and variance over the views, one shared tail; `attention`: tokens of
    the views that exist, one head; `single`: one view only; `stacked`: both views as channels, complete ones only."""
    view: Literal["pa", "lateral"] = "pa"
    """The view that `single` sees."""
    backbone: Backbone = "densenet121"
    """torchvision's network of that name for each branch, or timm's as `timm:NAME` (extra `dualview[timm]`; a
    transformer's patch tokens become a map); `densenet_tiny` is for tests and demonstrations. `hemis` and
    `merge_after_block: 3` need a DenseNet."""
    merge_after_block: Literal[3, 4] = 3
    """`auxloss`, `dualnet`: the views meet after this dense block; 4 is after the last norm, or at the end of
    another backbone, as in the authors' code."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout after each dense layer's second convolution, as torchvision's `drop_rate`, and in the encoder of
    `attention`."""
    norm: Literal["batch", "group", "frozen", "sync"] = "batch"
    """`batch`: batch normalisation over the micro-batch of each rank, running statistics pooled over ranks;
    `sync`: over the micro-batches of all ranks together (so it depends on their number); `group`:
    group normalisation; `frozen`: the statistics and affine values of `weights`, not trained."""
    shared_branch: bool = False
    """One backbone for both views, told apart by a learned embedding; not for `single` and `stacked`. Its learning
    rate is `optim.learning_rate`."""
    joint_rule: Literal["joint", "vote"] = "joint"
    """What `auxloss` says of complete studies when evaluated: its joint head, or the mean of its three heads'
    logits, as the authors' `--vote-at-test`."""
    freeze: Literal["none", "backbone"] | Annotated[int, Field(ge=1)] = "none"
    """Layers that stay as `weights` made them, batch statistics too. `backbone`: all but heads; N: the stem and the
    first N stages of each backbone (dense blocks, stages of a ResNet or ConvNeXt, blocks of a transformer)."""
    freeze_steps: int | None = Field(None, ge=1)
    """Optimizer steps after which frozen layers begin to learn; null: never."""
    weights: str | None = None
    """null: random. `imagenet`: torchvision's; `timm`: timm's own for `backbone: timm:NAME.TAG`;
    `hf:ORG/NAME[@REVISION]` of the Hugging Face hub, in timm's layout or transformers' DINOv2 (as RAD-DINO);
    `xrv:densenet121-res224-all` and its like: torchxrayvision's, `xrv:PATH` a file of such. Else the path of a run, of
    a folder as the hub has it, or of a file (.safetensors, .pt, .pth) of one backbone or a whole network. A first layer
    for colours is summed to one channel."""
    weights_pa: str | None = None
    """As `weights`, for the PA branch alone and in place of them."""
    weights_lateral: str | None = None
    """As `weights`, for the lateral branch: encoders made for frontal X-rays need not fit the other view."""
    weights_mean: list[Fraction] | None = None
    """Mean of images in [0, 1] that a file of weights was trained with, one number or one per channel; it is put into
    the first layer, so that images stay in [-1, 1]. null: as named sources, `preprocessor_config.json` beside the file
    or timm say, else none."""
    weights_std: list[Annotated[float, Field(gt=0, le=1)]] | None = None
    """The same of the standard deviation; both or neither."""

    @property
    def views(self) -> tuple[View, ...]:
        """The views that the network looks at."""
        return (View[self.view.upper()],) if "model.view" in NETWORKS[self.name].keys else tuple(View)

    @property
    def needs_all_views(self) -> bool:
        """Whether the network says nothing of a study that lacks one of its `views`."""
        return NETWORKS[self.name].needs_all_views

    @property
    def routes(self) -> tuple[Availability, ...]:
        """The kinds of study that the network answers, by the views that it looks at."""
        if not self.needs_all_views:
            return tuple(Availability)
        return (Availability.BOTH,) if len(self.views) > 1 else (self.views[0].alone,)

    @model_validator(mode="after")
    def _sharing_has_two_branches(self) -> Self:
        if self.shared_branch and "model.shared_branch" not in NETWORKS[self.name].keys:
            raise ValueError(f"shared_branch needs two branches; {self.name} has one")
        return self

    @model_validator(mode="after")
    def _weights_belong_together(self) -> Self:
        if (self.weights_mean is None) != (self.weights_std is None):
            raise ValueError("weights_mean and weights_std belong together: give both or neither")
        branches = {"weights_pa": self.weights_pa, "weights_lateral": self.weights_lateral}
        given = [name for name, weights in branches.items() if weights is not None]
        if self.weights_mean is not None and self.weights is None and not given:
            raise ValueError("weights_mean is of the images that weights were trained with, and weights is null")
        if given and (self.shared_branch or "model.shared_branch" not in NETWORKS[self.name].keys):
            raise ValueError(f"{', '.join(given)} need two branches, each with a backbone of its own; use weights")
        return self

    @model_validator(mode="after")
    def _what_is_frozen_has_learned(self) -> Self:
        if self.freeze == "none" and self.freeze_steps is not None:
            raise ValueError("freeze_steps says when frozen layers thaw, and freeze is none: leave it out")
        if self.freeze != "none" and not (self.weights or (self.weights_pa and self.weights_lateral)):
            if self.weights_pa or self.weights_lateral:
                other = "weights_lateral" if self.weights_pa else "weights_pa"
                raise ValueError(f"freeze is {self.freeze}, and {other} is null: that branch would stay random")
            raise ValueError(f"freeze is {self.freeze}, and weights is null: random layers would stay random")
        if self.freeze != "none" and self.norm == "sync":
            raise ValueError("norm is sync, which all layers take part in, and frozen layers do not: use norm=batch")
        return self

    @model_validator(mode="after")
    def _vote_has_three_heads(self) -> Self:
        if self.joint_rule == "vote" and "model.joint_rule" not in NETWORKS[self.name].keys:
            raise ValueError(f"joint_rule is vote, which needs three heads; {self.name} has one")
        return self

    @model_validator(mode="after")
    def _backbone_fits_the_network(self) -> Self:
        if self.backbone.startswith("densenet"):
            return self
        network = NETWORKS[self.name]
        if network.needs_dense_blocks:
            raise ValueError(f"{self.name} shares a dense block, and {self.backbone} has none; use a DenseNet")
        if "model.merge_after_block" in network.keys and self.merge_after_block == 3:
            raise ValueError(
                f"{self.backbone} has no dense block 3 where the views could meet; use merge_after_block=4"
            )
        if self.dropout and not network.has_dropout:
            raise ValueError(f"dropout is {self.dropout:g}, but only DenseNets have it after each layer; set dropout=0")
        return self


class LossConfig(Section):
    """What a label costs: every study in the head of its route, complete ones in both branch heads too."""

    name: Literal["bce", "asymmetric", "focal"] = "bce"
    """`bce`: binary cross-entropy; `focal`: labels that are judged well count less, by `focal_gamma`; `asymmetric`:
    well judged negatives count less than well judged positives. The last two need `pos_weight: none`; what they learn
    are scores, not probabilities: make those with `dualview evaluate --calibrate`."""
    focal_gamma: float = Field(2.0, ge=0)
    """`focal`: a label judged with probability p of being so counts (1 - p)^gamma. Source: Lin et al., ICCV 2017."""
    asymmetric_gammas: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] = (1.0, 4.0)
    """`asymmetric`: the exponents of positives and of negatives. Source: Ridnik et al., ICCV 2021, their code."""
    asymmetric_margin: Fraction = 0.05
    """`asymmetric`: negatives of a probability below this cost nothing. Source: as above."""
    label_smoothing: Fraction = 0.0
    """s: known labels y count as y (1 - s) + s / 2, so that no probability is drawn to 0 or 1."""
    logit_adjustment: float = Field(0.0, ge=0)
    """tau: the loss sees logits plus tau log(n / (N - n)), n of N known training studies positive, and evaluation
    undoes it. With a bias per finding that is a start at the findings' prevalences. Source: Menon et al., ICLR 2021."""
    pa_weight: float = Field(0.3, ge=0)
    """Weight of the PA head on studies with both views. Source: the authors' `--loss-weights 0.3 0.3`."""
    lateral_weight: float = Field(0.3, ge=0)
    """Weight of the lateral head on studies with both views. Source: as above."""
    curriculum_probability: Fraction = 0.0
    """AuxLoss-CL, the authors' `--mt-task-prob`: in this fraction of the steps complete studies train one branch
    head alone, PA or lateral alike, unweighted. For `auxloss`."""
    learned_weights: Literal["none", "uncertainty", "temperature"] = "none"
    """Learn the weights of the three heads on complete studies, beginning with 1, `pa_weight` and `lateral_weight`; for
    `auxloss`. `uncertainty`: exp(-s), plus s / 2 per head (Kendall et al., CVPR 2018; s = log sigma^2); `temperature`:
    T^-2, plus log T per head, the authors' `--learn-loss-coeffs`. The same loss with T = sigma, but other steps."""
    distill_weight: float = Field(0.0, ge=0)
    """On complete studies the joint head teaches both branch heads what it says: weight of the divergence of each
    branch head from it (Kullback-Leibler, mean over findings). For `auxloss`."""
    normalise: Literal["findings", "known"] = "findings"
    """What a study's sum over its known labels is divided by. `findings`: their number K, so that every known label
    weighs alike; `known`: its own number of known labels, which weighs a label more where a study has few of them. All
    labels known: the same. On CheXpert `known` weighs a positive up to 2.9 times a negative (docs/datasets.md)."""
    pos_weight: Literal["reference", "none"] = "reference"
    """`reference`: clamp(0.1 N / n, 1, pos_weight_max), N known and n positive training studies of the
    finding, after the authors' `train.py`; `none`: 1."""
    pos_weight_max: float = Field(5.0, ge=1)
    """Upper clamp of pos_weight. Source: the authors' `train.py`."""

    @model_validator(mode="after")
    def _name_uses_what_is_set(self) -> Self:
        used_by = {"focal_gamma": "focal", "asymmetric_gammas": "asymmetric", "asymmetric_margin": "asymmetric"}
        fields = type(self).model_fields
        if unused := [key for key, name in used_by.items() if name != self.name
                      and getattr(self, key) != fields[key].default]:  # fmt: skip
            raise ValueError(f"{', '.join(unused)} would not be used: loss.name is {self.name}; leave it out")
        if self.name != "bce" and self.pos_weight != "none":
            raise ValueError(
                f"name is {self.name}, which weighs labels by how they are judged; pos_weight {self.pos_weight} would "
                "weigh positives once more; set loss.pos_weight=none"
            )
        return self

    @model_validator(mode="after")
    def _learned_weights_can_begin(self) -> Self:
        if self.learned_weights == "none":
            return self
        if self.curriculum_probability:
            raise ValueError(
                f"learned_weights is {self.learned_weights}, which weighs three heads against each other, but with "
                "curriculum_probability some steps train one alone; set learned_weights=none or the probability to 0"
            )
        if not (0 < self.pa_weight <= 100 and 0 < self.lateral_weight <= 100):
            raise ValueError(
                f"pa_weight {self.pa_weight:g} and lateral_weight {self.lateral_weight:g} are where learned_weights "
                "begin; both must be above 0 and at most 100"
            )
        return self


class OptimConfig(Section):
    """Optimizer and learning rate; the rate is a function of the step alone."""

    name: Literal["adamw", "adam"] = "adamw"
    """`adam` adds weight decay to the gradient (the authors' choice), `adamw` decouples it."""
    learning_rate: float = Field(3e-4, gt=0)
    """Learning rate at the end of the warm-up, the highest of the training."""
    learning_rate_pa: float | None = Field(None, gt=0)
    """Peak learning rate of the PA branch; without it `learning_rate`."""
    learning_rate_lateral: float | None = Field(None, gt=0)
    """Peak learning rate of the lateral branch; without it `learning_rate`."""
    learning_rate_joint: float | None = Field(None, gt=0)
    """Peak learning rate of the joint head; without it `learning_rate`."""
    backbone_factor: float = Field(1.0, gt=0)
    """What learning rates of backbones are multiplied by, not those of heads; such as 0.1 for pretrained weights."""
    layer_decay: float = Field(1.0, gt=0, le=1)
    """Each block or stage of a backbone learns this much slower than the next: times layer_decay^(blocks above it).
    Usual with pretrained transformers: 0.65 to 0.9. Source: Clark et al., ELECTRA, ICLR 2020."""
    weight_decay: float = Field(1e-5, ge=0)
    """Weight decay, of all but learned weights of the loss. Source of the default: the authors' `train.py`."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Adam's decay rates of the first and second moment."""
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    """`cosine`: to `final_fraction` at the last step; `step`: times `decay_factor` every
    `decay_every_steps`; `constant`: flat. All after the warm-up."""
    warmup_steps: int = Field(0, ge=0)
    """Steps of linear rise from 0 to the peak."""
    final_fraction: Fraction = 0.0
    """Cosine only: the last learning rate as a fraction of the peak."""
    decay_every_steps: int | None = Field(None, ge=1)
    """Step decay only: steps between two decays (the authors: 20 epochs' worth)."""
    decay_factor: float = Field(0.5, gt=0, le=1)
    """Step decay only: factor of each decay. Source of the default: the authors' StepLR(20, 0.5)."""
    gradient_clip_norm: float | None = Field(None, gt=0)
    """Largest L2 norm of the whole gradient; null does not clip."""

    @model_validator(mode="after")
    def _step_decay_has_rhythm(self) -> Self:
        if self.schedule == "step" and self.decay_every_steps is None:
            raise ValueError("schedule 'step' needs optim.decay_every_steps")
        return self


Precision = Literal["fp32", "bf16", "fp16"]
BestMetric = Literal[
    "auroc_mean", "auroc_all", "auroc_both", "average_precision_mean", "average_precision_all", "average_precision_both"
]


class TrainConfig(Section):
    """How long, in what steps and with what pauses the network is trained."""

    max_steps: int | None = Field(None, ge=1)
    """Optimizer steps to train for; without it `epochs` decides."""
    epochs: int = Field(40, ge=1)
    """Passes over the training split (the authors' 40); not used where `max_steps` is given."""
    micro_batch_size: int = Field(8, ge=1)
    """Studies per forward pass on one rank."""
    accumulation_steps: int = Field(1, ge=1)
    """Micro-batches per rank and optimizer step: global batch = micro_batch_size x ranks x this."""
    order: Literal["view_balanced", "shuffled"] = "view_balanced"
    """`view_balanced`: all micro-batches of a step hold the same mix of availabilities, so that no
    rank waits for one with more images; `shuffled`: a plain permutation."""
    precision: Precision = "fp32"
    """`bf16` and `fp16` run the network under autocast of that type; weights and losses stay float32. `fp16` is for
    cards without bfloat16 (V100, T4, RTX 20): its loss is scaled against underflow, alike on all ranks."""
    gradient_checkpointing: bool = False
    """Keep only the maps between blocks for the backward pass and compute the others again: the same gradients with
    less memory, in about a third more time; for large images."""
    ema_decay: float | None = Field(None, gt=0, lt=1)
    """Keep an average of the weights over the steps, w_mean = d w_mean + (1 - d) w, and evaluate, keep and export it
    instead of the weights; such as 0.999, which reaches back about 1,000 steps. null: none."""
    channels_last: bool = True
    """Images and weights in NHWC memory order: the same values, faster convolutions."""
    eval_every_steps: int | None = Field(None, ge=1)
    """Steps between two evaluations of the val split; without it once per epoch."""
    best_metric: BestMetric = "auroc_mean"
    """By what on val the best checkpoint is chosen: macro AUROC or average precision of studies with `both` views, of
    `all`, or the `mean` over the availabilities, which a network cannot raise by telling availabilities apart."""
    best_findings: list[str] = []
    """Findings that count in it; empty: all."""
    early_stopping_evaluations: int | None = Field(None, ge=1)
    """Stop after this many evaluations without a better `best_metric`; null never stops early."""
    log_every_steps: int = Field(10, ge=1)
    """Steps between two logged lines."""
    checkpoint_every_steps: int | None = Field(None, ge=1)
    """Steps between two checkpoints, besides those before each evaluation; null writes no others."""
    keep_checkpoints: int = Field(2, ge=1)
    """Newest checkpoints to keep, besides the best."""
    resume: Literal["auto", "never"] = "auto"
    """`auto`: a run directory that holds a run is continued from its newest whole checkpoint; `never`: refused."""
    max_bad_steps: int = Field(5, ge=1)
    """Steps in a row with a loss or gradient that is not finite, each skipped on all ranks, until the run ends."""


class StudyConfig(Section):
    """What only people know of a study: texts that the report shows as they stand, and its checklists point to."""

    background: str | None = None
    """Clinical background, and what is done today."""
    intended_use: str | None = None
    """What the network is for, for whom, and where in the care of patients."""
    objectives: str | None = None
    """Aims and hypotheses."""
    design: str | None = None
    """Retrospective or prospective, and the goal of the study."""
    setting: str | None = None
    """Hospitals, departments, countries."""
    eligibility: str | None = None
    """Who was eligible, beside the rules of `data.cohort`."""
    deidentification: str | None = None
    """How images and tables were de-identified."""
    acquisition: str | None = None
    """Machines and protocols of the images."""
    annotators: str | None = None
    """Who labelled: how many, how qualified, blinded to what, and how far they agreed."""
    inequalities: str | None = None
    """Known inequalities between groups of patients, and what was done about them."""
    limitations: str | None = None
    """What may bias the results or keep them from holding elsewhere."""
    implications: str | None = None
    """What follows for practice, and what stands in the way."""
    ethics: str | None = None
    """Ethics committee and its number; consent or its waiver."""
    registration: str | None = None
    """Registration of the study, or that there is none."""
    protocol: str | None = None
    """Where the protocol is, or that there is none."""
    availability: str | None = None
    """Where data, network and code are, and under which conditions."""
    funding: str | None = None
    """Who paid, and their role."""
    interests: str | None = None
    """Conflicts of interest."""
    involvement: str | None = None
    """How patients and the public took part, or that they did not."""


class TrackingConfig(Section):
    """Weights & Biases; metrics.jsonl in the run directory is always written."""

    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    """`auto`: as WANDB_MODE says; without it online where an API key is configured, else offline."""
    project: str = "dualview"
    """wandb project."""
    name: str | None = None
    """wandb run name; without it the name of the run directory."""
    group: str | None = None
    """wandb group, for runs to be compared; without it the run's id. A run and its evaluations share it."""
    tags: list[str] = []
    """wandb tags."""
    log_evaluation: bool = True
    """Keep evaluation.json as a wandb artifact. Predictions, which name studies, are never sent."""
    log_checkpoint: bool = False
    """Keep the best checkpoint (weights, configuration) as a wandb artifact at the end of training."""
    num_images: int = Field(0, ge=0)
    """X-rays that `dualview evaluate` sends to wandb: pictures of that many studies, complete and partial, with
    probabilities and labels, without identifiers. Text that is burnt into the pixels goes with them."""


class DistributedConfig(Section):
    """How processes work together."""

    timeout_seconds: float = Field(600, ge=5)
    """How long a rank waits for the others before the run ends and names those that stopped taking part."""
    idle_branch: Literal["skip", "empty"] = "skip"
    """A branch without rows on a rank: `skip` does not run it (DDP searches the graph for it); `empty` runs it
    on zero rows: same gradients, same graph in every step, as model.norm=sync needs."""


class Config(Section):
    """All settings of a run, one section each."""

    run: RunConfig = RunConfig()
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    study: StudyConfig = StudyConfig()
    tracking: TrackingConfig = TrackingConfig()
    distributed: DistributedConfig = DistributedConfig()

    @model_validator(mode="after")
    def _image_fits_backbone(self) -> Self:
        if self.data.image_size_px < 64:
            raise ValueError(
                f"data.image_size_px is {self.data.image_size_px}, but a DenseNet halves it five times and batch "
                "normalisation of a single image needs more than one pixel: use at least 64"
            )
        return self

    @model_validator(mode="after")
    def _curriculum_has_branch_heads(self) -> Self:
        if self.loss.curriculum_probability and "loss.curriculum_probability" not in NETWORKS[self.model.name].keys:
            raise ValueError(
                f"loss.curriculum_probability trains branch heads, and model.name {self.model.name} has none beside "
                "its one head: set it to 0"
            )
        return self

    @model_validator(mode="after")
    def _learned_weights_have_three_heads(self) -> Self:
        if self.loss.learned_weights != "none" and "loss.learned_weights" not in NETWORKS[self.model.name].keys:
            raise ValueError(
                f"loss.learned_weights is {self.loss.learned_weights}, which weighs three heads against each other, "
                f"and model.name {self.model.name} has one: set it to none"
            )
        return self

    @model_validator(mode="after")
    def _sync_runs_every_branch(self) -> Self:
        if self.model.norm == "sync" and self.distributed.idle_branch == "skip":
            raise ValueError(
                "model.norm is sync, which every rank must take part in, but distributed.idle_branch is skip: "
                "set distributed.idle_branch=empty"
            )
        return self

    @model_validator(mode="after")
    def _sync_runs_once(self) -> Self:
        if self.model.norm == "sync" and self.train.gradient_checkpointing:
            raise ValueError(
                "model.norm is sync, whose ranks wait for each other in every layer, and train.gradient_checkpointing "
                "runs layers a second time, on each rank when it comes to it: use another norm"
            )
        return self

    @property
    def unused_keys(self) -> list[str]:
        """Keys that are set, and that the network does not look at."""
        used = {key.format(view=self.model.view) for key in NETWORKS[self.model.name].keys}
        return [key for key in keys_set(self) if key in NETWORK_KEYS - used]

    @property
    def effective(self) -> Self:
        """The same with all keys that the sources and the network do not look at at their defaults."""
        return with_defaults(self, self.unused_keys).model_copy(update={"data": self.data.effective})

    @property
    def data_seed(self) -> int:
        """The seed that the data are loaded with."""
        return self.run.seed if self.data.seed is None else self.data.seed

    def to_yaml(self) -> str:
        """The resolved configuration as YAML that `load` reads back to an equal one."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
