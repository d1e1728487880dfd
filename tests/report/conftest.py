"""Runs to report on: one made up of numbers, which costs nothing, and one that was really trained on a CSV."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dualview.commands.evaluate import evaluate_run
from dualview.commands.train import train
from dualview.config import Config
from dualview.evaluation.assess import assess
from dualview.evaluation.document import EvaluatedCheckpoint, Evaluation, Provenance
from dualview.evaluation.looks import EvaluationSettings
from dualview.evaluation.operating_points import choose_operating_points
from dualview.evaluation.prediction_table import SCORES, PredictionTable
from dualview.progress import progress_bars
from dualview.run.provenance import describe_run
from dualview.views import Availability, View
from tests.support.runs import tiny_config


def made_up(
    num_studies: int, *, findings: tuple[str, ...], seed: int = 0, name: str = "PATIENT-xyz"
) -> PredictionTable:
    """Predictions that are better with both views than with one; the last finding has no positive study."""
    generator = np.random.default_rng(seed)
    shape = (num_studies, len(findings))
    availability = generator.permutation(np.arange(num_studies) % 3).astype(np.int8)
    labels = (generator.random(shape) < np.linspace(0.6, 0.1, len(findings))).astype(np.float32)
    labels[:, -1] = 0

    def logits(strength: float, rows: np.ndarray) -> np.ndarray:
        return np.where(rows[:, None], strength * (labels - 0.5) + generator.normal(size=shape), np.nan)

    both = availability == Availability.BOTH
    by_score = {score: np.full(shape, np.nan) for score in SCORES}
    by_score["route"] = logits(3, np.ones(num_studies, bool))
    by_score |= {view.hidden_key: logits(1, both) for view in (View.LATERAL, View.PA)}
    return PredictionTable(
        findings=findings,
        study_ids=np.array([f"{name}-{n}-study" for n in range(num_studies)], object),
        patient_ids=np.array([f"{name}-{n // 2}" for n in range(num_studies)], object),
        availability=availability,
        evaluated=np.ones(num_studies, bool),
        labels=labels,
        label_mask=generator.random(shape) < 0.9,
        logits=by_score,
        attributes={"sex": np.array(["F", "M"] * (num_studies // 2), object)},
    )


def write_run(run_dir: Path, predictions: PredictionTable, *, model: str = "auxloss", seed: int = 0) -> Path:
    """A run directory as training and evaluation leave it, around these predictions."""
    folder = run_dir / "evaluation-test"
    folder.mkdir(parents=True)
    config = Config.model_validate(
        {"run": {"dir": run_dir, "seed": seed}, "model": {"name": model}, "data": {"root": "/secret/place"}}
    )
    (run_dir / "config.yaml").write_text(describe_run(config))
    points = choose_operating_points(predictions)
    points.write(run_dir / "operating_points.json")
    kinds = {kind.name.lower(): int((predictions.availability == kind).sum()) for kind in Availability}
    labels = {name: {"positive": 3, "negative": 5, "unknown": 1, "uncertain": 0} for name in predictions.findings}
    counts = {
        "patients": 9, "studies": {"total": len(predictions), **kinds}, "several_frontals": 0, "several_laterals": 0,
        "findings": labels,
    }  # fmt: skip
    provenance = Provenance(
        run=run_dir.name,
        split="test",
        checkpoint=EvaluatedCheckpoint(name="best", step=40),
        model=model,
        backbone="densenet121",
        num_parameters=1234567,
        versions=["python 3", "git commit abc"],
        data={
            "images": {"read": 20, "used": 18, "dropped": {"view is OBLIQUE": 2}},
            **counts,
            "splits": {"train": counts, "val": counts, "test": counts},
            "left_out_of_training": {"patients": 0, "studies": 0},
        },
    )
    assessment = assess(
        predictions,
        points=points,
        train_prevalence=np.full((3, len(predictions.findings)), 0.3),
        settings=EvaluationSettings(num_resamples=100),
    )
    Evaluation.of(provenance, assessment).write(folder / "evaluation.json")
    predictions.write(folder / "predictions.parquet")
    lines = [
        {
            "step": step, "loss/total": 1 / step, "loss/joint": 0.5 / step, "routing/rows_pa": 6.0,
            "routing/rows_lateral": 3.0, "routing/idle_micro_batches_pa": 0.0,
            "routing/idle_micro_batches_lateral": step % 2, "val/auroc_macro_all": None if step == 1 else 0.7,
        }
        for step in range(1, 41)
    ]  # fmt: skip
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run_dir / "metrics.jsonl").write_text(text + '{"step": 41, "lo')  # torn by a kill
    return run_dir


@pytest.fixture(scope="session")
def made_up_run(tmp_path_factory) -> Path:
    """Four findings, one of them with a name that is HTML, the last undefined."""
    findings = ("Nodule", "Mass <b>&amp;</b> </script>", "Edema", "Hernia")
    return write_run(tmp_path_factory.mktemp("runs") / "made-up", made_up(240, findings=findings))


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory) -> Path:
    """A run of seconds on a CSV of noise, evaluated: 45 patients with PA, lateral or both."""
    folder = tmp_path_factory.mktemp("hospital")
    rows = ["patient,study,view,path,A,B"]
    for n in range(45):
        for view in (("PA", "L"), ("PA",), ("L",))[n % 3]:
            noise = np.random.default_rng([n, len(view)]).integers(0, 255, (64, 64), dtype=np.uint8)
            Image.fromarray(noise).save(folder / f"IMAGE-abc-{n}{view}.png")
            rows.append(f"PATIENT-xyz-{n},STUDY-uvw-{n},{view},IMAGE-abc-{n}{view}.png,{n // 3 % 2},{n // 6 % 2}")
    (folder / "table.csv").write_text("\n".join(rows))
    run_dir = folder / "run"
    train(
        tiny_config(
            run_dir,
            data={
                "source": "csv", "root": folder, "csv": folder / "table.csv", "findings": ["A", "B"], "phantom": {},
            },
        )
    )  # fmt: skip
    with progress_bars(shown=False) as progress:
        evaluate_run(run_dir, settings=EvaluationSettings(num_resamples=100), progress=progress)
    return run_dir
