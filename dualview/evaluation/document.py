"""evaluation.json as types: everything that `dualview evaluate` says of a network on one split.

A class is an object of the file and a field is a key, in the order of the file. `Evaluation` is the whole of it. Its
numbers are counts, or lie in [0, 1] where nothing else is said; null (None) stands for what is undefined or was not
measured, and the comment of the key says which.

An identifier of a patient, study or image is nowhere in it.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import TypeAdapter, ValidationError

from dualview.data.sources.flow import FlowStep, Left
from dualview.errors import UserError
from dualview.evaluation.account_types import (
    AgeAccount,
    CheckpointChoice,
    LabelAccount,
    SourceAccount,
    SplitAccount,
    StudyAccount,
)
from dualview.evaluation.metrics import METRICS
from dualview.files import write_whole
from dualview.views import MASKINGS

ACCOUNT_TYPES = (Left, FlowStep, SourceAccount, AgeAccount, SplitAccount, LabelAccount, CheckpointChoice, StudyAccount)
"""The types of `Provenance.account`, parts before the whole."""
EVALUATION_FORMAT: Literal[1] = 1
Verdict = Literal["helped", "hurt", "undecided", "too_few", "undefined"]
GapVerdict = Literal["higher", "lower", "undecided", "too_few", "undefined"]
GAP_VERDICTS: dict[Verdict, GapVerdict] = {
    "helped": "higher",
    "hurt": "lower",
    "undecided": "undecided",
    "too_few": "too_few",
    "undefined": "undefined",
}
"""What `Difference.verdict` says where the difference is that of a group to the rest."""
TOLD_PROBLEMS = 5  # number of problems of a damaged file that a message lists

# -- numbers with their uncertainty ----------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number and its interval, as it would be for other patients; which interval, this page says under Intervals."""

    value: float | None  # null: undefined; `FindingResult.undefined` says why
    low: float | None  # null: `value` is, under 5 patients have the finding or have it not, or nothing varies
    high: float | None  # null as `low` is


@dataclass(frozen=True, kw_only=True)
class MacroEstimate(Estimate):
    """The mean of a metric over the findings where it is defined."""

    num_findings: int  # number of findings in the mean; with 0 the value is null


@dataclass(frozen=True, kw_only=True)
class Difference(Estimate):
    """What a view adds to a metric, in [-1, 1]: with both views minus with the view withheld, of the same studies.

    `low` and `high` bound this finding alone, the other two bounds hold for all judged findings together.
    """

    simultaneous_low: float | None  # null: undefined with or without the view, or too few patients to judge
    simultaneous_high: float | None  # null as `simultaneous_low` is

    @property
    def verdict(self) -> Verdict:
        """What the view did to this metric; above 0 is better for AUROC and average precision, not for Brier."""
        if self.value is None:
            return "undefined"
        if self.simultaneous_low is None or self.simultaneous_high is None:
            return "too_few"
        if self.simultaneous_low > 0:
            return "helped"
        return "hurt" if self.simultaneous_high < 0 else "undecided"


# -- one score on some studies ---------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Reached:
    """The best rate of this split's own ROC curve where the other rate reaches a target; optimistic, for comparison."""

    target: float  # rate that is held, in (0, 1]
    value: float | None  # the rate that is reached; null: studies of one class only


@dataclass(frozen=True, kw_only=True)
class OperatingPointResult:
    """Decisions at the thresholds that were chosen on val, over the studies that have a threshold and a known label."""

    true_positive: int  # number of studies called positive that are positive
    false_positive: int  # number of studies called positive that are negative
    true_negative: int  # number of studies called negative that are negative
    false_negative: int  # number of studies called negative that are positive
    threshold: float | None  # threshold of the calibrated probability; null: studies of several routes have several
    sensitivity: Estimate  # undefined without positive studies
    specificity: Estimate  # undefined without negative studies
    positive_predictive_value: Estimate  # undefined where no study is called positive
    negative_predictive_value: Estimate  # undefined where no study is called negative


