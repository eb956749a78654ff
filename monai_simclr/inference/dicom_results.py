"""Results as DICOM: a Structured Report and a Secondary Capture that belong to the study of their radiograph.

This is the one place where patient data are copied, on purpose: patient and study modules come from the radiograph, so
that an archive files the results next to it. Radiographs in use lack attributes that the standard requires, and hold
values that it forbids; what is missing or invalid is left empty, which the standard reads as unknown (type 2, PS3.5
7.4.3). Needs highdicom (`pip install monai-simclr[dicom]`).
"""

from __future__ import annotations

import datetime
import hashlib
import io
import re
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.multival import MultiValue
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from monai_simclr.data.formats.dicom import is_turned_frontal
from monai_simclr.data.formats.dicom_header import read_header
from monai_simclr.data.formats.dicom_tags import keyword_name
from monai_simclr.inference.config import InferenceConfig
from monai_simclr.runtime.extras import import_extra
from monai_simclr.runtime.files import open_regular

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
        picture: uint8 ``(H, W, 3)``, as `overlay` gives it of an image that `read_radiograph` has turned.

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
    # the reader turns a frontal image to this; where the source's makes no sense, as without it, it is unknown
    image.PatientOrientation = ["L", "F"] if is_turned_frontal(radiograph) else []
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
    return import_extra("highdicom", "dicom", "a DICOM result")


class HeaderError(ValueError):
    """A header that no result can refer to; `problem` is the message, without any value of the header."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


def read_source_header(path: str | Path) -> pydicom.Dataset | None:
    """Read the whole header of a DICOM file; None for a file of another format."""
    with open_regular(path) as file:
        if file.read(132)[128:] != b"DICM":
            return None
    return read_header(path, whole=True)[0]


def source_dataset(radiograph: pydicom.Dataset) -> pydicom.Dataset:
    """The identity of a radiograph, valid for a result that belongs to its study.

    Args:
        radiograph: its header, with the file meta information where there is one.

    Returns:
        A new dataset in UTF-8 with UIDs of class, instance, series and study, and the attributes of patient and study
        that are required (empty where unknown) or useful (only where valid). SOP class and instance come from the file
        meta information where the header lacks them; the UIDs of study and series, from that of the instance.

    Raises:
        HeaderError: if the header identifies neither the image nor its class, so that nothing could refer to it.
    """
    source = pydicom.Dataset()
    source.SpecificCharacterSet = "ISO_IR 192"
    meta = getattr(radiograph, "file_meta", None) or pydicom.Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID"):
        uid = _plain(radiograph, keyword) or _plain(meta, f"MediaStorage{keyword}")
        if not uid:
            raise HeaderError(f"{keyword_name(keyword)} is missing, so that nothing could refer to the image")
        setattr(source, keyword, uid)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
        derived = generate_uid(entropy_srcs=[source.SOPInstanceUID, keyword])
        setattr(source, keyword, _plain(radiograph, keyword) or derived)
    for keyword, check in {**_REQUIRED, **_USEFUL}.items():
        value = check(_plain(radiograph, keyword))
        if value or keyword in _REQUIRED:
            setattr(source, keyword, value)
    return source


def _plain(data: pydicom.Dataset, keyword: str) -> str:
    """One value as text; empty when it is missing, has several values, or cannot be decoded."""
    try:
        value = data.get(keyword)
        text = "" if value is None or isinstance(value, MultiValue) else str(value).strip(" \0")
    except Exception:  # pydicom converts a raw value when it is first looked at, and damaged ones fail in many ways
        return ""
    return text if text.isprintable() and "\ufffd" not in text else ""


def _matching(pattern: str) -> Callable[[str], str]:
    return lambda text: text if re.fullmatch(pattern, text) else ""


def _name(text: str) -> str:
    """Up to three groups of 64 characters, each of up to five parts (PS3.5 6.2)."""
    groups = text.split("=")
    fits = len(groups) <= 3 and all(len(group) <= 64 and group.count("^") <= 4 for group in groups)
    return text if fits and "\\" not in text else ""


def _date(text: str) -> str:
    match = re.fullmatch(r"(\d{4})(\.?)(\d{2})\2(\d{2})", text)  # with dots as ACR-NEMA wrote them (PS3.5 6.2, DA)
    try:
        date = datetime.date(*(int(match[k]) for k in (1, 3, 4))) if match else datetime.date.min
    except ValueError:
        return ""
    return date.strftime("%Y%m%d") if date.year >= 1000 else ""


def _time(text: str) -> str:
    valid = re.fullmatch(r"([01]\d|2[0-3])(?:(:?)[0-5]\d(?:\2[0-5]\d(?:\.\d{1,6})?)?)?", text)
    return text.replace(":", "") if valid else ""


_REQUIRED: Mapping[str, Callable[[str], str]] = {
    "PatientName": _name,
    "PatientID": _matching(r"[^\\]{,64}"),
    "PatientBirthDate": _date,
    "PatientSex": _matching("[MFO]"),
    "StudyDate": _date,
    "StudyTime": _time,
    "ReferringPhysicianName": _name,
    "StudyID": _matching(r"[^\\]{,16}"),
    "AccessionNumber": _matching(r"[^\\]{,16}"),
}
"""Type 2 of the modules Patient and General Study (PS3.3 C.7.1.1, C.7.2.1)."""

_USEFUL: Mapping[str, Callable[[str], str]] = {
    "IssuerOfPatientID": _matching(r"[^\\]{,64}"),
    "StudyDescription": _matching(r"[^\\]{,64}"),
    "PatientAge": _matching(r"\d{3}[DWMY]"),
}
