"""Results as DICOM: a Structured Report and a Secondary Capture that belong to the study they were made from.

These two are the one place where patient data are copied, on purpose: patient and study modules come from the
radiograph, so that an archive files the results beside it. Needs highdicom (`pip install monai-simclr[dicom]`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from monai_simclr._version import __version__
from monai_simclr.files import write_atomically
from monai_simclr.inference.card import ClassifierCard

__all__ = ["capture", "report", "write_dicom"]

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


def report(radiograph: pydicom.Dataset, row: Mapping[str, Any], card: ClassifierCard) -> pydicom.Dataset:
    """A Comprehensive SR of one radiograph (PS3.3 A.35.3; content by TID 1500 of PS3.16).

    Args:
        radiograph: the source, with its patient and study modules.
        row: what `PredictionWriter` made of it: probabilities and decisions.
        card: of the classifier.

    Returns:
        One measurement group a finding: its probability and, unless nothing was decided, present or absent at the
        card's specificity.

    Raises:
        ValueError: if the row has no predictions, only a reason.
    """
    sr = _highdicom().sr
    if row["reason"]:
        raise ValueError(f"there is nothing to report, the file was refused: {row['reason']}")
    device = sr.DeviceObserverIdentifyingAttributes(uid=generate_uid(), name=_NAME, manufacturer_name=_NAME)
    context = sr.ObservationContext(observer_device_context=sr.ObserverContext(codes.DCM.Device, device))
    algorithm = sr.AlgorithmIdentification(_NAME, __version__, parameters=[f"model {card.model_sha256}", _NOTICE])
    groups = [
        sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(uid=generate_uid(), identifier=f"{_NAME} {name}"),
            finding_type=_code(sr, name),
            algorithm_id=algorithm,
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
        referenced_images=[radiograph],
    )
    return sr.ComprehensiveSR(
        evidence=[radiograph], content=content, series_instance_uid=generate_uid(), series_number=9901,
        sop_instance_uid=generate_uid(), instance_number=1, manufacturer=_NAME, is_complete=True,
        series_description=f"{_NAME}: {_NOTICE}",
    )  # fmt: skip


def capture(radiograph: pydicom.Dataset, picture: np.ndarray) -> pydicom.Dataset:
    """An overlay as a Secondary Capture image of the same study (PS3.3 A.8.1).

    Args:
        radiograph: the source, with its patient and study modules.
        picture: uint8 ``(H, W, 3)``, what `overlay` gives.
    """
    made = _highdicom().sc.SCImage.from_ref_dataset(
        radiograph, np.ascontiguousarray(picture), photometric_interpretation="RGB", bits_allocated=8,
        coordinate_system="PATIENT", series_instance_uid=generate_uid(), series_number=9902,
        sop_instance_uid=generate_uid(), instance_number=1, manufacturer=_NAME, patient_orientation=("L", "F"),
        series_description=f"{_NAME}: {_NOTICE}",
    )  # fmt: skip
    made.BurnedInAnnotation = "NO"
    made.ImageType = ["DERIVED", "SECONDARY"]
    reference = pydicom.Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = (
        radiograph.SOPClassUID,
        radiograph.SOPInstanceUID,
    )
    made.SourceImageSequence = [reference]
    return made


def write_dicom(dataset: pydicom.Dataset, path: str | Path) -> Path:
    """Write a DICOM file (PS3.10), whole or not at all."""
    with write_atomically(path) as part, open(part, "wb") as file:
        dataset.save_as(file, enforce_file_format=True)
    return Path(path)


def _evaluations(sr: Any, card: ClassifierCard, name: str, decision: int | None) -> list[Any]:
    if decision is None:
        return []
    meaning = f"Decision at {card.operating[name].specificity:.0%} specificity"
    question = sr.CodedConcept("DECISION", _SCHEME, meaning)
    return [sr.QualitativeEvaluation(question, codes.SCT.Present if decision else codes.SCT.Absent)]


def _code(sr: Any, name: str) -> Any:
    return _CODES.get(name) or sr.CodedConcept(name.upper().replace(" ", "_")[:16], _SCHEME, name)


def _highdicom() -> Any:
    try:
        import highdicom
    except ImportError as error:
        raise ImportError(
            "DICOM results need highdicom, which is not installed: pip install 'monai-simclr[dicom]'"
        ) from error
    return highdicom