@dataclass(frozen=True, kw_only=True)
class FindingResult:
    """One finding in one score on some studies; unknown labels take no part in any metric."""

    num_positive: int  # number of studies known to have the finding
    num_negative: int  # number of studies known not to have the finding
    num_unknown: int  # number of studies without a known label or without this score
    num_positive_patients: int | None = None  # number of patients of the positive studies; null: an earlier dualview
    num_negative_patients: int | None = None  # number of patients of the negative studies; null: an earlier dualview
    undefined: str | None  # why AUROC and average precision are undefined; null: they are defined
    auroc: Estimate  # P(score of a positive > of a negative), ties half
    average_precision: Estimate  # mean over positives of the precision at their score
    brier: Estimate  # mean of (probability - label)^2; defined with one class too; lower is better
    calibration_error: float | None  # mean |probability - share of positives| over 10 equal bins; null: no study
    calibration_error_by_chance: float | None = None  # what perfect probabilities would show; null: no study
    calibration_intercept: Estimate | None = None  # log-odds; below 0: probabilities too high; null: not measured
    calibration_slope: Estimate | None = None  # any number; below 1: probabilities too extreme; null as the intercept
    sensitivity_at_specificity: Reached  # the specificity that is held is 0.9
    specificity_at_sensitivity: Reached  # the sensitivity that is held is 0.9
    operating_point: OperatingPointResult | None  # null: no study with a known label has a threshold

    def metric(self, name: str) -> Estimate:
        """The estimate of one of `METRICS`."""
        assert name in METRICS
        estimate: Estimate = getattr(self, name)
        return estimate


@dataclass(frozen=True, kw_only=True)
class Look:
    """One score on some studies, all findings: a group, a masking or a part of a subgroup."""

    num_studies: int  # number of studies of which an image could be read
    num_patients: int  # number of patients of these studies
    macro: dict[str, MacroEstimate]  # metric of `METRICS` -> its mean over the findings
    findings: dict[str, FindingResult]  # finding -> its result


@dataclass(frozen=True, kw_only=True)
class FindingCalibration:
    """What makes a probability of a logit on a route: sigmoid(slope * (logit - log_pos_weight) + intercept)."""

    method: Literal["platt", "temperature", "none"]  # what was fitted on val
    log_pos_weight: float | None  # log of the weight of positives in the loss; null: not known, nothing is subtracted
    slope: float  # above 0
    intercept: float  # in any direction
    error_before: float | None  # calibration error of studies that came on this route, not calibrated; null: no study
    error_after: float | None  # the same as it is calibrated


# -- comparisons -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class DeLong:
    """The difference of the two AUROCs by DeLong's method, a check on the bootstrap; studies are summed by patient."""

    difference: float  # difference of AUROC, in [-1, 1]
    standard_error: float  # standard error of the difference
    p_value: float  # two-sided, not corrected for the number of findings


@dataclass(frozen=True, kw_only=True)
class SwapTestResult:
    """The permutation test that swaps both scores per patient, a check that few positives do not harm."""

    p_value: float  # two-sided, of this finding alone
    p_value_together: float  # two-sided, corrected for all findings that have an AUROC, those with too few included


@dataclass(frozen=True, kw_only=True)
class FindingValue:
    """What a view adds to one finding."""

    auroc: Difference  # gain of AUROC; above 0 the view helps
    average_precision: Difference  # gain of average precision; above 0 the view helps
    brier: Difference  # change of the Brier score; below 0 the view makes the probabilities better
    verdict: Verdict  # verdict by the difference of AUROC
    delong: DeLong | None  # null: fewer than two patients of a class, or a standard error of 0
    swap: SwapTestResult | None = None  # null: undefined with or without the view, or an earlier dualview
    detectable_gain: float | None = None  # smallest gain found with 80 % power by such a test; null: not judged

    def metric(self, name: str) -> Difference:
        """The difference of one of `METRICS`."""
        assert name in METRICS
        difference: Difference = getattr(self, name)
        return difference


@dataclass(frozen=True, kw_only=True)
class Gap:
    """One group of patients against the rest of those whose value is known, for one finding."""

    num_positive_patients: int  # number of patients with the finding, of the group or the rest, whichever has fewer
    num_negative_patients: int  # number of patients without the finding, of the same side
    rest: float | None  # AUROC of the rest; null: one class only
    auroc: Difference  # AUROC of the group minus that of the rest; below 0 the group is served worse

    @property
    def verdict(self) -> GapVerdict:
        """Which way the group differs, if it can be told."""
        return GAP_VERDICTS[self.auroc.verdict]


