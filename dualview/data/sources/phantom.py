"""Phantoms: synthetic two-view chests whose best possible AUROC is known (docs/phantom.md).

Findings are of three kinds, and the truth of each is drawn independently of the others and of which
views exist:

- `Nodule` shows in the PA view only: a bright disk in a lung.
- `Retrosternal opacity` and `Posterior effusion` show in the lateral view only.
- `Cardiomegaly` needs both. The heart has a width (PA) and a depth (lateral), each of 3 levels. Normal
  hearts trade one for the other, width + depth = 2; enlarged ones have width + depth = 3. So the sum
  decides with certainty, while each measure alone is ambiguous.

The best AUROC is 1 where everything needed is seen and 1/2 where nothing is. For `Cardiomegaly` from
one view, the measure x is uniform on {1, 2} if positive and on {0, 1, 2} if negative, so

    AUROC = P(x+ > x-) + P(x+ = x-) / 2 = 1/2 (1/3 + 1/6) + 1/2 (2/3 + 1/6) = 2/3.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dualview.config import DataConfig, PhantomConfig, SourceConfig
from dualview.data.images.files import Aspect
from dualview.data.sources.flow import FlowStep, count_studies
from dualview.data.sources.image_rows import SourceTable, nothing_dropped
from dualview.data.table import StudyTable
from dualview.views import Availability, View

FINDINGS = ("Nodule", "Retrosternal opacity", "Posterior effusion", "Cardiomegaly")
PREVALENCE = (0.4, 0.4, 0.4, 0.5)
BEST_AUROC = {
    "Nodule": {"both": 1.0, "pa_only": 1.0, "lateral_only": 0.5},
    "Retrosternal opacity": {"both": 1.0, "pa_only": 0.5, "lateral_only": 1.0},
    "Posterior effusion": {"both": 1.0, "pa_only": 0.5, "lateral_only": 1.0},
    "Cardiomegaly": {"both": 1.0, "pa_only": 2 / 3, "lateral_only": 2 / 3},
}
NORMAL_HEARTS = np.array([(0, 2), (1, 1), (2, 0)])  # (width, depth) levels
ENLARGED_HEARTS = np.array([(1, 2), (2, 1)])


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What is drawn into the studies: findings (S, 4) 0/1 in the order of FINDINGS, heart (S, 2) levels 0..2."""

    findings: np.ndarray
    heart: np.ndarray  # [:, 0] the width that PA shows, [:, 1] the depth that the lateral shows


def draw_truth(num_studies: int, *, seed: int, prevalence: float | None = None) -> Truth:
    """Truth of `num_studies` studies, a function of its arguments.

    Args:
        prevalence: of every finding; None: `PREVALENCE`.
    """
    generator = np.random.default_rng([seed, 0])
    shares = PREVALENCE if prevalence is None else (prevalence,) * len(FINDINGS)
    findings = (generator.random((num_studies, len(FINDINGS))) < shares).astype(np.int8)
    normal = NORMAL_HEARTS[generator.integers(len(NORMAL_HEARTS), size=num_studies)]
    enlarged = ENLARGED_HEARTS[generator.integers(len(ENLARGED_HEARTS), size=num_studies)]
    is_enlarged = findings[:, FINDINGS.index("Cardiomegaly")].astype(bool)
    return Truth(findings=findings, heart=np.where(is_enlarged[:, None], enlarged, normal))


def read(source: SourceConfig, *, data: DataConfig, seed: int) -> SourceTable:
    """Draw the studies that `data.phantom` asks for."""
    table, drawn = draw(data.phantom, seed=seed, image_size_px=data.image_size_px)

    def open_images(*, image_size_px: int, aspect: Aspect) -> "PhantomImages":
        return PhantomImages(drawn.truth, seed=seed, image_size_px=image_size_px, contrast=data.phantom.contrast)

    num_images = int(table.num_images.sum())
    return SourceTable(
        name=source.called,
        table=table,
        open_images=open_images,
        num_images_read=num_images,
        dropped=nothing_dropped(),
        flow=(FlowStep(rule="drawn", left=count_studies(table, num_images=num_images), reasons={}),),
    )


