"""What the page says of the study beside its results: flow, wrong answers, decision curves, checklists."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from dualview.config.sections import StudyConfig
from dualview.data.sources.flow import FlowStep, Left
from dualview.evaluation.account_types import SourceAccount, SplitAccount, StudyAccount
from dualview.report.beside import TITLES_OF_PARTS, _of_sources
from dualview.report.checklist import CLAIM, TRIPOD, answers
from dualview.report.failures import failure_table, wrong_answers
from dualview.report.flow import draw_flow

LETTERED = {"3": 3, "5": 2, "6": 3, "8": 3, "9": 3, "12": 7, "18": 6, "20": 3, "23": 2, "27": 3}  # TRIPOD+AI


def test_both_checklists_are_whole():
    assert [item.number for item in CLAIM] == [str(number) for number in range(1, 45)]
    numbers = [str(n) + letter for n in range(1, 28) for letter in "abcdefg"[: LETTERED.get(str(n), 0)] or [""]]
    assert [item.number for item in TRIPOD] == numbers and len(numbers) == 52


def test_items_point_to_parts_and_texts_that_there_are():
    for item in (*CLAIM, *TRIPOD):
        assert set(item.sections) <= {*TITLES_OF_PARTS, "dates", "origin", "readers", "by split"}
        assert set(item.texts) <= set(StudyConfig.model_fields)


def test_an_item_is_linked_where_it_stands_and_not_recorded_elsewhere():
    found = answers(there={"flow": ("r0-flow", "flow"), "written": ("r0-written", "in words")}, written=["ethics"])
    claim, tripod = ({answer.number: answer.places for answer in each} for each in found.values())
    assert claim["35"] == [("r0-flow", "flow")] and tripod["17"] == [("r0-written", "in words")]
    assert claim["1"] == [] and tripod["18a"] == []


def account(**changes) -> StudyAccount:
    flow = [("read", 100, 60, 40, {}), ("view is <b>", 80, 50, 35, {"view is <b>": 15, "view is AP": 5})]
    source = SourceAccount(
        name="hospital", title=None, citation=None, licence=None, origin=None, first_year=None, last_year=None,
        reference_by=None, reference_standard=None, labelled_by={},
        flow=[FlowStep(rule=rule, left=Left(images=i, studies=s, patients=p), reasons=why)
              for rule, i, s, p, why in flow],
    )  # fmt: skip
    kinds = {"both": 3, "pa_only": 2, "lateral_only": 0}
    left_out = {"studies": 7, "patients": 6}
    split = SplitAccount(patients=4, studies=5, availability=kinds, sex=None, age=None, taken=3)
    return StudyAccount(
        evaluated_on="2026-01-01", software="dualview", study={}, sources=[source],
        splits={"train": split, "test": split}, left_out_of_training=left_out, **changes,
    )  # fmt: skip


def evaluation(of: StudyAccount | None) -> SimpleNamespace:
    return SimpleNamespace(account=of, split="test", num_studies=2, num_patients=2, groups={})


def test_the_drawn_flow_says_what_each_rule_leaves_out():
    drawn = str(draw_flow(evaluation(account(studies_not_read=1, studies_with_a_view_not_read=1))))
    label = re.search(r'aria-label="([^"]*)"', drawn)[1]
    for said in (
        "hospital: read: 100 images, 60 studies, 40 patients",
        "left out: view is &lt;b&gt;: 20 images, 10 studies, 5 patients, 15: view is &lt;b&gt;, 5: view is AP",
        "used: 80 images, 50 studies, 35 patients",
        "left out of it by the settings: 7 studies, 6 patients",
        "2 lack a view that the network needs",
        "1 studies of which no image could be read",
        "1 of them without a view that could not be read",
    ):
        assert said in label, said
    assert "<b>" not in drawn and drawn.count("<svg") == 2
    assert draw_flow(evaluation(None)) is None


def test_the_split_that_is_judged_is_joined_to_what_was_evaluated_where_another_box_is_taller():
    drawn = str(draw_flow(evaluation(account())))
    wide = drawn[: drawn.index("</svg>")]
    box = re.search(r'<g class="judged"><rect x="[^"]*" y="([^"]*)" width="[^"]*" height="([^"]*)"', wide)
    ends = [float(y) for y in re.findall(r'<path d="M\S+ (\S+)L\S+ \S+"/>', wide)]
    assert any(abs(y - float(box[1]) - float(box[2])) <= 1 for y in ends)


def test_demographics_are_linked_where_somebody_has_a_sex_or_an_age_and_compared_between_splits_alone():
    parts = {"demographics": ("r0-demographics", "patients by split"), "sources": ("r0-sources", "data sets")}

    def found(of: StudyAccount) -> set[str]:
        places = dict(parts)
        return set(places | _of_sources(SimpleNamespace(evaluation=evaluation(of)), places)) & {
            "demographics",
            "by split",
        }

    nobody = account()
    with_sex = {name: replace(split, sex={"female": 4}) for name, split in nobody.splits.items()}
    assert found(nobody) == set()
    assert found(replace(nobody, splits=with_sex)) == {"demographics", "by split"}
    assert found(replace(nobody, splits={"test": with_sex["test"]})) == {"demographics"}


def record(*, thresholds: float) -> SimpleNamespace:
    probabilities = np.array([[0.9], [0.95], [0.2], [0.1], [0.45], [0.7]])
    predictions = SimpleNamespace(
        findings=("Mass",), study_ids=np.array([*"abcdef"]), patient_ids=np.array([*"ABCDEF"]),
        availability=np.array([0, 1, 0, 0, 0, 0]), label_mask=np.array([[True]] * 5 + [[False]]),
        positive=np.array([[False], [False], [True], [False], [True], [False]]),
    )  # fmt: skip
    return SimpleNamespace(
        predictions=predictions, findings=("Mass",), probabilities=lambda score: probabilities,
        points=SimpleNamespace(thresholds=lambda findings, route: np.full(1, thresholds)),
    )  # fmt: skip


def test_wrong_answers_are_those_furthest_from_the_threshold_and_name_nobody():
    found = wrong_answers(record(thresholds=0.5))
    assert [(one.number, one.at) for one in found] == [(1, 1), (2, 0), (3, 2), (4, 4)]
    np.testing.assert_allclose(found[0].margin, np.log(0.95 / 0.05))
    table = failure_table(record(thresholds=0.5))
    assert [row[0].text for row in table.rows] == ["study 1", "study 2", "study 3", "study 4"]
    assert [row[2].text for row in table.rows] == ["false alarm", "false alarm", "missed", "missed"]
    assert failure_table(record(thresholds=np.nan)) is None