@dataclass(frozen=True, kw_only=True)
class FindingGaps:
    """One finding in all groups of a column."""

    groups: dict[str, Gap]  # value -> its difference to the rest; studies without a value are in none
    worst: str | None  # the group with the lowest AUROC among those that can be judged; null: none can


@dataclass(frozen=True, kw_only=True)
class SubgroupGaps:
    """How far the groups of one column are apart."""

    findings: dict[str, FindingGaps]  # finding -> its groups
    num_compared: int  # number of differences that the simultaneous interval holds for
    correction: str  # how the verdicts account for the number of differences, as a sentence


@dataclass(frozen=True, kw_only=True)
class ValueOfView:
    """What complete studies gain by a view: scores with both views minus scores with that view withheld."""

    findings: dict[str, FindingValue]  # finding -> its result
    macro: dict[str, MacroEstimate]  # metric of `METRICS` -> mean difference over findings defined in both, in [-1, 1]
    helped: list[str]  # findings that the view helps, by AUROC
    hurt: list[str]  # findings that the view hurts, by AUROC
    undecided: list[str]  # findings where the interval of the AUROC difference holds 0
    undefined: list[str]  # findings without an AUROC with or without the view
    too_few: list[str] = field(default_factory=list)  # fewer than 10 patients with the finding, or than 10 without it
    num_judged: int | None = None  # findings that the simultaneous interval holds for; null: an earlier dualview
    correction: str  # how the verdicts account for the number of findings, as a sentence

    @classmethod
    def of(
        cls, findings: dict[str, FindingValue], *, macro: dict[str, MacroEstimate], num_judged: int, correction: str
    ) -> Self:
        """With the lists of findings that each verdict has."""
        by_verdict: dict[str, list[str]] = {verdict: [] for verdict in get_args(Verdict)}
        for finding, value in findings.items():
            by_verdict[value.verdict].append(finding)
        return cls(findings=findings, macro=macro, num_judged=num_judged, correction=correction, **by_verdict)


@dataclass(frozen=True, kw_only=True)
class HeadAurocs:
    """AUROC of each head of one network on the same complete studies."""

    joint: float | None  # of the head that sees both views; null: one class only
    pa: float | None  # of the PA branch's own head; null as the joint head's
    lateral: float | None  # of the lateral branch's own head; null as the joint head's
    vote: float | None  # of the mean of the three heads' logits (`model.joint_rule: vote`); null as the joint head's
    shortfall: Estimate | None = None  # joint minus better branch head, for all judged findings; null: not measured

    @property
    def better_branch(self) -> float | None:
        """AUROC of the better of the two branch heads."""
        return None if self.pa is None or self.lateral is None else max(self.pa, self.lateral)

    @property
    def is_under_trained(self) -> bool:
        """Whether the joint head, which sees more, is below a branch head, and beyond what chance explains."""
        return self.shortfall is not None and self.shortfall.high is not None and self.shortfall.high < 0


@dataclass(frozen=True, kw_only=True)
class Masked:
    """Complete studies scored three ways. The same patients, so differences are what this trained network gains."""

    num_studies: int  # number of studies with both views
    num_patients: int  # number of patients of these studies
    both: Look  # scores with both views
    lateral_hidden: Look  # scores with the lateral withheld
    pa_hidden: Look  # scores with the PA withheld
    value_of_lateral: ValueOfView  # scores of `both` minus those of `lateral_hidden`
    value_of_pa: ValueOfView  # scores of `both` minus those of `pa_hidden`
    heads: dict[str, HeadAurocs] | None = None  # finding -> its heads; null: not three heads, or an earlier dualview

    @property
    def looks(self) -> dict[str, Look]:
        """Masking of `MASKINGS` -> its look."""
        return {masking: getattr(self, masking) for masking in MASKINGS}


@dataclass(frozen=True, kw_only=True)
class BaselineFinding:
    """One finding as it is told from which views exist."""

    auroc: Estimate  # AUROC of all studies
    undefined: str | None = None  # why there is none; null: it is defined


@dataclass(frozen=True, kw_only=True)
class AvailabilityBaseline:
    """What is predicted of all studies by knowing which views exist, and nothing else."""

    macro: dict[Literal["auroc"], MacroEstimate]  # mean AUROC over the findings, of all studies
    findings: dict[str, BaselineFinding]  # finding -> its result
    score: str  # what is taken for the probability, as a sentence


