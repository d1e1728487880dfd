"""Bands of numeric columns: every number is in the band that its name says."""

from types import SimpleNamespace

import numpy as np
import pytest

from dualview.evaluation.subgroups import NOT_KNOWN, subgroup_rows


def parts(column: str, values: list[str]) -> dict[str, list[str]]:
    """Values by part."""
    table = SimpleNamespace(attributes={column: np.array(values)})
    rows = subgroup_rows(table, by=[column])[column]
    return {part: [values[row] for row in of_part] for part, of_part in rows.items()}


def test_each_quarter_holds_the_numbers_that_its_name_says_also_above_200():
    values = [str(value) for value in range(0, 400, 5)]
    quarters = parts("weight", values)
    assert list(quarters) == ["0 to below 98.75", "98.75 to below 197.5", "197.5 to below 296.25", "296.25 and more"]
    assert [len(of_part) for of_part in quarters.values()] == [20, 20, 20, 20]
    assert quarters["296.25 and more"][-1] == "395"
    assert quarters["98.75 to below 197.5"] == [str(value) for value in range(100, 200, 5)]


@pytest.mark.parametrize("shift", [-5000, 0, 190, 20_150_000])
def test_bands_are_few_in_order_and_whole_wherever_the_numbers_lie(shift):
    quarters = parts("value", [str(shift + number) for number in range(80)])
    assert [len(of_part) for of_part in quarters.values()] == [20, 20, 20, 20]
    starts = [float(name.split(" ")[0]) for name in quarters]
    assert starts == sorted(starts)
    for start, of_part in zip(starts, quarters.values(), strict=True):
        assert min(map(float, of_part)) >= start


def test_quarters_that_coincide_are_one_band():
    quarters = parts("packs", ["0"] * 60 + [str(number) for number in range(1, 41)])
    assert [len(of_part) for of_part in quarters.values()] == [75, 25]
    assert list(quarters)[-1] == "15.25 and more"


def test_ages_that_nobody_has_and_what_is_no_number_are_not_known():
    ages = [str(age) for age in range(10, 110, 4)]
    bands = parts("age", [*ages, "999", "-1", ""])
    assert list(bands) == [
        "0 to below 18",
        "18 to below 40",
        "40 to below 60",
        "60 to below 80",
        "80 and more",
        NOT_KNOWN,
    ]
    assert bands["80 and more"] == [age for age in ages if float(age) >= 80]
    assert bands[NOT_KNOWN] == ["999", "-1", ""]
    assert parts("value", [*map(str, range(80)), "inf"])[NOT_KNOWN] == ["inf"]
