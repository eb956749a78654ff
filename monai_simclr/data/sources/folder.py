"""A folder of images without a table, with or without folders for classes and splits: paths to an image index."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from monai_simclr.data.findings import NO_FINDING, canonical_finding
from monai_simclr.data.index import coerce_index
from monai_simclr.data.listing import Listing, list_files, say_left_out, second_copies
from monai_simclr.data.sources.identity import patients_by_name
from monai_simclr.data.sources.wording import SPLIT_WORDS
from monai_simclr.runtime.names import shown

logger = logging.getLogger("monai_simclr.data")

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
_STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""Of files that are images whatever they are called: no suffix, .jfif, .jpe."""
_UNREAD = (
    (b"BM", 0, "BMP"),
    (b"WEBP", 8, "WebP"),
    (b"GIF8", 0, "GIF"),
    (b"jP  \r\n", 4, "JPEG 2000"),
    (b"\xff\x4f\xff\x51", 0, "JPEG 2000"),
    (b"ftyp", 4, "HEIF or AVIF"),
)
_PLAIN = {"images", "image", "imgs", "img"}
"""Folders that hold the images of the folder above."""


def recognise_class_folders(folder: Path) -> str:
    """Images in folders ``CLASS/`` or ``SPLIT/CLASS/`` with two classes or more, and none elsewhere."""
    places = set(_places(_images(folder).paths, folder))
    if not places or any(len(place) not in (1, 2) for place in places):
        return ""
    if any(len(place) == 2 and place[0].lower() not in SPLIT_WORDS for place in places):
        return ""
    classes = sorted({place[-1] for place in places if place[-1].lower() not in SPLIT_WORDS})
    named = NO_FINDING in {canonical_finding(name) for name in classes}
    depth = len({len(place) for place in places}) == 1
    deep = all(len(place) == 2 for place in places)
    if len(classes) < 2 or not depth or not (named or deep):
        return ""
    return f"its images lie in folders that are classes: {', '.join(map(shown, classes[:5]))}"


def recognise_image_folder(folder: Path) -> str:
    return "it holds images and no table" if _images(folder).paths else ""


def read_class_folders(folder: str | Path, patient_pattern: str = "") -> pd.DataFrame:
    """Image index of ``CLASS/...`` or ``SPLIT/CLASS/...``, as Kermany's chest_xray is.

    Every class becomes a finding that is 1 in its folder and 0 in the others; "NORMAL", "No Finding" and the like are
    no finding. A folder called train, val or test (or valid, validation, training, testing) is a split. Folders that
    hold everything (``chest_xray/train/...``), and folders called images in a class, do not count. What is left out is
    as in `read_image_folder`.

    Args:
        folder: of the folders.
        patient_pattern: regular expression whose first group is the patient in a file's name, as ``r"(person\\d+)"``.
            Without it every image counts as a patient of its own, and the log says so.

    Raises:
        FileNotFoundError: if there is no image.
        ValueError: if the pattern does not match a file's name, or an image lies in no class.
    """
    folder = Path(folder)
    index, found = _paths_to_index(folder, patient_pattern)
    places = _places(found.paths, folder)
    if not all(places):
        name = shown(found.paths[places.index(())].name)
        raise ValueError(
            f"an image lies in {shown(folder)} itself ({name}), in no class; put it into the folder of its class"
        )
    index["split"] = [SPLIT_WORDS.get(place[0].lower(), "") if len(place) > 1 else "" for place in places]
    classes = pd.Series([canonical_finding(place[-1]) for place in places])
    for name in sorted(set(classes) - {NO_FINDING}):
        index[name] = (classes == name).astype(float)
    return _settled(index, found)


def read_image_folder(folder: str | Path, patient_pattern: str = "") -> pd.DataFrame:
    """Image index of every PNG, JPEG and TIFF file below a folder: no labels, no splits.

    A file with another suffix, or none, is an image when its content says so. Left out, counted and named in the log:
    images in formats that are not read (BMP, WebP), masks that lie beside their images, second copies of files
    (``chest_xray/chest_xray``), and what `list_files` leaves out.

    Args:
        folder: where the images are; links to other folders are followed.
        patient_pattern: regular expression whose first group is the patient in a file's name, as ``r"^(\\d+)_"``.
            Without it every image counts as a patient of its own, and the log says so: splits may then leak.

    Raises:
        FileNotFoundError: if there is no image.
        ValueError: if the pattern does not match a file's name.
    """
    return _settled(*_paths_to_index(Path(folder), patient_pattern))


