"""Which runs a comparison is made of, and what is wrong with its file."""

import pytest

from dualview.comparison.plan import read_plan
from dualview.comparison.runs import slurm_array
from dualview.config import load
from dualview.errors import UserError
from tests.support import ROOT
from tests.support.runs import write_comparison

FILE = """
compare:
  dir: {dir}
  seeds: [3, 5]
  baseline: one
  settings: {{few: {{data.split.max_train_patients: 10}}, many: {{}}}}
  variants:
    one: {{model.name: single}}
    two: {{model.merge_after_block: 4, optim.learning_rate: 1e-3}}
model: {{backbone: densenet_tiny}}
optim: {{learning_rate: 2e-3}}
"""


@pytest.fixture
def file(tmp_path):
    return write_comparison(tmp_path, FILE)


def test_every_run_is_the_file_with_the_changes_of_its_setting_and_variant(file, tmp_path):
    plan = read_plan(file, overrides=["train.max_steps=7"])
    assert [run.name for run in plan.runs[:4]] == [
        "few/one/seed-3", "few/two/seed-3", "many/one/seed-3", "many/two/seed-3",
    ]  # fmt: skip
    assert len(plan.runs) == 2 * 2 * 2
    for run in plan.runs:
        config = run.config
        assert config.run.dir == tmp_path / "runs" / run.name
        assert config.run.seed == run.seed
        assert config.data_seed == 0  # one split for all
        assert config.model.backbone == "densenet_tiny"
        assert config.train.max_steps == 7
        assert config.data.split.max_train_patients == (10 if run.setting == "few" else None)
        assert config.model.name == ("single" if run.variant == "one" else "auxloss")
        assert config.optim.learning_rate == (2e-3 if run.variant == "one" else 1e-3)
        assert (config.tracking.group, config.tracking.name) == ("runs", run.name)


def test_what_one_variant_has_no_use_for_is_not_in_the_file_that_its_run_reads(file, tmp_path):
    """The merge point stands in the file for both; `dualview train` would refuse it of the single network."""
    text = file.read_text()
    file.write_text(text.replace("{backbone: densenet_tiny}", "{backbone: densenet_tiny, merge_after_block: 4}"))
    for run in read_plan(file).runs:
        written = tmp_path / "run.yaml"
        written.write_text(run.config.to_yaml())
        assert load(written) == run.config
        assert run.config.model.merge_after_block == (3 if run.variant == "one" else 4)


def test_all_problems_of_all_runs_are_told_at_once_and_each_once(file):
    text = file.read_text().replace("model.merge_after_block: 4", "model.merge_after_blok: 4, nothing: 1")
    file.write_text(text + "train: {epochs: 0}\n")
    with pytest.raises(UserError) as error:
        read_plan(file)
    message = str(error.value)
    assert message.count("model.merge_after_blok: unknown key; did you mean 'merge_after_block'?") == 2  # few and many
    assert "'nothing' is no section.field" in message
    assert "few/one: train.epochs: found 0" in message


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("baseline: one", "baseline: three", "baseline is 'three'; there are one, two"),
        ("[3, 5]", "[3, 3]", "has one twice"),
        ("    one:", "    a/b:", "'a/b' names a folder"),
        ("  seeds:", "  sedes:", "compare.sedes: unknown key; did you mean 'seeds'?"),
    ],
)
def test_a_wrong_compare_section_is_described(file, old, new, expected):
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(UserError, match=expected.replace("?", r"\?")):
        read_plan(file)


def test_shipped_comparisons_are_valid():
    for path in sorted((ROOT / "configs").glob("compare*.yaml")):
        assert read_plan(path, overrides=["data.check_files=false"]).runs


def test_the_slurm_array_has_a_task_for_every_run(file):
    script = slurm_array(read_plan(file), command="dualview compare x.yaml")
    assert "#SBATCH --array=0-7" in script
    assert "dualview compare x.yaml --only $SLURM_ARRAY_TASK_ID" in script
