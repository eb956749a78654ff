"""What a file says about itself, without its pixels and without its patient."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
from pydicom.uid import UID

from monai_simclr.data.formats.dicom import SPACINGS, read_spacing, read_steps
from monai_simclr.data.formats.dicom_header import open_dicom
from monai_simclr.data.formats.dicom_tags import get_floats, get_int, get_text, tolerant_items
from monai_simclr.data.formats.exam import read_exam
from monai_simclr.data.formats.nifti import nifti_facts
from monai_simclr.data.formats.pictures import picture_facts
from monai_simclr.data.radiograph import DEFAULT_SETTINGS, RadiographError, describe_os_error, quiet_libraries
from monai_simclr.data.reading import detect_format
from monai_simclr.runtime.files import open_regular

HEADER_FIELDS = (
    "problem",
    "bytes",
    "format",
    "modality",
    "sop_class",
    "transfer_syntax",
    "photometric",
    "presentation_lut",
    "intent",
    "bits",
    "rows",
    "columns",
    "frames",
    "samples",
    "header_view",
    "lateral_words",
    "chest",
    "window",
    "spacing",
    "burned_in",
    "manufacturer",
    "model",
)

_FACTS = {"picture": picture_facts, "NIfTI": nifti_facts}


def header_facts(path: str | Path) -> dict[str, Any]:
    """Facts of a file's header: text or whole numbers under `HEADER_FIELDS`, "" or -1 where there are none.

    Free text of the header (descriptions) is looked at for words of views and body parts and then dropped. `chest` is
    "yes", "no" or "", as `read_exam` finds it. `problem` is why there are no facts, in the reader's own words.

    Args:
        path: of a file that the reader reads: DICOM, PNG, JPEG, TIFF or NIfTI; its content decides.
    """
    facts: dict[str, Any] = dict.fromkeys(HEADER_FIELDS, "")
    facts.update(bytes=-1, bits=-1, rows=-1, columns=-1, frames=-1, samples=-1)
    try:
        with open_regular(path) as file, quiet_libraries():
            facts["bytes"] = os.fstat(file.fileno()).st_size
            kind = detect_format(file)
            facts.update(_dicom(file) if kind == "DICOM" else _FACTS[kind](file))
    except FileNotFoundError:
        facts["problem"] = "the file is missing"
    except OSError as error:
        facts["problem"] = describe_os_error(error)
    except RadiographError as error:
        facts["problem"] = error.problem
    return facts


def _dicom(file: BinaryIO) -> dict[str, Any]:
    opened = open_dicom(file, DEFAULT_SETTINGS.max_bytes)
    header, syntax = opened.data, opened.syntax
    exam = read_exam(header)
    return {
        "format": "DICOM",
        "modality": get_text(header, "Modality"),
        "sop_class": _name(get_text(header, "SOPClassUID")),
        "transfer_syntax": _name(syntax),
        "photometric": get_text(header, "PhotometricInterpretation"),
        "presentation_lut": get_text(header, "PresentationLUTShape"),
        "intent": get_text(header, "PresentationIntentType"),
        "bits": get_int(header, "BitsStored", -1),
        "rows": get_int(header, "Rows", -1),
        "columns": get_int(header, "Columns", -1),
        "frames": max(1, get_int(header, "NumberOfFrames", 1)),
        "samples": get_int(header, "SamplesPerPixel", -1),
        "header_view": "" if exam.by_words else exam.view.position,
        "lateral_words": "yes" if exam.by_words and exam.view.beam == "lateral" else "",
        "chest": {"chest": "yes", "other": "no"}.get(exam.part, ""),
        "window": _window(header),
        "spacing": _spacing(header),
        "burned_in": get_text(header, "BurnedInAnnotation"),
        "manufacturer": get_text(header, "Manufacturer"),
        "model": get_text(header, "ManufacturerModelName"),
    }


def _name(uid: str) -> str:
    return UID(uid).name if uid else ""


def _window(header: pydicom.Dataset) -> str:
    if tolerant_items(header, "VOILUTSequence"):
        return "VOI LUT"
    return "window" if get_floats(header, "WindowCenter") and get_floats(header, "WindowWidth") else "none"


def _spacing(header: pydicom.Dataset) -> str:
    source = read_spacing(header)[1]
    zero = next((name for name in SPACINGS if read_steps(header, name)), "")
    return source or (f"{zero} is zero" if zero else "none")
