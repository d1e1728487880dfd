"""Simulates for docs/evaluation.md how often verdicts and intervals are right where the truth is known.

    pip install -e ".[docs]"
    python docs/generate/inference.py

Binormal scores of correlated findings, prevalences 0.5 to 30 %, one study per patient, judged by the very functions
that `dualview evaluate` calls. About ten minutes on two cores. Draws docs/evaluation/inference.svg and prints numbers.
"""

import sys
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from scipy.stats import norm

from dualview.evaluation.looks import (
    EvaluationSettings,
    auroc_estimate,
    auroc_gain_estimate,
    metric_estimate,
    precision_gain_estimate,
)
from dualview.evaluation.statistics.bootstrap import Interval, Ranking, resample_patients, simultaneous_intervals
from dualview.evaluation.statistics.class_patients import ClassPatients, class_patients
from dualview.evaluation.statistics.intervals import POWER, few_patients_factor
from dualview.evaluation.statistics.permutation import swap_test

PICTURE = Path(__file__).parents[1] / "evaluation" / "inference.svg"
BY_FINDING, BY_PATIENT = 0.3, 0.3  # shares of a score's variance: common to both scores; to all findings of a patient
WIDE = 1.6  # standard deviation of positive scores, that of negative ones being 1, where ROC shapes are unequal
FEWEST = {0: "below 5", 5: "5 to 9", 10: "10 to 19", 20: "20 to 49", 50: "from 50"}
"""Positive patients to be expected. Those that are there would not do: which findings have many is chance as well, and
average precision, which rises with the share of positives, would be above the truth wherever there are more."""
RESAMPLES = 500
REPETITIONS = {150: 400, 1000: 120}  # test sets for each number of patients
GAINS = (0.02, 0.05, 0.1)
SHIPPED, BEFORE, SWAP = "#1b7837", "#b2182b", "#7f7f7f"


@dataclass(frozen=True, kw_only=True)
class World:
    """A truth, and how many patients are drawn from it."""

    num_patients: int
    num_findings: int
    auroc: float  # with the view withheld, of every finding
    gain: float = 0.0  # AUROC gained with the view, of every finding
    equal_shapes: bool = True

    def __str__(self) -> str:
        shapes = "equal" if self.equal_shapes else "unequal"
        return f"{self.num_patients} patients, {self.num_findings} findings, {self.auroc} + {self.gain}, {shapes}"


class Drawn(NamedTuple):
    """Scores with the view and without, and labels, (patients, findings) each."""

    whole: np.ndarray
    without: np.ndarray
    positive: np.ndarray


def draw(world: World, *, generator: np.random.Generator) -> Drawn:
    """One test set."""
    shape = (world.num_patients, world.num_findings)

    def correlated(share: float) -> np.ndarray:
        common = generator.normal(size=(world.num_patients, 1))
        return np.sqrt(share) * common + np.sqrt(1 - share) * generator.normal(size=shape)

    positive = correlated(0.3) < norm.ppf(prevalences(world))
    shared = np.sqrt(BY_PATIENT) * generator.normal(size=(world.num_patients, 1))
    shared = shared + np.sqrt(BY_FINDING) * generator.normal(size=shape)

    def scores(auroc: float, spread: float) -> np.ndarray:
        noise = shared + np.sqrt(1 - BY_PATIENT - BY_FINDING) * generator.normal(size=shape)
        return np.where(positive, norm.ppf(auroc) * np.hypot(1, spread) + spread * noise, noise)

    whole = scores(world.auroc + world.gain, 1.0 if world.equal_shapes else WIDE)
    return Drawn(whole, scores(world.auroc, 1.0), positive)


def prevalences(world: World) -> np.ndarray:
    """(K,) from rare to common."""
    return np.geomspace(0.005, 0.3, world.num_findings)


def true_precision(auroc: float, *, spread: float, prevalence: float) -> float:
    """Average precision of so many patients that chance plays no part."""
    x = np.linspace(-8, 16, 8001)
    z = (x - norm.ppf(auroc) * np.hypot(1, spread)) / spread
    called = prevalence * norm.sf(z)
    precision = called / np.maximum(called + (1 - prevalence) * norm.sf(x), 1e-300)
    return float(np.trapezoid(precision * norm.pdf(z) / spread, x))


