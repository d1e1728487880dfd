"""`dualview export`: the trained network as static graphs for other software, checked before they are handed over.

One graph for each kind of study that the network serves: `both`, `pa_only`, `lateral_only`, so that whoever runs
them chooses by the images there are and needs no mask, and no image is ever invented. Input are images as the
network sees them, output the logits of the study's route; `metadata.json`, and the graph file itself, say how an image
becomes input and logits become probabilities and decisions.
"""

import importlib.metadata
import json
import math
import shutil
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from dualview import __version__
from dualview.batch import StudyBatch
from dualview.config import SeveralImages
from dualview.data.images.files import SCALE_OF_MODE
from dualview.data.load import store_settings
from dualview.errors import UserError, one_line
from dualview.evaluation.operating_points import OperatingPoints
from dualview.files import sha256_of
from dualview.inference.graph import RouteGraph
from dualview.inference.predictor import read_points, several_images_of
from dualview.models.build import build_configured
from dualview.run.directory import RunDir
from dualview.run.trained import TrainedNetwork, load_trained
from dualview.views import ROUTES, Availability, View

Format = Literal["onnx", "torch-export"]
SUFFIX: dict[Format, str] = {"onnx": "onnx", "torch-export": "pt2"}
METADATA_FILE = "metadata.json"
TOLERANCE = 1e-4  # largest absolute difference of a logit that is accepted
LARGE_LOGIT = 10  # absolute logit from which the tolerance grows with it, as float32 has no more digits
CHECKED_BATCH_SIZES = (1, 3)  # one study, where shapes often go wrong, and a size that the example has not
EXAMPLE_BATCH_SIZE = 2
Run = Callable[[dict[str, Tensor]], Tensor]  # a written graph: input -> images (B, 1, S, S), to logits (B, K)


@dataclass(frozen=True, kw_only=True)
class ExportedGraph:
    """One graph, and how far its logits are from the network's."""

    file: Path
    route: Availability
    differences: dict[int, float]  # batch size -> largest absolute difference of a logit


def export(
    run_dir: Path,
    *,
    format: Format,
    out: Path | None = None,
    checkpoint: str = "best",
    overwrite: bool = False,
    track: Callable[[Sequence[Availability]], Iterable[Availability]] = iter,
) -> tuple[Path, list[ExportedGraph]]:
    """Write the graphs that a network can serve and its metadata to a folder; all of them, checked, or nothing.

    Args:
        run_dir: of the training.
        out: folder; without it `RUN/export-FORMAT`.
        checkpoint: `best`, `last` or a step.
        overwrite: replace a folder that is there.

    Raises:
        UserError: no run, packages that are not installed, a folder that is there, a network that cannot be
            exported, or a graph whose logits differ from the network's by more than `TOLERANCE`.
    """
    versions = _versions(format)
    trained = _skipping_idle_branches(load_trained(RunDir(run_dir), name=checkpoint))
    out = run_dir / f"export-{format}" if out is None else out
    if out.exists() and not overwrite:
        raise UserError(f"{out} is there already. Nothing was changed. Choose another --out, or give --overwrite")
    points = read_points(trained)
    several_images = several_images_of([trained], points=points)
    metadata = {**_metadata(trained, several_images=several_images), "format": format, "versions": versions}
    temporary = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        graphs, graph_files = [], {}
        for route in track(trained.config.model.routes):
            name = f"{route.key}.{SUFFIX[format]}"
            about_graph = {"route": route.key, "inputs": inputs_of(route), **_operating(trained, points, route)}
            run = _write(trained, route, format=format, file=temporary / name, metadata={**metadata, **about_graph})
            checks = {size: _compare(trained, route, run=run, num_studies=size) for size in CHECKED_BATCH_SIZES}
            differences = {size: difference for size, (difference, _) in checks.items()}
            if not all(difference <= allowed for difference, allowed in checks.values()):  # NaN fails this, too.
                raise UserError(
                    f"{name} differs from the network: {_listed(differences)}, allowed are {TOLERANCE:g}. Nothing was "
                    "kept. Other versions of the exporter may do better; these were "
                    + ", ".join(f"{package} {version}" for package, version in versions.items())
                )
            graphs.append(ExportedGraph(file=out / name, route=route, differences=differences))
            sha256 = sha256_of(temporary / name)
            graph_files[name] = {**about_graph, "sha256": sha256, "largest_difference": differences}
        text = json.dumps({**metadata, "graphs": graph_files}, indent=2, ensure_ascii=False)
        (temporary / METADATA_FILE).write_text(text + "\n", encoding="utf-8")
        if out.exists():
            shutil.rmtree(out)
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out, graphs


