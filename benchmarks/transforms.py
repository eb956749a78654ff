"""CPU time of one thread: two views, CLAHE, and the device path, against the peers, with the same operations.

The device path on a GPU is measured by `gpu.py`.

Run: python benchmarks/transforms.py [RESULT.json]   (makes .venv-bench for the peers at the first run)

What training gets of it, against lightly and MONAI, is measured from loader to loader: `loaders.py`.
"""

from __future__ import annotations

from peers import leave_out_compiled_operators, run_beside_peers

if __name__ == "__main__":
    run_beside_peers("albumentations", "kornia")

import random
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from monai.data import set_track_meta
from record import RESULTS, save

from monai_simclr import ops
from monai_simclr.transforms import MultiView, RandRadiographView, ViewDetector, ViewExposure, ViewPositioning

Side = Callable[[], Any]
SIZE, ROUNDS, BATCH = 224, 11, 16
PACKAGES = (
    "torch",
    "monai",
    "albumentations",
    "kornia",
    "scikit-image",
    "opencv-python-headless",
)


def picture(size: int = 256) -> np.ndarray:
    """A smooth picture over the whole range, as a radiograph is."""
    noise = cv2.GaussianBlur(np.random.RandomState(0).rand(size, size).astype(np.float32), (0, 0), 2)
    return np.rint((noise - noise.min()) / np.ptp(noise) * 255).astype(np.uint8)


def our_view(full: bool) -> RandRadiographView:
    """Crop of 0.3 to 1, 10 degrees, flip 0.5, brightness and contrast 0.4 (p 0.8), blur to 2 px (p 0.5).

    `full` adds gamma (p 0.8) and noise (p 0.5).
    """
    return RandRadiographView(
        SIZE,
        ViewPositioning(scale=(0.3, 1.0), min_lung_coverage=0.0, flip_prob=0.5),
        ViewExposure(gamma=(0.8, 1.25) if full else (1.0, 1.0), brightness=0.4, contrast=0.4, prob=0.8),
        ViewDetector(blur_sigma=(0.1, 2.0), prob_blur=0.5, noise_std=(0.0, 0.03), prob_noise=0.5 if full else 0.0),
    )


def ours(full: bool) -> Side:
    """Ours, uint8 in and out, called image by image."""
    image, pair = torch.from_numpy(picture())[None], MultiView(our_view(full)).set_random_state(0)
    return lambda: pair(image)


def albumentations(full: bool) -> Side:
    """The same operations of albumentations, uint8 in and out."""
    import albumentations as a

    tone = [a.RandomGamma((80, 125), p=0.8)] if full else []
    noise = [a.GaussNoise(std_range=(0.0, 0.03), p=0.5)] if full else []
    transform = a.Compose(
        [
            a.RandomResizedCrop((SIZE, SIZE), scale=(0.3, 1.0)),
            a.Rotate(10, p=1.0, border_mode=cv2.BORDER_REPLICATE),
            a.HorizontalFlip(p=0.5),
            *tone,
            a.RandomBrightnessContrast(0.4, 0.4, p=0.8),
            a.GaussianBlur(sigma_limit=(0.1, 2.0), blur_limit=0, p=0.5),
            *noise,
        ]
    )
    image = picture()
    return lambda: [transform(image=image)["image"] for _ in range(2)]


def float_images(count: int = BATCH, device: torch.device | str = "cpu") -> torch.Tensor:
    """A batch of the picture, in [0, 1]."""
    return (torch.from_numpy(picture())[None, None].repeat(count, 1, 1, 1) / 255).to(device)


def kornia_views(images: torch.Tensor) -> Side:
    """kornia's augmentations on a batch of float32 images, twice."""
    import kornia.augmentation as k

    transform = torch.nn.Sequential(
        k.RandomResizedCrop((SIZE, SIZE), scale=(0.3, 1.0)),
        k.RandomRotation(10.0, p=1.0),
        k.RandomHorizontalFlip(0.5),
        k.RandomGamma((0.8, 1.25), p=0.8),
        k.RandomBrightness((0.6, 1.4), p=0.8),
        k.RandomContrast((0.6, 1.4), p=0.8),
        k.RandomGaussianBlur((13, 13), (0.1, 2.0), p=0.5),
        k.RandomGaussianNoise(std=0.03, p=0.5),
    )
    return lambda: [transform(images) for _ in range(2)]


def device_views(images: torch.Tensor) -> Side:
    """Our torch path on the same batch, drawing included."""
    view = our_view(full=True).set_random_state(0)
    return lambda: [ops.make_views(images, view.draw(len(images)), SIZE, backend="torch") for _ in range(2)]


