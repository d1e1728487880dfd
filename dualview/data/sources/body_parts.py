"""Whether a DICOM file shows a chest, by what it says of the part of the body.

BodyPartExamined (0018,0015) comes first; where it is blank or says nothing the codes of AnatomicRegionSequence
(0008,2218), then the descriptions. A file that says nothing at all is taken for a chest, as the folder was given as
one of chests. A value of BodyPartExamined that no table knows is another body part, unless the configuration names it
(`data.body_parts`), or a code or description says that it is the chest; so is a region that no table knows.
"""

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from dualview.data.sources.dicom_views import SAYS_NOTHING, Code, words_of

CHEST = "chest"
CHEST_CODES = frozenset({"816094009", "51185008", "T-D3000", "39607008", "T-28000", "43799004"})
# Words, as `words_of` gives them, that name a part: English, German, French, Spanish, Italian, Dutch, Polish and more.
PART_WORDS = {
    CHEST: r"\w*CHEST\w*|CXR|THORA\w*|HEMITHORAX|THX|TORA[XCK]\w*|LUNGS?|LUNGE\w*|PULM\w*|POUMONS?|POLMON\w*|LONGEN|"
    r"BRUSTKORB|BRYSTKASSE|KLATK\w*|PLUC\w*|HRUDN\w*|MELLKAS|GOGUS|AKCIGER|HEART|PECHO",
    "spine": r"\w*SPINES?|SPIN(AL|E)\w*|[CTL]SP|CERVIC\w*|ZERVIK\w*|(THORACO|DORSO)?LUMB\w*|SACRUM|SACRAL\w*|SACRO\w*|"
    r"SAKR\w*|COCCY\w*|VERTEBR\w*|(HALS|BRUST|LENDEN)?WIRBEL\w*|[HBL]WS|LENDEN\w*|RACHIS|COLUMNA|COLONN[AE]|COLUNA|"
    r"WERVEL\w*|KREGOSLUP\w*|ODONTOID|SCOLIOS\w*|SKOLIOSE",
    "head": r"SKULL|HEAD|CRANI\w*|KRANI\w*|SCHADEL|SCHAEDEL|KOPF|CRANE|CRANEO|CRANIO|CZASZK\w*|SCHEDEL|FACIAL|SINUSES|"
    r"PARANASAL|NASENN\w*|NNH|ORBITS?|ORBITA\w*|MANDIB\w*|JAW|KIEFER|NASAL|DENTAL|TEETH|TMJ|MASTOID\w*|ZYGOM\w*|OPG|"
    r"PANOREX|PANTOMO\w*|MAXILL\w*|SELLA|NOSE|TOOTH|ZAHN\w*|ZAEHNE",
    "neck": r"NECK|HALS|CUELLO|COLLO|LARYN\w*|\w*PHARYN\w*|ADENOID\w*|AIRWAY",
    "shoulder": r"SHOULDERS?|SCHULTER\w*|EPAULES?|HOMBROS?|OMBRO|SPALLA|SCHOUDER|CLAVI\w*|KLAVIK\w*|SCAPUL\w*|"
    r"SCHLUSSELBEIN|OMOPLAT\w*|ACROMIO\w*|STERNOCLAV\w*|ACJ|SCJ|AXILLA\w*",
    "arm": r"ARM|FOREARMS?|HUMERUS|OBERARM|UNTERARM|ELBOWS?|ELLENBOGEN|COUDES?|CODOS?|GOMITO|ELLEBOOG|RADIUS|ULNA|"
    r"WRISTS?|HANDGELENK|POIGNETS?|MUNECA|POLSO|POLS|HANDS?|HANDE|MANOS?|RE[KC][AE]|FINGERS?|DOIGTS?|DEDOS?|THUMBS?|DAUMEN|"
    r"SCAPHOID\w*|CARP(AL|US)",
    "leg": r"LEGS?|HIPS?|HUFTE\w*|HUEFT\w*|HUFTGELENK|HANCHES?|CADERAS?|ANCA|HEUP|FEMUR\w*|FEMORA\w*|THIGHS?|KNEES?|"
    r"KNIE\w*|GENOUX?|RODILLAS?|GINOCCHI\w*|JOELHOS?|KOLAN\w*|TIBIA\w*|FIBULA\w*|PATELLA\w*|ANKLES?|SPRUNGGELENK|OSG|CHEVILLES?|"
    r"TOBILLOS?|CAVIGLI\w*|ENKEL|FOOT|FEET|FUSS|PIEDS?|PIES?|PIEDE|VOET\w*|STOPA|TOES?|ZEHEN?|CALCAN\w*|HEEL|FERSE|"
    r"UNTERSCHENKEL|OBERSCHENKEL|TARSAL\w*|METATARS\w*",
    "limb": r"EXTREMIT\w*|[UL]XTREMITY|[UL]EXT|LIMBS?",
    "pelvis": r"PELV\w*|BECKEN|BASSIN|BACINO|BEKKEN|MIEDNIC\w*|ILIUM|SACROILIAC\w*",
    "abdomen": r"ABD|ABDO\w*|ABDOM\w*|ABDPELV\w*|KUB|BAUCH|VENTRE|ADDOME\w*|BUIK|BRZUCH\w*|STOMACH|BOWEL|COLON|"
    r"KIDNEYS?|RENAL|BLADDER|URETER|O?ESOPHAG\w*|BARIUM|SWALLOW|UGI",
    "breast": r"BREASTS?|MAMM\w*",
    "ribs": r"RIBS?|RIPPEN?|COTES|COSTILLAS?|COSTAL\w*|COSTE|RIBBEN|ZEBRA",
    "sternum": r"STERNUM|STERNAL|BRUSTBEIN",
    "phantom": r"PHANTOMS?|PHANTOMA|SPECIMENS?|DETECTOR|CALIBRATION|KALIBRIERUNG",
}  # fmt: skip
# Parts of words of scripts in which a part of the body is told within a longer word.
LETTERS = {
    CHEST: ("胸", "肺", "흉부", "ГРУД", "ОГК", "ЛЕГК"),
    "spine": ("椎", "척추", "ПОЗВОН"),
    "head": ("头", "頭", "颅", "ЧЕРЕП"),
    "shoulder": ("肩", "ПЛЕЧ"),
    "arm": ("手", "肘", "腕", "КИСТ", "ЛОКТ"),
    "leg": ("膝", "足", "髋", "股", "КОЛЕН", "СТОП"),
    "pelvis": ("骨盆", "骨盤"),
    "abdomen": ("腹", "복부", "ЖИВОТ"),
}
BONES = frozenset({"ribs", "sternum"})  # parts of the chest
BESIDE = BONES | {"abdomen"}  # parts that an image of the chest is taken together with
# Values of BodyPartExamined that name no part.
NO_PART = SAYS_NOTHING | frozenset({
    "BODY", "WHOLEBODY", "WHOLE", "ENTIRE", "ANY", "MISC", "PATIENT", "PORTABLE", "XRAY", "X", "RAY", "RADIOGRAPHY",
    "TRUNK",
})  # fmt: skip
CONTRADICTION = "BodyPartExamined says chest and the description another part; taken for a chest"
_PART_WORDS = [(part, re.compile(pattern)) for part, pattern in PART_WORDS.items()]