def inputs_of(route: Availability) -> tuple[str, ...]:
    """Names of the inputs of a route's graph."""
    return tuple(view.key for view in route.views)


def _skipping_idle_branches(trained: TrainedNetwork) -> TrainedNetwork:
    """The network with branches that do not run on no image, which has no place in a graph."""
    config = trained.config
    distributed = config.distributed.model_copy(update={"idle_branch": "skip"})
    model = build_configured(config.model_copy(update={"distributed": distributed}), num_findings=len(trained.findings))
    model.load_state_dict(trained.model.state_dict())
    return replace(trained, model=model.eval())


# -- writing ---------------------------------------------------------------------------------------


def _write(
    trained: TrainedNetwork, route: Availability, *, format: Format, file: Path, metadata: dict[str, Any]
) -> Run:
    """Write one graph; returns what was written, read back, to be run."""
    graph = RouteGraph(trained.model, route=route, vote=trained.config.model.joint_rule == "vote").eval()
    example = _images(trained, route, num_studies=EXAMPLE_BATCH_SIZE)
    batch = torch.export.Dim("batch", min=1)
    shapes = {name: {0: batch} for name in example}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # Exporters warn their own authors.
        try:
            write = _write_onnx if format == "onnx" else _write_torch
            return write(graph, example, shapes, file, metadata)
        except Exception as error:  # Exporters raise errors of any kind.
            raise UserError(
                f"{trained.config.model.name} on {trained.config.model.backbone} cannot be exported as {format} for "
                f"{route.key}: {one_line(error, longest=500)}"
            ) from error


def _write_torch(
    graph: RouteGraph, example: dict[str, Tensor], shapes: dict[str, Any], file: Path, metadata: dict[str, Any]
) -> Run:
    program = torch.export.export(graph, (), kwargs=example, dynamic_shapes=shapes)
    torch.export.save(program, file, extra_files={METADATA_FILE: json.dumps(metadata)})
    read = torch.export.load(file).module()
    return lambda images: read(**images)


def _write_onnx(
    graph: RouteGraph, example: dict[str, Tensor], shapes: dict[str, Any], file: Path, metadata: dict[str, Any]
) -> Run:
    import onnxruntime  # noqa: PLC0415 - an extra

    program = torch.onnx.export(
        graph, (), kwargs=example, dynamic_shapes=shapes, dynamo=True, verbose=False,
        input_names=list(example), output_names=["logits"],
    )  # fmt: skip
    assert program is not None
    for key, value in metadata.items():
        program.model.metadata_props[key] = json.dumps(value, ensure_ascii=False)
    program.save(file)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(
        session.run(["logits"], {name: tensor.numpy() for name, tensor in images.items()})[0]
    )


# -- checking --------------------------------------------------------------------------------------


def _images(trained: TrainedNetwork, route: Availability, *, num_studies: int) -> dict[str, Tensor]:
    """Random images (B, 1, S, S) in [-1, 1] by input."""
    size = trained.config.data.image_size_px
    generator = torch.Generator().manual_seed(num_studies)
    return {name: torch.rand(num_studies, 1, size, size, generator=generator) * 2 - 1 for name in inputs_of(route)}


def _compare(trained: TrainedNetwork, route: Availability, *, run: Run, num_studies: int) -> tuple[float, float]:
    """Largest absolute difference between a written graph and the network as it is evaluated, and what is allowed."""
    images = _images(trained, route, num_studies=num_studies)
    columns: list[list[Tensor | None]] = [
        list(images[view.key]) if view in route.views else [None] * num_studies for view in View
    ]
    batch = StudyBatch.from_views(pa=columns[View.PA], lateral=columns[View.LATERAL])
    with torch.no_grad():
        expected = trained.model(batch).by_route(batch, vote=trained.config.model.joint_rule == "vote")
        difference = (expected.double() - run(images).double()).abs().max().item()
    return difference, TOLERANCE * max(1.0, expected.abs().max().item() / LARGE_LOGIT)


