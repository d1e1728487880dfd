"""`dualview export`: the written graphs, run by other software, say what the network says."""

import functools
import hashlib
import importlib.metadata
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import dualview
from dualview.batch import StudyBatch
from dualview.cli import app
from dualview.commands.export import ExportedGraph, export
from dualview.data.images.files import FileImages
from dualview.errors import UserError
from dualview.evaluation.operating_points import OperatingPoint, OperatingPoints
from dualview.evaluation.statistics.calibration import Line
from dualview.inference.graph import RouteGraph
from dualview.run.directory import RunDir
from dualview.run.trained import load_trained
from tests.support.runs import write_untrained_run

ort = pytest.importorskip("onnxruntime")
ALL = ("both", "pa_only", "lateral_only")
INPUTS = {"both": ("pa", "lateral"), "pa_only": ("pa",), "lateral_only": ("lateral",)}
SUFFIX = {"onnx": "onnx", "torch-export": "pt2"}
TEMPERATURE = {"both": 2.0, "pa_only": 0.5, "lateral_only": 1.0}


@dataclass(frozen=True, kw_only=True)
class Exported:
    run_dir: Path
    folder: Path
    graphs: list[ExportedGraph]
    metadata: dict[str, Any]  # as metadata.json has it


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """`exported("onnx", "hemis")`: the graphs of a run with operating points; written once for all who look at them."""

    @functools.cache
    def exported(format: str, name: str, **model: Any) -> Exported:
        run_dir = write_untrained_run(
            tmp_path_factory.mktemp("exported") / "run", name, model=model, data={"aspect": "pad"},
            distributed={"idle_branch": "empty"},
        )  # fmt: skip
        nodule = OperatingPoint(threshold=0.25, platt=Line(0.8, -0.1))
        points = OperatingPoints(
            rule="youden", chosen_on="val", temperature=TEMPERATURE,
            routes={route: {"Nodule": nodule} for route in ALL},
            log_pos_weight={"Nodule": 1.5, "Effusion": 0.7, "Hernia": 0.0},
        )  # fmt: skip
        points.write(run_dir / "operating_points.json")
        folder, graphs = export(run_dir, format=format)
        metadata = json.loads((folder / "metadata.json").read_text())
        return Exported(run_dir=run_dir, folder=folder, graphs=graphs, metadata=metadata)

    return exported


def run_onnx(file, images):
    return ort.InferenceSession(file, providers=["CPUExecutionProvider"]).run(["logits"], images)[0]


def run_torch(file, images):
    with torch.no_grad():
        module = torch.export.load(file).module()
        return module(**{name: torch.from_numpy(image) for name, image in images.items()}).numpy()


def asked_one_by_one(trained, images, *, num_studies):
    """Logits (B, K): the network on each study alone."""
    vote = trained.config.model.joint_rule == "vote"
    rows = []
    for n in range(num_studies):
        pa, lateral = ([torch.from_numpy(images[name][n])] if name in images else [None] for name in ("pa", "lateral"))
        batch = StudyBatch.from_views(pa=pa, lateral=lateral)
        with torch.no_grad():
            rows.append(trained.model(batch).by_route(batch, vote=vote and len(images) == 2)[0].numpy())
    return np.stack(rows)


VOTING = {"joint_rule": "vote"}


@pytest.mark.parametrize(
    ("format", "name", "model", "routes"),
    [
        # Its graphs of one view are those of the next, and that of both views is captured for torch-export below.
        pytest.param("onnx", "auxloss", {}, ALL, marks=pytest.mark.slow),
        ("onnx", "auxloss", VOTING, ALL),
        pytest.param("onnx", "auxloss", {"backbone": "densenet121"}, ALL, marks=pytest.mark.slow),
        # Its graph is that of auxloss without the branches' heads.
        pytest.param("onnx", "dualnet", {"merge_after_block": 4}, ALL, marks=pytest.mark.slow),
        ("onnx", "hemis", {}, ALL),
        ("onnx", "attention", {"shared_branch": True}, ALL),
        ("onnx", "stacked", {}, ("both",)),
        ("onnx", "single", {"view": "lateral"}, ("lateral_only",)),
        ("torch-export", "auxloss", {}, ALL),
        pytest.param("torch-export", "auxloss", {"backbone": "densenet121"}, ALL, marks=pytest.mark.slow),
        # The exporter to ONNX begins with torch.export, so these graphs are captured above already.
        pytest.param(
            "torch-export",
            "dualnet",
            {"backbone": "resnet18", "merge_after_block": 4},
            ALL,
            marks=pytest.mark.slow,
        ),
        pytest.param("torch-export", "hemis", {}, ALL, marks=pytest.mark.slow),
        pytest.param("torch-export", "attention", {}, ALL, marks=pytest.mark.slow),
        ("torch-export", "stacked", {}, ("both",)),
        ("torch-export", "single", {"view": "pa", "norm": "group"}, ("pa_only",)),
    ],
)
def test_every_member_says_the_same_in_another_software(exported, format, name, model, routes):
    done = exported(format, name, **model)
    suffix, run = SUFFIX[format], {"onnx": run_onnx, "torch-export": run_torch}[format]
    assert done.folder == done.run_dir / f"export-{format}"
    assert sorted(path.name for path in done.folder.iterdir()) == sorted(
        [*(f"{r}.{suffix}" for r in routes), "metadata.json"]
    )
    assert all(set(graph.differences) == {1, 3} and max(graph.differences.values()) <= 1e-4 for graph in done.graphs)
    generator = np.random.default_rng(5)
    trained = load_trained(RunDir(done.run_dir))
    for route in routes:
        for num_studies in (1, 4):
            shape = (num_studies, 1, 64, 64)
            images = {view: generator.uniform(-1, 1, shape).astype(np.float32) for view in INPUTS[route]}
            logits = run(done.folder / f"{route}.{suffix}", images)
            expected = asked_one_by_one(trained, images, num_studies=num_studies)
            np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


