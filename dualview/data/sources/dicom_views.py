"""What DICOM tags, descriptions and names of files call the views of a chest: one table for training and prediction.

The names in use here are PA, AP, FRONTAL (one of the two), LATERAL, and those of views that are neither, such as LAO,
LLD or LORDOTIC: oblique, decubitus, lordotic, axial, swimmer's and cross-table views show other anatomy, or another
distribution of fluid and air. These are left out unless the configuration puts them into a list of views.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dualview.config import SourceConfig
from dualview.errors import UserError
from dualview.views import View

FRONTAL, LATERAL = ("PA", "AP", "FRONTAL"), ("LATERAL",)
VIEWS_OF_A_CHEST = frozenset((*FRONTAL, *LATERAL))
# DICOM PS3.16, CID 4010 "DX View", by SNOMED CT and by the SNOMED RT codes of older files.
VIEW_CODES = {
    "272479007": "PA", "R-40888": "PA", "R-10214": "PA",
    "399348003": "AP", "272460009": "AP", "R-10206": "AP",
    "399033003": "FRONTAL", "R-10202": "FRONTAL",
    "399067008": "LATERAL", "R-102CD": "LATERAL", "399198007": "LATERAL", "R-10232": "LATERAL",
    "399173006": "LATERAL", "R-10236": "LATERAL", "399352003": "LATERAL", "R-10228": "LATERAL",
    "399260004": "LATERAL", "R-10224": "LATERAL",
    "399135007": "LAO", "R-10220": "LAO", "399356000": "RAO", "R-40985": "RAO", "R-10218": "RAO",
    "399006002": "LPO", "R-10212": "LPO", "399038007": "RPO", "R-10210": "RPO",
    "399059000": "PA OBLIQUE", "R-10216": "PA OBLIQUE", "399312000": "AP OBLIQUE", "R-10208": "AP OBLIQUE",
    "399160007": "OBLIQUE", "R-10204": "OBLIQUE", "399182000": "OBLIQUE", "R-102C1": "OBLIQUE",
    "399236003": "OBLIQUE", "R-10234": "OBLIQUE", "399184004": "OBLIQUE", "R-10238": "OBLIQUE",
    "260427002": "OBLIQUE", "R-40783": "OBLIQUE", "260426006": "OBLIQUE", "R-40782": "OBLIQUE",
    "399368009": "OBLIQUE", "R-10226": "OBLIQUE", "399099002": "OBLIQUE", "R-10230": "OBLIQUE",
    "399225005": "OBLIQUE", "R-10250": "OBLIQUE", "399288005": "OBLIQUE", "R-10248": "OBLIQUE",
    "399132005": "OBLIQUE", "R-10252": "OBLIQUE", "399325008": "OBLIQUE", "R-10254": "OBLIQUE",
    "399004004": "OBLIQUE", "R-10246": "OBLIQUE",
    "30730003": "SAGITTAL", "G-A145": "SAGITTAL", "R-10222": "SAGITTAL", "399061009": "AXIAL", "R-10241": "AXIAL",
    "399162004": "CRANIO-CAUDAL", "R-10242": "CRANIO-CAUDAL", "399196006": "CAUDO-CRANIAL", "R-10244": "CAUDO-CRANIAL",
    "399110001": "TANGENTIAL", "R-102C2": "TANGENTIAL", "260499007": "OCCLUSAL", "R-40810": "OCCLUSAL",
    "399335002": "DORSOPLANTAR", "R-102C4": "DORSOPLANTAR", "399071006": "PLANTODORSAL", "R-102C3": "PLANTODORSAL",
    "399272005": "PARIETOACANTHIAL", "R-102C5": "PARIETOACANTHIAL", "399242004": "ACANTHIOPARIETAL",
    "R-102C6": "ACANTHIOPARIETAL", "399351005": "ORBITOPARIETAL", "R-102C7": "ORBITOPARIETAL",
    "399316002": "PARIETO-ORBITAL", "R-102C8": "PARIETO-ORBITAL", "399255003": "SUBMENTOVERTICAL",
    "R-10256": "SUBMENTOVERTICAL", "399360002": "VERTICOSUBMENTAL", "R-10257": "VERTICOSUBMENTAL",
    "119376003": "TISSUE SPECIMEN", "G-8300": "TISSUE SPECIMEN",
}  # fmt: skip
# What makes a view another one: CID 4011 "DX View Modifier", and of CID 20, the patient's position, what matters.
MODIFIER_CODES = {
    "111069": "XTABLE", "399162004": "AXIAL", "R-10242": "AXIAL", "399196006": "AXIAL", "R-10244": "AXIAL",
    "118438002": "TRANSORAL", "G-D00B": "TRANSORAL", "272466003": "TRANSFORAMENAL", "R-4087B": "TRANSFORAMENAL",
    "272476000": "TRANSTHORACIC", "R-40885": "TRANSTHORACIC", "278318001": "TRANSORBITAL", "R-40554": "TRANSORBITAL",
    "286866000": "MOUTH CLOSED", "R-421A4": "MOUTH CLOSED", "32185000": "DECUBITUS", "F-10318": "DECUBITUS",
    "102536004": "LLD", "F-10319": "LLD", "102535000": "RLD", "F-10317": "RLD", "260450008": "LORDOTIC",
    "R-40799": "LORDOTIC",
}  # fmt: skip
# Words, as `words_of` gives them, that mean a view; of English, German, French, Spanish, Italian, Dutch, Polish.
WORDS = {
    "PA": r"PA|POSTERO\w*ANT\w*|POSTANT|DORSOVENTRAL\w*",
    "AP": r"AP|ANTERO\w*POST\w*|ANTPOST|VENTRODORSAL\w*",
    "FRONTAL": r"FRONTAL\w*|FRONT|FRENTE|FACE|CORONAL",
    "LATERAL": r"LAT|LATS|LATERAL(?!IT)\w*|LATERAAL|LATEROLATERAL\w*|LL|RL|LLAT|RLAT|LATL|LATR|SEITL|SEITLICH\w*|"
    r"PROFIL\w*|PERFIL|ZIJDELINGS\w*|BOCZN\w*|SIDOBILD",
    "LLD": r"LLD|LLDEC\w*", "RLD": r"RLD|RLDEC\w*", "DECUBITUS": r"DECUB\w*",
    "LAO": r"LAO", "RAO": r"RAO", "LPO": r"LPO", "RPO": r"RPO", "LLO": r"LLO", "RLO": r"RLO",
    "OBLIQUE": r"OBL|OBLI\w+|SCHRAG\w*|SCHRAEG\w*|SKOSN\w*",
    "LORDOTIC": r"LORDO\w*|APICAL\w*|APEX|APICES", "SWIMMERS": r"SWIMMER\w*", "XTABLE": r"XTABLE|CROSSTABLE|XTBL",
    "AXIAL": r"AXIAL\w*", "TANGENTIAL": r"TANGENTIAL\w*", "TRANSTHORACIC": r"TRANSTHORA\w*",
}  # fmt: skip
# Parts of words of scripts in which a view is told within a longer word: Chinese, Japanese, Korean, Russian.
PARTS = {"FRONTAL": ("正位", "正面", "정면", "ПРЯМ"), "PA": ("后前", "後前"), "AP": ("前后", "前後"),
         "LATERAL": ("侧位", "側位", "侧面", "側面", "측면", "БОКОВ"), "OBLIQUE": ("斜位",)}  # fmt: skip
# Words that leave a view what it is.
QUALIFIERS = frozenset({
    "L", "R", "LT", "RT", "LEFT", "RIGHT", "LARGE", "SMALL", "ERECT", "UPRIGHT", "STANDING", "SITTING", "SEATED",
    "SUPINE", "PRONE", "SEMI", "SEMIERECT", "RECUMBENT", "LYING", "STEHEND", "LIEGEND", "SITZEND", "PORTABLE", "PORT",
    "MOBILE", "BED", "BEDSIDE", "CHEST", "THORAX", "TORAX", "THX", "CXR", "GRID", "NON", "NONGRID", "VIEW",
    "PROJECTION", "WALL", "STAND", "TABLE", "BUCKY", "STRETCHER", "CART", "IN", "INCH", "CM", "SID", "V", "VW", "VIEWS",
    "PEDIATRIC", "PED", "PEDS", "ADULT", "INFANT", "TRAUMA", "ICU", "INSP", "INSPIRATION",
    "EXP", "EXPIRATION", "DIGITAL", "PLUS",
    "XR", "CR", "DX", "DR", "RX", "X", "RAY", "TORACE", "LUNG", "LUNGS",
})  # fmt: skip
SAYS_NOTHING = frozenset(
    {"UNKNOWN", "UNK", "UNDEFINED", "UNSPECIFIED", "NONE", "OTHER", "NA", "NAN", "NULL", "DEFAULT"}
)
_SPECIAL_PAIRS = (
    (r"\bP A\b", "PA"), (r"\bA P\b", "AP"), (r"\bL L\b", "LL"), (r"\b(X|CROSS) TABLE\b", "XTABLE"),
    (r"\bPOST(ER\w+)?( TO)? ANT(ER\w+)?\b", "PA"), (r"\bANT(ER\w+)?( TO)? POST(ER\w+)?\b", "AP"),
    (r"\b(LEFT|LT|L) LAT\w* DECUB\w*", "LLD"), (r"\b(RIGHT|RT|R) LAT\w* DECUB\w*", "RLD"),
    (r"\b(LAT\w* DECUB|DECUB\w* LAT)\w*", "DECUBITUS"), (r"\b(LAT\w* OBL|OBL\w* LAT)\w*", "OBLIQUE"),
    (r"\bLAT\w* (LL|RL|LLAT|RLAT)\b", "LATERAL"), (r"\bLATERO LAT\w*", "LATERAL"), (r"\b(AC|SC) JOINTS?\b", r"\1J"),
    (r"\b(CHEST|THORAX|TORAX|THX)(PA|AP|LAT|LATERAL|LL)\b", r"\1 \2"),
    (r"\b(XTABLE LAT|LAT\w* XTABLE)\w*", "XTABLE"), (r"\bHORIZONTAL BEAM LAT\w*", "XTABLE"),
)  # fmt: skip
_JOINED = [(re.compile(pattern), written) for pattern, written in _SPECIAL_PAIRS]
_WORDS = [(name, re.compile(pattern)) for name, pattern in WORDS.items()]


class Code(NamedTuple):
    """An item of a sequence of codes."""

    value: str
    meaning: str = ""
    modifiers: tuple["Code", ...] = ()


class SaidView(NamedTuple):
    """What a file says of its view."""

    view: str  # name of the table, or the file's own of a view that the table does not know; blank: it says nothing
    own: str = ""  # ViewPosition in capitals, where nothing makes another view of it
    remark: str = ""  # contradiction between what the file says in two places


def words_of(text: str) -> list[str]:
    """Words in capitals, without accents and points: "Chest_p.a." gives CHEST and PA."""
    letters = unicodedata.normalize("NFKD", text)
    letters = "".join(letter for letter in letters if not unicodedata.combining(letter))
    letters = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", letters).upper()
    letters = re.sub(r"(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])", " ", letters)
    spaced = " ".join(re.sub(r"[\W_]+", " ", letters).split())
    for pattern, written in _JOINED:
        spaced = pattern.sub(written, spaced)
    return spaced.split()


def _meaning(word: str) -> str:
    """The view that a word means; blank where it means none."""
    for name, pattern in _WORDS:
        if pattern.fullmatch(word):
            return name
    return next((name for name, parts in PARTS.items() if any(_normal(part) in word for part in parts)), "")


def _normal(part: str) -> str:
    return unicodedata.normalize("NFKD", part)


def named_view(text: str) -> str:
    """The one view that a description names; blank where it names none, or a frontal and a lateral one."""
    return _one_of({meaning for word in words_of(text) if (meaning := _meaning(word))})


def _one_of(named: Collection[str]) -> str:
    """One view of those named for an image: the one that is neither frontal nor lateral comes first."""
    plain = [name for name in (*FRONTAL, *LATERAL) if name in named]
    if "LATERAL" in plain and len(plain) > 1:
        return ""
    if special := sorted(set(named) - VIEWS_OF_A_CHEST):
        return special[0]
    if {"PA", "AP"} <= set(plain):
        return "FRONTAL"
    return plain[0] if plain else ""


def position_view(position: str) -> str:
    """The view behind a value of ViewPosition, such as "LAT L" or "AP SUPINE".

    A value with a word that the table does not know is returned as it is, in capitals: it is another view.
    """
    own = " ".join(position.upper().split())
    words = words_of(position)
    if own == "L":
        return "LATERAL"
    if not words or set(words) <= SAYS_NOTHING or "".join(words) in SAYS_NOTHING:
        return ""
    is_known = all(_meaning(word) or word in QUALIFIERS or word.isdigit() for word in words)
    named = [word for word in words if _meaning(word)]
    if is_known and not named:
        return ""  # How the patient stood says nothing of the view.
    return (named_view(position) if is_known else "") or own


def coded_view(codes: Sequence[Code], *, orientation: Sequence[Code] = ()) -> str:
    """The view of ViewCodeSequence with its modifiers, and the patient's position where that makes another view of it.

    Args:
        codes: of ViewCodeSequence, its ViewModifierCodeSequence as their modifiers.
        orientation: of PatientOrientationCodeSequence, likewise.
    """
    named = {VIEW_CODES.get(code.value) or named_view(code.meaning) for code in codes}
    for modifier in (modifier for code in codes for modifier in code.modifiers):
        is_known = all(word in QUALIFIERS for word in words_of(modifier.meaning))
        named.add(_modifier(modifier) or ("" if is_known else modifier.meaning.upper()))
    named |= {_modifier(modifier) for code in orientation for modifier in (code, *code.modifiers)}
    return _one_of(named - {""})


def _modifier(code: Code) -> str:
    """The view that a modifier makes of any view; blank where it leaves it."""
    named = MODIFIER_CODES.get(code.value) or named_view(code.meaning)
    return "" if named in VIEWS_OF_A_CHEST else named


def view_of(
    position: str, *, codes: Sequence[Code] = (), orientation: Sequence[Code] = (), descriptions: Sequence[str] = ()
) -> SaidView:
    """What ViewPosition says; where that is blank the codes; then the first description that names one view.

    A PA, AP or lateral image of which the codes or the description say that it is oblique or the like is that.

    Args:
        position: ViewPosition (0018,5101).
        codes, orientation: see `coded_view`.
        descriptions: of the series, the most exact first.
    """
    described = next((view for view in map(named_view, descriptions) if view), "")
    own = " ".join(position.upper().split())
    said = {
        "ViewPosition": position_view(position),
        "ViewCodeSequence": coded_view(codes, orientation=orientation),
        "the description": described,
    }
    there = [(where, view) for where, view in said.items() if view]
    if not there:
        return SaidView("", own)
    where, view = there[0]
    if view not in VIEWS_OF_A_CHEST:
        return SaidView(view, own)
    for other, other_view in there[1:]:
        if other_view not in VIEWS_OF_A_CHEST:
            return SaidView(other_view)  # What ViewPosition says is not all, so its own name does not count.
        if {view, other_view} == {"PA", "AP"}:
            return SaidView(view, own, f"{where} and {other} say PA and AP; {where} is taken")
        if (view in LATERAL) != (other_view in LATERAL):
            return SaidView(view, own, f"{where} and {other} say frontal and lateral; {where} is taken")
    return SaidView(view, own)


@dataclass(frozen=True, kw_only=True)
class Branches:
    """Which views take which branch."""

    view_of_name: dict[str, View]  # name -> branch
    ignored: frozenset[str]

    def of(self, view: str, *, own: str = "") -> View | None:
        """The branch of a view by its name, or by the file's own name for it; None: of neither."""
        if own in self.ignored or view in self.ignored:
            return None
        return self.view_of_name.get(own, self.view_of_name.get(view))


