"""Draw the gallery: chest phantoms before and after every transform, as small PNG files, and the page that shows them.

Run: python docs/gallery.py     (writes docs/gallery/; ten seconds)
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from monai_simclr import recipes, transforms
from monai_simclr.data.phantoms import draw_phantom
from monai_simclr.runtime.files import write_text

TILE, GAP, DRAWS = 144, 4, 3
PATIENTS = (2, 5)
Shown = Callable[[Tensor, int], Tensor]
"""An image, float32 ``(1, H, W)`` in [0, 1], and the number of the draw, to what the transform makes of it."""


class Entry(NamedTuple):
    """One picture of the gallery."""

    transform: str
    caption: str
    call: str
    show: Shown
    draws: int = DRAWS


def fixed(make: Callable[[], Callable]) -> Shown:
    """A transform without randomness."""
    return lambda image, draw: torch.as_tensor(make()(image))


def drawn(make: Callable[[], Callable]) -> Shown:
    """A random transform: another seed each draw."""
    return lambda image, draw: torch.as_tensor(make().set_random_state(draw)(image))


def preset(strength: recipes.Strength) -> Entry:
    """The views of a preset."""
    view = drawn(lambda: recipes.views(strength, TILE))
    caption = f"Views of the preset `{strength}`; see `recipes.views` for what it imitates."
    return Entry("RandRadiographView", caption, f'recipes.views("{strength}")', lambda i, d: view(stored(i), d))


def stored(image: Tensor) -> Tensor:
    """A float image as the store holds it, uint8."""
    return torch.as_tensor(transforms.ToStored(recipes.stored_size(TILE))(image))


def pair(image: Tensor, draw: int) -> Tensor:
    """View number `draw` of one call of `MultiView`."""
    views = transforms.MultiView(recipes.views("mild", TILE), n_views=DRAWS).set_random_state(3)
    return torch.as_tensor(views(stored(image))[draw])


def off_center(image: Tensor) -> Tensor:
    """The phantom low in a landscape frame, as a store of padded images would not have it."""
    return torch.nn.functional.pad(image, (90, 20, 40, 0))


ENTRIES = [
    Entry(
        "CLAHE",
        "Local contrast, the same every time. Opt-in: fixed CLAHE made models worse on other hospitals.",
        "CLAHE(clip_limit=2.0)",
        fixed(lambda: transforms.CLAHE(clip_limit=2.0)),
        1,
    ),
    Entry(
        "RandCLAHE",
        "Another vendor's processing.",
        "RandCLAHE(prob=1.0)",
        drawn(lambda: transforms.RandCLAHE(prob=1.0)),
    ),
    Entry(
        "Window",
        "A narrow DICOM window.",
        "Window(center=0.5, width=0.5)",
        fixed(lambda: transforms.Window(center=0.5, width=0.5)),
        1,
    ),
    Entry(
        "RandWindow",
        "Another exposure or display.",
        "RandWindow(prob=1.0)",
        drawn(lambda: transforms.RandWindow(prob=1.0)),
    ),
    Entry(
        "RandMildRotate",
        "A tilted patient or cassette; the border repeats.",
        "RandMildRotate(degrees=10, prob=1.0)",
        drawn(lambda: transforms.RandMildRotate(degrees=10, prob=1.0)),
    ),
    Entry(
        "LungCrop",
        "The lungs with a margin of 5 %.",
        "LungCrop()",
        lambda image, draw: fixed(transforms.LungCrop)(off_center(image), draw),
        1,
    ),
    Entry(
        "RandLungPreservingCrop",
        "Another collimation; at least 80 % of the lungs' box stays.",
        "RandLungPreservingCrop(scale=(0.2, 0.8))",
        lambda image, draw: drawn(lambda: transforms.RandLungPreservingCrop(scale=(0.2, 0.8)))(off_center(image), draw),
    ),
    Entry(
        "ToStored",
        "What the store holds: padded to a square, 256 gray levels.",
        "ToStored(165)",
        lambda image, draw: stored(image[:, :, 40:200]),
        1,
    ),
    Entry(
        "ToNetworkInput",
        "What a network sees: the stored image at its size, float32.",
        "ToNetworkInput(144)",
        lambda image, draw: torch.as_tensor(transforms.ToNetworkInput(TILE)(stored(image[:, :, 40:200]))),
        1,
    ),
    *(preset(strength) for strength in ("mild", "default", "moco_cxr", "simclr", "phantom")),
    Entry(
        "MultiView", "Views of one image; each has its own seed.", 'MultiView(recipes.views("mild"), n_views=3)', pair
    ),
]
BEFORE: dict[str, Callable[[Tensor], Tensor]] = {
    "LungCrop": off_center,
    "RandLungPreservingCrop": off_center,
    "ToStored": lambda image: image[:, :, 40:200],
    "ToNetworkInput": lambda image: image[:, :, 40:200],
}


def picture(entry: Entry) -> np.ndarray:
    """One row a phantom: before, a bright line, after; uint8."""
    rows = []
    for patient in PATIENTS:
        image = torch.from_numpy(draw_phantom(patient, 0, 256).pixels)[None]
        before = BEFORE.get(entry.transform, lambda same: same)(image)
        after = [tile(entry.show(image, draw)) for draw in range(entry.draws)]
        rows.append(
            np.concatenate([tile(before), line(), *(part for shown in after for part in (shown, gap()))][:-1], 1)
        )
    between = np.zeros((GAP, rows[0].shape[1]), np.uint8)
    return np.concatenate([rows[0], between, rows[1]])


def tile(image: Tensor) -> np.ndarray:
    """An image of any size and dtype in a gray square."""
    plane = image[0].detach().cpu().numpy()
    plane = plane if plane.dtype == np.uint8 else np.rint(np.clip(plane, 0, 1) * 255).astype(np.uint8)
    scale = TILE / max(plane.shape)
    size = max(round(plane.shape[1] * scale), 1), max(round(plane.shape[0] * scale), 1)
    square = np.full((TILE, TILE), 64, np.uint8)
    top, left = (TILE - size[1]) // 2, (TILE - size[0]) // 2
    square[top : top + size[1], left : left + size[0]] = cv2.resize(plane, size, interpolation=cv2.INTER_AREA)
    return square


def line() -> np.ndarray:
    """Between before and after."""
    return np.concatenate([np.zeros((TILE, GAP)), np.full((TILE, GAP), 255), np.zeros((TILE, GAP))], 1).astype(np.uint8)


def gap() -> np.ndarray:
    """Between two draws."""
    return np.zeros((TILE, GAP), np.uint8)


def file_name(entry: Entry) -> str:
    """File name of a picture."""
    quoted = entry.call.split('"')
    return f"{entry.transform}-{quoted[1]}.png" if entry.transform == "RandRadiographView" else f"{entry.transform}.png"


def page() -> str:
    """The page that shows the pictures."""
    findings = " and ".join(draw_phantom(patient, 0, 64).finding for patient in PATIENTS)
    parts = [
        "# Gallery",
        f"Every transform on two chest phantoms, {findings}: before, a white line, after; random transforms in "
        f"{DRAWS} draws. Drawn by `python docs/gallery.py`. Gray around a picture is the page, not the image.",
    ]
    for entry in ENTRIES:
        parts.append(f"## `{entry.call}`\n\n{entry.caption}\n\n![{entry.call}]({file_name(entry)})".replace('"', "'"))
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "gallery")
    folder = parser.parse_args().out
    folder.mkdir(exist_ok=True)
    for entry in ENTRIES:
        cv2.imwrite(str(folder / file_name(entry)), picture(entry), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    write_text(folder / "README.md", page())


if __name__ == "__main__":
    main()