def clahe_sides() -> dict[str, tuple[Side, int]]:
    """CLAHE with a clip limit of 2 and 8 x 8 tiles at 256 pixels; sides and images a call."""
    from kornia.enhance import equalize_clahe
    from skimage.exposure import equalize_adapthist

    pixels = picture()
    one = torch.from_numpy(pixels)[None, None]
    images = one.repeat(BATCH, 1, 1, 1)
    floats = images / 255
    return {
        "ours, uint8": (lambda: ops.clahe(one, 2.0), 1),
        "ours, uint8 batch": (lambda: ops.clahe(images, 2.0), BATCH),
        "scikit-image, uint8": (lambda: equalize_adapthist(pixels, kernel_size=32, clip_limit=0.01), 1),
        "kornia, float32 batch": (lambda: equalize_clahe(floats, 2.0, (8, 8)), BATCH),
        "ours in torch, float32 batch": (lambda: ops.clahe(floats, 2.0, backend="torch"), BATCH),
        "ours in torch, uint8 batch": (lambda: ops.clahe(images, 2.0, backend="torch"), BATCH),
    }


def milliseconds(sides: dict[str, tuple[Side, int]], seconds: float = 0.12) -> dict[str, float]:
    """CPU milliseconds an image, median over interleaved rounds after one that warms up."""
    calls = {}
    for name, (side, _) in sides.items():
        side()
        start = time.process_time()
        side()
        calls[name] = max(1, round(seconds / max(time.process_time() - start, 1e-4)))
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(ROUNDS + 1):
        for name, (side, images) in sides.items():
            start = time.process_time()
            for _ in range(calls[name]):
                side()
            if number:
                spent[name].append(1000 * (time.process_time() - start) / calls[name] / images)
    return {name: statistics.median(times) for name, times in spent.items()}


def cpu_table() -> list[dict[str, Any]]:
    """Every row of the table: what, against whom, milliseconds an image on both sides, their ratio, the target."""
    views = {
        "ours, some operations, uint8": (ours(False), 1),
        "albumentations, same": (albumentations(False), 1),
        "ours, all operations, uint8": (ours(True), 1),
        "albumentations, all": (albumentations(True), 1),
        "ours in torch, float32 batch": (device_views(float_images()), BATCH),
        "kornia": (kornia_views(float_images()), BATCH),
    }
    pairs = [
        ("two views", "ours, all operations, uint8", "albumentations, all", 1.8),
        ("two views", "ours, some operations, uint8", "albumentations, same", None),
        ("two views, torch path", "ours in torch, float32 batch", "kornia", 1.5),
    ]
    rows = _rows(milliseconds(views), pairs)
    pairs = [
        ("CLAHE", "ours, uint8", "scikit-image, uint8", 12.0),
        ("CLAHE", "ours, uint8 batch", "kornia, float32 batch", 8.0),
        ("CLAHE", "ours, uint8", "kornia, float32 batch", None),
        ("CLAHE, torch path", "ours in torch, float32 batch", "kornia, float32 batch", 1.1),
        ("CLAHE, torch path", "ours in torch, uint8 batch", "kornia, float32 batch", None),
    ]
    return rows + _rows(milliseconds(clahe_sides()), pairs)


def _rows(spent: dict[str, float], pairs: list[tuple]) -> list[dict[str, Any]]:
    return [
        {
            "what": what,
            "ours": mine,
            "peer": peer,
            "ours_ms": spent[mine],
            "peer_ms": spent[peer],
            "times_faster": spent[peer] / spent[mine],
            "target": target,
        }
        for what, mine, peer, target in pairs
    ]


def main(path: Path) -> None:
    """Compare, print, and store with what it ran on."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    set_track_meta(False)  # as a training loop that wants speed does; MetaTensors cost every side the same and more
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    rows = cpu_table()
    content: dict[str, Any] = {
        "settings": {"images": "256 -> 224, gray", "batch": BATCH, "rounds": ROUNDS, "unit": "CPU ms an image, median"},
        "results": rows,
    }
    for row in rows:
        goal = "" if row["target"] is None else f"(target {row['target']:g})"
        print(
            f"{row['what']:22s} {row['ours']:36s} {row['ours_ms']:7.3f} ms  "
            f"{row['peer']:22s} {row['peer_ms']:7.3f} ms  {row['times_faster']:6.2f}x {goal}"
        )
    save(path, PACKAGES, **content)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    leave_out_compiled_operators()
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS / "transforms.json")