def _listed(differences: dict[int, float]) -> str:
    return ", ".join(f"{value:.1e} with {size} studies" for size, value in differences.items())


# -- describing ------------------------------------------------------------------------------------


SEVERAL_IMAGES: dict[SeveralImages, str] = {
    "first": "of several images of a view the first goes in",
    "mean": "a study's logits are the mean over all images of the view, for both over all pairs of a PA and a lateral",
    "max": "a study's logits are the largest over all images of the view, for both over all pairs of PA and lateral",
}
"""What whoever runs a graph does with a study that has several images of a view."""


def _metadata(trained: TrainedNetwork, *, several_images: SeveralImages) -> dict[str, Any]:
    """What whoever runs the graphs must know; the same for all of a network."""
    data, model = trained.config.data, trained.config.model
    return {
        "dualview_format": 2,
        "model": {"name": model.name, "backbone": model.backbone, "joint_rule": model.joint_rule},
        "checkpoint": {"step": trained.step, "sha256": trained.weights_sha256},
        "findings": list(trained.findings),
        "image_size_px": data.image_size_px,
        "aspect": data.aspect,
        "intensity_range": [-1, 1],
        "several_images_at_test": several_images,
        "several_images": SEVERAL_IMAGES[several_images],
        "preprocessing": [
            f"gray in [0, 1], 0 black: 8 bits / {SCALE_OF_MODE['L']:g}, 16 bits / {SCALE_OF_MODE['I;16']:g}; DICOM: "
            "modality LUT or rescale, then the first VOI LUT or window, MONOCHROME1 inverted; colour by ITU-R 601",
            *(
                f"files of source {name} that can hold more and have no window: stored value / {white:g}"
                for name, white in store_settings(data).intensity_max.items()
            ),
            {
                "center_crop": "cut to the central square",
                "pad": "padded with 0 to a square, half on each side",
                "stretch": "not cut: the next step changes the aspect",
            }[data.aspect],
            f"resized to {data.image_size_px} x {data.image_size_px}, bilinear with antialiasing, clipped to [0, 1]",
            "input = 2 * gray - 1, float32, (batch, 1, height, width)",
        ],
        "output": "logits (batch, findings); probability = sigmoid(slope * (logit - log_pos_weight) + intercept), each "
        "of the finding; decision = probability >= threshold",
    }


def _operating(trained: TrainedNetwork, points: OperatingPoints | None, route: Availability) -> dict[str, Any]:
    """Calibration and thresholds of a route by finding; without operating points, none and null."""
    findings = trained.findings
    if points is None:
        points = OperatingPoints(
            rule="", chosen_on="", temperature=dict.fromkeys(ROUTES, 1.0), routes={key: {} for key in ROUTES},
            log_pos_weight=trained.log_pos_weight,
        )  # fmt: skip
    scales = {finding: points.scale(route, finding) for finding in findings}
    values = points.thresholds(trained.findings, route).tolist()
    thresholds = {
        finding: None if math.isnan(value) else value for finding, value in zip(trained.findings, values, strict=True)
    }
    return {
        "log_pos_weight": dict(zip(findings, points.shift(findings).tolist(), strict=True)),
        "slope": {finding: 1 / scale.temperature for finding, scale in scales.items()},
        "intercept": {finding: scale.intercept for finding, scale in scales.items()},
        "thresholds": thresholds,
        "threshold_rule": points.rule or None,
    }


def _versions(format: Format) -> dict[str, str]:
    """Versions of what makes the graphs.

    Raises:
        UserError: some of it is not installed.
    """
    versions, missing = {"dualview": __version__, "torch": str(torch.__version__)}, []
    for package in ("onnx", "onnxscript", "onnxruntime") if format == "onnx" else ():
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            missing.append(package)
    if missing:
        raise UserError(f"--format onnx needs {', '.join(missing)}: pip install 'dualview[export]'")
    return versions
