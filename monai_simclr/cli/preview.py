"""A contact sheet: radiographs of an archive with the lungs' box, their lung crop, and random views."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, get_args

import cv2
import numpy as np
import pandas as pd
import torch

from monai_simclr import ops, recipes
from monai_simclr.data.loading import keyed_state
from monai_simclr.data.open import open_index
from monai_simclr.data.radiograph import RadiographError
from monai_simclr.data.store import decode
from monai_simclr.runtime.files import write_atomically
from monai_simclr.transforms.lung_crops import LungCrop
from monai_simclr.transforms.views import RandRadiographView

STRENGTHS: tuple[str, ...] = get_args(recipes.Strength)
"""Names of the presets of views."""

_GAP, _HEADER = 4, 22
_FOUND, _GUESSED, _TEXT = (60, 200, 60), (230, 130, 20), (225, 225, 225)
_FONT, _TEXT_SIZE = cv2.FONT_HERSHEY_SIMPLEX, 0.45


class Preview(NamedTuple):
    """What `write_preview` wrote."""

    path: Path
    shown: int
    """Images on the sheet, one a row."""
    rejected: int
    """Files that were tried and could not be read."""
    guessed: int
    """Images on the sheet whose lungs were not found, so that the prior box is drawn."""


def write_preview(
    dataset_dir: str | Path,
    path: str | Path,
    strength: recipes.Strength = "default",
    size: int = 224,
    images: int = 8,
    seed: int = 0,
) -> Preview:
    """Write a contact sheet of some radiographs of an archive, drawn at random, as PNG.

    The sheet names no file and no patient, but shows pixels, with whatever is burned into them: treat it as patient
    data.

    Args:
        dataset_dir: an archive in any form that `data.open_index` knows.
        path: the PNG file; an older one is replaced when the new one is whole.
        strength: preset of the views.
        size: pixels along each side of a view.
        images: how many radiographs, at most.
        seed: another seed shows other radiographs and other views.

    Raises:
        FileNotFoundError: if there is no archive.
        ValueError: if no radiograph can be read, or an argument is out of range.
    """
    if images < 1:
        raise ValueError(f"images must be at least 1, got {images}")
    view = recipes.views(strength, size)  # a wrong argument ends here, before anything is read
    stored, rejected = _some(open_index(dataset_dir), recipes.stored_size(size), images, seed)
    sheet, guessed = contact_sheet(stored, view, seed=seed)
    written, png = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    if not written:
        raise OSError(f"the sheet of {sheet.shape[1]} x {sheet.shape[0]} pixels could not be encoded as PNG")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as part:
        part.write_bytes(png.tobytes())
    return Preview(path, len(stored), rejected, guessed)


def contact_sheet(
    stored: Sequence[np.ndarray], view: RandRadiographView, n_views: int = 4, seed: int = 0
) -> tuple[np.ndarray, int]:
    """Draw the sheet: one row an image; the image with the lungs' box, the lung crop, and views.

    Args:
        stored: images as the image store holds them, uint8 ``(S, S)``, at least one.
        view: makes the views.
        n_views: how many of each image.
        seed: of the views.

    Returns:
        The sheet, uint8 ``(height, width, 3)``, red first; and for how many images the box is the prior one.

    Example:
        >>> sheet, guessed = contact_sheet([np.zeros((73, 73), np.uint8)], recipes.views(size=64), n_views=2)
        >>> sheet.shape, guessed
        ((90, 268, 3), 1)
    """
    titles = ["stored, lung box", "lung crop", *(f"view {k + 1}" for k in range(n_views))]
    rows, guessed = [_titles(titles, view.size)], 0
    for number, pixels in enumerate(stored):
        image = torch.from_numpy(np.ascontiguousarray(pixels))[None]
        found = ops.locate_lungs(image[None])
        guessed += int(found.confidence[0] == 0)
        crop = LungCrop()(image, lungs=found.boxes[0]).numpy()[0]
        views = _views(image, view, n_views, (seed, number))
        tiles = [_boxed(pixels, found, view.size), *(_tile(plane, view.size) for plane in (crop, *views))]
        rows.append(_joined(tiles, axis=1))
    return _joined(rows, axis=0), guessed


def _some(index: pd.DataFrame, size: int, images: int, seed: int) -> tuple[list[np.ndarray], int]:
    stored: list[np.ndarray] = []
    problems: list[RadiographError] = []
    for row in keyed_state(seed).permutation(len(index)):
        if len(stored) == images:
            break
        try:
            stored.append(decode(index["image"].iloc[row], size))
        except RadiographError as error:
            problems.append(error)
    if not stored:
        raise ValueError(f"none of {len(index)} radiographs can be read; one of them: {problems[0]}")
    return stored, len(problems)


def _views(image: torch.Tensor, view: RandRadiographView, n_views: int, key: tuple[int, int]) -> Iterator[np.ndarray]:
    for k in range(n_views):
        view.set_random_state(state=keyed_state(*key, k))
        yield torch.as_tensor(view(image)).numpy()[0]


def _boxed(pixels: np.ndarray, found: ops.LocatedLungs, size: int) -> np.ndarray:
    tile = _tile(pixels, size)
    left, top, right, bottom = (int(edge) for edge in (found.boxes[0] * (size - 1)).round())
    confidence = found.confidence[0]
    color = _FOUND if confidence > 0 else _GUESSED
    cv2.rectangle(tile, (left, top), (right, bottom), color, 1)
    text = f"found {confidence:.2f}" if confidence > 0 else "not found: prior"
    return cv2.putText(tile, text, (left + 3, bottom - 5), _FONT, _TEXT_SIZE, color, 1, cv2.LINE_AA)


def _tile(pixels: np.ndarray, size: int) -> np.ndarray:
    return cv2.cvtColor(ops.pad_resize(pixels, size), cv2.COLOR_GRAY2RGB)


def _titles(titles: Sequence[str], size: int) -> np.ndarray:
    tiles = [np.zeros((_HEADER, size, 3), np.uint8) for _ in titles]
    for tile, title in zip(tiles, titles, strict=True):
        cv2.putText(tile, title, (4, _HEADER - 7), _FONT, _TEXT_SIZE, _TEXT, 1, cv2.LINE_AA)
    return _joined(tiles, axis=1)


def _joined(parts: Sequence[np.ndarray], axis: int) -> np.ndarray:
    """Parts side by side or one below the other, with black gaps around."""
    shape = list(parts[0].shape)
    shape[axis] = _GAP
    gap = np.zeros(shape, np.uint8)
    pieces = [piece for part in parts for piece in (gap, part)][1:]
    return np.concatenate(pieces, axis=axis)
