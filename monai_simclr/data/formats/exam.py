"""What an examination shows, by a DICOM header or by words in any language: radiograph or not, view, body part.

The index, the audit, inference and the reader all ask here.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

import pydicom

from monai_simclr.data.formats.dicom_tags import get_code, get_codes, get_text, get_texts, tolerant_items

_MODALITIES = ("CR", "DX", "RG", "PX")
_UNKNOWN_MODALITIES = ("", "OT", "SC")
"""Values of Modality where it was removed or is unknown: then the SOP class tells what the file is."""
_CR, _DX, _DX_FOR_PROCESSING = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("1", "1.1", "1.1.1"))
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # PS3.4 B.5; .7.1 to .7.4 have many frames

_DESCRIPTIONS = (
    "AcquisitionDeviceProcessingDescription",
    "SeriesDescription",
    "ProtocolName",
    "PerformedProcedureStepDescription",
    "StudyDescription",
)


class View(NamedTuple):
    """How the beam went through a patient. A lateral decubitus image is frontal."""

    position: str = ""  # "PA", "AP", "LL" (every lateral) or "" (another, or unknown)
    beam: str = ""  # "frontal", "lateral", "oblique" or "" (unknown)


class Exam(NamedTuple):
    """View and body part by a header."""

    view: View
    by_words: bool  # whether only a description states the view
    part: str  # "chest", "other" or "" (not stated)


# PS3.16 CID 4010, SNOMED CT and, in older files, SNOMED RT
_VIEW_CODES = {
    View("AP", "frontal"): "399348003 R-10206",
    View("PA", "frontal"): "272479007 R-40888 399346004 R-10214",
    View("", "frontal"): "399033003 R-10202",
    View("LL", "lateral"): "399067008 R-102CD 399173006 R-10236 399198007 R-10232 399352003 R-10228 399260004 R-10224 "
    "399348001",
    View("", "oblique"): "399182000 R-102C1 399135007 R-10220 399356000 R-40985 399006002 R-10212 399038007 R-10210 "
    "399236003 R-10234 399184004 R-10238 399312000 R-10208 399059000 R-10216 399160007 R-10204",
}
_VIEWS = {code: view for view, codes in _VIEW_CODES.items() for code in codes.split()}
# PS3.16 CID 4031 and 4033: every region that includes the lungs
_CHESTS = """
51185008 T-D3000 816094009 43799004 T-D3050 302551006 39607008 T-28000 86598002 T-280A0 955009 T-26000 113197003 T-11300
80891009 T-32000 72410000 T-D3300 416319003 R-FAB54 416550000 R-FAB55 417437006 R-FAB52 416152001 R-FAB53 416775004
R-FAB56
"""

_DECUBITUS = re.compile(
    r"\b(?:(?:LEFT|RIGHT|LT|RT|L|R) )?LAT(?:ERAL\w{0,2})? DECUB\w*"
    r"|(?<!DORSAL )(?<!VENTRAL )\bDECUB\w*(?: LAT(?:ERAL\w{0,2})?)?\b|\b[LR]LD(?:ECUB\w*)?\b|\bSEITENLAGE\b"
)
_PA = re.compile(r"\bPA\b|\bPOSTER(?:O|IOR|IORE) ?(?:TO )?ANTERI\w*|\bDORSO ?VENTRAL\w*")
_AP = re.compile(r"\bAP\b|\bANTER(?:O|IOR|IORE) ?(?:TO )?POSTERI\w*|\bVENTRO ?DORSAL\w*")
_LATERAL = re.compile(
    r"\b(?:LL|RL|LAT|LATS|LATERAL\w{0,3}|LATERAAL|LATEROLATERAL\w*|SWIMMERS?|X ?TABLE|CROSS ?TABLE|PROFIL[OI]?|PERFIL"
    r"|SEITLICH\w*|SEITL|ZIJDELINGS\w*|ZIJAANZICHT|SIDA|SIDEBILDE?|BOCZN\w*|BOCN\w*|BOKOV\w*|OLDALIRANYU|SIVUKUVA|NGHIENG"
    r"|ПРОФИЛ\w*|БОКОВ\w*)\b|側面|侧位|側位|측면"
)
_FRONTAL = re.compile(
    r"\b(?:FRONTAL\w{0,2}|FACE|FRENTE|FRENTAL|LORDOTIC\w*|APICO ?LORDOTIC\w*|ПРЯМ\w*)\b|正面|正位|정면"
)
_OBLIQUE = re.compile(r"\b(?:OBL|OBLIQUE?|OBLIQU\w*|OBLICU\w*|OBLIQUA|SCHRAG\w*|[LR][AP]O|[LR]LO|SKOSN\w*)\b")

_SPINE = re.compile(
    r"\b(?:T|TH|THORACIC|DORSAL|THORAKAL\w*) ?(?:AND LUMBAR )?(?:SPINE|COLUMN)\b"
    r"|\b(?:SPINE|COLUMNA|COLUNA|COLONNA|COLONNE|RACHIS|VERTEBR\w*|WERVEL\w*|KREGOSLUP\w*)(?: VERTEBRAL\w?)?"
    r" (?:THORA\w*|TORA\w*|DORSA\w*|PIERSIOW\w*)|\bBRUSTWIRBEL\w*|\bBWS\b|\bTHORAXWIRBEL\w*|\bTH?ORA[CK]O ?LUMB\w*"
)
_CHEST = re.compile(
    r"CHEST|THORA[XKC]|TORA[XKC]|\bCXR\b|LUNG|PULM[AO]|\bRIB(?:S|CAGE)?\b|POUMON|POITRINE|BRUSTKORB|BRUSTRAUM"
    r"|\bRIPPEN?\b|POLMON|\bPECHO\b|COSTILLA|COSTELA|\bCOSTAL\b|BORSTKAS|LONGEN\b|\bRIBBEN\b|BROSTKORG|BRYSTKASSE"
    r"|KLATK\w* PIERS|\bPLUC|HRUDNIK|\bHRUDN|\bPLIC|MELLKAS|\bTUDO\b|AKCIGER|GOGUS|KEUHKO|RINTAKEHA"
    r"|\b[GP]RUDNI KOS|PRSNI KOS|\bNGUC\b"
    r"|\bPHOI\b|MEDIASTIN|\bHEART\b|CARDIAC|\bHERZ\b|\bCOEUR\b|\bCORAZON\b|\bCORACAO\b|\bCUORE\b"
    r"|ГРУД|\bОГК\b|ЛЕГКИ|ΘΩΡΑ|胸|肺|흉부|"
    r"صدر|חזה"
)
_OTHER = re.compile(
    r"TIBIA|FIBULA|\bKNEE|\bLEGS?\b|\bFOOT\b|\bFEET\b|ANKLE|FEMUR|\bHIPS?\b|PELVI|\bHANDS?\b|WRIST|ELBOW|FOREARM|HUMER|"
    r"SHOULDER|SKULL|\bHEAD\b|SPINE|SPINAL|LUMBAR|CERVICAL|ABDOM|EXTREM|BREAST|MAMMO|\bJAW\b|MANDIB|DENTAL|\bTOES?\b|"
    r"FINGER|\bKUB\b|\bNECK\b|SINUS|CLAVIC|STERNUM|\bARM\b|\bSPINE\b|WIRBELSAULE|COLUMNA|COLUNA|COLONNA|RACHIS|KRANIUM|"
    r"SCHADEL|CRANEO|CRANIO|CRANE|\bKNIE|RODILLA|JOELHO|GENOU|GINOCCHIO|BECKEN|\bBACINO\b|BASSIN|CADERA|QUADRIL|HANCHE|"
    r"SCHULTER|HOMBRO|OMBRO|EPAULE|SPALLA|\bMANO\b|\bMAO\b|\bFUSS\b|\bPIED\b|\bPIEDE\b|\bPIE\b|TOBILLO|CHEVILLE|CAVIGLIA|"
    r"ELLBOGEN|\bCODO\b|COTOVELO|\bCOUDE\b|GOMITO|MUNECA|PUNHO|POIGNET|\bPOLSO\b|BUIK\b"
)
_NOTHING = re.compile(r"(?:UNKNOWN|UNSPECIFIED|OTHER|NONE|DEFAULT|NA|N A|NULL|ANY|GENERAL|OT|XR|CR|DX)?")
_LETTERS = str.maketrans({"Ł": "L", "Ø": "O", "Đ": "D", "Æ": "AE"})
_ABBREVIATED = re.compile(r"(?<![^\W_])(A|P)[\W_]{1,2}(P|A)(?![^\W_])")


def is_radiograph(data: pydicom.Dataset) -> bool:
    """Return whether a header is a radiograph's: by Modality, or by SOP class where Modality is missing or unspecific.

    VinDr-CXR's files have no Modality, and their class in the File Meta Information only.
    """
    modality, sop_class = get_code(data, "Modality"), get_text(data, "SOPClassUID").split("\\")[0]
    by_class = sop_class in (_CR, _DX, _DX_FOR_PROCESSING) or sop_class.startswith(_SECONDARY_CAPTURE)
    return modality in _MODALITIES or (modality in _UNKNOWN_MODALITIES and by_class)


def is_for_processing(data: pydicom.Dataset) -> bool:
    """Return whether an image is raw detector values: DICOM PS3.3 C.8.11.1.1.1, For Processing."""
    by_class = get_text(data, "SOPClassUID").split("\\")[0] == _DX_FOR_PROCESSING
    return by_class or get_code(data, "PresentationIntentType") == "FOR PROCESSING"


def read_exam(data: pydicom.Dataset) -> Exam:
    """Find view and body part in a header; damaged attributes count as missing.

    The view is that of (0018,5101) View Position, else of (0054,0220) View Code Sequence, else (0020,0020) Patient
    Orientation tells whether it is lateral. Only where none of them does, a description counts, the most specific
    first, if it names one view. The part is that of (0018,0015) Body Part Examined, else of (0008,2218) Anatomic Region
    Sequence, else what a description names. A part that we do not know is "other".

    Example:
        >>> data = pydicom.Dataset()
        >>> data.SeriesDescription, data.StudyDescription = "Tórax lateral", "CHEST (PA AND LAT)"
        >>> read_exam(data)
        Exam(view=View(position='LL', beam='lateral'), by_words=True, part='chest')
    """
    views = [find_view(" ".join(get_texts(data, "ViewPosition")))]
    views += [_VIEWS.get(code) or find_view(meaning) for code, meaning in _codes(data, "ViewCodeSequence")]
    # rows and columns that run from side to side and from head to feet are frontal; from front to back, lateral
    axes = [direction[:1] for direction in get_codes(data, "PatientOrientation")]
    if len(axes) == 2 and all(axes) and (axes[0] in "HF") != (axes[1] in "HF"):
        across = axes[1] if axes[0] in "HF" else axes[0]
        views += [View("", "frontal")] if across in "LR" else [View("LL", "lateral")] if across in "AP" else []
    descriptions = [" ".join(get_texts(data, keyword)) for keyword in _DESCRIPTIONS]
    coded = next((view for view in views if view.beam), None)
    view = coded or next((view for view in map(find_view, descriptions) if view.beam), View())
    part = " ".join(get_texts(data, "BodyPartExamined"))
    region = next(_codes(data, "AnatomicRegionSequence"), None)
    if not is_placeholder(part):
        part = find_body_part(part) or "other"
    elif region:
        part = "chest" if region[0] in _CHESTS.split() else find_body_part(region[1]) or "other"
    else:
        parts = {find_body_part(text) for text in descriptions}
        part = "chest" if "chest" in parts else "other" if "other" in parts else ""
    return Exam(view, coded is None and bool(view.beam), part)


def _codes(data: pydicom.Dataset, keyword: str) -> Iterator[tuple[str, str]]:
    """Code and meaning of every item (PS3.3 section 8)."""
    for item in tolerant_items(data, keyword):
        values = get_codes(item, "CodeValue") or get_codes(item, "LongCodeValue")
        meaning = " ".join(get_texts(item, "CodeMeaning"))
        if values or meaning:
            yield "".join(values[:1]), meaning


def find_view(text: str) -> View:
    """Find the view that a text names; none where it names several, as a study's "CHEST (PA AND LAT)" does.

    Example:
        >>> find_view("Thorax p.a."), find_view("XTABLE LATERAL").position, find_view("CHEST (PA AND LAT)").beam
        (View(position='PA', beam='frontal'), 'LL', '')
        >>> find_view("Left lateral decubitus")
        View(position='', beam='frontal')
    """
    plain = _simplify(text)
    lying = _DECUBITUS.search(plain) is not None
    plain = _DECUBITUS.sub(" ", plain)
    back, front = _PA.search(plain) is not None, _AP.search(plain) is not None
    frontal = back or front or lying or _FRONTAL.search(plain) is not None
    lateral = plain == "L" or _LATERAL.search(plain) is not None  # PadChest's L
    if frontal and lateral:
        return View()
    if _OBLIQUE.search(plain) and not lying:
        return View("", "oblique")
    if lateral:
        return View("LL", "lateral")
    return View("" if back == front else "PA" if back else "AP", "frontal") if frontal else View()


def find_body_part(text: str) -> str:
    """Return "chest" if a text names the chest, "other" if it names another part of the body, otherwise "".

    Example:
        >>> [find_body_part(text) for text in ("Tórax PA y lateral", "THORACIC SPINE", "left knee", "Routine")]
        ['chest', 'other', 'other', '']
    """
    plain = _SPINE.sub(" SPINE ", _simplify(text))
    if _CHEST.search(plain):
        return "chest"
    return "other" if _OTHER.search(plain) else ""


def is_placeholder(text: str) -> bool:
    """Return whether a text only fills a field, such as "UNKNOWN", "N/A" or "--"."""
    return _NOTHING.fullmatch(_simplify(text)) is not None


def _simplify(text: str) -> str:
    """Capitals without accents, separated by single spaces; "p.a." is PA."""
    decomposed = unicodedata.normalize("NFKD", text.replace("ı", "i").upper().translate(_LETTERS))
    bare = unicodedata.normalize("NFC", "".join(sign for sign in decomposed if unicodedata.category(sign) != "Mn"))
    return re.sub(r"[\W_]+", " ", _ABBREVIATED.sub(r"\1\2", bare)).strip()
