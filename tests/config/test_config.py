"""Configuration: precedence, errors with positions, and every shipped file."""

from importlib import import_module
from pathlib import Path

import pytest
import yaml

import dualview
from dualview.config import Config, load
from dualview.config.load import load_of_run
from dualview.config.uses import NETWORK_KEYS, NETWORKS, SOURCES
from dualview.errors import UserError
from dualview.models.network import Network
from tests.support import ROOT

CONFIGS = [path for path in sorted((ROOT / "configs").rglob("*.yaml")) if not path.stem.startswith("compare")]


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_shipped_config_is_valid(path):
    assert isinstance(load(path), Config)


def test_override_beats_file_beats_default(write):
    path = write("optim: {learning_rate: 1e-3, weight_decay: 0.5}")
    config = load(path, overrides=["optim.learning_rate=3e-4"])
    assert (config.optim.learning_rate, config.optim.weight_decay, config.optim.warmup_steps) == (3e-4, 0.5, 0)


@pytest.mark.parametrize("text", ["3e-4", "3E-4", "0.0003", "30.e-5", ".3e-3"])
def test_scientific_notation_is_a_number(write, text):
    assert load(write(f"optim: {{learning_rate: {text}}}")).optim.learning_rate == pytest.approx(3e-4)


def test_the_resolved_config_reads_back_equal(write):
    config = load(write("data: {source: csv, root: /x, findings: [A, B]}\nrun: {dir: runs/ä}"))
    assert load(write(config.to_yaml())) == config
    assert config.data.findings == {"A": ["A"], "B": ["B"]}
    renamed = load(write("data: {source: csv, root: /x, findings: {A: lab a, B: [b]}}"))
    assert renamed.data.findings == {"A": ["lab a"], "B": ["b"]}


def test_all_problems_come_at_once_with_their_keys(write):
    path = write(
        "run: {sed: 1}\ntrain: {micro_batch_size: 0}\noptim: {schedule: step, learning_rate: fast}\ndevice: cpu\n"
        "data: {source: csv, split: {train: 0.9}}"
    )
    with pytest.raises(UserError) as caught:
        load(path, overrides=["max_steps=3", "nonsense"])
    for part in (
        "run.sed: unknown key; did you mean 'seed'?",
        "device: unknown key; did you mean run.device?",
        "train.micro_batch_size: found 0; input should be greater than or equal to 1",
        "optim.learning_rate: found 'fast'; input should be a valid number",
        "data.split: train + val + test is 1.3",
        "did you mean train.max_steps=3?",
        "override 'nonsense': write section.field=value",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optim: {schedule: step}", "needs optim.decay_every_steps"),
        ("data: {source: csv}", "needs data.root"),
        ("data: {source: csv, root: /x}", "needs data.findings"),
        ("data: {source: csv, root: /x, findings: [A, A]}", "more than once"),
        ("data: {source: csv, root: /x, findings: {A: [a, b]}}", "exactly one column"),
        ("data: {source: covid_cxr, root: /x, findings: [A], frontal_views: [L], lateral_views: [L]}", "stand in both"),
        ("data: {source: phantom, image_size_px: 32}", "use at least 64"),
        ("data: {source: phantom, phantom: {both: 0.9}}", "must add up to 1"),
        ("optim: {learning_rate: .inf}", "finite number"),
        ("model: {backbone: vgg16}", "densenet121"),
        ("model: {backbone: resnet50}", "use merge_after_block=4"),
        ("model: {name: hemis, backbone: swin_t}", "use a DenseNet"),
        ("model: {name: single, backbone: resnet18, dropout: 0.1}", "only DenseNets have it"),
        (
            "model: {name: hemis}\nloss: {learned_weights: uncertainty}",
            "weighs three heads .* model.name hemis has one",
        ),
        ("loss: {learned_weights: temperature, curriculum_probability: 0.1}", "some steps train one alone"),
        ("loss: {learned_weights: uncertainty, pa_weight: 0}", "pa_weight 0 and lateral_weight 0.3 are where"),
        ("tracking: {wandb: on}", "'auto', 'online', 'offline' or 'disabled'"),
        ("run: {seed: 1}\nrun: {seed: 2}", "given twice"),
        ("run: [1", "not valid YAML"),
        ("- 1", "must hold sections"),
    ],
)
def test_impossible_configurations_are_refused(write, text, message):
    with pytest.raises(UserError, match=message):
        load(write(text))


