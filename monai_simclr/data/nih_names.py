"""How patients of NIH ChestX-ray14 are called, so that whoever has seen them is found in any archive that has them."""

from __future__ import annotations

import re

_IMAGE = re.compile(r"(\d{8})_\d{3}\.png")
_PATIENT = re.compile(r"NIH-(\d{5})")
_LAST = 30_805


def nih_patient(number: int | str) -> str:
    """The name of the patient with a number of NIH ChestX-ray14; a number is another one's in another archive.

    Example:
        >>> nih_patient(13), nih_patient("00000013")
        ('NIH-00013', 'NIH-00013')
    """
    return f"NIH-{int(number):05d}"


def is_nih_patient(name: str) -> bool:
    """Whether a patient's name is one that `nih_patient` gives."""
    return _PATIENT.fullmatch(name) is not None


def patient_of_nih_image(image: str, patient: str) -> str:
    """The name of the patient of an image in NIH's layout: NIH's where the image is called as NIH calls that patient's.

    Args:
        image: the file's name.
        patient: the number in the table's column "Patient ID", which stays where the image is another archive's.

    Example:
        >>> patient_of_nih_image("00000013_005.png", "13"), patient_of_nih_image("PHANTOM-00000013_005.png", "13")
        ('NIH-00013', '13')
    """
    found = _IMAGE.fullmatch(image)
    own = found and patient.isascii() and patient.isdigit() and int(found[1]) == int(patient) and int(patient) > 0
    return nih_patient(patient) if own and int(patient) <= _LAST else patient


def other_form(name: str) -> str:
    """Of a number the name of NIH's patient with it, of such a name the number; "" where there is none.

    Example:
        >>> [other_form(name) for name in ("13", "00013", "NIH-00013", "p13")]
        ['NIH-00013', 'NIH-00013', '13', '']
    """
    found = _PATIENT.fullmatch(name)
    if found:
        return str(int(found[1]))
    return nih_patient(name) if name.isascii() and name.isdigit() and 0 < int(name) <= _LAST else ""
