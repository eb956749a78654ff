"""Results as DICOM: a Structured Report and a Secondary Capture that belong to the study they were made from.

These two are the one place where patient data are copied, on purpose: patient and study modules come from the
radiograph, as far as it has them (`dicom_source`), so that an archive files the results beside it. Needs highdicom
(`pip install monai-simclr[dicom]`).
"""

from __future__ import annotations

import datetime
import hashlib
import io
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from monai_simclr.inference.card import InferenceConfig
from monai_simclr.inference.dicom_source import source_dataset
from monai_simclr.runtime.files import write_atomically

_NAME = "monai-simclr"
_SCHEME = "99MSIMCLR"
_NOTICE = "Research only. Not for diagnosis."
_CODES = {
    "Cardiomegaly": codes.SCT.Cardiomegaly,
    "Effusion": codes.SCT.PleuralEffusion,
    "Pleural Effusion": codes.SCT.PleuralEffusion,
    "Pneumothorax": codes.SCT.Pneumothorax,
    "Edema": codes.SCT.PulmonaryEdema,
    "Mass": codes.SCT.Mass,
    "Nodule": codes.SCT.Nodule,
    "Fibrosis": codes.SCT.Fibrosis,
    "Infiltration": codes.DCM.Infiltrate,
}
"""Concepts that pydicom's dictionary of PS3.16 codes has; every other finding gets a code of our own scheme."""

_ORDINARY = re.compile(r"[A-Z][a-z]*(?:[ _][A-Z][a-z]*)*")


