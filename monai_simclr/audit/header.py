"""What a file says about itself, without its pixels and without its patient."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pydicom
from pydicom.uid import UID

from monai_simclr.data.formats.dicom_exam import read_exam
from monai_simclr.data.formats.dicom_file import read_header
from monai_simclr.data.formats.dicom_geometry import SPACINGS, read_spacing, read_steps
from monai_simclr.data.formats.dicom_tags import numbers, text, tolerant_items, whole
from monai_simclr.data.formats.nifti import nifti_facts
from monai_simclr.data.formats.pictures import picture_facts
from monai_simclr.data.formats.quiet import quiet_libraries
from monai_simclr.data.radiograph import RadiographError, unopened
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
            kind = detect_format(Path(path), file)
            facts.update(_dicom(Path(path)) if kind == "DICOM" else _FACTS[kind](Path(path), file))
    except FileNotFoundError:
        facts["problem"] = "the file is missing"
    except OSError as error:
        facts["problem"] = unopened(error)
    except RadiographError as error:
        facts["problem"] = error.problem
    return facts


def _dicom(path: Path) -> dict[str, Any]:
    header, syntax = read_header(path)
    exam = read_exam(header)
    return {
        "format": "DICOM",
        "modality": text(header, "Modality"),
        "sop_class": _name(text(header, "SOPClassUID")),
        "transfer_syntax": _name(syntax),
        "photometric": text(header, "PhotometricInterpretation"),
        "presentation_lut": text(header, "PresentationLUTShape"),
        "intent": text(header, "PresentationIntentType"),
        "bits": whole(path, header, "BitsStored", -1),
        "rows": whole(path, header, "Rows", -1),
        "columns": whole(path, header, "Columns", -1),
        "frames": max(1, whole(path, header, "NumberOfFrames", 1)),
        "samples": whole(path, header, "SamplesPerPixel", -1),
        "header_view": "" if exam.by_words else exam.view.position,
        "lateral_words": "yes" if exam.by_words and exam.view.beam == "lateral" else "",
        "chest": {"chest": "yes", "other": "no"}.get(exam.part, ""),
        "window": _window(path, header),
        "spacing": _spacing(path, header),
        "burned_in": text(header, "BurnedInAnnotation"),
        "manufacturer": text(header, "Manufacturer"),
        "model": text(header, "ManufacturerModelName"),
    }


def _name(uid: str) -> str:
    return UID(uid).name if uid else ""


def _window(path: Path, header: pydicom.Dataset) -> str:
    if tolerant_items(header, "VOILUTSequence"):
        return "VOI LUT"
    return "window" if numbers(path, header, "WindowCenter") and numbers(path, header, "WindowWidth") else "none"


def _spacing(path: Path, header: pydicom.Dataset) -> str:
    source = read_spacing(path, header)[1]
    zero = next((name for name in SPACINGS if read_steps(path, header, name)), "")
    return source or (f"{zero} is zero" if zero else "none")