def quick_ranking(scores: np.ndarray, *, positive: np.ndarray, counts: np.ndarray) -> Ranking:
    """What `ranking` says of scores without ties, by two matrix products.

    Args:
        counts: (N, B) float32 of `resample_patients`.
    """
    pos, neg = scores[positive], scores[~positive]
    num_pos, num_neg = (counts[rows].sum(axis=0) for rows in (positive, ~positive))
    below = (pos[:, None] > neg[None]).astype(np.float32) @ counts[~positive]  # negatives below each positive
    true = (pos[:, None] <= pos[None]).astype(np.float32) @ counts[positive]  # positives from each one up
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = true / np.maximum(true + num_neg - below, 1)
        means = [np.einsum("nb,nb->b", of_each, counts[positive]) / num_pos for of_each in (below / num_neg, precision)]
    return Ranking(*(np.where(num_pos * num_neg > 0, mean, np.nan) for mean in means))


class Told(NamedTuple):
    """What an evaluation says of one test set."""

    patients: list[ClassPatients]  # of each finding
    verdicts: np.ndarray  # (K,) 1 helped, -1 hurt, 0 neither
    of_all: np.ndarray  # (K,) the same had no finding been set apart, as dualview did before
    swap: np.ndarray  # (K,) p-values of the permutation test, all findings together
    detectable: np.ndarray  # (K,) smallest gain found with 80 % power; NaN: not judged
    intervals: dict[str, list[Interval]]  # "AUROC", "gain of AUROC", ... -> of each finding, where there are enough


def tell(drawn: Drawn, *, settings: EvaluationSettings) -> Told:
    """Judge one test set as `assess` does."""
    whole, without, positive = drawn
    num_patients, num_findings = whole.shape
    names = np.arange(num_patients)
    counts = resample_patients(names, num_resamples=settings.num_resamples, seed=settings.seed)
    as_floats = counts.astype(np.float32)
    patients = [class_patients(names, positive=positive[:, k]) for k in range(num_findings)]
    values, resampled = np.full(num_findings, np.nan), np.full((num_findings, settings.num_resamples), np.nan)
    alone = np.full((num_findings, 2), np.nan)
    intervals: dict[str, list[Interval]] = defaultdict(lambda: [Interval(None, None, None)] * num_findings)

    def note(name: str, k: int, estimate: object) -> None:
        intervals[name][k] = Interval(**vars(estimate))

    for k, of_classes in enumerate(patients):
        if not of_classes.fewer:
            continue
        truth = positive[:, k]
        again = [quick_ranking(s[:, k], positive=truth, counts=as_floats) for s in (whole, without)]
        plain = [quick_ranking(s[:, k], positive=truth, counts=as_floats[:, :1] * 0 + 1) for s in (whole, without)]
        resampled[k] = again[0].auroc - again[1].auroc
        aurocs, precisions = ([float(one[metric][0]) for one in plain] for metric in (0, 1))
        values[k] = aurocs[0] - aurocs[1]
        if not of_classes.have_interval:
            continue
        how = {"patients": of_classes, "settings": settings}
        rows = {"positive": truth, "patients": names, "settings": settings}
        note("AUROC", k, auroc_estimate(aurocs[0], whole[:, k], **rows))
        gained = auroc_gain_estimate(tuple(aurocs), np.stack([whole[:, k], without[:, k]]), **rows)
        note("gain of AUROC", k, gained)
        if gained.low is not None:
            alone[k] = gained.low, gained.high
        spread = [one.average_precision for one in again]
        note("average precision", k, metric_estimate(precisions[0], spread[0], metric="average_precision", **how))
        note("gain of average precision", k, precision_gain_estimate(tuple(precisions), tuple(spread), **how))
    judged = np.array([of_classes.can_be_judged for of_classes in patients])
    widened = few_patients_factor(np.array([of_classes.fewer for of_classes in patients]))
    together = simultaneous_intervals(np.where(judged, values, np.nan), resampled, widened=widened)
    before = simultaneous_intervals(values, resampled)
    swap = swap_test(whole, without, positive=positive, known=np.ones_like(positive), patients=names)
    detectable = (together.multiplier + norm.ppf(POWER)) * together.standard_errors
    low, high = np.fmin(together.low, alone[:, 0]), np.fmax(together.high, alone[:, 1])
    verdicts = judged * ((low > 0) * 1 - (high < 0))
    of_all = (before.low > 0) * 1 - (before.high < 0)
    return Told(patients, verdicts, of_all, swap.together, detectable, dict(intervals))


