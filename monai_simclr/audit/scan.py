"""Facts of every file of an index, read in parallel: of its header, without its patient, and of its pixels."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import cv2
import numpy as np
from PIL import Image
from pydicom.uid import UID
from scipy.fft import dct

from monai_simclr.data.formats.dicom import SPACINGS, read_spacing, read_steps
from monai_simclr.data.formats.dicom_header import open_dicom
from monai_simclr.data.formats.dicom_tags import get_floats, get_int, get_text, tolerant_items
from monai_simclr.data.formats.exam import read_exam
from monai_simclr.data.formats.nifti import nifti_facts
from monai_simclr.data.formats.pictures import picture_facts
from monai_simclr.data.radiograph import DEFAULT_SETTINGS, RadiographError, describe_os_error, quiet_libraries
from monai_simclr.data.reading import detect_format, read_radiograph
from monai_simclr.runtime.cluster import open_executor
from monai_simclr.runtime.files import open_regular
from monai_simclr.runtime.spread import map_chunks, reason_of_loss

if TYPE_CHECKING:
    import pandas as pd

HEADER_FIELDS = {
    "problem": "problem with the header",
    "bytes": "",
    "format": "format",
    "modality": "modality",
    "sop_class": "SOP class",
    "transfer_syntax": "transfer syntax",
    "photometric": "photometric interpretation",
    "presentation_lut": "presentation LUT shape",
    "intent": "presentation intent",
    "bits": "bits stored",
    "rows": "",
    "columns": "",
    "frames": "",
    "samples": "",
    "header_view": "",
    "lateral_words": "",
    "chest": "",
    "window": "window",
    "spacing": "pixel spacing",
    "burned_in": "burned-in annotation",
    "manufacturer": "manufacturer",
    "model": "model",
}
"""Facts of a header, and the titles of those whose values are counted."""
COUNTED_FIELDS = {name: title for name, title in HEADER_FIELDS.items() if title}
COUNTED_FIELDS["damage"] = "why the reader refuses an image"
_NUMBERS = ("bytes", "bits", "rows", "columns", "frames", "samples")
_THUMB = 32
_MIN_SPREAD = 2000
_CHUNK = 16  # files that a process reads at a time
_TIME_LIMIT = 300.0  # seconds a file

# Mean of 1,008 frontal radiographs of NIH's train_val list (an aggregate: nobody's image), 16 x 16, centred and
# scaled to 99. Rows from the neck to the abdomen, columns from the patient's right to the left: dark lungs next to a
# bright mediastinum, dark air above the shoulders, bright abdomen.
_CHEST = np.array(
    [
        [-99, -95, -91, -86, -74, -46, -10, 13, 14, -6, -41, -71, -84, -87, -90, -94],
        [-77, -62, -55, -49, -43, -28, -5, 13, 15, -2, -25, -41, -47, -50, -55, -71],
        [-40, -20, -13, -13, -17, -20, -12, 8, 11, -8, -21, -19, -13, -12, -16, -35],
        [-12, 6, 9, 0, -17, -28, -22, 3, 10, -17, -31, -24, -5, 7, 7, -9],
        [3, 15, 16, -1, -29, -41, -29, 4, 14, -20, -42, -36, -9, 12, 15, 3],
        [6, 17, 18, -5, -35, -47, -31, 8, 20, -17, -45, -40, -13, 13, 16, 5],
        [2, 14, 16, -8, -36, -44, -23, 16, 27, -5, -37, -39, -15, 12, 14, 1],
        [-7, 9, 14, -10, -33, -35, -11, 25, 35, 9, -23, -33, -15, 10, 9, -9],
        [-16, 4, 11, -9, -27, -25, -1, 33, 43, 24, -5, -22, -13, 8, 5, -18],
        [-24, 0, 9, -4, -15, -11, 11, 41, 49, 36, 13, -7, -7, 7, 1, -25],
        [-32, -5, 9, 5, 2, 7, 25, 48, 54, 43, 27, 8, 1, 6, -3, -31],
        [-40, -9, 11, 18, 22, 28, 40, 55, 59, 50, 38, 23, 12, 8, -8, -39],
        [-47, -14, 16, 32, 40, 46, 53, 62, 64, 57, 48, 37, 25, 12, -12, -46],
        [-53, -17, 19, 40, 51, 57, 62, 67, 68, 62, 56, 47, 34, 16, -15, -53],
        [-57, -18, 21, 45, 58, 64, 68, 71, 71, 66, 61, 53, 40, 19, -17, -57],
        [-53, -15, 24, 47, 59, 65, 68, 70, 70, 67, 62, 55, 44, 23, -15, -55],
    ],
    dtype=np.float64,
)


def scan(
    paths: Sequence[str],
    pixels: bool,
    workers: int = 2,
    on_progress: Callable[[int], object] = lambda _: None,
    engine: str = "",
) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Facts of every file, hashes and thumbnails.

    Args:
        paths: of N files.
        pixels: read the pixels too.
        workers: processes; 0 reads in this process, as it is done with fewer than 2,000 headers.
        on_progress: called with the number of files that are done, now and then.
        engine: what spreads the reading, see `monai_simclr.runtime.cluster.open_executor`.

    Returns:
        One row per path with `header_facts` and `pixel_facts`; hashes, uint64 ``(N, 4)``, and thumbnails, uint8 ``(N,
        32, 32)``, both empty without pixels. A file that crashes its process, or takes minutes, has that as its reason.

    Raises:
        ChildProcessError: if a process was killed twice (memory).
    """
    import pandas as pd  # not in the processes that read

    tasks = list(enumerate(paths))
    chunks = [tasks[start : start + _CHUNK] for start in range(0, len(tasks), _CHUNK)]
    rows: list[dict[str, Any]] = [{}] * len(paths)
    read, blame = partial(_read_facts, pixels=pixels), partial(_blame, pixels=pixels)
    few = not pixels and len(paths) < _MIN_SPREAD
    with open_executor(engine, 0 if few else workers) as executor:
        results = map_chunks(read, chunks, executor, blame, time_limit=_TIME_LIMIT)
        for done, (row, facts) in enumerate(results, 1):
            rows[row] = facts
            if done % _CHUNK == 0 or done == len(paths):
                on_progress(done)
    hashes = np.array([row.pop("hash") for row in rows]) if pixels else np.zeros((0, 4), np.uint64)
    thumbs = np.array([row.pop("thumb") for row in rows]) if pixels else np.zeros((0, _THUMB, _THUMB), np.uint8)
    return pd.DataFrame(rows), hashes, thumbs


