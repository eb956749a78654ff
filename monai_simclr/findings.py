"""The vocabulary of findings: which names exist, how publishers spell them, and how label texts are read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["CHEXPERT14", "NIH14", "NO_FINDING", "SHARED", "canonical_finding", "parse_findings"]

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
    "pleural thickening": "Pleural_Thickening",
    "pleural_thickening": "Pleural_Thickening",
    "pleuralthickening": "Pleural_Thickening",
    "pulmonary fibrosis": "Fibrosis",
    "nofinding": NO_FINDING,
    "no finding": NO_FINDING,
    "no_finding": NO_FINDING,
    "normal": NO_FINDING,
    "healthy": NO_FINDING,
}
_KNOWN = {name.lower(): name for name in (*NIH14, *CHEXPERT14)}


def canonical_finding(name: str) -> str:
    """The vocabulary's spelling of a finding's name; an unknown name comes back stripped, otherwise as it is.

    Example:
        >>> canonical_finding("Pleural Effusion"), canonical_finding(" infiltrate"), canonical_finding("Tibia")
        ('Effusion', 'Infiltration', 'Tibia')
    """
    stripped = name.strip()
    lower = stripped.lower()
    return _SPELLINGS.get(lower) or _KNOWN.get(lower) or stripped


def parse_findings(text: str, known: Sequence[str] = NIH14, separator: str = "|") -> dict[str, float]:
    """Labels of one image from a text such as ``"Effusion|Mass"``.

    Args:
        text: names joined by `separator`; "No Finding" stands for none and cannot stand beside another.
        known: the findings to label.
        separator: what joins the names.

    Returns:
        1.0 or 0.0 for every name of `known`.

    Raises:
        ValueError: if a name is not in `known`, or "No Finding" stands beside a finding, or the text is empty.

    Example:
        >>> parse_findings("Effusion|Mass", known=("Effusion", "Edema", "Mass"))
        {'Effusion': 1.0, 'Edema': 0.0, 'Mass': 1.0}
    """
    names = {canonical_finding(part) for part in text.split(separator) if part.strip()}
    unknown = _sorted(names - {*known, NO_FINDING})
    if not names or unknown:
        raise ValueError(f"the labels {text!r} name {unknown or 'nothing'}; known are {[*known, NO_FINDING]}")
    if NO_FINDING in names and len(names) > 1:
        raise ValueError(f"the labels {text!r} say {NO_FINDING!r} beside {_sorted(names - {NO_FINDING})}")
    return {name: float(name in names) for name in known}


def _sorted(names: Iterable[str]) -> list[str]:
    return sorted(names)
