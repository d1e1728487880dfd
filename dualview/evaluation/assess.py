"""What a network's predictions are worth: from the predictions of two splits to `evaluation.json`.

Four looks at the same predictions, each per finding and macro (the mean over the findings where a metric is defined):

- `groups`: all studies, and by availability as it came. These differ in their patients too, so beside them stands
  what the availability alone predicts (`availability_baseline`).
- `masked`: complete studies scored with both views, with the lateral withheld and with the PA withheld. The same
  patients, so differences between the three are the value of a view.
- `subgroups`: by columns of the study table.
- operating points chosen on val, applied to this split.

Every interval is over resamples of patients, the same ones throughout (statistics/bootstrap.py).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.special import expit, logit

from dualview.evaluation.metrics import finding_metrics
from dualview.evaluation.operating_points import OperatingPoint, OperatingPoints
from dualview.evaluation.prediction_table import HIDDEN, ROUTES, Predictions
from dualview.evaluation.statistics.bootstrap import (
    Interval,
    percentile_interval,
    ranking,
    resample_patients,
    simultaneous_intervals,
    weighted_means,
)
from dualview.evaluation.statistics.calibration import calibration_error, fit_temperature
from dualview.evaluation.statistics.delong import paired_delong
from dualview.evaluation.statistics.thresholds import YOUDEN, ThresholdRule, choose
from dualview.views import Availability, View

FORMAT = 1
METRICS = ("auroc", "average_precision", "brier")
MASKED = ("route", *HIDDEN.values())
SMALLEST, LARGEST = 1e-300, 1 - 1e-16  # probabilities whose logit is finite
Document = dict[str, Any]
Track = Callable[[list[Any]], Iterable[Any]]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How evaluation measures."""

    num_resamples: int = 2000
    seed: int = 0
    confidence: float = 0.95
    fixed_specificity: float = 0.9
    fixed_sensitivity: float = 0.9


@dataclass(frozen=True, kw_only=True)
class _Look:
    """One score on some studies: the unit of work. `resampled` is per metric (K, B)."""

    document: Document
    values: dict[str, np.ndarray]  # metric -> (K,) NaN where undefined
    resampled: dict[str, np.ndarray]


def assess(
    predictions: Predictions,
    *,
    points: OperatingPoints,
    train_prevalence: np.ndarray | None = None,
    by: list[str] | None = None,
    settings: Settings | None = None,
    track: Track = iter,
) -> Document:
    """The evaluation of one split as plain data, ready for JSON; what is undefined is null, with the reason.

    Args:
        predictions: of the split; studies without a readable image take no part.
        points: temperatures and thresholds, from val.
        train_prevalence: (3, K) share of positives among known training labels per `Availability`, NaN where
            there are none; what the mask-only baseline predicts.
        by: columns of the study table to divide by; None takes those with few values.
    """
    settings = settings or Settings()
    predictions = predictions.select(predictions.evaluated)
    counts = resample_patients(predictions.patient_ids, num_resamples=settings.num_resamples, seed=settings.seed)
    everyone = np.arange(len(predictions))
    both = np.flatnonzero(predictions.availability == Availability.BOTH)
    looks: dict[tuple[str, ...], tuple[str, np.ndarray]] = {("groups", "all"): ("route", everyone)}
    for kind in Availability:
        looks["groups", ROUTES[kind]] = ("route", np.flatnonzero(predictions.availability == kind))
    hides = all(np.isfinite(predictions.scores[score][both]).any() for score in HIDDEN.values())
    if hides:
        looks |= {("masked", score): (score, both) for score in MASKED}
    divisions = _divisions(predictions, by=by)
    for column, parts in divisions.items():
        looks |= {("subgroups", column, part): ("route", rows) for part, rows in parts.items()}
    done = {
        key: _look(predictions, score=score, rows=rows, counts=counts[rows], points=points, settings=settings)
        for key, (score, rows) in track(list(looks.items()))
    }
    document: Document = {
        "format": FORMAT,
        "settings": {
            "resamples": settings.num_resamples,
            "seed": settings.seed,
            "confidence": settings.confidence,
            "resampled": "patients",
            "operating_points": f"{points.rule}, chosen on {points.chosen_on}",
        },
        "findings": list(predictions.findings),
        "num_patients": len(set(predictions.patient_ids)),
        "num_studies": len(predictions),
        "groups": {key[1]: look.document for key, look in done.items() if key[0] == "groups"},
        "availability_baseline": _availability_baseline(
            predictions, train_prevalence, counts=counts, settings=settings
        ),
        "masked": None,
        "subgroups": {
            column: {part: done["subgroups", column, part].document for part in parts}
            for column, parts in divisions.items()
        },
    }
    if hides:
        document["masked"] = {
            "num_studies": len(both),
            "num_patients": len(set(predictions.patient_ids[both])),
            "both": done["masked", "route"].document,
            **{score: done["masked", score].document for score in HIDDEN.values()},
            "value_of_lateral": _value_of(View.LATERAL, predictions.select(both), done=done, settings=settings),
            "value_of_pa": _value_of(View.PA, predictions.select(both), done=done, settings=settings),
        }
    return document