class SaidPart(NamedTuple):
    """What a file says of the part of the body."""

    reason: str = ""  # why it is left out; blank: it may be a chest
    remark: str = ""  # contradiction between what it says in two places


def parts_named(text: str) -> set[str]:
    """The parts of the body that a text names, of the keys of `PART_WORDS`."""
    parts = set()
    for word in words_of(text):
        parts |= {part for part, pattern in _PART_WORDS if pattern.fullmatch(word)}
        parts |= {part for part, letters in LETTERS.items() if any(words_of(each)[0] in word for each in letters)}
    return parts


def is_chest(parts: Collection[str]) -> bool:
    """Whether parts named together are the chest, alone or with a neighbour that fits on one image."""
    return CHEST in parts and set(parts) <= BESIDE | {CHEST}


def body_part(
    examined: str, *, regions: Sequence[Code] = (), descriptions: Sequence[str] = (), chests: Sequence[str] = ()
) -> SaidPart:
    """Whether a file may show a chest.

    Args:
        examined: BodyPartExamined.
        regions: codes of AnatomicRegionSequence.
        descriptions: the most exact first; the first that names a part counts.
        chests: further values of BodyPartExamined that are the chest (`data.body_parts`).
    """
    own = " ".join(examined.upper().split())
    is_chosen = own != "" and own in {" ".join(name.upper().split()) for name in chests}
    parts = {CHEST} if is_chosen else parts_named(examined)
    described = next((parts for parts in map(parts_named, descriptions) if parts), set[str]())
    if parts and not is_chest(parts):
        return SaidPart(f"body part is {own}")
    if parts:
        contradicts = not is_chosen and described and CHEST not in described and not described <= BONES
        return SaidPart("", CONTRADICTION if contradicts else "")
    coded = set[str]().union(*(_coded(region) for region in regions))
    where, parts = ("AnatomicRegionSequence", coded) if coded else ("the description", described)
    if not parts:
        if not _names_no_part(own):
            return SaidPart(f"body part is {own}")
        strange = next((name for code in regions if not _names_no_part(name := code.meaning or code.value)), "")
        return SaidPart(f"AnatomicRegionSequence names {strange}" if strange else "")
    others = ", ".join(sorted(parts - {CHEST}))
    also = f"the chest and {others}" if CHEST in parts else f"another body part ({others})"
    return SaidPart("" if is_chest(parts) else f"{where} names {also}")


def _names_no_part(text: str) -> bool:
    """Whether a text that names no part of the table says nothing, rather than a part that the table does not know."""
    return set(words_of(text)) <= NO_PART or text.isdigit()


def _coded(region: Code) -> set[str]:
    return {CHEST} if region.value in CHEST_CODES else parts_named(region.meaning)
