"""The vocabulary of findings: their names, and how publishers spell them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

NO_FINDING = "No Finding"
"""The absence of every finding: never a column of an index, but a class when images are clustered."""

NIH14: tuple[str, ...] = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
"""ChestX-ray14 in the order of Wang et al. (CVPR 2017) and CheXNet; torchxrayvision sorts by name instead."""

CHEXPERT14: tuple[str, ...] = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
"""CheXpert and MIMIC-CXR-JPG in their order, with Effusion for their "Pleural Effusion"."""

SHARED: tuple[str, ...] = tuple(name for name in NIH14 if name in CHEXPERT14)
"""Findings that NIH and CheXpert both label, in NIH's order."""

_SPELLINGS = {
    "infiltrate": "Infiltration",
    "pleural effusion": "Effusion",
    "pulmonary fibrosis": "Fibrosis",
    **dict.fromkeys(("pleural thickening", "pleural_thickening", "pleuralthickening"), "Pleural_Thickening"),
    **dict.fromkeys(("no finding", "no_finding", "nofinding", "normal", "healthy"), NO_FINDING),
}
_KNOWN = {name.lower(): name for name in (*NIH14, *CHEXPERT14)} | _SPELLINGS


def canonical_finding(name: str) -> str:
    """The vocabulary's spelling of a finding's name; an unknown name is only stripped.

    Example:
        >>> canonical_finding("Pleural Effusion"), canonical_finding(" infiltrate"), canonical_finding("Tibia")
        ('Effusion', 'Infiltration', 'Tibia')
    """
    return _KNOWN.get(name.strip().lower(), name.strip())


def is_known(name: str) -> bool:
    """Whether the vocabulary has a finding of this name, in its spelling."""
    return name in (*NIH14, *CHEXPERT14)


def nearest_finding(name: str) -> str:
    """The name in the vocabulary that an unknown name most likely misspells; "" if it is a name of its own.

    Example:
        >>> nearest_finding("Pneumothroax"), nearest_finding("Tuberculosis"), nearest_finding("Bacteria")
        ('Pneumothorax', '', '')
    """
    close = difflib.get_close_matches(name.strip().lower(), list(_KNOWN), 1, 0.8)
    return _KNOWN[close[0]] if close else ""


def check_no_code(names: Iterable[str]) -> None:
    """Raise `ValueError` for a name that MONAI's config parser would run, look up or load from a file in a config."""
    for name in names:
        if name.lstrip()[:1] in ("$", "@", "%"):
            raise ValueError(
                f"the finding {name!r} begins with {name.lstrip()[0]!r}, which MONAI's configs would run or look up"
            )


def check_finding_names(names: Iterable[object]) -> None:
    """Raise `ValueError` for the first name that a finding of a bundle, classifier or index cannot have.

    A text that begins with ``$``, ``@`` or ``%`` is code, a reference or a file to MONAI's config parser, and findings
    are written into configs. DICOM's Code Meaning (0008,0104) holds 64 characters.

    Example:
        >>> check_finding_names(["Mass", "$print('hello')"])
        Traceback (most recent call last):
        ...
        ValueError: the finding "$print('hello')" begins with '$', which MONAI's configs would run or look up
    """
    seen: dict[str, str] = {}
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"the name of a finding must be a text that is not empty, got {name!r}")
        check_no_code([name])
        if name != name.strip() or not name.isprintable():
            raise ValueError(f"the finding {name!r} begins or ends with a space, or has characters that are not text")
        if len(name) > 64:
            raise ValueError(f"the finding {name!r} has {len(name)} characters; DICOM results have room for 64")
        if canonical_finding(name) == NO_FINDING:
            raise ValueError(f"{name!r} is the absence of all findings and cannot be one of them")
        key = canonical_finding(name).lower()
        if key in seen:
            raise ValueError(f"the finding {name!r} is named twice" + f", also as {seen[key]!r}" * (seen[key] != name))
        seen[key] = name


def parse_findings(text: str, known: Sequence[str] = NIH14) -> dict[str, float]:
    """Labels of one image from its findings joined by ``|``; "No Finding" means none.

    Returns:
        1.0 or 0.0 for every name of `known`.

    Raises:
        ValueError: if the text is empty, a name is not in `known`, or "No Finding" is given with a finding.

    Example:
        >>> parse_findings("Effusion|Mass", known=("Effusion", "Edema", "Mass"))
        {'Effusion': 1.0, 'Edema': 0.0, 'Mass': 1.0}
    """
    names = {canonical_finding(part) for part in text.split("|") if part.strip()}
    unknown = sorted(names - {*known, NO_FINDING})
    if not names or unknown:
        raise ValueError(f"the labels {text!r} name {unknown or 'nothing'}; known are {[*known, NO_FINDING]}")
    if NO_FINDING in names and len(names) > 1:
        raise ValueError(f"the labels {text!r} name {NO_FINDING!r} with {sorted(names - {NO_FINDING})}")
    return {name: float(name in names) for name in known}
