"""The flow of patients: every rule has its numbers, and they add up to the account of the table."""

import pandas as pd
import pytest

from dualview.config import CohortConfig, DataConfig
from dualview.data.sources.cohort import select
from dualview.data.sources.flow import JOINED, count_rows
from dualview.data.sources.image_rows import ImageRows, SourceTable
from dualview.data.sources.readers import read_source

ROWS = [  # patient, study, view, path
    ("p1", "s1", "PA", "1"), ("p1", "s1", "L", "2"), ("p1", "s2", "PA", "3"), ("p2", "s1", "PA", "4"),
    ("p2", "s1", "PA", "5"), ("p3", "s1", "OBLIQUE", "6"), ("p4", "s1", "", "7"), ("p4", "s1", "PA", "8"),
    ("p5", "s1", "L", "9"),
]  # fmt: skip


def read(**settings) -> SourceTable:
    """The table above, of which a view is not used and another not given."""
    config = DataConfig(source="csv", root=".", findings=["F"], check_files=False, ignored_views=["OBLIQUE", ""])
    frame = pd.DataFrame(ROWS, columns=["patient", "study", "view", "path"], dtype=object)
    rows = ImageRows(frame.assign(line=range(2, 11)), file=config.root / "t.csv", source=config)
    rows.drop(rows.frame["path"] == "9", "known to be broken")
    rows.assign_views(rows.frame["view"], frontal=["PA"], lateral=["L"], strict=True)
    return select(rows.studies(), cohort=CohortConfig(**settings))


def counts(source: SourceTable) -> list[tuple]:
    return [(step.rule, step.left.images, step.left.studies, step.left.patients) for step in source.flow]


def test_every_rule_has_the_numbers_that_are_left():
    assert counts(read()) == [
        ("read", 9, 6, 5),
        ("known to be broken", 8, 5, 4),  # p5 has no other image
        ("view is not used", 6, 4, 3),  # p3 had one image; p4 keeps the other
    ]
    assert read().flow[-1].reasons == {"view is OBLIQUE": 1, "view is not given": 1}


def test_rules_of_the_cohort_go_on_where_the_table_ends():
    rules = [("study has several images of one view", 4, 3, 2), ("study is not both", 2, 1, 1)]
    assert counts(read(one_image_per_view=True, availability=["both"]))[3:] == rules


def test_several_images_of_a_view_are_a_rule_of_their_own_where_each_patient_gives_one_study():
    config = DataConfig(source="csv", root=".", findings=["F"], check_files=False)
    frame = pd.DataFrame(ROWS[:5] + ROWS[8:], columns=["patient", "study", "view", "path"], dtype=object)
    rows = ImageRows(frame.assign(line=range(2, 8), date="20200101"), file=config.root / "t.csv", source=config)
    rows.assign_views(rows.frame["view"], frontal=["PA"], lateral=["L"], strict=True)
    cohort = CohortConfig(one_study_per_patient=True, one_image_per_view=True, availability=["both", "pa_only"])
    steps = counts(select(rows.studies(attributes=["date"]), cohort=cohort))
    assert {rule: studies for rule, _, studies, _ in steps[1:]} == {
        "patient has a study that comes before": 3, "study has several images of one view": 2,
        "study is not both or pa_only": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [{}, {"one_image_per_view": True}, {"availability": ["pa_only"]}, {"availability": ["both", "pa_only"]}],
)
def test_the_flow_ends_at_the_table_and_loses_the_images_that_are_left_out(settings):
    source = read(**settings)
    last = source.flow[-1].left
    assert last.images == source.table.num_images.sum() == source.num_images_read - len(source.dropped)
    assert (last.studies, last.patients) == (len(source.table), len(set(source.table.patient_ids)))


def test_rows_that_a_reader_gives_to_another_patient_are_a_step_of_their_own():
    config = DataConfig(source="csv", root=".", findings=["F"], check_files=False)
    frame = pd.DataFrame(ROWS, columns=["patient", "study", "view", "path"], dtype=object)
    rows = ImageRows(frame.assign(line=range(2, 11)), file=config.root / "t.csv", source=config)
    rows.frame = rows.frame.assign(patient=rows.frame["patient"].replace("p5", "p1"))
    rows.assign_views(rows.frame["view"].replace({"OBLIQUE": "PA", "": "PA"}), frontal=["PA"], lateral=["L"])
    assert counts(rows.studies()) == [("read", 9, 6, 5), (JOINED, 9, 5, 4)]


def test_who_has_no_identifier_is_no_patient():
    frame = pd.DataFrame({"patient": ["", "a", "a"], "study": ["", "1", "2"]})
    assert vars(count_rows(frame)) == {"images": 3, "studies": 2, "patients": 1}
    assert vars(count_rows(frame[:0])) == {"images": 0, "studies": 0, "patients": 0}
    assert count_rows(frame[["patient"]]).studies is None


def test_a_phantom_is_drawn():
    data = DataConfig(phantom={"num_studies": 100})
    source = read_source(data, data=data, seed=1)
    assert counts(source) == [("drawn", 150, 100, 100)]
