"""Folders of chest phantoms: the NIH ChestX-ray14 layout and DICOM files, for tests, tutorials and benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from monai_simclr.data.findings import NO_FINDING
from monai_simclr.data.phantoms.draw import FINDINGS, Phantom, draw_phantom, n_films_of_patient
from monai_simclr.runtime.files import write_atomically, write_text, writing

_NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
_FIELD_MM = 400.0  # side of the detector
_STORED_MAX = 4095  # 12 bits
_FIRST_DAY = date(2001, 1, 1)


def write_nih_phantoms(
    folder: str | Path,
    n_patients: int = 300,
    size: int = 256,
    seed: int = 0,
    bad_files: int = 0,
    progress: Callable[[int, int], None] | None = None,
    lung_masks: bool = False,
) -> Path:
    """Write phantoms in the layout of NIH ChestX-ray14, with one to four images per patient.

    The folder holds `images/PHANTOM-00000001_000.png` (8-bit; every seventh patient 16-bit; not a name of NIH's, so
    that nobody takes them for its patients), `Data_Entry_2017_v2020.csv` with the publisher's columns, and
    `train_val_list.txt` and `test_list.txt`, which split by patient: about a quarter of the patients of every class are
    in the test list. The tables are written last, so a folder with them is complete.

    Args:
        folder: where to write; created when it is missing.
        n_patients: number of patients with valid images, numbered from 1.
        size: side of the images in pixels.
        seed: see `draw_phantom`.
        bad_files: number of further patients, in the train list, whose only image is damaged, in turn: a PNG cut short,
            a text named .png, an image that is all black.
        progress: called with the number of images written and the total, after every valid image.
        lung_masks: whether to write `lung_masks/` too, 8-bit PNG of 0 and 255 with the images' names.

    Returns:
        The folder.

    Raises:
        ValueError: if `n_patients` is below 1 or `bad_files` is negative.
        FileExistsError: if the folder has images already.

    Example:
        >>> import tempfile
        >>> folder = write_nih_phantoms(tempfile.mkdtemp(), n_patients=6, size=64, bad_files=1)
        >>> sorted(path.name for path in folder.iterdir())
        ['Data_Entry_2017_v2020.csv', 'images', 'test_list.txt', 'train_val_list.txt']
    """
    if n_patients < 1 or bad_files < 0:
        raise ValueError(f"n_patients must be at least 1 and bad_files at least 0; got {n_patients} and {bad_files}")
    folder = _make_folders(folder, "images", *(["lung_masks"] if lung_masks else []))
    rows: list[str] = []
    classes: dict[int, str] = {}
    images = _list_images(n_patients, seed)
    for patient, follow_up in images:
        phantom = draw_phantom(patient, follow_up, size, seed)
        name = f"{_patient_id(phantom.patient)}_{phantom.follow_up:03d}.png"
        _write_png(folder / "images" / name, _quantize(phantom))
        if lung_masks:
            _write_png(folder / "lung_masks" / name, phantom.lung_mask.astype(np.uint8) * 255)
        rows.append(_nih_row(name, phantom))
        classes.setdefault(phantom.patient, phantom.finding)
        if progress is not None:
            progress(len(rows), len(images))
    for k in range(bad_files):
        phantom = draw_phantom(n_patients + 1 + k, 0, size, seed)
        path = folder / "images" / f"{_patient_id(phantom.patient)}_000.png"
        _write_png(path, _quantize(phantom) if k % 3 < 2 else np.zeros((size, size), np.uint8))
        if k % 3 == 0:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        elif k % 3 == 1:
            path.write_text("This is no image, whatever its name says.\n", encoding="utf-8")
        rows.append(_nih_row(path.name, phantom))
    order = np.random.default_rng([seed, 5]).permutation(sorted(classes)).tolist()
    order.sort(key=lambda patient: (*FINDINGS, NO_FINDING).index(classes[patient]))
    test = set(order[1::4])
    names = [row.split(",", 1)[0] for row in rows]
    write_text(folder / "train_val_list.txt", "".join(f"{name}\n" for name in names if int(name[8:16]) not in test))
    write_text(folder / "test_list.txt", "".join(f"{name}\n" for name in names if int(name[8:16]) in test))
    write_text(folder / "Data_Entry_2017_v2020.csv", "".join(f"{row}\n" for row in [_NIH_HEADER, *rows]))
    return folder


def write_dicom_phantoms(folder: str | Path, n_patients: int = 10, size: int = 256, seed: int = 0) -> Path:
    """Write phantoms as DICOM files, `PHANTOM-00000001/000.dcm` and so on, alternately MONOCHROME1 and MONOCHROME2.

    Args:
        folder: where to write; created when it is missing.
        n_patients: number of patients, with one to four images each, every image in its own study.
        size: side of the images in pixels.
        seed: see `draw_phantom`.

    Returns:
        The folder.

    Raises:
        ValueError: if `n_patients` is below 1.
        FileExistsError: if the folder has a patient of that name already.

    Example:
        >>> import tempfile
        >>> folder = write_dicom_phantoms(tempfile.mkdtemp(), n_patients=1, size=64)
        >>> pydicom.dcmread(folder / "PHANTOM-00000001" / "000.dcm").PhotometricInterpretation
        'MONOCHROME1'
    """
    if n_patients < 1:
        raise ValueError(f"n_patients must be at least 1; got {n_patients}")
    folder = _make_folders(folder, *(_patient_id(patient) for patient in range(1, n_patients + 1)))
    for number, (patient, follow_up) in enumerate(_list_images(n_patients, seed)):
        phantom = draw_phantom(patient, follow_up, size, seed)
        dataset = phantom_to_dicom(phantom, "MONOCHROME2" if number % 2 else "MONOCHROME1", seed)
        with write_atomically(folder / _patient_id(phantom.patient) / f"{phantom.follow_up:03d}.dcm") as part:
            dataset.save_as(part, enforce_file_format=True)
    return folder


def phantom_to_dicom(phantom: Phantom, photometric: str = "MONOCHROME2", seed: int = 0) -> FileDataset:
    """Convert a phantom to a Digital X-Ray Image for presentation (DICOM PS3.3, A.26), with an invented patient.

    Args:
        phantom: the picture and its labels.
        photometric: "MONOCHROME2" stores bright = high, "MONOCHROME1" the inverse; both show the same picture.
        seed: the archive the phantom is from; it enters the UIDs.

    Returns:
        A data set with file meta information: 12 bits stored, explicit VR little endian, a window over the full range.

    Raises:
        ValueError: if `photometric` is anything else.

    Example:
        >>> dataset = phantom_to_dicom(draw_phantom(1, 0, size=64))
        >>> dataset.Modality, dataset.Rows, dataset.BitsStored, str(dataset.PatientName)
        ('DX', 64, 12, 'Phantom^Patient 1')
    """
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise ValueError(f"photometric must be 'MONOCHROME1' or 'MONOCHROME2'; got {photometric!r}")
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = _make_uid("image", phantom, seed)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.PatientID, dataset.PatientName = _patient_id(phantom.patient), f"Phantom^Patient {phantom.patient}"
    dataset.PatientSex, dataset.PatientAge, dataset.PatientBirthDate = phantom.sex, f"{phantom.age:03d}Y", ""
    dataset.StudyInstanceUID, dataset.StudyID = _make_uid("study", phantom, seed), str(phantom.follow_up)
    day = (_FIRST_DAY + timedelta(days=365 * phantom.follow_up)).strftime("%Y%m%d")
    dataset.StudyDate = dataset.ContentDate = dataset.AcquisitionDate = day
    dataset.StudyTime = dataset.ContentTime = dataset.AcquisitionTime = "120000"
    dataset.AccessionNumber, dataset.ReferringPhysicianName = "", ""
    dataset.Modality, dataset.PresentationIntentType, dataset.DetectorType = "DX", "FOR PRESENTATION", "DIRECT"
    dataset.SeriesInstanceUID, dataset.SeriesNumber = _make_uid("series", phantom, seed), 1
    dataset.InstanceNumber, dataset.Manufacturer = 1, "monai-simclr phantom"
    dataset.ImageType, dataset.BurnedInAnnotation = ["ORIGINAL", "PRIMARY", ""], "NO"
    dataset.BodyPartExamined, dataset.ViewPosition = "CHEST", phantom.view_position
    dataset.PatientOrientation, dataset.ImageLaterality = ["L", "F"], "U"
    chest = pydicom.Dataset()
    chest.CodeValue, chest.CodingSchemeDesignator, chest.CodeMeaning = "51185008", "SCT", "Chest"
    dataset.AnatomicRegionSequence, dataset.AcquisitionContextSequence = Sequence([chest]), Sequence()
    dataset.ImagerPixelSpacing = [round(_FIELD_MM / phantom.pixels.shape[0], 4)] * 2
    inverse = photometric == "MONOCHROME1"
    stored = np.rint(phantom.pixels * _STORED_MAX).astype("<u2")
    dataset.add_new("PixelData", "OW", (_STORED_MAX - stored if inverse else stored).astype("<u2").tobytes())
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, photometric
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelIntensityRelationship, dataset.PixelIntensityRelationshipSign = "LOG", 1 if inverse else -1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "US"
    dataset.PresentationLUTShape, dataset.LossyImageCompression = "INVERSE" if inverse else "IDENTITY", "00"
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = 2048, 4096, "LINEAR"
    return dataset


def _list_images(n_patients: int, seed: int) -> list[tuple[int, int]]:
    return [(patient, k) for patient in range(1, n_patients + 1) for k in range(n_films_of_patient(patient, seed))]


def _make_folders(folder: str | Path, *names: str) -> Path:
    folder = Path(folder)
    for name in names:
        if (folder / name).exists():
            raise FileExistsError(f"{folder / name} exists already; name a new folder, or remove it first")
    for name in names:
        (folder / name).mkdir(parents=True)
    return folder


def _quantize(phantom: Phantom) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    if phantom.patient % 7:
        return np.rint(phantom.pixels * 255).astype(np.uint8)
    return np.rint(phantom.pixels * 65535).astype(np.uint16)


def _write_png(path: Path, pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> None:
    with writing(path):  # not atomically: thousands of files, and a stop leaves an archive that nobody has asked for
        path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


def _nih_row(name: str, phantom: Phantom) -> str:
    spacing = round(_FIELD_MM / 2048, 3)
    person = f"{phantom.patient},{phantom.age},{phantom.sex},{phantom.view_position}"
    return f"{name},{phantom.finding},{phantom.follow_up},{person},2048,2048,{spacing},{spacing}"


def _patient_id(patient: int) -> str:
    return f"PHANTOM-{patient:08d}"


def _make_uid(kind: str, phantom: Phantom, seed: int) -> UID:
    return generate_uid(
        entropy_srcs=["monai-simclr phantom", kind, str(seed), f"{phantom.patient}", f"{phantom.follow_up}"]
    )
