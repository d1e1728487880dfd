"""The table of views and of parts of the body: what DICOM's dictionaries, vendors and people call them."""

import pytest
from pydicom.sr import _cid_dict, _concepts_dict
from pydicom.sr._snomed_dict import mapping

from dualview.config import DataConfig
from dualview.data.sources.body_parts import body_part
from dualview.data.sources.dicom_views import (
    MODIFIER_CODES,
    VIEW_CODES,
    VIEWS_OF_A_CHEST,
    Code,
    branches,
    coded_view,
    named_view,
    position_view,
    view_of,
)
from dualview.errors import UserError
from dualview.views import View


def of_cid(cid):
    """SNOMED CT code -> meaning of a context group, from pydicom's copy of the standard."""
    return {
        code: meaning
        for name in _cid_dict.cid_concepts[cid]["SCT"]
        for code, (meaning, groups) in _concepts_dict.concepts["SCT"][name].items()
        if cid in groups
    }


def test_the_whole_of_cid_4010_is_known_by_both_codes():
    plain = {
        "postero-anterior": "PA", "antero-posterior": "AP", "frontal": "FRONTAL", "lateral": "LATERAL",
        "left lateral": "LATERAL", "right lateral": "LATERAL", "lateral-medial": "LATERAL", "medial-lateral": "LATERAL",
    }  # fmt: skip
    for code, meaning in of_cid(4010).items():
        legacy = mapping["SCT"][code]
        assert VIEW_CODES[code] == VIEW_CODES[legacy], meaning
        named = VIEW_CODES[code] if VIEW_CODES[code] in VIEWS_OF_A_CHEST else None
        assert named == plain.get(meaning), meaning
        if "oblique" in meaning:
            assert any(letters in VIEW_CODES[code] for letters in ("OBLIQUE", "AO", "PO")), meaning
    assert set(of_cid(4011)) | {"111069"} <= set(MODIFIER_CODES)


@pytest.mark.parametrize(
    ("view", "positions"),
    [
        ("PA", "PA PA_72_IN PA_WALL_STAND pa P.A. P_A p/a POSTEROANTERIOR POSTERO-ANTERIOR PA-ERECT PA2 CHEST_PA"),
        ("AP", "AP AP_CHEST_1V AP_TABLE AP_PEDIATRIC TRAUMA_AP A-P ANTEROPOSTERIOR AP_SUPINE AP.PORTABLE"),
        ("LATERAL", "LATERAL LAT LL RL L LAT_L L_LAT LARGE_LATERAL LLAT LT-LATERAL Latéral SEITLICH PROFIL"),
        ("LATERAL", "LATERO-LATERAL"),
        ("FRONTAL", "FRONTAL AP/PA"),
        ("LLD", "LLD AP_LLD LEFT_LATERAL_DECUBITUS"), ("RLD", "RLD PA_RLD"), ("DECUBITUS", "LATERAL_DECUBITUS"),
        ("LAO", "LAO"), ("OBLIQUE", "OBLIQUE PA_OBLIQUE LATERAL_OBLIQUE"), ("LORDOTIC", "LORDOTIC AP_LORDOTIC"),
        ("SWIMMERS", "SWIMMERS"), ("XTABLE", "XTABLE_LATERAL X-TABLE CROSS-TABLE_LAT"), ("AXIAL", "AP_AXIAL"),
        ("", "UNKNOWN N/A ERECT"),
        ("AP ODONTOID", "ap_odontoid"),  # a word that nobody knows: another view, under its own name
        ("PA/LAT", "PA/LAT"),
    ],
)  # fmt: skip
def test_written_out_view_positions(view, positions):
    for position in positions.split():
        said = position.replace("_", " ") if position.count("_") else position
        assert position_view(said) == view, said