def simulate(world: World, *, repetitions: int, resamples: int, seed: int = 0) -> dict[str, object]:
    """How often what is told is right, over so many test sets."""
    generator = np.random.default_rng([seed, world.num_patients, world.num_findings, int(1000 * world.auroc)])
    spread = 1.0 if world.equal_shapes else WIDE
    truth = {
        "AUROC": [world.auroc + world.gain] * world.num_findings,
        "gain of AUROC": [world.gain] * world.num_findings,
    }
    whole, without = (
        [true_precision(auroc, spread=wide, prevalence=share) for share in prevalences(world)]
        for auroc, wide in ((world.auroc + world.gain, spread), (world.auroc, 1.0))
    )
    truth["average precision"] = whole
    truth["gain of average precision"] = [one - other for one, other in zip(whole, without, strict=True)]
    wrong = {"judged": 0, "all": 0, "swap": 0}
    covered: dict[str, dict[int, list[bool]]] = defaultdict(lambda: defaultdict(list))
    found: dict[int, list[bool]] = defaultdict(list)
    detectable: dict[int, list[float]] = defaultdict(list)
    num_judged = []
    for number in range(repetitions):
        settings = EvaluationSettings(num_resamples=resamples, seed=number)
        told = tell(draw(world, generator=generator), settings=settings)
        wrong["judged"] += bool(told.verdicts.any())
        wrong["all"] += bool(told.of_all.any())
        wrong["swap"] += bool((told.swap <= 0.05).any())
        num_judged.append(sum(of_classes.can_be_judged for of_classes in told.patients))
        for k, of_classes in enumerate(told.patients):
            expected = world.num_patients * prevalences(world)[k]
            rarer = max(fewest for fewest in FEWEST if fewest <= round(expected, 6))
            if of_classes.can_be_judged:
                found[rarer].append(told.verdicts[k] > 0)
                detectable[rarer].append(float(told.detectable[k]))
            for name, intervals in told.intervals.items():
                if intervals[k].low is not None:
                    covered[name][rarer].append(intervals[k].low <= truth[name][k] <= intervals[k].high)
    return {
        **asdict(world),
        "repetitions": repetitions,
        "num_judged": float(np.mean(num_judged)),
        "wrong": {name: number / repetitions for name, number in wrong.items()},
        "coverage": {
            name: {fewest: (float(np.mean(hits)), len(hits)) for fewest, hits in sorted(bins.items())}
            for name, bins in covered.items()
        },
        "power": {fewest: float(np.mean(hits)) for fewest, hits in sorted(found.items())},
        "power_of_all": float(np.mean([hit for hits in found.values() for hit in hits])) if found else None,
        "detectable": {fewest: float(np.median(gains)) for fewest, gains in sorted(detectable.items())},
    }


def worlds() -> list[World]:
    """Nothing differs in the first sixteen; the others tell how often a true gain is found."""
    nothing = [
        World(num_patients=patients, num_findings=findings, auroc=auroc, equal_shapes=equal)
        for patients in REPETITIONS
        for findings in (20, 60)
        for auroc in (0.85, 0.95)
        for equal in (True, False)
    ]
    gains = [
        World(num_patients=patients, num_findings=40, auroc=auroc, gain=gain)
        for patients in REPETITIONS
        for auroc in (0.85, 0.95)
        for gain in GAINS
        if auroc + gain < 1
    ]
    return nothing + gains


def error_of(rate: float, number: int) -> float:
    """Standard error of a rate."""
    return float(np.sqrt(rate * (1 - rate) / number))