def draw(config: PhantomConfig, *, seed: int, image_size_px: int) -> tuple[StudyTable, "PhantomImages"]:
    """The study table of a phantom data set, one study per patient, and the reader that draws its images."""
    num_studies = config.num_studies
    truth = draw_truth(num_studies, seed=seed, prevalence=config.prevalence)
    generator = np.random.default_rng([seed, 1])
    kinds = generator.permutation(
        np.repeat([kind.value for kind in Availability],
                  _apportion(num_studies, shares=(config.both, config.pa_only, config.lateral_only)))
    )  # fmt: skip
    label_mask = generator.random((num_studies, len(FINDINGS))) >= config.unknown_label_fraction
    names = np.array([f"{study:06d}" for study in range(num_studies)], dtype=object)
    images = (np.empty(num_studies, object), np.empty(num_studies, object))
    for view in View:
        for study, name in enumerate(names):
            images[view][study] = (f"{name}/{view.key}",) if view in Availability(kinds[study]).views else ()
    table = StudyTable(
        findings=FINDINGS,
        study_ids=names,
        patient_ids=names,
        images=images,
        labels=np.where(label_mask, truth.findings, 0).astype(np.float32),
        label_mask=label_mask,
    )
    return table, PhantomImages(truth, seed=seed, image_size_px=image_size_px, contrast=config.contrast)


def _apportion(total: int, *, shares: tuple[float, ...]) -> list[int]:
    """Whole numbers that add up to `total` in these shares (largest remainder)."""
    exact = np.array(shares) * total
    counts = np.floor(exact).astype(int)
    for index in np.argsort(counts - exact, kind="stable")[: total - counts.sum()]:
        counts[index] += 1
    return [int(count) for count in counts]


class PhantomImages:
    """Reader of phantom paths such as `000017/pa`: draws the image anew, the same each time."""

    def __init__(self, truth: Truth, *, seed: int, image_size_px: int, contrast: float = 1.0) -> None:
        self.truth = truth
        self.contrast = contrast
        self.seed = seed
        self.image_size_px = image_size_px

    def __call__(self, path: str) -> Tensor:
        """The image (1, S, S) float32 in [-1, 1]: a function of (seed, study, view) and the study's truth."""
        study, _, view_name = path.partition("/")
        view = View.PA if view_name == View.PA.key else View.LATERAL
        generator = np.random.default_rng([self.seed, 2, int(study), view])
        findings = dict(zip(FINDINGS, self.truth.findings[int(study)].astype(bool), strict=True))
        canvas = _Canvas(self.image_size_px, generator, contrast=self.contrast)
        heart_level = int(self.truth.heart[int(study), view])
        if view == View.PA:
            _draw_pa(canvas, width_level=heart_level, nodule=findings["Nodule"])
        else:
            _draw_lateral(
                canvas,
                depth_level=heart_level,
                retrosternal=findings["Retrosternal opacity"],
                effusion=findings["Posterior effusion"],
            )
        return torch.from_numpy(canvas.finish())


class _Canvas:
    """A picture in [0, 1] on coordinates from 0 (left, top) to 1, with soft-edged ellipses to paint with."""

    def __init__(self, size: int, generator: np.random.Generator, *, contrast: float) -> None:
        self.contrast = contrast
        axis = (np.arange(size, dtype=np.float32) + 0.5) / size
        self.x, self.y = axis[None, :], axis[:, None]
        self.pixels = np.zeros((size, size), np.float32)
        self.generator = generator

    def vary(self, value: float, by: float) -> float:
        """`value` plus a uniform deviation of at most `by`: anatomy differs."""
        return float(value + self.generator.uniform(-by, by))

    def ellipse(self, x: float, y: float, *, rx: float, ry: float, edge: float = 0.12) -> np.ndarray:
        """Coverage in [0, 1] of an ellipse whose edge fades over the fraction `edge` of its radius."""
        radius = np.sqrt(((self.x - x) / rx) ** 2 + ((self.y - y) / ry) ** 2)
        coverage: np.ndarray = np.clip((1 - radius) / edge + 0.5, 0, 1)
        return coverage

    def blend(self, coverage: np.ndarray, *, to: float) -> None:
        """Move covered pixels towards the brightness `to`."""
        self.pixels += coverage * (to - self.pixels)

    def finish(self) -> np.ndarray:
        """(1, S, S) float32 in [-1, 1], after a random exposure and sensor noise."""
        noise = self.generator.standard_normal(self.pixels.shape, dtype=np.float32)
        grays = self.pixels if self.contrast == 1 else 0.5 + self.contrast * (self.pixels - 0.5)
        exposed = grays * self.vary(1.0, 0.1) + 0.02 * noise
        return np.asarray(np.clip(exposed, 0, 1) * 2 - 1, dtype=np.float32)[None]


