"""Bands of numeric columns: every number is in the band that its name says."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from dualview.errors import UserError
from dualview.evaluation.subgroups import NOT_KNOWN, columns_of, subgroup_rows


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
    ages = [*(str(age) for age in range(10, 110, 4)), "120"]
    bands = parts("age", [*ages, "121", "199", "999", "-1", ""])
    assert list(bands) == [
        "0 to below 18",
        "18 to below 40",
        "40 to below 60",
        "60 to below 80",
        "80 and more",
        NOT_KNOWN,
    ]
    assert bands["80 and more"] == [age for age in ages if float(age) >= 80]
    assert bands[NOT_KNOWN] == ["121", "199", "999", "-1", ""]
    assert parts("value", [*map(str, range(80)), "inf"])[NOT_KNOWN] == ["inf"]


def test_ages_are_in_bands_whatever_their_column_is_called_and_however_they_are_written():
    bands = parts("PatientAge", ["017Y", "018Y", "006M", "90+", "unknown", "61.5"])
    assert bands == {
        "0 to below 18": ["017Y", "006M"], "18 to below 40": ["018Y"], "60 to below 80": ["61.5"],
        "80 and more": ["90+"], NOT_KNOWN: ["unknown"],
    }  # fmt: skip


def test_a_sex_is_one_group_however_it_is_written():
    groups = parts("Gender", ["M", "Male", "male", "F", "woman", "", "turnip"])
    assert groups == {"F": ["F", "woman"], "M": ["M", "Male", "male"], "turnip": ["turnip"], NOT_KNOWN: [""]}


def test_two_columns_at_once_divide_as_pandas_does():
    generator = np.random.default_rng(0)
    sex = generator.choice(["F", "M", ""], 300, p=[0.45, 0.45, 0.1])
    site = generator.choice(["A", "B + C", ""], 300, p=[0.6, 0.3, 0.1])
    table = SimpleNamespace(attributes={"sex": sex, "site": site})
    divisions = subgroup_rows(table, by=["sex", "sex+site"])
    assert list(divisions) == ["sex", "sex+site"]
    frame = pd.DataFrame({"sex": sex, "site": site})
    known = frame[(frame["sex"] != "") & (frame["site"] != "")]
    expected = {f"sex {a}, site {b}": list(rows) for (a, b), rows in known.groupby(["sex", "site"]).groups.items()}
    found = {part: rows.tolist() for part, rows in divisions["sex+site"].items()}
    assert found.pop(NOT_KNOWN) == frame.index.difference(known.index).tolist()
    assert found == expected and len(found) == 4


def test_a_column_whose_name_has_a_plus_is_found_first():
    there = ["sex", "age", "a+b", "b"]
    assert columns_of(["a+b", "sex+a+b", "sex + age"], there=there, otherwise="") == {
        "a+b": ("a+b",), "sex+a+b": ("sex", "a+b"), "sex + age": ("sex", "age")
    }  # fmt: skip


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("race", "--by race: no such column; there are sex, age. Two columns at once are written sex\\+age"),
        ("sex+race", "--by sex\\+race: no such column"),
        ("sex+sex", "one column twice"),
        ("sex+age+sex", "at most two columns"),
        ("", "no such column"),
    ],
)
def test_columns_that_are_not_there_are_named(by, message):
    with pytest.raises(UserError, match=message):
        columns_of([by], there=["sex", "age"], otherwise="there are sex, age")


def test_a_name_that_can_be_divided_in_two_ways_is_refused():
    with pytest.raises(UserError, match="Rename a column"):
        columns_of(["a+b+c"], there=["a", "b+c", "a+b", "c"], otherwise="")