@pytest.mark.parametrize(
    ("view", "descriptions"),
    [
        ("PA", ["p.a.", "CHEST_PA", "Thorax p.a. stehend", "CHEST,PA", "ChestPA", "thorax p a", "后前位胸片"]),
        ("AP", ["XR CHEST 1V AP", "chest a.p. bed", "Antero-posterior"]),
        ("LATERAL", ["Chest lat", "Thorax seitl.", "thorax de profil", "CHEST_LAT", "WCHEST Lat.", "胸部側面"]),
        ("FRONTAL", ["Thorax face", "胸部正位"]),
        ("LLD", ["Chest AP LLD", "left lateral decubitus"]),
        ("XTABLE", ["cross-table lateral"]), ("OBLIQUE", ["Thorax schräg", "PA oblique"]),
        ("", ["Chest", "PA AND LATERAL", "CHEST 2 VIEWS PA+LAT", "spa", "latissimus", "bilateral", "apart", ""]),
        ("", ["LATERALITY R"]),
    ],
)  # fmt: skip
def test_words_of_descriptions(view, descriptions):
    for description in descriptions:
        assert named_view(description) == view, description


@pytest.mark.parametrize(
    ("position", "codes", "description", "view", "remark"),
    [
        ("PA", [], "", "PA", ""), ("LL", [], "", "LATERAL", ""), ("LLD", [], "Lateral", "LLD", ""),
        ("", ["399067008"], "Chest PA", "LATERAL", "say frontal and lateral; ViewCodeSequence is taken"),
        ("", ["399348003"], "Chest lat", "AP", "say frontal and lateral; ViewCodeSequence is taken"),
        ("AP", [], "LATERAL", "AP", "say frontal and lateral; ViewPosition is taken"),
        ("PA", ["399348003"], "", "PA", "say PA and AP; ViewPosition is taken"),
        ("", ["R-10206"], "", "AP", ""), ("", ["unheard"], "Chest pa", "PA", ""),
        ("", [], "Thorax lat.", "LATERAL", ""), ("", [], "CHEST PA AND LAT", "", ""), ("", [], "Chest", "", ""),
        ("AP", [], "Chest AP LLD", "LLD", ""), ("LATERAL", ["399356000"], "", "RAO", ""),
    ],
)  # fmt: skip
def test_view_from_position_then_codes_then_words(position, codes, description, view, remark):
    said = view_of(position, codes=[Code(code) for code in codes], descriptions=[description])
    assert said.view == view
    assert said.remark.endswith(remark) and bool(said.remark) == bool(remark)


def test_modifiers_and_the_position_of_the_patient_make_another_view():
    lateral, ap = "399067008", "399348003"
    assert coded_view([Code(lateral, "lateral", (Code("111069", "Cross-table"),))]) == "XTABLE"
    assert coded_view([Code(ap, "", (Code("399285008", "Holmblad"),))]) == "HOLMBLAD"
    assert coded_view([Code(ap, "", (Code("x", "erect"),))]) == "AP"
    left_side = Code("102538003", "recumbent", (Code("102536004", "left lateral decubitus"),))
    supine = Code("102538003", "recumbent", (Code("40199007", "supine"),))
    assert coded_view([Code(ap)], orientation=[left_side]) == "LLD"
    assert coded_view([Code(ap)], orientation=[supine]) == "AP"
    assert coded_view([Code("L1", "Left lateral projection")]) == "LATERAL"  # a code of the hospital's own


def of(settings):
    views = branches(DataConfig.model_validate({"root": ".", "findings": ["A"], **settings}))
    return lambda view, own="": views.of(view, own=own)


def test_views_take_the_branches_of_the_configuration():
    default = of({"source": "dicom"})
    assert [default(view) for view in ("PA", "AP", "FRONTAL", "LATERAL", "LLD", "")] == [0, 0, 0, 1, None, None]
    pa_only = of({"source": "dicom", "frontal_views": ["PA"]})
    assert [pa_only(view) for view in ("PA", "AP", "FRONTAL", "LATERAL")] == [View.PA, None, None, View.LATERAL]
    ignoring = of({"source": "dicom", "ignored_views": ["AP"]})
    assert [ignoring(view) for view in ("PA", "AP", "FRONTAL")] == [View.PA, None, None]
    own_names = of({"source": "dicom", "frontal_views": ["PA", "AP ODONTOID"], "ignored_views": ["AP Supine"]})
    assert own_names("AP ODONTOID", own="AP ODONTOID") == View.PA and own_names("AP", own="AP SUPINE") is None
    of_a_table = of({"source": "csv", "csv": "a.csv", "frontal_views": ["Frontal"], "lateral_views": ["Lateral"]})
    assert [of_a_table(view) for view in ("PA", "AP", "LATERAL")] == [View.PA, View.PA, View.LATERAL]
    numbers = of({"source": "csv", "csv": "a.csv", "frontal_views": ["0"], "lateral_views": ["1"]})
    assert [numbers(view) for view in ("PA", "AP", "LATERAL")] == [View.PA, View.PA, View.LATERAL]
    with pytest.raises(UserError, match=r"\['LATERAL'\] stand in both"):
        of({"source": "dicom", "frontal_views": ["PA", "lateral"]})