def draw_errors(axes: Axes, results: list[dict]) -> None:
    """How often a report names a finding although nothing differs."""
    places = np.arange(len(results))[::-1]
    for name, colour, label, marker in (
        ("all", BEFORE, "were no finding set apart", "x"),
        ("swap", SWAP, "swapped scores, all findings", "s"),
        ("judged", SHIPPED, "verdicts, at least 10 patients of either class", "o"),
    ):
        rates = [result["wrong"][name] for result in results]
        spread = [2 * error_of(rate, result["repetitions"]) for rate, result in zip(rates, results, strict=True)]
        hollow = {"markerfacecolor": "none"} if name == "swap" else {}
        axes.errorbar(rates, places, xerr=spread, fmt=marker, color=colour, label=label, markersize=5, **hollow)
    axes.axvline(0.05, color="black", linewidth=0.8, linestyle=":")
    shapes = {True: "equal", False: "unequal"}
    axes.set_yticks(
        places,
        [
            f"{result['num_patients']:,} patients, {result['num_findings']} findings, {result['auroc']}, "
            f"{shapes[result['equal_shapes']]}"
            for result in results
        ],
    )
    axes.set_xlabel("reports with a false verdict (bars: 2 standard errors)")
    axes.set_xlim(-0.03, 1.03)
    axes.legend(loc="upper center", bbox_to_anchor=(0.3, -0.12), frameon=False, ncols=1)


def draw_coverage(axes: Axes, results: list[dict]) -> None:
    """How often an interval holds the truth, each point a world, by patients with the finding."""
    markers = {"AUROC": "o", "gain of AUROC": "D", "average precision": "^", "gain of average precision": "s"}
    for number, (name, marker) in enumerate(markers.items()):
        points = [
            (list(FEWEST).index(fewest) + (number - 1.5) * 0.2, coverage)
            for result in results
            for fewest, (coverage, hits) in result["coverage"].get(name, {}).items()
            if hits >= 100
        ]
        axes.plot(*zip(*points, strict=True), marker, markersize=4, alpha=0.6, label=name)
    axes.axhspan(0.92, 0.98, color="black", alpha=0.07)
    axes.axhline(0.95, color="black", linewidth=0.8, linestyle=":")
    axes.set_xticks(range(len(FEWEST)), list(FEWEST.values()))
    axes.set_xlabel("patients with the finding, expected")
    axes.set_ylabel("intervals of 95 % that hold the truth")
    axes.set_ylim(0.88, 1.005)
    axes.legend(loc="lower right", frameon=False)


def draw_power(axes: Axes, results: list[dict]) -> None:
    """How often a true gain is called helped, by patients with the finding."""
    styles = {150: "--", 1000: "-"}
    markers = {0.02: "o", 0.05: "D", 0.1: "^"}
    for result in results:
        if result["auroc"] != 0.85:
            continue
        places = [list(FEWEST).index(fewest) for fewest in result["power"]]
        label = f"+{result['gain']}, {result['num_patients']:,} patients"
        style = styles[result["num_patients"]] + markers[result["gain"]]
        axes.plot(places, list(result["power"].values()), style, color=SHIPPED, label=label, markersize=5)
    axes.set_xticks(range(len(FEWEST)), list(FEWEST.values()))
    axes.set_xlim(1.7, len(FEWEST) - 0.7)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("patients with the finding, expected")
    axes.set_ylabel("true gains called helped (AUROC 0.85)")
    axes.legend(loc="upper left", frameon=False)


def simulate_and_print(world: World, *, share: float) -> dict:
    """One world, in a process of its own."""
    repetitions = max(int(share * REPETITIONS[world.num_patients]), 2)
    result = simulate(world, repetitions=repetitions, resamples=RESAMPLES)
    print(world, {key: value for key, value in result.items() if key not in asdict(world)}, flush=True)
    return result


def draw_all(results: list[dict]) -> None:
    """The figure of what `simulate` says of all worlds."""
    nothing = [result for result in results if not result["gain"]]
    figure, (first, second, third) = plt.subplots(
        1, 3, figsize=(15, 5.2), width_ratios=[1.2, 1, 0.9], layout="constrained"
    )
    draw_errors(first, nothing)
    draw_coverage(second, results)
    draw_power(third, [result for result in results if result["gain"]])
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE)


def main(share: float) -> None:
    """Simulate and draw.

    Args:
        share: of the repetitions, for a quick look.
    """
    with ProcessPoolExecutor() as pool:
        results = list(pool.map(partial(simulate_and_print, share=share), worlds()))
    draw_all(results)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0)
