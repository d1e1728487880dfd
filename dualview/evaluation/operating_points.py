"""What a probability is taken for: from logits to probabilities, and the threshold of each finding on each route.

`operating_points.json` (read in points_file.py): of a run, written when training ends and by `dualview evaluate RUN
--set-thresholds`; of an evaluation, those that it used:

    {"format": 2, "rule": "youden", "chosen_on": "val",
     "several_images_at_test": "first", "log_pos_weight": {"Pneumonia": 1.61, "Hernia": 0.0},
     "temperature": {"both": 1.2, "pa_only": 1.0, "lateral_only": 0.9},
     "routes": {"both": {"Pneumonia": {"threshold": 0.31, "reason": null, "platt": {"slope": 0.8, "intercept": -0.1}},
                         "Hernia": {"threshold": null, "reason": "one class only in val", "platt": null}}, ...}}

Positives that weigh w times in the loss multiply the odds that a network learns by w, exactly: log w, which is
`log_pos_weight`, is subtracted from every logit z. The probability is sigmoid(slope * (z - log w) + intercept) where
Platt's two numbers are given, and sigmoid((z - log w) / temperature of the route) elsewhere. A threshold is on that
probability: the decision is 1 where probability >= threshold.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.special import expit

from dualview.config import SeveralImages
from dualview.evaluation.metrics import why_undefined
from dualview.evaluation.prediction_table import PredictionTable
from dualview.evaluation.statistics.calibration import Line
from dualview.evaluation.statistics.thresholds import YOUDEN, ThresholdRule, choose
from dualview.files import write_whole
from dualview.views import ROUTES, Availability

POINTS_FORMAT = 2
NO_RULE = "none: there are no predictions of val to choose thresholds on"
OWN_RULE = "the columns threshold:F, for each study its own"
Method = Literal["platt", "temperature", "none"]


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """Where the positives of one finding begin on one route."""

    threshold: float | None  # probability in [0, 1]; None: no decision can be made
    reason: str | None = None  # why there is no threshold; None: there is one
    platt: Line | None = None  # line from logits to logits, of slope above 0; None: the route's temperature


class Scale(NamedTuple):
    """What makes a calibrated logit of one: it is divided by the temperature, and the intercept is added."""

    temperature: float
    intercept: float


@dataclass(frozen=True, kw_only=True)
class OperatingPoints:
    """Calibration and thresholds of every route; by `views.ROUTES`, then by finding."""

    rule: str  # rule by which thresholds were chosen
    chosen_on: str  # split on which thresholds were chosen; blank: there are none, as the rule says
    temperature: dict[str, float]
    routes: dict[str, dict[str, OperatingPoint]]
    log_pos_weight: dict[str, float] | None = None  # by finding; None: not known, as in older files, and not undone
    several_images_at_test: SeveralImages = "first"  # how one logit was made of several images; `first`: an older file

    @property
    def origin(self) -> str:
        """Where the thresholds come from, as a phrase."""
        return f"{self.rule}, chosen on {self.chosen_on}" if self.chosen_on else self.rule

    def calibrated(self, logits: np.ndarray, route: Availability, *, findings: Sequence[str]) -> np.ndarray:
        """Probabilities (N, K) float64 of a route's logits (N, K)."""
        scales = [self.scale(route, finding) for finding in findings]
        return to_probabilities(
            logits,
            log_pos_weight=self.shift(findings),
            temperature=np.array([scale.temperature for scale in scales], np.float64),
            intercept=np.array([scale.intercept for scale in scales], np.float64),
        )

    def shift(self, findings: Sequence[str]) -> np.ndarray:
        """(K,) what is subtracted from the logits, 0 where it is not known."""
        return shift_of(self.log_pos_weight, findings=findings)

    def scale(self, route: Availability, finding: str) -> "Scale":
        """What a logit is divided by and what is then added to it."""
        point = self.routes[route.key].get(finding)
        if point is None or point.platt is None:
            return Scale(self.temperature[route.key], 0.0)
        return Scale(1 / point.platt.slope, point.platt.intercept)

    def uncalibrated(self) -> "OperatingPoints":
        """The same without what was fitted; the weight of positives stays undone."""
        routes = {
            route: {finding: replace(point, platt=None) for finding, point in points.items()}
            for route, points in self.routes.items()
        }
        return replace(self, temperature=dict.fromkeys(self.temperature, 1.0), routes=routes)

    def method(self, route: Availability, finding: str) -> Method:
        """How a finding is calibrated on a route."""
        point = self.routes[route.key].get(finding)
        if point is not None and point.platt is not None:
            return "platt"
        return "none" if self.temperature[route.key] == 1 else "temperature"

    def thresholds(self, findings: Sequence[str], route: Availability) -> np.ndarray:
        """(K,) thresholds of a route on calibrated probabilities, NaN where no decision can be made."""
        points = [self.routes[route.key].get(finding) for finding in findings]
        values = [None if point is None else point.threshold for point in points]
        return np.array([np.nan if value is None else value for value in values], np.float64)

    def decide(
        self, probabilities: np.ndarray, route: Availability, *, findings: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Decisions (N, K) bool on calibrated probabilities (N, K), and which of them mean anything (N, K) bool."""
        thresholds = self.thresholds(findings, route)
        known = np.broadcast_to(np.isfinite(thresholds), probabilities.shape).copy()
        return probabilities >= thresholds, known  # no probability reaches a NaN

    def write(self, path: Path) -> None:
        """Write to `path` whole or not at all."""
        content: dict[str, Any] = asdict(self)
        for points in content["routes"].values():
            for point in points.values():  # A named tuple would come out as a list.
                point["platt"] = None if point["platt"] is None else point["platt"]._asdict()
        write_whole(path, json.dumps({"format": POINTS_FORMAT, **content}, indent=2) + "\n")


# -- from logits to probabilities ------------------------------------------------------------------


def to_probabilities(
    logits: np.ndarray,
    *,
    log_pos_weight: float | np.ndarray = 0.0,
    temperature: float | np.ndarray = 1.0,
    intercept: float | np.ndarray = 0.0,
) -> np.ndarray:
    """sigmoid((logits - log_pos_weight) / temperature + intercept) as float64; every probability is made here.

    It is NaN where there is no logit.

    By scipy's expit, which gives a logit the same probability wherever it stands in an array. The sigmoid of torch does
    not, to the last digit, and a study that lies on its threshold would be decided by its neighbours.
    """
    probabilities: np.ndarray = expit((logits.astype(np.float64) - log_pos_weight) / temperature + intercept)
    return probabilities


def shift_of(log_pos_weight: Mapping[str, float] | None, *, findings: Sequence[str]) -> np.ndarray:
    """(K,) of the weights by finding, 0 where one is not known."""
    known = {} if log_pos_weight is None else log_pos_weight
    return np.array([known.get(finding, 0.0) for finding in findings], np.float64)


def calibrated_scores(table: PredictionTable, *, score: str, points: OperatingPoints) -> np.ndarray:
    """(S, K) probabilities of a score, by the calibration of the route that it takes for each study."""
    scales = np.array(
        [[points.scale(route, finding) for finding in table.findings] for route in Availability], np.float64
    )  # (3, K, 2)
    of_study = scales[table.judged_by(score)]
    return to_probabilities(
        table.logits[score],
        log_pos_weight=points.shift(table.findings),
        temperature=of_study[..., 0],
        intercept=of_study[..., 1],
    )


# -- chosen on val ---------------------------------------------------------------------------------


def choose_operating_points(
    val: PredictionTable,
    *,
    rule: ThresholdRule = YOUDEN,
    log_pos_weight: Mapping[str, float] | None = None,
    temperatures: dict[str, float] | None = None,
    platt: Mapping[str, Mapping[str, Line]] | None = None,
    several_images_at_test: SeveralImages = "first",
    chosen_on: str = "val",
) -> OperatingPoints:
    """Thresholds per route and finding from the val split.

    A route of one view is judged on every val study that has the view, complete ones with the other withheld.

    Args:
        log_pos_weight: finding -> what the loss has added to its logits.
        temperatures: by route; None: 1.
        platt: by route, then by finding, where there is one (calibrate.py).
        several_images_at_test: how a logit of `val` was made of several images of a view.
        chosen_on: what the studies are called where it is said on whom thresholds were chosen.
    """
    calibrated = OperatingPoints(
        rule=str(rule),
        chosen_on=chosen_on,
        temperature=temperatures or dict.fromkeys(ROUTES, 1.0),
        routes={
            route: {finding: OperatingPoint(threshold=None, platt=line) for finding, line in lines.items()}
            for route, lines in {**{key: {} for key in ROUTES}, **(platt or {})}.items()
        },
        log_pos_weight=None if log_pos_weight is None else dict(log_pos_weight),
        several_images_at_test=several_images_at_test,
    )
    routes = {}
    for kind in Availability:
        probabilities = calibrated.calibrated(logits_from(kind, val), kind, findings=val.findings)
        points = {
            finding: _choose(
                probabilities[:, k], positive=val.positive[:, k], known=val.label_mask[:, k], rule=rule, on=chosen_on
            )
            for k, finding in enumerate(val.findings)
        }
        lines = {finding: point.platt for finding, point in calibrated.routes[kind.key].items()}
        routes[kind.key] = {finding: replace(point, platt=lines.get(finding)) for finding, point in points.items()}
    return replace(calibrated, routes=routes)


def no_operating_points(
    findings: Sequence[str], *, rule: str = NO_RULE, reason: str = "there are no predictions of val"
) -> OperatingPoints:
    """No threshold for any finding, and nothing calibrated: for predictions that come without those of val."""
    point = OperatingPoint(threshold=None, reason=reason)
    return OperatingPoints(
        rule=rule,
        chosen_on="",
        temperature=dict.fromkeys(ROUTES, 1.0),
        routes={route: dict.fromkeys(findings, point) for route in ROUTES},
    )


def _choose(
    probabilities: np.ndarray, *, positive: np.ndarray, known: np.ndarray, rule: ThresholdRule, on: str
) -> OperatingPoint:
    known = known & np.isfinite(probabilities)
    truth = positive[known]
    chosen = choose(probabilities[known], positive=truth, rule=rule)
    if chosen is None:
        reason = why_undefined(num_positive=int(truth.sum()), num_negative=int((~truth).sum()))
        return OperatingPoint(threshold=None, reason=f"on {on}, {reason}")
    return OperatingPoint(threshold=chosen.threshold)


def logits_from(kind: Availability, table: PredictionTable) -> np.ndarray:
    """(S, K) logits as if only the views of this kind existed, of every study that has them; NaN for others."""
    logits = np.full(table.labels.shape, np.nan)
    as_they_came = table.evaluated & (table.availability == kind)
    logits[as_they_came] = table.logits["route"][as_they_came]
    if kind != Availability.BOTH:
        complete = table.evaluated & (table.availability == Availability.BOTH)
        logits[complete] = table.logits[kind.views[0].other.hidden_key][complete]
    return logits
