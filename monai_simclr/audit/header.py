"""What a file says about itself, without its pixels and without its patient."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path
from typing import Any

import pydicom
from PIL import Image, UnidentifiedImageError
from pydicom.errors import InvalidDicomError

from monai_simclr.data.sources.dicom_tree import view_of_header

__all__ = ["HEADER_FIELDS", "header_facts"]

HEADER_FIELDS = (
    "problem", "bytes", "format", "modality", "sop_class", "transfer_syntax", "photometric", "presentation_lut",
    "intent", "bits", "rows", "columns", "frames", "samples", "header_view", "lateral_words", "chest", "window",
    "spacing", "burned_in", "manufacturer", "model",
)  # fmt: skip

_TAGS = [
    "SOPClassUID", "Modality", "PhotometricInterpretation", "PresentationLUTShape", "PresentationIntentType",
    "BitsStored", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "ViewPosition", "ViewCodeSequence",
    "BodyPartExamined", "StudyDescription", "SeriesDescription", "ProtocolName",
    "AcquisitionDeviceProcessingDescription", "WindowCenter", "WindowWidth", "VOILUTSequence", "PixelSpacing",
    "ImagerPixelSpacing", "NominalScannedPixelSpacing", "BurnedInAnnotation", "Manufacturer", "ManufacturerModelName",
]  # fmt: skip
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_DESCRIPTIONS = ("StudyDescription", "SeriesDescription", "ProtocolName", "AcquisitionDeviceProcessingDescription")
_CHEST = re.compile(r"CHEST|THORA|TORAX|TÓRAX|LUNG|PULM|CXR|POUMON|\bRIBS?\b")
_OTHER = re.compile(
    r"TIBIA|FIBULA|KNEE|LEG|FOOT|ANKLE|FEMUR|HIP|PELVI|HAND|WRIST|ELBOW|FOREARM|HUMERUS|SHOULDER|SKULL|HEAD|SPINE|"
    r"ABDOMEN|EXTREM|BREAST|MAMMO|JAW|DENTAL|TOE|FINGER|KUB\b"
)
_LATERAL = re.compile(r"\b(LAT|LATERAL|LL|PROFIL|SEITLICH)\b")


def header_facts(path: str | Path) -> dict[str, Any]:
    """Facts of a file's header: text or whole numbers under `HEADER_FIELDS`, "" or -1 where there are none.

    Free text of the header (descriptions) is looked at for words of body parts and then dropped. `chest` is "yes",
    "no" or "": from (0018,0015) Body Part Examined, else from those words. `problem` is why there are no facts.

    Args:
        path: of a DICOM, PNG, JPEG or TIFF file; its content decides.
    """
    facts: dict[str, Any] = dict.fromkeys(HEADER_FIELDS, "")
    facts.update(bytes=-1, bits=-1, rows=-1, columns=-1, frames=-1, samples=-1)
    try:
        facts["bytes"] = os.path.getsize(path)
        with open(path, "rb") as file:
            is_dicom = file.read(132)[128:] == b"DICM"
        facts.update(_dicom(path) if is_dicom else _picture(path))
    except FileNotFoundError:
        facts["problem"] = "the file is missing"
    except UnidentifiedImageError:
        facts["problem"] = "not DICOM, PNG, JPEG or TIFF"
    except (InvalidDicomError, ValueError, EOFError, AttributeError, KeyError, TypeError, NotImplementedError) as error:
        facts["problem"] = f"damaged header ({type(error).__name__})"
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        facts["problem"] = f"cannot be opened ({type(error).__name__})"
    return facts


def _picture(path: str | Path) -> dict[str, Any]:
    with warnings.catch_warnings(), Image.open(path, formats=("PNG", "JPEG", "TIFF")) as picture:
        warnings.simplefilter("ignore")
        bits = {"1": 1, "I;16": 16, "I": 16, "I;16B": 16}.get(picture.mode, 8)
        return {
            "format": str(picture.format), "photometric": picture.mode, "bits": bits, "rows": picture.height,
            "columns": picture.width, "frames": getattr(picture, "n_frames", 1), "samples": len(picture.getbands()),
        }  # fmt: skip


def _dicom(path: str | Path) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
        syntax = getattr(header.file_meta, "TransferSyntaxUID", None)
        words = " ".join(_text(header, name).upper() for name in _DESCRIPTIONS)
        return {
            "format": "DICOM", "modality": _text(header, "Modality"), "sop_class": _name(header.get("SOPClassUID")),
            "transfer_syntax": _name(syntax), "photometric": _text(header, "PhotometricInterpretation"),
            "presentation_lut": _text(header, "PresentationLUTShape"),
            "intent": _text(header, "PresentationIntentType"), "bits": _number(header, "BitsStored"),
            "rows": _number(header, "Rows"), "columns": _number(header, "Columns"),
            "frames": _number(header, "NumberOfFrames", 1), "samples": _number(header, "SamplesPerPixel"),
            "header_view": view_of_header(header), "lateral_words": "yes" if _LATERAL.search(words) else "",
            "chest": _chest(_text(header, "BodyPartExamined").upper(), words), "window": _window(header),
            "spacing": _spacing(header), "burned_in": _text(header, "BurnedInAnnotation"),
            "manufacturer": _text(header, "Manufacturer"), "model": _text(header, "ManufacturerModelName"),
        }  # fmt: skip


def _text(header: pydicom.Dataset, name: str) -> str:
    return str(header.get(name, "") or "").strip()


def _number(header: pydicom.Dataset, name: str, default: int = -1) -> int:
    value = header.get(name, default)
    return default if value in (None, "") else int(value)


def _name(uid: Any) -> str:
    return "" if not uid else str(getattr(uid, "name", uid))


def _chest(part: str, words: str) -> str:
    for text in (part, words):
        if _CHEST.search(text):
            return "yes"
        if _OTHER.search(text) or (text and text == part):
            return "no"
    return ""


def _window(header: pydicom.Dataset) -> str:
    if header.get("VOILUTSequence"):
        return "VOI LUT"
    return "window" if header.get("WindowCenter") is not None and header.get("WindowWidth") is not None else "none"


def _spacing(header: pydicom.Dataset) -> str:
    for name in _SPACINGS:
        value = header.get(name)
        if value:
            return name if all(float(step) > 0 for step in value) else f"{name} is zero"
    return "none"