def choose_operating_points(
    val: Predictions, *, rule: ThresholdRule = YOUDEN, temperatures: dict[str, float] | None = None
) -> OperatingPoints:
    """Thresholds per route and finding from the val split.

    A route of one view is judged on every val study that has the view, complete ones with the other withheld.
    """
    temperatures = temperatures or dict.fromkeys(ROUTES, 1.0)
    routes: dict[str, dict[str, OperatingPoint]] = {}
    for kind in Availability:
        calibrated = _tempered(scored_by(val, kind), temperatures[ROUTES[kind]])
        routes[ROUTES[kind]] = of_route = {}
        for k, finding in enumerate(val.findings):
            known = val.label_mask[:, k] & np.isfinite(calibrated[:, k])
            positive = val.labels[known, k] > 0.5
            chosen = choose(calibrated[known, k], positive=positive, rule=rule)
            if chosen is None:
                reason = _why_undefined(int(positive.sum()), int((~positive).sum()))
                of_route[finding] = OperatingPoint(threshold=None, reason=f"on val, {reason}")
            else:
                of_route[finding] = OperatingPoint(threshold=chosen.threshold)
    return OperatingPoints(rule=str(rule), chosen_on="val", temperature=temperatures, routes=routes)


def fit_temperatures(val: Predictions) -> dict[str, float]:
    """A temperature per route from the val split; 1 where a route has no labels of both kinds there."""
    fitted = {}
    for kind in Availability:
        scores = scored_by(val, kind)
        known = val.label_mask & np.isfinite(scores)
        logits = logit(np.clip(np.where(known, scores, 0.5), SMALLEST, LARGEST))
        fitted[ROUTES[kind]] = fit_temperature(logits, labels=val.labels, label_mask=known) or 1.0
    return fitted


def scored_by(predictions: Predictions, kind: Availability) -> np.ndarray:
    """(S, K) probability from the views of this kind alone, of every study that has them; NaN for others."""
    natural = np.where(
        (predictions.evaluated & (predictions.availability == kind))[:, None], predictions.scores["route"], np.nan
    )
    if kind == Availability.BOTH:
        return natural
    hidden = HIDDEN[View.LATERAL if kind == Availability.PA_ONLY else View.PA]
    return np.where(
        (predictions.evaluated & (predictions.availability == Availability.BOTH))[:, None],
        predictions.scores[hidden],
        natural,
    )


# -- one score on some studies ---------------------------------------------------------------------


def _look(
    predictions: Predictions,
    *,
    score: str,
    rows: np.ndarray,
    counts: np.ndarray,
    points: OperatingPoints,
    settings: Settings,
) -> _Look:
    here = predictions.select(rows)
    probabilities = calibrated(here, score=score, temperature=points.temperature)
    thresholds = np.array([[_threshold(points.routes[route].get(name)) for name in here.findings] for route in ROUTES])[
        here.route_of(score)
    ]  # (n, K), NaN where there is none
    shape = (len(here.findings), counts.shape[1])
    values = {metric: np.full(len(here.findings), np.nan) for metric in METRICS}
    resampled = {metric: np.full(shape, np.nan) for metric in METRICS}
    findings: Document = {}
    for k, finding in enumerate(here.findings):
        known = here.label_mask[:, k] & np.isfinite(probabilities[:, k])
        scores, positive, of_known = probabilities[known, k], here.labels[known, k] > 0.5, counts[known]
        plain = finding_metrics(scores, labels=positive, known=np.ones(len(scores), bool))
        for metric in METRICS:
            value = getattr(plain, metric)
            values[metric][k] = np.nan if value is None else value
        if len(scores):
            ranks = ranking(scores, positive=positive, counts=of_known)
            resampled["auroc"][k], resampled["average_precision"][k] = ranks
            resampled["brier"][k] = weighted_means((scores - positive) ** 2, counts=of_known)
        document: Document = {
            "num_positive": plain.num_positive,
            "num_negative": plain.num_negative,
            "num_unknown": int(len(here) - known.sum()),
            "undefined": _why_undefined(plain.num_positive, plain.num_negative),
        }
        for metric in METRICS:
            document[metric] = _interval(values[metric][k], resampled[metric][k], settings)
        document["calibration_error"] = calibration_error(scores, positive=positive)
        for name, rule in (
            ("sensitivity_at_specificity", ThresholdRule("specificity", settings.fixed_specificity)),
            ("specificity_at_sensitivity", ThresholdRule("sensitivity", settings.fixed_sensitivity)),
        ):
            point = choose(scores, positive=positive, rule=rule)
            reached = None if point is None else getattr(point, name.split("_", maxsplit=1)[0])
            document[name] = {"target": rule.target, "value": reached}
        document["operating_point"] = _at_threshold(
            scores, positive=positive, thresholds=thresholds[known, k], counts=of_known, settings=settings
        )
        findings[finding] = document
    macro = {
        metric: {
            **_interval(_nanmean(values[metric]), _nanmean(resampled[metric][np.isfinite(values[metric])]), settings),
            "num_findings": int(np.isfinite(values[metric]).sum()),
        }
        for metric in METRICS
    }
    whole: Document = {
        "num_studies": len(here),
        "num_patients": len(set(here.patient_ids)),
        "macro": macro,
        "findings": findings,
    }
    return _Look(document=whole, values=values, resampled=resampled)