def _draw_pa(canvas: _Canvas, *, width_level: int, nodule: bool) -> None:
    vary = canvas.vary
    canvas.blend(canvas.ellipse(0.5, vary(0.62, 0.02), rx=vary(0.45, 0.02), ry=0.62), to=0.55)  # trunk
    top, rx, ry = vary(0.46, 0.02), vary(0.155, 0.01), vary(0.33, 0.02)
    lungs = ((vary(0.29, 0.01), top), (vary(0.71, 0.01), top))
    for x, y in lungs:
        canvas.blend(canvas.ellipse(x, y, rx=rx, ry=ry), to=0.18)
    for rib in range(6):  # arcs across both lungs
        arc = 0.2 + 0.1 * rib + 0.25 * (canvas.x - 0.5) ** 2
        canvas.pixels += 0.06 * np.exp(-(((canvas.y - arc) / 0.012) ** 2)) * (canvas.pixels > 0.1)
    canvas.blend(canvas.ellipse(0.5, 0.5, rx=0.045, ry=0.6), to=0.75)  # spine and mediastinum
    half_width = 0.12 + 0.045 * width_level + vary(0.0, 0.008)
    canvas.blend(canvas.ellipse(0.54, vary(0.64, 0.01), rx=half_width, ry=0.14), to=0.8)  # heart
    canvas.blend(canvas.ellipse(0.5, 1.0, rx=0.45, ry=vary(0.17, 0.01)), to=0.7)  # diaphragm
    if nodule:
        x, y = lungs[int(canvas.generator.integers(2))]
        x += float(np.sign(x - 0.5)) * canvas.generator.uniform(0, 0.04)
        radius = canvas.generator.uniform(0.045, 0.065)
        canvas.blend(canvas.ellipse(x, y + canvas.generator.uniform(-0.2, 0.0), rx=radius, ry=radius), to=0.8)


def _draw_lateral(canvas: _Canvas, *, depth_level: int, retrosternal: bool, effusion: bool) -> None:
    vary = canvas.vary
    canvas.blend(canvas.ellipse(0.5, vary(0.62, 0.02), rx=vary(0.4, 0.02), ry=0.62), to=0.55)  # trunk
    canvas.blend(canvas.ellipse(vary(0.5, 0.01), vary(0.47, 0.02), rx=vary(0.3, 0.01), ry=0.34), to=0.2)  # lungs
    spine_x = 0.78 + 0.08 * (canvas.y - 0.5) ** 2
    vertebrae = 0.75 + 0.25 * np.cos(canvas.y * 60 + vary(0.0, 3.0))
    canvas.blend(np.exp(-(((canvas.x - spine_x) / 0.05) ** 2)) * vertebrae, to=0.75)
    canvas.blend(np.exp(-(((canvas.x - 0.19 + 0.1 * canvas.y) / 0.018) ** 2)) * (canvas.y < 0.75), to=0.7)  # sternum
    half_depth = 0.1 + 0.045 * depth_level + vary(0.0, 0.008)
    canvas.blend(canvas.ellipse(0.4, vary(0.62, 0.01), rx=half_depth, ry=0.13), to=0.8)  # heart
    canvas.blend(canvas.ellipse(0.5, 1.0, rx=0.4, ry=vary(0.2, 0.01)), to=0.7)  # diaphragm
    if retrosternal:
        x, y = 0.28 + canvas.generator.uniform(0, 0.03), vary(0.34, 0.05)
        canvas.blend(canvas.ellipse(x, y, rx=canvas.generator.uniform(0.05, 0.07), ry=0.09), to=0.75)
    if effusion:
        height = canvas.generator.uniform(0.09, 0.14)
        canvas.blend(canvas.ellipse(0.7, 0.78, rx=0.1, ry=height, edge=0.3), to=0.75)