def _read_facts(tasks: Sequence[tuple[int, str]], pixels: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    for row, path in tasks:
        yield row, header_facts(path) | (pixel_facts(path) if pixels else {})


def _blame(task: tuple[int, str], error: BaseException, pixels: bool) -> tuple[int, dict[str, Any]]:
    """Facts of a file that ended its process twice."""
    row, path = task
    reason = reason_of_loss(error, path, _TIME_LIMIT)
    header = dict.fromkeys(HEADER_FIELDS, "") | dict.fromkeys(_NUMBERS, -1) | {"problem": reason}
    return row, header | (_no_pixels(reason) if pixels else {})


def header_facts(path: str | Path) -> dict[str, Any]:
    """Facts of a file's header: text or whole numbers under `HEADER_FIELDS`, "" or -1 for unknown ones.

    Free text of the header (descriptions) is searched for words of views and body parts and then dropped. `chest` is
    "yes", "no" or "", as `read_exam` finds it. `problem` is the reader's reason why there are no facts.
    """
    facts: dict[str, Any] = dict.fromkeys(HEADER_FIELDS, "") | dict.fromkeys(_NUMBERS, -1)
    try:
        with open_regular(path) as file, quiet_libraries():
            facts["bytes"] = os.fstat(file.fileno()).st_size
            read = {"DICOM": _dicom_facts, "picture": picture_facts, "NIfTI": nifti_facts}[detect_format(file)]
            facts.update(read(file))
    except FileNotFoundError:
        facts["problem"] = "the file is missing"
    except OSError as error:
        facts["problem"] = describe_os_error(error)
    except RadiographError as error:
        facts["problem"] = error.problem
    return facts


def _dicom_facts(file: BinaryIO) -> dict[str, Any]:
    opened = open_dicom(file, DEFAULT_SETTINGS.max_bytes)
    header = opened.data
    exam = read_exam(header)
    zero_spacing = (f"{name} is zero" for name in SPACINGS if read_steps(header, name))
    window = "none"
    if tolerant_items(header, "VOILUTSequence"):
        window = "VOI LUT"
    elif get_floats(header, "WindowCenter") and get_floats(header, "WindowWidth"):
        window = "window"
    return {
        "format": "DICOM",
        "modality": get_text(header, "Modality"),
        "sop_class": UID(get_text(header, "SOPClassUID")).name,
        "transfer_syntax": UID(opened.syntax).name,
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
        "window": window,
        "spacing": read_spacing(header)[1] or next(zero_spacing, "none"),
        "burned_in": get_text(header, "BurnedInAnnotation"),
        "manufacturer": get_text(header, "Manufacturer"),
        "model": get_text(header, "ManufacturerModelName"),
    }


def pixel_facts(path: str | Path) -> dict[str, Any]:
    """Facts of an image's pixels.

    `damage`: why it cannot be read, or "". `frontal`: see `frontal_score`. `border`: share of the area in uniform
    stripes along the edges (collimation, padding). `saturated`: share of pixels at the bottom or the top of the range.
    `contrast`: standard deviation of the image in [0, 1]. `hash`: 256-bit perceptual hash (pHash, Zauner 2010: DCT of
    the image at 64 x 64), uint64 ``(4,)``. `thumb`: uint8 ``(32, 32)``.
    """
    try:
        pixels = read_radiograph(path)[0]
    except FileNotFoundError:
        return _no_pixels("the file is missing")
    except RadiographError as error:
        return _no_pixels(error.problem)
    resize = partial(cv2.resize, interpolation=cv2.INTER_AREA)
    small = resize(pixels, (min(256, pixels.shape[1]), min(256, pixels.shape[0])))
    thumb = resize(small, (_THUMB, _THUMB))
    hashed = np.rint(resize(small, (128, 128)) * 255).astype(np.uint8)
    bits = perceptual_bits(hashed)
    inside = 1  # area of the smallest box with every row and column that is not uniform
    for axis in (0, 1):
        lines = np.flatnonzero(np.ptp(small, axis=axis) > 4 / 255)
        inside *= lines[-1] - lines[0] + 1 if len(lines) else 0
    return {
        "damage": "",
        "frontal": frontal_score(thumb),
        "border": float(1 - inside / small.size),
        "saturated": float(np.mean((pixels <= 0) | (pixels >= 1))),
        "contrast": float(pixels.std()),
        "hash": np.packbits(bits).view(np.uint64),
        "thumb": np.rint(thumb * 255).astype(np.uint8),
    }


def perceptual_bits(image: np.ndarray) -> np.ndarray:
    """The 256 bits of an 8-bit image's perceptual hash, as `imagehash.phash` with ``hash_size=16`` has them."""
    pixels = np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.LANCZOS))
    low = dct(dct(pixels, axis=0), axis=1)[:16, :16]
    return np.asarray(low > np.median(low)).ravel()


