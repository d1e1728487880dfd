"""`dualview export`: the written graphs, run by other software, say what the network says."""

import hashlib
import importlib.metadata
import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import dualview
from dualview.batch import StudyBatch
from dualview.cli import app
from dualview.commands.export import RouteGraph, export
from dualview.data.images.files import FileImages
from dualview.errors import UserError
from dualview.evaluation.operating_points import OperatingPoint, OperatingPoints
from dualview.run.trained import load_trained

ort = pytest.importorskip("onnxruntime")
ALL = ("both", "pa_only", "lateral_only")
INPUTS = {"both": ("pa", "lateral"), "pa_only": ("pa",), "lateral_only": ("lateral",)}


def run_onnx(file, images):
    return ort.InferenceSession(file, providers=["CPUExecutionProvider"]).run(["logits"], images)[0]


def run_torch(file, images):
    with torch.no_grad():
        module = torch.export.load(file).module()
        return module(**{name: torch.from_numpy(image) for name, image in images.items()}).numpy()


def asked_one_by_one(run_dir, images, *, num_studies):
    """Logits (B, K): the network on each study alone."""
    model = load_trained(run_dir).model
    rows = []
    for n in range(num_studies):
        pa, lateral = ([torch.from_numpy(images[name][n])] if name in images else [None] for name in ("pa", "lateral"))
        batch = StudyBatch.from_views(pa=pa, lateral=lateral)
        with torch.no_grad():
            rows.append(model(batch).by_route(batch)[0].numpy())
    return np.stack(rows)


@pytest.mark.parametrize(
    ("format", "name", "model", "routes"),
    [
        ("onnx", "auxloss", {}, ALL),
        ("onnx", "auxloss", {"backbone": "densenet121"}, ALL),
        ("onnx", "dualnet", {"backbone": "resnet18", "merge_after_block": 4}, ALL),
        ("onnx", "hemis", {}, ALL),
        ("onnx", "attention", {"shared_branch": True}, ALL),
        ("onnx", "stacked", {}, ("both",)),
        ("onnx", "single", {"view": "lateral"}, ("lateral_only",)),
        ("torch-export", "auxloss", {}, ALL),
        pytest.param("torch-export", "auxloss", {"backbone": "densenet121"}, ALL, marks=pytest.mark.slow),
        ("torch-export", "dualnet", {"backbone": "resnet18", "merge_after_block": 4}, ALL),
        ("torch-export", "hemis", {}, ALL),
        ("torch-export", "attention", {}, ALL),
        ("torch-export", "stacked", {}, ("both",)),
        ("torch-export", "single", {"view": "pa", "norm": "group"}, ("pa_only",)),
    ],
)
def test_every_member_says_the_same_in_another_software(make_run, format, name, model, routes):
    run_dir = make_run(name, model=model, distributed={"idle_branch": "empty"})
    folder, graphs = export(run_dir, format=format)
    suffix, run = {"onnx": ("onnx", run_onnx), "torch-export": ("pt2", run_torch)}[format]
    assert folder == run_dir / f"export-{format}"
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*(f"{r}.{suffix}" for r in routes), "metadata.json"]
    )
    assert all(set(graph.differences) == {1, 3} and max(graph.differences.values()) <= 1e-4 for graph in graphs)
    generator = np.random.default_rng(5)
    for route in routes:
        for num_studies in (1, 4):
            shape = (num_studies, 1, 64, 64)
            images = {view: generator.uniform(-1, 1, shape).astype(np.float32) for view in INPUTS[route]}
            logits = run(folder / f"{route}.{suffix}", images)
            expected = asked_one_by_one(run_dir, images, num_studies=num_studies)
            np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


def test_metadata_alone_leads_from_a_file_to_the_probability_of_predict(make_run, draw_png, tmp_path):
    run_dir = make_run(data={"aspect": "pad"}, model={"joint_rule": "vote"})
    routes = {route: {"Nodule": OperatingPoint(threshold=0.25)} for route in ALL}
    temperature = {"both": 2.0, "pa_only": 0.5, "lateral_only": 1.0}
    points = OperatingPoints(rule="youden", chosen_on="val", temperature=temperature, routes=routes)
    points.write(run_dir / "operating_points.json")
    command = ["export", str(run_dir), "--format", "onnx", "--out", str(tmp_path / "graphs")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "both.onnx" in done.output and "3 studies" in done.output
    written = json.loads((tmp_path / "graphs" / "metadata.json").read_text())
    assert written["findings"] == ["Nodule", "Effusion", "Hernia"]
    assert written["checkpoint"]["step"] == 7
    assert written["format"] == "onnx" and written["versions"]["torch"] == torch.__version__
    file = tmp_path / "graphs" / "both.onnx"
    assert written["graphs"]["both.onnx"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
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
    answer = dualview.load(run_dir, device="cpu").predict(pa=tmp_path / "pa.png", lateral=tmp_path / "lateral.png")
    np.testing.assert_allclose(1 / (1 + np.exp(-logits / of_graph["temperature"])), answer.probabilities, atol=1e-5)

    again = CliRunner().invoke(app, command)
    assert again.exit_code == 1
    assert "is there already. Nothing was changed" in " ".join(again.output.split())
    extra = {"metadata.json": ""}
    export(run_dir, format="torch-export", out=tmp_path / "graphs", overwrite=True)
    torch.export.load(tmp_path / "graphs" / "both.pt2", extra_files=extra)
    assert json.loads(extra["metadata.json"])["temperature"] == 2.0
    assert not list((tmp_path / "graphs").glob("*.onnx"))


def test_a_graph_that_differs_is_not_handed_over(make_run, monkeypatch):
    run_dir, forward = make_run(), RouteGraph.forward
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
    with pytest.raises(UserError, match=r"needs onnxscript: pip install 'dualview\[export\]'"):
        export(make_run(), format="onnx")