def report(radiograph: pydicom.Dataset, row: Mapping[str, Any], card: InferenceConfig) -> pydicom.Dataset:
    """A Comprehensive SR of one radiograph (PS3.3 A.35.3; content by TID 1500 of PS3.16).

    Args:
        radiograph: header of the source; what it lacks is unknown to the report too.
        row: what `PredictionWriter` made of it: probabilities and decisions.
        card: of the classifier.

    Returns:
        One measurement group a finding: its probability and, unless nothing was decided, present or absent at the
        card's specificity.

    Raises:
        ValueError: if the row has no predictions, only a reason, or the radiograph has no UID (`HeaderError`).
    """
    sr, source = _highdicom().sr, source_dataset(radiograph)
    if row["reason"]:
        raise ValueError(f"there is nothing to report, the file was refused: {row['reason']}")
    device = sr.DeviceObserverIdentifyingAttributes(uid=generate_uid(), name=_NAME, manufacturer_name=_NAME)
    context = sr.ObservationContext(observer_device_context=sr.ObserverContext(codes.DCM.Device, device))
    algorithm = sr.AlgorithmIdentification(
        _NAME, version("monai-simclr"), parameters=[f"model {card.model_sha256}", _NOTICE]
    )
    # not an Image Library (TID 1600): a projection's entry must have a spacing and an orientation, many files have none
    image = sr.SourceImageForMeasurementGroup(source.SOPClassUID, source.SOPInstanceUID)
    groups = [
        sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(uid=generate_uid(), identifier=f"{_NAME} {name}"),
            finding_type=_coded(sr, name),
            algorithm_id=algorithm,
            source_images=[image],
            measurements=[sr.Measurement(codes.DCM.Probability, float(probability), codes.UCUM.NoUnits)],
            qualitative_evaluations=_evaluations(sr, card, name, decision),
        )
        for name, probability, decision in zip(card.findings, row["probabilities"], row["decisions"], strict=True)
    ]
    content = sr.MeasurementReport(
        observation_context=context,
        procedure_reported=sr.CodedConcept("399208008", "SCT", "Plain chest X-ray"),
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    return sr.ComprehensiveSR(
        evidence=[source],
        content=content,
        series_instance_uid=generate_uid(),
        series_number=9901,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer=_NAME,
        is_complete=True,
        series_description=f"{_NAME}: {_NOTICE}",
    )


def capture(radiograph: pydicom.Dataset, picture: np.ndarray) -> pydicom.Dataset:
    """An overlay as a Secondary Capture image of the same study (PS3.3 A.8.1).

    Args:
        radiograph: header of the source; what it lacks is unknown to the capture too.
        picture: uint8 ``(H, W, 3)``, what `overlay` gives.

    Raises:
        HeaderError: if the radiograph has no UID.
    """
    source, now = source_dataset(radiograph), datetime.datetime.now()
    reference, made = pydicom.Dataset(), pydicom.Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID"):
        setattr(reference, f"Referenced{keyword}", source.pop(keyword).value)
    del source.SeriesInstanceUID
    made.update(source)
    made.SOPClassUID, made.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    made.SeriesInstanceUID, made.SeriesNumber, made.InstanceNumber = generate_uid(), 9902, 1
    made.SeriesDescription, made.Manufacturer = f"{_NAME}: {_NOTICE}", _NAME
    made.Modality, made.ConversionType, made.ImageType = "OT", "WSD", ["DERIVED", "SECONDARY"]
    made.ContentDate, made.ContentTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    made.Laterality = ""  # type 2C (PS3.3 C.7.3.1): both lungs are shown
    # the reader turns an image upright by this attribute; without it nobody says how the image lies
    made.PatientOrientation = ["L", "F"] if radiograph.get("PatientOrientation") else []
    if radiograph.get("BurnedInAnnotation") in ("YES", "NO"):
        made.BurnedInAnnotation = radiograph.BurnedInAnnotation
    if radiograph.get("LossyImageCompression") == "01":
        made.LossyImageCompression = "01"  # PS3.3 C.7.6.1.1.5: once lossy, always lossy
    made.SourceImageSequence = [reference]
    return _with_pixels(made, picture)


def encoded(dataset: pydicom.Dataset) -> bytes:
    """The bytes of a DICOM file (PS3.10)."""
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def write_dicom(dataset: pydicom.Dataset, path: str | Path) -> Path:
    """Write a DICOM file (PS3.10), whole or not at all."""
    content = encoded(dataset)
    with write_atomically(path) as part:
        part.write_bytes(content)
    return Path(path)


def check_installed() -> None:
    """Raise `ImportError`, saying what to install, where DICOM results could not be made."""
    _highdicom()


def lookup_code(name: str) -> str:
    """The code of a finding in our own scheme: one code, one meaning.

    An ordinary name (words with a capital first) is written in capitals; any other has a checksum behind it, so that
    no two names share a code: not those that differ in case, in a sign, or behind the 16th character.

    Example:
        >>> lookup_code("Pneumonia"), lookup_code("Pleural_Thickening"), lookup_code("COVID-19")
        ('PNEUMONIA', 'PLEURAL_THICKENING', 'COVID_19-CAF96D0A')
    """
    plain = re.sub(r"\W", "_", name.upper())
    return plain if _ORDINARY.fullmatch(name) else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8].upper()}"


def _with_pixels(made: pydicom.Dataset, picture: np.ndarray) -> pydicom.Dataset:
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PlanarConfiguration = 3, "RGB", 0
    made.Rows, made.Columns = picture.shape[:2]
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 8, 8, 7, 0
    made.PixelData = np.ascontiguousarray(picture).tobytes() + b"\0" * (picture.size % 2)
    made["PixelData"].VR = "OB"
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return made


def _evaluations(sr: Any, card: InferenceConfig, name: str, decision: int | None) -> list[Any]:
    if decision is None:
        return []
    percent = f"{100 * card.operating[name].specificity:.6g}"
    question = sr.CodedConcept(f"DECISION_{percent}", _SCHEME, f"Decision at {percent}% specificity")
    return [sr.QualitativeEvaluation(question, codes.SCT.Present if decision else codes.SCT.Absent)]


def _coded(sr: Any, name: str) -> Any:
    """A concept whose meaning is the name, with spaces for underscores: both spellings have one code."""
    ordinary = _ORDINARY.fullmatch(name)
    return _CODES.get(name) or sr.CodedConcept(lookup_code(name), _SCHEME, name.replace("_", " ") if ordinary else name)


def _highdicom() -> Any:
    try:
        import highdicom
    except ImportError as error:
        raise ImportError(
            "DICOM results need highdicom, which is not installed: pip install 'monai-simclr[dicom]'"
        ) from error
    return highdicom
