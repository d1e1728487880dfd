"""Views and availabilities: every name and every relation, against a table written by hand."""

import numpy as np
import pytest

from dualview.views import GROUPS, MASKINGS, ROUTES, TITLES, Availability, View, availability_of, without_view

BOTH, PA_ONLY, LATERAL_ONLY = Availability
HAND_WRITTEN = {
    # kind: key, title, view mask, without PA, without lateral
    BOTH: ("both", "both views", (True, True), LATERAL_ONLY, PA_ONLY),
    PA_ONLY: ("pa_only", "PA only", (True, False), PA_ONLY, PA_ONLY),
    LATERAL_ONLY: ("lateral_only", "lateral only", (False, True), LATERAL_ONLY, LATERAL_ONLY),
}


@pytest.mark.parametrize("kind", Availability)
def test_availability(kind):
    key, title, view_mask, without_pa, without_lateral = HAND_WRITTEN[kind]
    assert (kind.key, kind.title) == (key, title)
    assert Availability.of(view_mask) == kind
    assert tuple(view in kind.views for view in View) == view_mask
    assert kind.without(View.PA) == without_pa and kind.without(View.LATERAL) == without_lateral


def test_arrays_of_studies_agree_with_single_ones():
    masks = np.array([(True, True), (True, False), (False, True)])
    kinds = availability_of(masks)
    assert kinds.dtype == np.int8
    assert kinds.tolist() == [Availability.of(mask) for mask in masks]
    for view in View:
        assert without_view(kinds, view).tolist() == [kind.without(view) for kind in Availability]


def test_a_study_without_a_view_has_no_availability():
    with pytest.raises(ValueError, match="without a view"):
        Availability.of((False, False))


def test_views():
    assert [(view.key, view.title, view.hidden_key, view.other, view.alone) for view in View] == [
        ("pa", "PA", "pa_hidden", View.LATERAL, PA_ONLY),
        ("lateral", "lateral", "lateral_hidden", View.PA, LATERAL_ONLY),
    ]


def test_names_of_groups_on_disk_and_in_tables():
    assert ROUTES == ("both", "pa_only", "lateral_only")
    assert list(GROUPS) == ["all", "both", "pa_only", "lateral_only"]
    assert MASKINGS == ("both", "lateral_hidden", "pa_hidden")
    assert TITLES == {
        "all": "all studies", "both": "both views", "pa_only": "PA only", "lateral_only": "lateral only",
        "pa_hidden": "PA withheld", "lateral_hidden": "lateral withheld",
    }  # fmt: skip
