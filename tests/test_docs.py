"""The pages say what the code does."""

import re
import runpy

from tests.support import ROOT


def test_the_configuration_page_is_up_to_date():
    generator = runpy.run_path(str(ROOT / "docs/generate/configuration.py"))
    assert (ROOT / "docs/configuration.md").read_text(encoding="utf-8") == generator["page"](), (
        "run python docs/generate/configuration.py"
    )


def test_the_table_of_logged_values_is_up_to_date():
    generator = runpy.run_path(str(ROOT / "docs/generate/metric_keys.py"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme == generator["with_table"](readme), "run python docs/generate/metric_keys.py"


def test_the_tables_of_evaluation_json_are_up_to_date():
    generator = runpy.run_path(str(ROOT / "docs/generate/evaluation.py"))
    page = (ROOT / "docs/evaluation.md").read_text(encoding="utf-8")
    assert "num_positive" in page
    assert page == generator["with_tables"](page), "run python docs/generate/evaluation.py"


def test_every_file_that_contributing_names_exists():
    page = (ROOT / "docs/contributing.md").read_text(encoding="utf-8")
    named = {word for word in re.findall(r"`([\w/]+\.(?:py|md|sh|toml))`", page) if "NAME" not in word}
    assert len(named) > 20
    places = (ROOT, ROOT / "dualview", ROOT / "dualview" / "data" / "sources")
    assert sorted(name for name in named if not any((place / name).exists() for place in places)) == []


def test_every_file_the_readme_names_exists():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = {part.split(")")[0] for part in readme.split("](")[1:]}
    local = {name for name in named if not name.startswith(("http", "#"))}
    assert local
    assert sorted(name for name in local if not (ROOT / name).exists()) == []