def calibrated(predictions: Predictions, *, score: str, temperature: dict[str, float]) -> np.ndarray:
    """(S, K) probabilities of a score after the temperature of the route that each study takes in it."""
    of_study = np.array([temperature[route] for route in ROUTES])[predictions.route_of(score)][:, None]
    return _tempered(predictions.scores[score], of_study)


def _tempered(probabilities: np.ndarray, temperature: float | np.ndarray) -> np.ndarray:
    """sigmoid(logit / T); untouched where T is 1."""
    if np.all(temperature == 1):
        return probabilities
    tempered: np.ndarray = expit(logit(np.clip(probabilities, SMALLEST, LARGEST)) / temperature)
    return tempered


def _threshold(point: OperatingPoint | None) -> float:
    return np.nan if point is None or point.threshold is None else point.threshold


def _at_threshold(
    scores: np.ndarray, *, positive: np.ndarray, thresholds: np.ndarray, counts: np.ndarray, settings: Settings
) -> Document | None:
    """Counts and rates of the decisions at each study's threshold; None where no study has one."""
    decided = np.isfinite(thresholds)
    if not decided.any():
        return None
    called, truth, counts = scores[decided] >= thresholds[decided], positive[decided], counts[decided]
    cells = {
        "true_positive": called & truth,
        "false_positive": called & ~truth,
        "true_negative": ~called & ~truth,
        "false_negative": ~called & truth,
    }
    document: Document = {name: int(cell.sum()) for name, cell in cells.items()}
    distinct = np.unique(thresholds[decided])
    document["threshold"] = float(distinct[0]) if len(distinct) == 1 else None  # several routes, several thresholds
    for name, hits, among in (
        ("sensitivity", called & truth, truth),
        ("specificity", ~called & ~truth, ~truth),
        ("positive_predictive_value", called & truth, called),
        ("negative_predictive_value", ~called & ~truth, ~called),
    ):
        value = float(hits.sum() / among.sum()) if among.any() else None
        document[name] = _interval(value, weighted_means(hits[among], counts=counts[among]), settings)
    return document


# -- comparisons -----------------------------------------------------------------------------------


def _value_of(view: View, complete: Predictions, *, done: dict[tuple[str, ...], _Look], settings: Settings) -> Document:
    """What complete studies lose without a view: differences, both views minus the view withheld."""
    whole, without = done["masked", "route"], done["masked", HIDDEN[view]]
    names = complete.findings
    findings: Document = {name: {} for name in names}
    for metric in METRICS:
        difference = whole.values[metric] - without.values[metric]
        resampled = whole.resampled[metric] - without.resampled[metric]
        low, high = simultaneous_intervals(difference, resampled, confidence=settings.confidence)
        for k, name in enumerate(names):
            findings[name][metric] = {
                **_interval(difference[k], resampled[k], settings),
                "simultaneous_low": _number(low[k]),
                "simultaneous_high": _number(high[k]),
            }
    verdicts: dict[str, list[str]] = {"helped": [], "hurt": [], "undecided": [], "undefined": []}
    for k, name in enumerate(names):
        auroc = findings[name]["auroc"]
        findings[name]["verdict"] = verdict(auroc)
        verdicts[findings[name]["verdict"]].append(name)
        known = complete.label_mask[:, k] & np.isfinite(complete.scores[HIDDEN[view]][:, k])
        check = paired_delong(
            complete.scores["route"][known, k],
            complete.scores[HIDDEN[view]][known, k],
            positive=complete.labels[known, k] > 0.5,
        )
        findings[name]["delong"] = None if check is None else check._asdict()
    macro = {}
    for metric in METRICS:
        defined = np.isfinite(whole.values[metric]) & np.isfinite(without.values[metric])
        resampled = _nanmean(whole.resampled[metric][defined]) - _nanmean(without.resampled[metric][defined])
        value = _nanmean((whole.values[metric] - without.values[metric])[defined])
        macro[metric] = {**_interval(value, resampled, settings), "num_findings": int(defined.sum())}
    percent = f"{100 * settings.confidence:g} %"
    correction = (
        f"a finding is helped or hurt where the {percent} interval that holds for all {len(names)} findings together "
        "(bootstrap maximum, Westfall & Young 1993) leaves 0 out"
    )
    return {"findings": findings, "macro": macro, **verdicts, "correction": correction}


