"""What a DICOM header says is in the picture: view and body part. The index, the audit and inference ask here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pydicom

from monai_simclr.data.formats.dicom_tags import texts, tolerant_items
from monai_simclr.data.formats.exam_words import View, is_placeholder, part_in, view_in

_DESCRIPTIONS = (
    "AcquisitionDeviceProcessingDescription",
    "SeriesDescription",
    "ProtocolName",
    "PerformedProcedureStepDescription",
    "StudyDescription",
)
EXAM_TAGS = (
    "ViewPosition",
    "ViewCodeSequence",
    "PatientOrientation",
    "BodyPartExamined",
    "AnatomicRegionSequence",
    *_DESCRIPTIONS,
)

# PS3.16 CID 4010, SNOMED CT and, of older files, SNOMED RT
_VIEWS = {
    **dict.fromkeys(("399348003", "R-10206"), View("AP", "frontal")),
    **dict.fromkeys(("272479007", "R-40888", "399346004", "R-10214"), View("PA", "frontal")),
    **dict.fromkeys(("399033003", "R-10202"), View("", "frontal")),
    **dict.fromkeys(
        (
            "399067008",
            "R-102CD",
            "399173006",
            "R-10236",
            "399198007",
            "R-10232",
            "399352003",
            "R-10228",
            "399260004",
            "R-10224",
            "399348001",
        ),
        View("LL", "lateral"),
    ),
    **dict.fromkeys(
        (
            "399182000",
            "R-102C1",
            "399135007",
            "R-10220",
            "399356000",
            "R-40985",
            "399006002",
            "R-10212",
            "399038007",
            "R-10210",
            "399236003",
            "R-10234",
            "399184004",
            "R-10238",
            "399312000",
            "R-10208",
            "399059000",
            "R-10216",
            "399160007",
            "R-10204",
        ),
        View("", "oblique"),
    ),
}
# PS3.16 CID 4031 and 4033: whatever has the lungs in it
_CHESTS = {
    "51185008",
    "T-D3000",
    "816094009",
    "43799004",
    "T-D3050",
    "302551006",
    "39607008",
    "T-28000",
    "86598002",
    "T-280A0",
    "955009",
    "T-26000",
    "113197003",
    "T-11300",
    "80891009",
    "T-32000",
    "72410000",
    "T-D3300",
    "416319003",
    "R-FAB54",
    "416550000",
    "R-FAB55",
    "417437006",
    "R-FAB52",
    "416152001",
    "R-FAB53",
    "416775004",
    "R-FAB56",
}
_SIDES, _ENDS = "LR", "HF"


class Exam(NamedTuple):
    """View and body part by a header.

    Attributes:
        view: the view.
        by_words: whether only a description said the view.
        part: "chest", "other" or "" (nothing is said).
    """

    view: View
    by_words: bool
    part: str


def read_exam(data: pydicom.Dataset) -> Exam:
    """Find view and body part in a header; damaged attributes count as missing.

    The view is that of (0018,5101) View Position, else of (0054,0220) View Code Sequence, else (0020,0020) Patient
    Orientation says whether it is lateral. Only where none of them says anything, a description counts, the most
    specific first, if it names one view. The part is that of (0018,0015) Body Part Examined, else of (0008,2218)
    Anatomic Region Sequence, else what a description names. A part that we do not know is "other".

    Example:
        >>> data = pydicom.Dataset()
        >>> data.SeriesDescription, data.StudyDescription = "Tórax lateral", "CHEST (PA AND LAT)"
        >>> read_exam(data)
        Exam(view=View(position='LL', beam='lateral'), by_words=True, part='chest')
    """
    descriptions = [" ".join(texts(data, keyword)) for keyword in _DESCRIPTIONS]
    view = next((view for view in _views(data) if view.beam), None)
    said = view or next((view for view in map(view_in, descriptions) if view.beam), View())
    return Exam(said, view is None and bool(said.beam), _part(data, descriptions))


def _views(data: pydicom.Dataset) -> Iterator[View]:
    yield view_in(" ".join(texts(data, "ViewPosition")))
    for code, meaning in _codes(data, "ViewCodeSequence"):
        yield _VIEWS.get(code) or view_in(meaning)
    yield _view_of_orientation(texts(data, "PatientOrientation"))


def _view_of_orientation(said: tuple[str, ...]) -> View:
    """Rows and columns that run from side to side and from head to feet are frontal; from front to back, lateral."""
    if len(said) != 2 or not all(said):
        return View()
    first, second = said[0][0], said[1][0]
    across = second if first in _ENDS else first
    if not (first in _ENDS) ^ (second in _ENDS):
        return View()
    return View("", "frontal") if across in _SIDES else View("LL", "lateral") if across in "AP" else View()


def _part(data: pydicom.Dataset, descriptions: list[str]) -> str:
    part = " ".join(texts(data, "BodyPartExamined"))
    if not is_placeholder(part):
        return part_in(part) or "other"
    for code, meaning in _codes(data, "AnatomicRegionSequence"):
        return "chest" if code in _CHESTS else part_in(meaning) or "other"
    return next((found for found in map(part_in, descriptions) if found == "chest"), "") or next(
        (found for found in map(part_in, descriptions) if found), ""
    )


def _codes(data: pydicom.Dataset, keyword: str) -> Iterator[tuple[str, str]]:
    """Code and meaning of every item (PS3.3 section 8)."""
    for item in tolerant_items(data, keyword):
        value = texts(item, "CodeValue") or texts(item, "LongCodeValue")
        meaning = " ".join(texts(item, "CodeMeaning"))
        if value or meaning:
            yield "".join(value[:1]), meaning
