"""Results as DICOM: a Structured Report and a Secondary Capture that belong to the study of their radiograph.

This is the one place where patient data are copied, on purpose: patient and study modules come from the radiograph,
as far as it has them (`dicom_source`), so that an archive files the results next to it. Needs highdicom
(`pip install monai-simclr[dicom]`).
"""

from __future__ import annotations

import datetime
import hashlib
import io
import re
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import pydicom
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from monai_simclr.inference.config import InferenceConfig
from monai_simclr.inference.dicom_source import source_dataset

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


def report(radiograph: pydicom.Dataset, row: Mapping[str, Any], config: InferenceConfig) -> pydicom.Dataset:
    """Make a Comprehensive SR of one radiograph (PS3.3 A.35.3; content by TID 1500 of PS3.16).

    Args:
        radiograph: header of the source; what it lacks is unknown to the report too.
        row: its row from `PredictionWriter`: probabilities and decisions.
        config: inference config of the classifier.

    Returns:
        One measurement group per finding: its probability and, if there is a decision, present or absent at the
        specificity of the operating point.

    Raises:
        ValueError: if the row has no predictions, only a reason, or the radiograph has no UID (`HeaderError`).
    """
    sr, source = _highdicom().sr, source_dataset(radiograph)
    if row["reason"]:
        raise ValueError(f"there is nothing to report: the file was refused ({row['reason']})")
    device = sr.DeviceObserverIdentifyingAttributes(uid=generate_uid(), name=_NAME, manufacturer_name=_NAME)
    context = sr.ObservationContext(observer_device_context=sr.ObserverContext(codes.DCM.Device, device))
    algorithm = sr.AlgorithmIdentification(
        _NAME, version("monai-simclr"), parameters=[f"model {config.model_sha256}", _NOTICE]
    )
    # not an Image Library (TID 1600): a projection's entry must have a spacing and an orientation, many files have none
    image = sr.SourceImageForMeasurementGroup(source.SOPClassUID, source.SOPInstanceUID)

    def concept(name: str) -> Any:
        """The meaning is the name, with spaces for underscores: both spellings have one code."""
        meaning = name.replace("_", " ") if _ORDINARY.fullmatch(name) else name
        return _CODES.get(name) or sr.CodedConcept(lookup_code(name), _SCHEME, meaning)

    def evaluation(name: str, decision: int) -> Any:
        percent = f"{100 * config.operating[name].specificity:.6g}"
        question = sr.CodedConcept(f"DECISION_{percent}", _SCHEME, f"Decision at {percent}% specificity")
        return sr.QualitativeEvaluation(question, codes.SCT.Present if decision else codes.SCT.Absent)

    groups = [
        sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(uid=generate_uid(), identifier=f"{_NAME} {name}"),
            finding_type=concept(name),
            algorithm_id=algorithm,
            source_images=[image],
            measurements=[sr.Measurement(codes.DCM.Probability, float(probability), codes.UCUM.NoUnits)],
            qualitative_evaluations=[] if decision is None else [evaluation(name, decision)],
        )
        for name, probability, decision in zip(config.findings, row["probabilities"], row["decisions"], strict=True)
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
    """Make a Secondary Capture image of the same study from an overlay (PS3.3 A.8.1).

    Args:
        radiograph: header of the source; what it lacks is unknown to the capture too.
        picture: uint8 ``(H, W, 3)``, as `overlay` gives it.

    Raises:
        HeaderError: if the radiograph has no UID.
    """
    image, now, reference = source_dataset(radiograph), datetime.datetime.now(), pydicom.Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID"):
        setattr(reference, f"Referenced{keyword}", image.pop(keyword).value)
    image.SOPClassUID, image.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    image.SeriesInstanceUID, image.SeriesNumber, image.InstanceNumber = generate_uid(), 9902, 1
    image.SeriesDescription, image.Manufacturer = f"{_NAME}: {_NOTICE}", _NAME
    image.Modality, image.ConversionType, image.ImageType = "OT", "WSD", ["DERIVED", "SECONDARY"]
    image.ContentDate, image.ContentTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    image.Laterality = ""  # type 2C (PS3.3 C.7.3.1): both lungs are shown
    # the reader turns an image upright by this attribute; without it the orientation is unknown
    image.PatientOrientation = ["L", "F"] if radiograph.get("PatientOrientation") else []
    if radiograph.get("BurnedInAnnotation") in ("YES", "NO"):
        image.BurnedInAnnotation = radiograph.BurnedInAnnotation
    if radiograph.get("LossyImageCompression") == "01":
        image.LossyImageCompression = "01"  # PS3.3 C.7.6.1.1.5: once lossy, always lossy
    image.SourceImageSequence = [reference]
    image.SamplesPerPixel, image.PhotometricInterpretation, image.PlanarConfiguration = 3, "RGB", 0
    image.Rows, image.Columns = picture.shape[:2]
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 8, 8, 7, 0
    image.PixelData = np.ascontiguousarray(picture).tobytes() + b"\0" * (picture.size % 2)
    image["PixelData"].VR = "OB"
    image.file_meta = pydicom.dataset.FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return image


def encode(dataset: pydicom.Dataset) -> bytes:
    """The bytes of a DICOM file (PS3.10)."""
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def check_installed() -> None:
    """Raise `ImportError`, saying what to install, where DICOM results cannot be made."""
    _highdicom()


def lookup_code(name: str) -> str:
    """The code of a finding in our own scheme: one code, one meaning.

    An ordinary name (capitalized words) is written in capitals; any other gets a checksum as well, so that no two names
    share a code: not those that differ in case, in a sign, or behind the 16th character.

    Example:
        >>> lookup_code("Pneumonia"), lookup_code("Pleural_Thickening"), lookup_code("COVID-19")
        ('PNEUMONIA', 'PLEURAL_THICKENING', 'COVID_19-CAF96D0A')
    """
    plain = re.sub(r"\W", "_", name.upper())
    return plain if _ORDINARY.fullmatch(name) else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8].upper()}"


def _highdicom() -> Any:
    try:
        import highdicom
    except ImportError as error:
        raise ImportError(
            "DICOM results need highdicom, which is not installed: pip install 'monai-simclr[dicom]'"
        ) from error
    return highdicom
