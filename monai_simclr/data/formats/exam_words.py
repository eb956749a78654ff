"""Words for the view and the body part of an examination, in the languages that headers and tables are written in."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple


class View(NamedTuple):
    """How the beam went through a patient.

    Attributes:
        position: "PA", "AP", "LL" (every lateral) or "" (another, or unknown).
        beam: "frontal", "lateral" or "oblique"; "" when unknown. A lateral decubitus image is frontal.
    """

    position: str = ""
    beam: str = ""


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


def view_in(text: str) -> View:
    """Find the view that a text names; none where it names several, as a study's "CHEST (PA AND LAT)" does.

    Example:
        >>> view_in("Thorax p.a."), view_in("XTABLE LATERAL").position, view_in("CHEST (PA AND LAT)").beam
        (View(position='PA', beam='frontal'), 'LL', '')
        >>> view_in("Left lateral decubitus")
        View(position='', beam='frontal')
    """
    plain = _plain(text)
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


def part_in(text: str) -> str:
    """Say whether a text names the chest ("chest"), another part of the body ("other"), or neither ("").

    Example:
        >>> part_in("Tórax PA y lateral"), part_in("THORACIC SPINE"), part_in("left knee"), part_in("Routine")
        ('chest', 'other', 'other', '')
    """
    plain = _SPINE.sub(" SPINE ", _plain(text))
    if _CHEST.search(plain):
        return "chest"
    return "other" if _OTHER.search(plain) else ""


def is_placeholder(text: str) -> bool:
    """Say whether a text only fills a field: "UNKNOWN", "N/A", "-".

    Example:
        >>> is_placeholder("--"), is_placeholder("Unknown"), is_placeholder("KNEE")
        (True, True, False)
    """
    return _NOTHING.fullmatch(_plain(text)) is not None


_LETTERS = str.maketrans({"Ł": "L", "Ø": "O", "Đ": "D", "Æ": "AE"})
_ABBREVIATED = re.compile(r"(?<![^\W_])(A|P)[\W_]{1,2}(P|A)(?![^\W_])")


def _plain(text: str) -> str:
    """Capitals without accents, parted by single spaces; "p.a." is PA."""
    spread = unicodedata.normalize("NFKD", text.replace("ı", "i").upper().translate(_LETTERS))
    bare = unicodedata.normalize("NFC", "".join(sign for sign in spread if unicodedata.category(sign) != "Mn"))
    return re.sub(r"[\W_]+", " ", _ABBREVIATED.sub(r"\1\2", bare)).strip()
