"""A folder of images without a table, perhaps with folders for classes and splits: paths to an image index."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from monai_simclr.data.columns import SPLIT_WORDS
from monai_simclr.data.findings import NO_FINDING, canonical_finding
from monai_simclr.data.listing import Listing, list_files, second_copies
from monai_simclr.data.sources.base import Source, make_index, patients_by_name
from monai_simclr.runtime.names import shown

_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
_IMAGE_STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of images with another suffix (.jfif, .jpe) or none."""
_OTHER_STARTS = (
    (b"BM", 0, "BMP"),
    (b"WEBP", 8, "WebP"),
    (b"GIF8", 0, "GIF"),
    (b"jP  \r\n", 4, "JPEG 2000"),
    (b"\xff\x4f\xff\x51", 0, "JPEG 2000"),
    (b"ftyp", 4, "HEIF or AVIF"),
)
_MASK_SUFFIX = re.compile(r"[ _.-]*(lungs?|left|right)?[ _.-]*(masks?|seg|segmentations?)$", re.IGNORECASE)
_MASK_WORDS = {"mask", "masks", "segmentation", "segmentations"}


def read_class_folders(folder: str | Path, patient_pattern: str = "") -> pd.DataFrame:
    """Image index of ``CLASS/...`` or ``SPLIT/CLASS/...``, as Kermany's chest_xray.

    Every class becomes a finding that is 1 in its folder and 0 in the others; "NORMAL", "No Finding" and the like are
    not findings. A folder called train, val or test (or valid, validation, training, testing) is a split. Folders that
    contain everything (``chest_xray/train/...``), and folders called images in a class, are ignored. Files are excluded
    as in `read_image_folder`.

    Args:
        folder: of the folders.
        patient_pattern: regular expression whose first group is the patient in a file's name, as ``r"(person\\d+)"``.
            Without it every image counts as a patient of its own, and the log says so.
    """
    folder = Path(folder)
    listing = _list_images(folder)
    places = _places(listing.paths, folder)
    if not all(places):
        name = shown(listing.paths[places.index(())].name)
        raise ValueError(
            f"an image is in {shown(folder)} itself ({name}), in no class; put it into the folder of its class"
        )
    split = [SPLIT_WORDS.get(place[0].lower(), "") if len(place) > 1 else "" for place in places]
    classes = pd.Series([canonical_finding(place[-1]) for place in places])
    labels = {name: (classes == name).astype(float) for name in sorted(set(classes) - {NO_FINDING})}
    return _index(listing, folder, patient_pattern, split, pd.DataFrame(labels, index=classes.index))


def read_image_folder(folder: str | Path, patient_pattern: str = "") -> pd.DataFrame:
    """Image index of every PNG, JPEG and TIFF file below a folder: no labels, no splits.

    A file with another suffix, or none, is an image if its content is. Excluded, counted and named in the log: images
    in formats that are not read (BMP, WebP), masks next to their images, second copies of files
    (``chest_xray/chest_xray``), and what `list_files` excludes.

    Args:
        folder: where the images are; links to other folders are followed.
        patient_pattern: regular expression whose first group is the patient in a file's name, as ``r"^(\\d+)_"``.
            Without it every image counts as a patient of its own, and the log says so: splits may then leak.
    """
    folder = Path(folder)
    return _index(_list_images(folder), folder, patient_pattern)


def _index(
    listing: Listing, folder: Path, pattern: str, split: str | Sequence[str] = "", labels: pd.DataFrame | None = None
) -> pd.DataFrame:
    if not listing.paths:
        raise FileNotFoundError(f"there are no images ({', '.join(_SUFFIXES)}) below {shown(folder)}")
    listing.log(folder)
    # Without a pattern the whole path is the patient, since "0.png" may be in several folders.
    names = [path.name if pattern else path.relative_to(folder).as_posix() for path in listing.paths]
    patients = patients_by_name(names, pattern, str(folder))
    images = [str(path.absolute()) for path in listing.paths]
    index = make_index(labels, image=images, patient_id=patients, split=split)
    index.attrs["excluded"] = listing.counts()
    return index


def _places(paths: Sequence[Path], folder: Path) -> list[tuple[str, ...]]:
    """Folders between a folder and its images, without those that tell nothing."""
    places = [path.relative_to(folder).parts[:-1] for path in paths]
    while len({place[:1] for place in places}) == 1 and min(map(len, places)) > 1:
        if places[0][0].lower() in SPLIT_WORDS:
            break
        places = [place[1:] for place in places]
    plain = {"images", "image", "imgs", "img"}
    return [place[:-1] if len(place) > 1 and place[-1].lower() in plain else place for place in places]


def _list_images(folder: Path) -> Listing:
    """Images below a folder; other files are excluded by reason."""
    listing = list_files(folder)
    others: dict[str, list[Path]] = {}
    for path in listing.paths:
        if not path.name.lower().endswith(_SUFFIXES) and (reason := _problem(path)):
            others.setdefault(reason, []).append(path)
    for reason, paths in others.items():
        listing.exclude(reason, paths)
    listing.exclude("masks next to images", _masks(listing.paths, folder))
    listing.exclude("second copies", second_copies(listing.paths, folder))
    return listing


def _problem(path: Path) -> str:
    """Why a file is not an image that is read, by its first bytes; "" if it is."""
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except OSError:
        return "cannot be opened"
    if head.startswith(_IMAGE_STARTS):
        return ""
    kind = next((name for start, place, name in _OTHER_STARTS if head[place:].startswith(start)), "")
    return f"{kind} images, which are not read" if kind else "not PNG, JPEG or TIFF"


def _masks(paths: Sequence[Path], folder: Path) -> list[Path]:
    """Images in a folder of masks (leftMask, lung_masks; not unmasked), or called ``x_mask.png`` next to ``x.png``."""
    in_folder = set()
    for path in paths:
        words = [re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name) for name in path.relative_to(folder).parts[:-1]]
        if any(word.lower() in _MASK_WORDS for name in words for word in name):
            in_folder.add(path)
    if len(in_folder) == len(paths):
        return []
    stems = {path.stem for path in set(paths) - in_folder}
    suffixed = {path for path in paths if (stem := _MASK_SUFFIX.sub("", path.stem)) != path.stem and stem in stems}
    return sorted(in_folder | suffixed)


def _recognise_class_folders(folder: Path) -> str:
    """Images in folders ``CLASS/`` or ``SPLIT/CLASS/`` of two classes or more, and nowhere else."""
    places = set(_places(_list_images(folder).paths, folder))
    depths = {len(place) for place in places}
    if depths not in ({1}, {2}) or any(len(place) == 2 and place[0].lower() not in SPLIT_WORDS for place in places):
        return ""
    classes = sorted({place[-1] for place in places if place[-1].lower() not in SPLIT_WORDS})
    has_normal = NO_FINDING in {canonical_finding(name) for name in classes}
    if len(classes) < 2 or not (has_normal or depths == {2}):
        return ""
    return f"its images are in folders that are classes: {', '.join(map(shown, classes[:5]))}"


CLASS_FOLDERS = Source("class folders", _recognise_class_folders, read_class_folders)
IMAGE_FOLDER = Source(
    "a folder of images",
    lambda folder: "it contains images and no table" if _list_images(folder).paths else "",
    read_image_folder,
)