def test_metadata_alone_leads_from_a_file_to_the_probability_of_predict(exported, draw_png, tmp_path):
    done = exported("onnx", "auxloss", **VOTING)
    assert done.metadata["findings"] == ["Nodule", "Effusion", "Hernia"]
    assert done.metadata["checkpoint"]["step"] == 7
    assert done.metadata["several_images_at_test"] == "first" and "the first" in done.metadata["several_images"]
    assert done.metadata["format"] == "onnx" and done.metadata["versions"]["torch"] == torch.__version__
    file = done.folder / "both.onnx"
    assert done.metadata["graphs"]["both.onnx"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    inside = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    of_graph = {key: json.loads(value) for key, value in inside.get_modelmeta().custom_metadata_map.items()}
    assert of_graph["inputs"] == [of_input.name for of_input in inside.get_inputs()] == ["pa", "lateral"]
    assert of_graph["thresholds"] == {"Nodule": 0.25, "Effusion": None, "Hernia": None}
    assert (of_graph["aspect"], of_graph["image_size_px"], of_graph["intensity_range"]) == ("pad", 64, [-1, 1])
    assert isinstance(inside.get_inputs()[0].shape[0], str)  # the batch is free

    draw_png(tmp_path / "pa.png", seed=0)
    draw_png(tmp_path / "lateral.png", seed=1)
    read = FileImages(tmp_path, image_size_px=of_graph["image_size_px"], aspect=of_graph["aspect"])
    logits = run_onnx(file, {view: read(f"{view}.png")[None].numpy() for view in of_graph["inputs"]})
    shift, slope, intercept = (list(of_graph[key].values()) for key in ("log_pos_weight", "slope", "intercept"))
    assert (shift, slope, intercept) == ([1.5, 0.7, 0.0], [0.8, 0.5, 0.5], [-0.1, 0, 0])
    by_hand = slope * (logits - shift) + intercept
    ask = dualview.load(done.run_dir, device="cpu").predict
    answer = ask(pa=tmp_path / "pa.png", lateral=tmp_path / "lateral.png")
    np.testing.assert_allclose(1 / (1 + np.exp(-by_hand)), answer.probabilities, atol=1e-5)


def test_a_graph_of_torch_carries_its_metadata_too(exported):
    extra = {"metadata.json": ""}
    torch.export.load(exported("torch-export", "auxloss").folder / "both.pt2", extra_files=extra)
    assert json.loads(extra["metadata.json"])["slope"]["Hernia"] == 1 / TEMPERATURE["both"]


def test_the_command_says_what_it_wrote_and_replaces_a_folder_only_when_told(make_run, tmp_path):
    out = tmp_path / "graphs"
    out.mkdir()
    (out / "both.onnx").write_bytes(b"of another day")
    command = ["export", str(make_run("stacked")), "--format", "torch-export", "--out", str(out)]
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 1
    assert "is there already. Nothing was changed" in " ".join(refused.output.split())
    assert [file.name for file in out.iterdir()] == ["both.onnx"]
    done = CliRunner().invoke(app, [*command, "--overwrite"])
    assert done.exit_code == 0, done.output
    assert "both.pt2" in done.output and "3 studies" in done.output
    assert sorted(file.name for file in out.iterdir()) == ["both.pt2", "metadata.json"]


def test_a_graph_that_differs_is_not_handed_over(make_run, monkeypatch):
    run_dir, forward = make_run("stacked"), RouteGraph.forward
    monkeypatch.setattr(
        RouteGraph, "forward", lambda self, pa=None, lateral=None: forward(self, pa=pa, lateral=lateral) + 2e-4
    )
    with pytest.raises(UserError, match=r"both.pt2 differs from the network: 2.0e-04 with 1 studies"):
        export(run_dir, format="torch-export")
    assert not list(run_dir.glob("*export*"))


def test_a_missing_package_is_named_with_its_remedy(make_run, monkeypatch):
    real = importlib.metadata.version

    def version(package):
        if package == "onnxscript":
            raise importlib.metadata.PackageNotFoundError(package)
        return real(package)

    monkeypatch.setattr("dualview.commands.export.importlib.metadata.version", version)
    missing = CliRunner().invoke(app, ["export", str(make_run()), "--format", "onnx"])
    assert missing.exit_code == 1
    assert "needs onnxscript: pip install 'dualview[export]'" in " ".join(missing.output.split())