CHESTS = [
    "CHEST",
    "Thorax",
    "THX",
    "TORAX",
    "POUMON",
    "LUNG",
    "CHEST/ABDOMEN",
    "CHESTABDPELVIS",
    "PORT CHEST",
    "胸部",
    "RIBS CHEST",
]
OTHERS = [
    "CSPINE",
    "C-SPINE",
    "TSPINE",
    "THORACIC SPINE",
    "THORACICSPINE",
    "THORACOLUMBAR",
    "HWS",
    "KNEE",
    "HAND",
    "SKULL",
    "ABDOMEN",
    "RIB",
    "BREAST",
    "PHANTOM",
    "XYZ",
]


def test_values_of_body_part_examined():
    assert [part for part in CHESTS if body_part(part).reason] == []
    assert [body_part(part).reason for part in OTHERS] == [f"body part is {part}" for part in OTHERS]
    assert body_part("XYZ", chests=["xyz"]).reason == "" == body_part("XYZ", descriptions=["Chest PA"]).reason
    for blank in ("", "UNKNOWN", "OTHER"):
        assert body_part(blank).reason == ""
        assert (
            body_part(blank, descriptions=["AP", "Knie links"]).reason
            == "the description names another body part (leg)"
        )


def test_where_body_part_examined_is_blank_codes_and_descriptions_say_it():
    def reason(*descriptions, regions=()):
        return body_part("", regions=regions, descriptions=descriptions).reason

    other = "the description names another body part"
    for text, part in {
        "Halswirbelsäule seitlich": "spine", "HWS ap": "spine", "c-spine lat": "spine", "Genou droit face": "leg",
        "left hand AP": "arm", "Acute abdominal series": "abdomen", "cráneo": "head", "Becken": "pelvis",
        "膝関節": "leg", "Колено": "leg", "Lower extremity AP": "limb", "AC joints": "shoulder",
        "Barium swallow": "abdomen", "Adenoids lat": "neck", "Nasopharynx": "neck", "Panorex": "head",
        "TSP lat": "spine",
    }.items():  # fmt: skip
        assert reason(text) == f"{other} ({part})", text
    for text in (
        "Chest PA",
        "Rx Torax",
        "W Thorax lat.",
        "Thorax Rippen",
        "PA",
        "Sacred Heart Hospital",
        "main",
        "Chest for nasogastric tube",
    ):
        assert reason(text) == "", text
    assert reason("Chest PA", "ABDOMEN SERIES") == "", "the description of the series comes before that of the study"
    assert reason("XR CHEST AND C-SPINE") == "the description names the chest and spine"
    assert reason("Chest", regions=[Code("72696002", "Knee")]) == "AnatomicRegionSequence names another body part (leg)"
    assert reason("Knee", regions=[Code("816094009", "")]) == ""
    for description in ("C-SPINE LAT", "Abdomen AP"):
        said = body_part("CHEST", descriptions=[description])
        assert said.reason == "" and "taken for a chest" in said.remark
    assert body_part("CHEST", descriptions=["Ribs"]) == ("", "")


def test_a_region_that_no_table_knows_is_another_part():
    def reason(*regions, description=""):
        return body_part("", regions=[Code(*region) for region in regions], descriptions=[description]).reason

    assert reason(("89545001", "Face")) == "AnatomicRegionSequence names Face"
    assert reason(("T-11500", "")) == "AnatomicRegionSequence names T-11500"
    assert reason(("38266002", "Entire body")) == reason(("", "")) == reason() == ""
    assert reason(("H1", "Standard"), description="Chest PA") == ""