# -- other data than the run's own -----------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class MatchedFinding:
    """Where the labels of a finding of the run come from in the other data."""

    theirs: list[str]  # what it is called there; several where one is positive with any of them; []: not labelled
    by: Literal["map", "name", "vocabulary"] | None  # how it was found; null: it is unknown in all studies


@dataclass(frozen=True, kw_only=True)
class KnownPatients:
    """Patients of these studies whose identifiers stand in the split.csv of the run."""

    are_shared: bool  # whether equal identifiers mean the same people (data.shared_patients, or the same data set)
    trained_on: int  # number in the run's train split; where identifiers are shared it is always 0
    chosen_on: int  # number in the run's val split, on which checkpoint and thresholds were chosen
    tested_on: int  # number in the run's test split, which these studies are compared with


@dataclass(frozen=True, kw_only=True)
class FindingDrift:
    """One finding on these studies minus the same on the run's own test: two samples of other patients."""

    num_positive_patients: int  # number of patients with the finding, here or there, whichever has fewer
    num_negative_patients: int  # number of patients without the finding, of the same side
    auroc: Difference  # gap of AUROC; below 0 the network is worse here
    average_precision: Difference  # gap of average precision, which falls with the share of positives alone, too
    delong: DeLong | None  # unpaired, for one finding alone; null: fewer than two patients of a class, or an error of 0
    sensitivity: Estimate  # difference at the thresholds of the run; undefined without positive studies
    specificity: Estimate  # difference at the thresholds of the run; undefined without negative studies
    calibration_intercept: (
        Estimate  # in log-odds; below 0: probabilities are higher, for what is there, than in the run
    )
    calibration_slope: Estimate  # any number; below 0: probabilities are more extreme than in the run's own test
    calibration_error: float | None  # difference, in [-1, 1]; null: no study with a known label
    verdict: GapVerdict  # verdict by the gap of AUROC


@dataclass(frozen=True, kw_only=True)
class Drift:
    """These studies against those of the run's own test, at the same operating points."""

    internal: Look  # the run's own test, of the findings that both have
    findings: dict[str, FindingDrift]  # finding that both have -> its differences
    macro: dict[str, MacroEstimate]  # metric of `METRICS` -> mean difference over findings defined in both, in [-1, 1]
    num_judged: int  # number of findings that the simultaneous interval holds for
    correction: str  # how the verdicts account for the number of findings, as a sentence


@dataclass(frozen=True, kw_only=True)
class Recalibration:
    """What a few patients of these data, set aside at random, change. The run itself is left as it is."""

    num_patients: int  # number of patients set aside; they are in no other number of this file
    num_studies: int  # number of studies of these patients
    seed: int  # seed that they were drawn by
    operating_points: str  # the rule of the thresholds, and on whom they were chosen
    said: list[str]  # which findings are calibrated by what, a sentence for each route
    calibration: dict[str, dict[str, FindingCalibration]]  # route -> finding -> how; `error_before` is not the run's
    groups: dict[str, Look]  # group -> the studies of `Assessment.groups` with this calibration and these thresholds


@dataclass(frozen=True, kw_only=True)
class External:
    """What is told of data that are not those of the run."""

    name: str | None  # `--name`; null: it was not given
    findings: dict[str, MatchedFinding]  # finding of the run -> its labels
    unmatched: list[str]  # findings of these data that the run does not have
    patients: KnownPatients  # whom the run knows
    drift: dict[str, Drift] | None  # group that has studies in both -> how; null: the run has no predictions of test
    recalibration: Recalibration | None  # null: not asked for


# -- the whole -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class EvaluatedCheckpoint:
    """Which weights were evaluated."""

    name: str  # name that was asked for: best, last or a step
    step: int  # number of optimizer steps of its training


