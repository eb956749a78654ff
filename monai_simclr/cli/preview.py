"""A contact sheet of an archive: radiographs with the box of the lungs, their lung crop, and random views."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, get_args

import cv2
import numpy as np
import torch

from monai_simclr import ops, recipes
from monai_simclr.data.loading import keyed_state
from monai_simclr.data.open import open_index
from monai_simclr.data.radiograph import RadiographError
from monai_simclr.data.store import decode
from monai_simclr.report.figures import contact_sheet, png_bytes
from monai_simclr.runtime.files import write_bytes
from monai_simclr.transforms.lung_crops import LungCrop
from monai_simclr.transforms.views import RandRadiographView

STRENGTHS: tuple[str, ...] = get_args(recipes.Strength)
"""Names of the presets of views."""

_GAP, _HEADER = 4, 22
_FOUND, _GUESSED, _TEXT = (60, 200, 60), (230, 130, 20), (225, 225, 225)


class Preview(NamedTuple):
    """What `write_preview` wrote."""

    path: Path
    shown: int
    """Images on the sheet, one per row."""
    rejected: int
    """Files that could not be read."""
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
        images: maximum number of radiographs.
        seed: another seed shows other radiographs and other views.

    Raises:
        FileNotFoundError: if there is no archive.
        ValueError: if no radiograph can be read, or an argument is out of range.
    """
    if images < 1:
        raise ValueError(f"images must be at least 1, got {images}")
    view = recipes.views(strength, size)  # checks the arguments before anything is read
    index = open_index(dataset_dir)
    stored: list[np.ndarray] = []
    problems: list[RadiographError] = []
    for row in keyed_state(seed).permutation(len(index)):
        if len(stored) == images:
            break
        try:
            stored.append(decode(index["image"].iloc[row], recipes.stored_size(size)))
        except RadiographError as error:
            problems.append(error)
    if not stored:
        raise ValueError(f"none of {len(index)} radiographs can be read; one of them: {problems[0]}")
    sheet, guessed = draw_preview(stored, view, seed=seed)
    write_bytes(path, png_bytes(sheet))
    return Preview(Path(path), len(stored), len(problems), guessed)


def draw_preview(
    stored: Sequence[np.ndarray], view: RandRadiographView, n_views: int = 4, seed: int = 0
) -> tuple[np.ndarray, int]:
    """Draw the sheet: per image a row with the image and the box of the lungs, the lung crop, and views.

    Args:
        stored: images as the image store holds them, uint8 ``(S, S)``, at least one.
        view: makes the views.
        n_views: of each image.
        seed: of the views.

    Returns:
        The sheet, uint8 ``(height, width, 3)``, red first; and the number of images whose box is the prior one.

    Example:
        >>> sheet, guessed = draw_preview([np.zeros((73, 73), np.uint8)], recipes.views(size=64), n_views=2)
        >>> sheet.shape, guessed
        ((90, 268, 3), 1)
    """
    titles = ["stored, lung box", "lung crop", *(f"view {k + 1}" for k in range(n_views))]
    header: list[np.ndarray] = [np.zeros((_HEADER, view.size, 3), np.uint8) for _ in titles]
    for tile, title in zip(header, titles, strict=True):
        _write(tile, title, (4, _HEADER - 7), _TEXT)
    rows: list[list[np.ndarray]] = [header]
    guessed = 0
    for number, pixels in enumerate(stored):
        image = torch.from_numpy(np.ascontiguousarray(pixels))[None]
        lungs = ops.locate_lungs(image[None])
        guessed += int(lungs.confidence[0] == 0)
        planes = [pixels, LungCrop()(image, lungs=lungs.boxes[0]).numpy()[0]]
        for k in range(n_views):
            view.set_random_state(state=keyed_state(seed, number, k))
            planes.append(torch.as_tensor(view(image)).numpy()[0])
        tiles: list[np.ndarray] = [
            cv2.cvtColor(ops.pad_resize(plane, view.size), cv2.COLOR_GRAY2RGB) for plane in planes
        ]
        left, top, right, bottom = (int(edge) for edge in (lungs.boxes[0] * (view.size - 1)).round())
        confidence = lungs.confidence[0]
        color = _FOUND if confidence > 0 else _GUESSED
        cv2.rectangle(tiles[0], (left, top), (right, bottom), color, 1)
        text = f"found {confidence:.2f}" if confidence > 0 else "not found: prior"
        _write(tiles[0], text, (left + 3, bottom - 5), color)
        rows.append(tiles)
    return contact_sheet(rows, gap=_GAP, ground=0), guessed


def _write(tile: np.ndarray, text: str, place: tuple[int, int], color: tuple[int, int, int]) -> None:
    cv2.putText(tile, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, color, 1, cv2.LINE_AA)