def _paths_to_index(folder: Path, pattern: str) -> tuple[pd.DataFrame, Listing]:
    found = _images(folder)
    paths = found.paths
    if not paths:
        raise FileNotFoundError(f"there are no images ({', '.join(IMAGE_SUFFIXES)}) below {shown(folder)}")
    if found.left_out:
        logger.warning(say_left_out(found.left_out, folder))
    if found.followed:
        logger.info(f"{len(found.followed)} links to folders are followed, the first is {shown(found.followed[0])}")
    # With a pattern, a name; without one the whole path, since "0.png" may lie in several folders.
    names = [path.name if pattern else path.relative_to(folder).as_posix() for path in paths]
    index = pd.DataFrame(
        {
            "image": [str(path.absolute()) for path in paths],
            "patient_id": patients_by_name(names, pattern, str(folder)),
            "study_id": "",
            "view_position": "",
            "sex": "",
            "age": np.nan,
            "split": "",
        }
    )
    return index, found


def _settled(index: pd.DataFrame, found: Listing) -> pd.DataFrame:
    index = coerce_index(index)
    index.attrs["left_out"] = found.counts()
    return index


def _places(paths: Sequence[Path], folder: Path) -> list[tuple[str, ...]]:
    """Folders between a folder and its images, without those that say nothing."""
    places = [path.relative_to(folder).parts[:-1] for path in paths]
    while len({place[:1] for place in places}) == 1 and min(map(len, places)) > 1:
        if places[0][0].lower() in SPLIT_WORDS:
            break
        places = [place[1:] for place in places]
    return [place[:-1] if len(place) > 1 and place[-1].lower() in _PLAIN else place for place in places]


def _images(folder: Path) -> Listing:
    """Images below a folder; what else is there is left out, by reason."""
    found = list_files(folder)
    others: dict[str, list[Path]] = {}
    for path in found.paths:
        if not path.name.lower().endswith(IMAGE_SUFFIXES) and (reason := _why_not(path)):
            others.setdefault(reason, []).append(path)
    for reason, paths in others.items():
        found.leave_out(reason, paths)
    found.leave_out("masks beside images", _masks(found.paths, folder))
    found.leave_out("second copies", second_copies(found.paths, folder))
    return found


def _why_not(path: Path) -> str:
    """Why a file is no image for us, by its first bytes; "" for an image."""
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except OSError:
        return "cannot be opened"
    if head.startswith(_STARTS):
        return ""
    kind = next((name for start, place, name in _UNREAD if head[place:].startswith(start)), "")
    return f"{kind} images, which are not read" if kind else "no PNG, JPEG or TIFF"


def _masks(paths: Sequence[Path], folder: Path) -> list[Path]:
    """Images in a folder of masks beside others, or with a name such as ``x_mask.png`` beside an ``x.png``."""
    parts = {path: path.relative_to(folder) for path in paths}
    in_folder = [path for path, below in parts.items() if any(_has_mask(name) for name in below.parts[:-1])]
    if len(in_folder) == len(paths):
        return []
    stems = {path.stem for path in set(paths) - set(in_folder)}
    suffixed = [path for path in paths if (stem := _MASK_END.sub("", path.stem)) != path.stem and stem in stems]
    return sorted({*in_folder, *suffixed})


_MASK_END = re.compile(r"[ _.-]*(lungs?|left|right)?[ _.-]*(masks?|seg|segmentations?)$", re.IGNORECASE)


def _has_mask(folder_name: str) -> bool:
    """Whether mask or segmentation is a word of a folder's name: masks, leftMask, lung_masks; not unmasked."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", folder_name)
    return any(word.lower() in ("mask", "masks", "segmentation", "segmentations") for word in words)