def _no_pixels(damage: str) -> dict[str, Any]:
    """Facts of the pixels of a file that cannot be read."""
    facts: dict[str, Any] = {"damage": damage} | dict.fromkeys(("frontal", "border", "saturated", "contrast"), np.nan)
    return facts | {"hash": np.zeros(4, np.uint64), "thumb": np.zeros((_THUMB, _THUMB), np.uint8)}


def frontal_score(image: np.ndarray) -> float:
    """Correlation of an image ``(H, W)`` with the mean frontal chest radiograph at 16 x 16, from -1 to 1.

    99.9 % of 1,932 held-out and other archives' frontal chest radiographs score above 0.15, and 99.5 % of the same
    images with their polarity inverted below -0.3 (docs/how-to/own-dicom-archive.md has the table). A tibia scores
    -0.2. The score cannot tell a lateral or an odd frontal (rotated, opaque, collimated) from other body parts; a CT
    slice or a round bright object can pass. It ranks what a person should look at.

    Example:
        >>> chest = _CHEST + 100
        >>> round(frontal_score(chest), 3), round(frontal_score(200 - chest), 3)
        (1.0, -1.0)
    """
    small = cv2.resize(image.astype(np.float64), (16, 16), interpolation=cv2.INTER_AREA)
    small, chest = small - small.mean(), _CHEST - _CHEST.mean()
    norm = np.linalg.norm(small) * np.linalg.norm(chest)
    return float((small * chest).sum() / norm) if norm > 0 else 0.0
