"""What several networks say together of the studies of a split, as one table of predictions."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dualview.config import ModelConfig
from dualview.data.table import StudyTable
from dualview.evaluation.prediction_table import SCORES, PredictionTable
from dualview.inference.ensemble import mean_of_members
from dualview.views import Availability, View, availability_of


class MemberTable(NamedTuple):
    """What one network says, which may judge some of the studies only and have findings in another order."""

    predictions: PredictionTable
    network: ModelConfig
    log_pos_weight: dict[str, float]  # finding -> what the loss has added to its logits


def together(tables: Sequence[MemberTable], *, studies: StudyTable) -> PredictionTable:
    """The studies that any member has judged, with the mean logits of the members and their spread.

    A study's answer, also with a view withheld, is the mean over the members that can give one by the views there are:
    of one that looks at PA alone the answer with the lateral withheld is its answer. The scores of heads are there
    where all members have them. From every logit the weight of positives is taken, so none is left to undo.

    Args:
        studies: of the split, with the findings of the result.
    """
    places = {key: row for row, key in enumerate(zip(studies.patient_ids, studies.study_ids, strict=True))}
    shape = studies.labels.shape
    view_mask = np.zeros((len(studies), len(View)), bool)
    logits: dict[str, list[np.ndarray]] = {score: [] for score in SCORES}
    for member in tables:
        own = member.predictions
        rows = np.array([places[key] for key in zip(own.patient_ids, own.study_ids, strict=True)], np.int64)
        for kind in Availability:
            view_mask[np.ix_(rows[own.evaluated & (own.availability == kind)], kind.views)] = True
        columns = [own.findings.index(finding) for finding in studies.findings]
        shift = np.array([member.log_pos_weight.get(finding, 0.0) for finding in studies.findings])
        for score in SCORES:
            of_score = np.full(shape, np.nan)
            of_score[rows] = _answers(member, score)[:, columns] - shift
            logits[score].append(of_score)
    evaluated: np.ndarray = np.asarray(view_mask.any(axis=1))
    availability = np.zeros(len(studies), np.int8)
    availability[evaluated] = availability_of(view_mask[evaluated])
    is_both = evaluated & (availability == Availability.BOTH)
    route = mean_of_members(logits["route"])
    combined = {score: np.mean(logits[score], axis=0) for score in ("joint", "pa", "lateral")}  # NaN where any is
    for view in View:
        combined[view.hidden_key] = mean_of_members(logits[view.hidden_key]).mean
        combined[view.hidden_key][~is_both] = np.nan
    whole = PredictionTable(
        findings=studies.findings,
        study_ids=studies.study_ids,
        patient_ids=studies.patient_ids,
        availability=availability,
        evaluated=evaluated,
        labels=studies.labels,
        label_mask=studies.label_mask,
        logits={"route": route.mean, **combined},
        attributes=studies.attributes,
        spread=route.spread,
    )
    judged = np.zeros(len(studies), bool)
    for member in tables:
        own = member.predictions
        judged[[places[key] for key in zip(own.patient_ids, own.study_ids, strict=True)]] = True
    return whole.select(np.flatnonzero(judged))


def _answers(member: MemberTable, score: str) -> np.ndarray:
    """(S, K) logits of a score; NaN where the network has none."""
    own, network = member.predictions, member.network
    for view in View:
        if score == view.hidden_key and network.views == (view.other,):
            return own.logits["route"]
    return own.logits[score]
