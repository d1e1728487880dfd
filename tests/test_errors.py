"""Problems are told by kind, so that many of one kind do not hide another."""

from pathlib import Path

import pytest

from dualview.data.remarks import Remark, count_remarks
from dualview.data.sources.problems import Problems
from dualview.errors import UserError, told_by_reason


def raised(problems):
    with pytest.raises(UserError) as caught:
        problems.raise_if_any()
    return caught.value


def test_369_problems_of_a_kind_are_one_line_with_three_examples_and_others_stay_visible():
    problems = Problems(Path("a.csv"))
    for line in range(2, 371):
        problems.add(line, "no image file {}", f"images/{line}.png")
    problems.add(200, "patient is blank")
    error = raised(problems)
    assert str(error).splitlines() == [
        "a.csv has 370 problem(s)",
        "  - a.csv: 369 rows (lines 2, 3, 4, ...): no image file images/2.png, images/3.png, images/4.png, ...",
        "  - a.csv:200: patient is blank",
    ]
    assert len(error.details) == 370 and error.details[-1] == "a.csv:370: no image file images/370.png"


def test_up_to_three_of_a_kind_are_told_one_by_one_and_columns_are_kinds_of_their_own():
    problems = Problems(Path("a.csv"))
    for line in range(2, 6):
        problems.add(line, "{} is {}; allowed are 1 and 0", "Mass", "'yes'" if line % 2 else "'no'", of="Mass")
    problems.add(3, "{} is {}; allowed are 1 and 0", "{Hernia}", "'{}'", of="Hernia")
    assert str(raised(problems)).splitlines()[1:] == [
        "  - a.csv: 4 rows (lines 2, 3, 4, ...): Mass is 'no', 'yes'; allowed are 1 and 0",
        "  - a.csv:3: {Hernia} is '{}'; allowed are 1 and 0",
    ]


def test_many_kinds_of_one_template_do_not_hide_others():
    problems = Problems(Path("a.csv"))
    for line in range(2, 102):
        problems.add(line, "view is {}", f"view{line}", of=f"view{line}")
    problems.add(200, "patient is blank")
    lines = str(raised(problems)).splitlines()
    assert lines[1] == "  - a.csv:2: view is view2" and lines[19] == "  - a.csv:20: view is view20"
    assert lines[20:] == ["  - a.csv:200: patient is blank", "  ... and 81 more kinds"]


def test_without_problems_nothing_is_raised():
    Problems(Path("a.csv")).raise_if_any()


def test_images_are_told_by_reason():
    bad = [(f"{n}.png", "is cut") for n in range(5)] + [("x.png", "no such file")]
    assert told_by_reason(bad).splitlines() == [
        "  - 5 images (0.png, 1.png, 2.png, ...): is cut", "  - x.png: no such file",
    ]  # fmt: skip


def test_remarks_are_counted_by_kind_with_the_first_example():
    assert count_remarks([("dark", "a"), ("odd", "b"), ("dark", "c")]) == (
        Remark("dark", 2, "a"),
        Remark("odd", 1, "b"),
    )


def test_a_line_of_any_length_is_shown_by_its_ends():
    lines = str(UserError("first\n" + "a" * 1_000_000 + " remedy")).split("\n")
    assert lines[0] == "first"
    assert lines[1].startswith("aaaa") and lines[1].endswith("a remedy")
    assert "997,007 characters left out" in lines[1] and len(lines[1]) < 3_100