def verdict(difference: Document) -> str:
    """`helped`, `hurt` or `undecided` by the simultaneous interval of a difference of AUROC or average precision."""
    if difference["value"] is None or difference["simultaneous_low"] is None:
        return "undefined"
    if difference["simultaneous_low"] > 0:
        return "helped"
    return "hurt" if difference["simultaneous_high"] < 0 else "undecided"


def _availability_baseline(
    predictions: Predictions, train_prevalence: np.ndarray | None, *, counts: np.ndarray, settings: Settings
) -> Document | None:
    """AUROC, over all studies, of a score that knows nothing but which views exist."""
    if train_prevalence is None:
        return None
    scores = np.nan_to_num(train_prevalence)[predictions.availability]  # (S, K)
    values, resampled = np.full(scores.shape[1], np.nan), np.full((scores.shape[1], counts.shape[1]), np.nan)
    findings: Document = {}
    for k, name in enumerate(predictions.findings):
        known = predictions.label_mask[:, k]
        plain = finding_metrics(scores[:, k], labels=predictions.labels[:, k], known=known)
        if plain.auroc is not None:
            values[k] = plain.auroc
            resampled[k] = ranking(
                scores[known, k], positive=predictions.labels[known, k] > 0.5, counts=counts[known]
            ).auroc
        findings[name] = {"auroc": _interval(values[k], resampled[k], settings)}
    macro = _interval(_nanmean(values), _nanmean(resampled[np.isfinite(values)]), settings)
    return {
        "macro": {"auroc": {**macro, "num_findings": int(np.isfinite(values).sum())}},
        "findings": findings,
        "score": "share of positives among the training studies of the same availability",
    }


# -- subgroups -------------------------------------------------------------------------------------

MAX_VALUES = 12  # of a column that is divided by without being asked for
AGE_BANDS = (0, 18, 40, 60, 80, 200)


def _divisions(predictions: Predictions, *, by: list[str] | None) -> dict[str, dict[str, np.ndarray]]:
    """Rows of each part of each column; ages in bands, other numbers with many values in quarters."""
    divisions = {}
    for column in by if by is not None else predictions.attributes:
        values = predictions.attributes[column].astype(str)
        numbers = np.array([_as_number(value) for value in values])
        distinct = np.unique(values[values != ""])
        is_numeric = bool(len(distinct)) and np.isfinite(numbers[values != ""]).mean() > 0.9
        if column == "age" and is_numeric:
            labels = _bands(numbers, edges=list(AGE_BANDS))
        elif is_numeric and len(distinct) > MAX_VALUES and by is not None:
            labels = _bands(numbers, edges=[*np.nanquantile(numbers, [0, 0.25, 0.5, 0.75]), np.inf])
        elif len(distinct) > MAX_VALUES and by is None:
            continue
        else:
            labels = np.where(values == "", "not known", values)
        parts = {str(label): np.flatnonzero(labels == label) for label in sorted(set(labels))}
        if len(parts) > 1:
            divisions[column] = parts
    return divisions


def _bands(numbers: np.ndarray, *, edges: list[float]) -> np.ndarray:
    labels = np.full(len(numbers), "not known", object)
    for low, high in pairwise(edges):
        name = f"{low:g} and more" if high >= AGE_BANDS[-1] else f"{low:g} to below {high:g}"
        labels[(numbers >= low) & (numbers < high)] = name
    return labels


def _as_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


# -- plain values ----------------------------------------------------------------------------------


def _why_undefined(num_positive: int, num_negative: int) -> str | None:
    if num_positive and num_negative:
        return None
    if not num_positive and not num_negative:
        return "no study with a known label"
    which = "positive" if not num_positive else "negative"
    return f"no {which} study among {num_positive + num_negative} with a known label"


def _interval(value: float | None, resampled: np.ndarray, settings: Settings) -> Document:
    interval = Interval(None, None, None)
    if value is not None and np.isfinite(value):
        interval = percentile_interval(float(value), np.atleast_1d(resampled), confidence=settings.confidence)
    return interval._asdict()


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _nanmean(values: np.ndarray) -> Any:
    """Mean over the first axis of what is defined; NaN where nothing is."""
    there = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(there, values, 0).sum(axis=0) / np.where(there.sum(axis=0) > 0, there.sum(axis=0), np.nan)