@dataclass(frozen=True, kw_only=True)
class EnsembleMember:
    """One of several networks whose logits were averaged."""

    run: str  # name of its run's directory
    checkpoint: EvaluatedCheckpoint  # which of its weights
    model: str  # `model.name` of its settings
    backbone: str  # `model.backbone` of its settings
    num_parameters: int  # number of its parameters
    routes: list[str]  # the kinds of study that it judges, by the views that it looks at


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Which network was evaluated, and on which data."""

    run: str  # name of the run's directory, or of the folder that `dualview assess` wrote
    split: str  # train, val or test; what `dualview assess` is given counts as test; all: undivided other data
    checkpoint: EvaluatedCheckpoint | None  # which weights were evaluated; null: of another software, or several
    model: str | None  # `model.name` of the settings; null as the checkpoint
    backbone: str | None  # `model.backbone` of the settings; null as the checkpoint
    num_parameters: int | None  # number of parameters of the network; null as the checkpoint
    versions: list[str]  # versions of packages and the commit that trained the run
    data: dict[str, Any]  # counts as `dualview data --json` has them, without file names; {}: another software
    several_images_at_test: Literal["first", "mean", "max"] | None = None  # the setting; null: not known
    members: list[EnsembleMember] = field(default_factory=list)  # networks that answer together; []: one network
    account: StudyAccount | None = None  # the study beside its results; null: an earlier dualview


@dataclass(frozen=True, kw_only=True)
class UsedSettings:
    """How it was measured."""

    resamples: int  # number of resamples of the patients
    seed: int  # seed of the resamples
    confidence: float  # confidence level of every interval
    resampled: str  # the unit: patients
    operating_points: str  # the rule of the thresholds and the split that they were chosen on; or none, and why
    operating_points_of: Literal["run", "evaluation"] = "evaluation"  # the run, as predict has them, or this alone


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """What one split's predictions are worth."""

    format: Literal[1]  # `EVALUATION_FORMAT`; another number is another set of keys
    settings: UsedSettings  # how it was measured
    findings: list[str]  # names in the order of the network's outputs
    num_patients: int  # number of patients of these studies
    num_studies: int  # number of studies with at least one image that could be read; others take no part
    groups: dict[str, Look]  # group of `views.GROUPS` (all, both, pa_only, lateral_only) -> its studies as they came
    availability_baseline: AvailabilityBaseline | None  # null: the labels of training were not at hand
    masked: Masked | None  # null: the network takes one kind of study only, or no score has a view withheld
    subgroups: dict[str, dict[str, Look]]  # column of the study table -> value -> its studies; {}: no column
    temperature: dict[str, float]  # route -> what divides the logits of findings without Platt's numbers; 1: nothing
    calibration: dict[str, dict[str, FindingCalibration]] = field(default_factory=dict)  # route -> finding -> how
    subgroup_gaps: dict[str, SubgroupGaps] = field(default_factory=dict)  # column -> its gaps; {}: no column


@dataclass(frozen=True, kw_only=True)
class Evaluation(Assessment, Provenance):
    """evaluation.json: the keys of `Provenance`, then those of `Assessment`, then those of other data."""

    external: External | None = None  # null: these are the run's own data

    @classmethod
    def of(cls, provenance: Provenance, assessment: Assessment, *, external: External | None = None) -> "Evaluation":
        """An assessment with where it comes from."""
        return cls(**vars(provenance), **vars(assessment), external=external)

    def to_json(self) -> str:
        """The text of evaluation.json."""
        return json.dumps(asdict(self), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(
        cls,
        text: str | bytes,
        *,
        file: Path = Path("evaluation.json"),
        remedy: str = "Make it anew with dualview evaluate",
    ) -> "Evaluation":
        """What `to_json` wrote; keys that this dualview does not know are left out.

        Args:
            file: where the text is from, for the message.
            remedy: what to do where it cannot be read, for the message.

        Raises:
            UserError: the text is no JSON, of another format, or damaged.
        """
        try:
            content = json.loads(text)
        except ValueError as error:
            raise UserError(f"{file} is not JSON ({error}). {remedy}") from None
        if not isinstance(content, dict) or content.get("format") != EVALUATION_FORMAT:
            raise UserError(f"{file} is not of format {EVALUATION_FORMAT}, which this dualview reads. {remedy}")
        try:
            return _READER.validate_json(text, strict=True)
        except ValidationError as error:
            raise UserError(f"{file} is damaged ({_problems(error)}). {remedy}") from None

    def write(self, path: Path) -> None:
        """Write evaluation.json whole or not at all."""
        write_whole(path, self.to_json())


_READER = TypeAdapter(Evaluation)


def _problems(error: ValidationError) -> str:
    """The first of them, such as `groups.all.num_studies: Field required; and 3 more`."""
    problems = error.errors(include_url=False)
    told = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in problems[:TOLD_PROBLEMS]]
    if len(problems) > TOLD_PROBLEMS:
        told.append(f"and {len(problems) - TOLD_PROBLEMS} more")
    return "; ".join(told)
