"""Radiographs that the tests write: every transfer syntax that can be written here, and pictures of every kind."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from PIL import Image
from pydicom import uid
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate

CODESTREAMS = Path(__file__).with_name("codestreams")
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
NAME, PATIENT_ID, BIRTH_DATE = "Secret^Jane", "ID-998877", "19610203"


def picture(bits: int = 12, size: tuple[int, int] = (48, 40), signed: bool = False) -> np.ndarray:
    """A smooth picture with noise that uses all its bits and is equal to none of its mirror images."""
    rng = np.random.default_rng(bits)
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    wave = 0.5 + 0.3 * np.sin(rows / 9) * np.cos(columns / 7) + 0.15 * rows / size[0] + rng.uniform(-0.05, 0.05, size)
    values = np.clip(wave, 0, 1) * (2**bits - 1)
    values.flat[:2] = 0, 2**bits - 1
    if signed:
        return (values - 2 ** (bits - 1)).astype(np.int16 if bits > 8 else np.int8)
    return values.astype(np.uint16 if bits > 8 else np.uint8)


def make_dicom(pixels: np.ndarray, bits: int = 12, **attributes: Any) -> FileDataset:
    """A DX image with a patient in it; `attributes` are set last, by keyword, and None takes one away."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = uid.DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = uid.generate_uid(entropy_srcs=["corpus"])
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.PatientName, data.PatientID, data.PatientBirthDate = NAME, PATIENT_ID, BIRTH_DATE
    data.Modality, data.ViewPosition, data.PresentationIntentType = "DX", "PA", "FOR PRESENTATION"
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = pixels.shape[:2]
    data.BitsAllocated, data.PixelRepresentation = 8 * pixels.itemsize, int(pixels.dtype.kind == "i")
    data.BitsStored = 8 if pixels.itemsize == 1 else bits
    data.HighBit = data.BitsStored - 1
    data.PixelData = pixels.tobytes()
    data["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"
    for keyword, value in attributes.items():
        if value is None:
            delattr(data, keyword)
        else:
            setattr(data, keyword, value)
    return data


def write_dicom(path: Path, pixels: np.ndarray, bits: int = 12, **attributes: Any) -> Path:
    """Write `make_dicom`, uncompressed."""
    make_dicom(pixels, bits, **attributes).save_as(path, enforce_file_format=True)
    return path


def table_item(first: int, entries: np.ndarray, bits: int, vr: str = "US") -> pydicom.Dataset:
    """An item of a Modality or VOI LUT Sequence."""
    item = pydicom.Dataset()
    item.add_new(0x00283002, "SS" if first < 0 else "US", [len(entries) % 65536, first, bits])
    item.add_new(0x00283006, vr, entries.tolist() if vr == "US" else entries.astype("<u2").tobytes())
    return item


def _native(path: Path, pixels: np.ndarray, syntax: uid.UID) -> None:
    data = make_dicom(pixels)
    data.file_meta.TransferSyntaxUID = syntax
    big = syntax == uid.ExplicitVRBigEndian
    if big:
        data.PixelData = pixels.astype(pixels.dtype.newbyteorder(">")).tobytes()
    pydicom.dcmwrite(path, data, implicit_vr=syntax.is_implicit_VR, little_endian=not big, enforce_file_format=True)


def _compressed(path: Path, pixels: np.ndarray, syntax: uid.UID, **options: Any) -> None:
    data = make_dicom(pixels)
    data.compress(syntax, generate_instance_uid=False, **options)
    data.save_as(path, enforce_file_format=True)


def _jpeg(path: Path, pixels: np.ndarray, syntax: uid.UID) -> None:
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "JPEG", quality=98)
    data = make_dicom(pixels)
    data.file_meta.TransferSyntaxUID = syntax
    data.PixelData = encapsulate([encoded.getvalue()])
    data["PixelData"].is_undefined_length = True
    data.save_as(path, enforce_file_format=True)


def _jpeg_lossless(path: Path, pixels: np.ndarray, syntax: uid.UID) -> None:
    import gdcm

    write_dicom(path, pixels)
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    assert reader.Read()
    name = "JPEGLosslessProcess14" if syntax == uid.JPEGLossless else "JPEGLosslessProcess14_1"
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, name)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