OWN = "source: csv, root: /x, findings: [A]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            f"data: {{{OWN}, cohort: {{adults_only: true}}}}",
            "source 'csv' does not use cohort.adults_only; .* attributes",
        ),
        (f"data: {{{OWN}, labeler: negbio, unmentioned: negative}}", "does not use unmentioned, labeler"),
        ("data: {root: /x}", "source 'phantom' does not use root"),
        ("data: {source: chexpert, root: /x, split: {column: s}}", "source 'chexpert' does not use split.column"),
        (f"data: {{sources: [{{{OWN}, uncertain: one}}]}}", "data.sources.0: source 'csv' does not use uncertain"),
        ("model: {view: lateral}", "model.name 'auxloss' does not use model.view"),
        ("model: {name: hemis, merge_after_block: 4}", "model.name 'hemis' does not use model.merge_after_block"),
        ("model: {name: dualnet}\nloss: {pa_weight: 0.1}", "model.name 'dualnet' does not use loss.pa_weight"),
        (
            "model: {name: single, view: lateral}\noptim: {learning_rate_pa: 1e-3}",
            "does not use optim.learning_rate_pa; .* it uses model.view, optim.learning_rate_lateral",
        ),
    ],
)
def test_keys_that_nothing_uses_are_refused_with_those_that_are_used(write, text, message):
    path = write(text)
    with pytest.raises(UserError, match=message):
        load(path)
    effective = load_of_run(path).effective
    assert effective == load(write(effective.to_yaml()))


def test_keys_that_nothing_uses_come_together_with_other_problems(write):
    path = write(f"data: {{{OWN}, cohort: {{adults_only: true}}}}\ntrain: {{micro_batch_size: 0}}")
    with pytest.raises(UserError, match=r"2 problem(.|\n)*micro_batch_size(.|\n)*cohort.adults_only"):
        load(path)


def test_a_key_is_used_where_any_of_several_sources_uses_it(write):
    sources = f"[{{{OWN}}}, {{source: chexpert, root: /y}}]"
    assert load(write(f"data: {{sources: {sources}, split: {{column: s, official: false}}}}")).data.unused_keys == []


def test_a_source_and_a_network_are_a_file_each_and_a_line():
    folder = Path(dualview.__file__).parent
    for source in SOURCES:
        assert callable(import_module(f"dualview.data.sources.{source}").read)
    for name in NETWORKS:
        assert issubclass(import_module(f"dualview.models.{name}").NETWORK, Network)
    readers = {path.stem for path in (folder / "data/sources").glob("*.py") if "\ndef read(" in path.read_text()}
    networks = {path.stem for path in (folder / "models").glob("*.py") if "\nNETWORK = " in path.read_text()}
    assert (readers, networks) == (set(SOURCES), set(NETWORKS))


def test_the_tables_of_uses_name_keys_that_there_are():
    keys = set(_keys(Config))
    assert {f"data.{key}" for used in SOURCES.values() for key in used} <= keys
    network_keys = {key for use in NETWORKS.values() for key in use.keys} - {"optim.learning_rate_{view}"}
    assert network_keys <= NETWORK_KEYS <= keys


def _keys(section, at=""):
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and hasattr(field.annotation, "model_fields"):
            yield from _keys(field.annotation, f"{at}{name}.")
        else:
            yield f"{at}{name}"


def test_a_missing_file_names_those_that_are_there(write):
    path = write("")
    with pytest.raises(UserError, match=r"no such config file: .*other\.yaml.*config\.yaml"):
        load(path.with_name("other.yaml"))


def test_yaml_cannot_make_objects(write):
    with pytest.raises(UserError, match="not valid YAML"):
        load(write("run: !!python/object/apply:os.system ['true']"))


def test_every_field_says_what_it_means():
    def fields(section, at):
        for name, field in section.model_fields.items():
            if isinstance(field.annotation, type) and hasattr(field.annotation, "model_fields"):
                yield from fields(field.annotation, f"{at}{name}.")
            else:
                yield f"{at}{name}", field.description

    undocumented = [name for name, description in fields(Config, "") if not description]
    assert undocumented == []


def test_empty_file_is_all_defaults(write):
    assert load(write("")) == Config()
    assert yaml.safe_load(Config().to_yaml())["train"]["micro_batch_size"] == 8


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda p: p.stem)
def test_every_config_that_comes_with_dualview_says_how_to_run_it(path):
    """That those of comparisons are valid is tested in tests/comparison/test_plan.py."""
    command = "dualview compare" if path.stem.startswith("compare") else "dualview train"
    head = path.read_text(encoding="utf-8").split("run:")[0]
    assert command in head or "./launch/" in head