def branch_of(of_views: Iterable[Branches], *, view: str, own: str = "") -> View | None:
    """The branch of a view by the first of several settings that know it; arguments as of `Branches.of`."""
    return next((branch for each in of_views if (branch := each.of(view, own=own)) is not None), None)


def branches(source: SourceConfig) -> Branches:
    """The branches of `data.frontal_views`, `lateral_views` and `ignored_views`.

    Their names are those of the table here, or values of ViewPosition. Of another data set they are the names in its
    own table: where this one knows none of a list, the defaults hold.

    Raises:
        UserError: a view stands in two of the lists.
    """
    ignored = _names(source.ignored_views)
    lists = []
    for names, default in ((source.frontal_views, FRONTAL), (source.lateral_views, LATERAL)):
        wanted = _names(names or ())
        if "FRONTAL" in wanted:
            wanted |= set(FRONTAL)
        if {"PA", "AP"} <= wanted:
            wanted.add("FRONTAL")
        means_something = source.source == "dicom" or wanted & VIEWS_OF_A_CHEST
        # FRONTAL may be either, so it takes the branch only where both do.
        unwanted = ignored | {"FRONTAL"} if ignored & {"PA", "AP"} else ignored
        lists.append(wanted if names is not None and means_something else set(default) - unwanted)
    if shared := sorted(lists[0] & lists[1]):
        raise UserError(f"{shared} stand in both data.frontal_views and data.lateral_views; put each view in one")
    view_of_name = dict.fromkeys(lists[0], View.PA) | dict.fromkeys(lists[1], View.LATERAL)
    return Branches(view_of_name=view_of_name, ignored=frozenset(ignored))


def _names(names: Sequence[str]) -> set[str]:
    """Names in capitals, and what they mean where nothing beside the view is said."""
    meant = set()
    for name in names:
        own = " ".join(name.upper().split())
        meant.add(own)
        words = words_of(name)
        if own == "L" or (words and all(map(_meaning, words))):
            meant.add(position_view(name))
    return meant