def _stored_stream(path: Path, pixels: np.ndarray, syntax: uid.UID) -> None:
    """HTJ2K of `picture(16)`, which nothing here writes: OpenJPH 0.26.3 did, through imagecodecs."""
    data = make_dicom(pixels, 16)
    data.file_meta.TransferSyntaxUID = syntax
    data.PixelData = encapsulate([(CODESTREAMS / f"{syntax.keyword}.j2c").read_bytes()])
    data["PixelData"].is_undefined_length = True
    data.save_as(path, enforce_file_format=True)


SYNTAXES: dict[uid.UID, tuple[Callable[..., None], int, float]] = {
    uid.ImplicitVRLittleEndian: (_native, 12, 0),
    uid.ExplicitVRLittleEndian: (_native, 12, 0),
    uid.ExplicitVRBigEndian: (_native, 12, 0),
    uid.DeflatedExplicitVRLittleEndian: (_native, 12, 0),
    uid.RLELossless: (_compressed, 12, 0),
    uid.JPEGBaseline8Bit: (_jpeg, 8, 0.02),
    uid.JPEGExtended12Bit: (_jpeg, 8, 0.02),
    uid.JPEGLossless: (_jpeg_lossless, 12, 0),
    uid.JPEGLosslessSV1: (_jpeg_lossless, 12, 0),
    uid.JPEGLSLossless: (_compressed, 12, 0),
    uid.JPEGLSNearLossless: (_compressed, 12, 0.001),
    uid.JPEG2000Lossless: (_compressed, 12, 0),
    uid.JPEG2000: (_compressed, 12, 0.02),
    uid.HTJ2KLossless: (_stored_stream, 16, 0),
    uid.HTJ2K: (_stored_stream, 16, 0.02),
}
"""How to write a syntax, with how many bits, and what it may lose of the gray range."""

_OPTIONS = {uid.JPEGLSNearLossless: {"jls_error": 2}, uid.JPEG2000: {"j2k_cr": [2]}}


def write_syntax(path: Path, syntax: uid.UID, signed: bool = False) -> np.ndarray:
    """Write a picture in a transfer syntax; give its stored values."""
    write, bits, _ = SYNTAXES[syntax]
    pixels = picture(bits, signed=signed)
    write(path, pixels, syntax, **_OPTIONS.get(syntax, {}))
    return pixels


def code_item(value: str, scheme: str, meaning: str) -> pydicom.Dataset:
    """An item of a code sequence."""
    item = pydicom.Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def write_described(path: Path) -> Path:
    """Write a radiograph with every attribute that describes the patient and the examination."""
    return write_dicom(
        path,
        picture(12),
        SpecificCharacterSet=["", "ISO 2022 IR 87"],
        PatientAge="061Y",
        PatientSex="F",
        StudyInstanceUID="1.2.3",
        IssuerOfPatientID="ward",
        BodyPartExamined="CHEST",
        StudyDescription="Thorax p.a.",
        SeriesDescription="CHEST (PA AND LAT)",
        ProtocolName="chest",
        PatientOrientation=["L", "F"],
        ViewCodeSequence=[code_item("272479007", "SCT", "postero-anterior")],
        Manufacturer="A",
        NumberOfFrames=1,
        AnatomicRegionSequence=[code_item("51185008", "SCT", "Chest")],
        ImagerPixelSpacing=[0.1, 0.1],
        BurnedInAnnotation="NO",
        ManufacturerModelName="B",
        WindowCenter=2000,
        WindowWidth=4000,
    )


def write_pictures(folder: Path) -> list[Path]:
    """Write PNG, JPEG, TIFF and NIfTI of every kind that is read; for damaging them."""
    shallow, deep = Image.fromarray(picture(8)), Image.fromarray(picture(16))
    shallow.save(folder / "gray.png")
    deep.save(folder / "deep.png")
    shallow.convert("RGBA").save(folder / "rgba.png")
    shallow.convert("P").save(folder / "palette.png")
    shallow.save(folder / "gray.jpg")
    shallow.convert("RGB").save(folder / "colour.jpg", progressive=True)
    shallow.save(folder / "gray.tif")
    deep.save(folder / "deep.tif")
    deep.save(folder / "lzw.tif", compression="tiff_lzw")
    shallow.save(folder / "deflate.tif", compression="tiff_adobe_deflate")
    shallow.save(folder / "jpeg.tif", compression="jpeg")
    nib.save(nib.Nifti1Image(picture(12).T.astype(np.uint16), np.diag([-0.2, -0.2, 1, 1])), folder / "plane.nii")
    nib.save(nib.Nifti2Image(picture(12).T.astype(np.float32), np.eye(4)), folder / "plane2.nii.gz")
    return sorted(folder.iterdir())
