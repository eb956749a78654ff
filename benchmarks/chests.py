"""How often inference would decide on what is no upright frontal chest, and how often it would not on what is one.

Run: python benchmarks/chests.py --shared DIR     (two minutes on one core; writes results/chests.json)

On patients that neither the chest check nor its threshold has seen. The lung localizer was fitted with masks of Kermany
and Hannover, some of them of these patients. Photographs are those of scikit-image, which nothing was fitted on.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from chest_data import plane_of, read_table
from chest_fit import moved
from not_chests import DRAWN, SPOILED, cropped
from record import RESULTS, save

from monai_simclr.data import read_radiograph
from monai_simclr.ops import chest_scores
from monai_simclr.ops.chest_check import ChestCheck
from monai_simclr.ops.resize import pad_resize

EACH = 200
"""Images of each kind of what is no chest, and of each group that it is made from."""


def flagged(planes: Iterable[np.ndarray]) -> dict[str, float]:
    """Shares that get no decision: by the check, which includes the localizer, and by the localizer alone."""
    return shares(np.array([score(plane) for plane in planes]))


def score(plane: np.ndarray) -> float:
    """What inference asks of one image; -inf where the localizer has no confidence."""
    return float(chest_scores(torch.from_numpy(np.ascontiguousarray(plane, dtype=np.float32))[None, None])[0])


def shares(scores: np.ndarray) -> dict[str, float]:
    """How many were looked at, and which shares are stopped."""
    alone = float((scores == -math.inf).mean())
    return {"n": len(scores), "flagged": float((scores < 0).mean()), "flagged_by_localizer_alone": alone}


def false_alarms(table: pd.DataFrame) -> dict[str, Any]:
    """On chests as they are, by pack and by view; small; and in other positions and exposures."""
    random, found = np.random.RandomState(0), {}
    scored = table.assign(score=[score(plane_of(path)) for path in table["path"]])
    for pack, rows in scored.groupby("pack"):
        found[str(pack)] = shares(rows["score"].to_numpy())
    for view, rows in scored[scored["group"] == "adults (NIH)"].groupby("view"):
        found[f"NIH, {view or 'view unknown'}"] = shares(rows["score"].to_numpy())
    some = each_group(table)
    for size in (48, 64, 128):
        found[f"at {size} px"] = flagged(pad_resize(plane_of(path), size) for path in some)
    found["mirrored"] = flagged(plane_of(path)[:, ::-1] for path in some)
    found["moved, other exposure"] = flagged(moved(plane_of(path), random) for path in some)
    return found


def each_group(table: pd.DataFrame) -> list[str]:
    """Up to `EACH` paths of every group."""
    return [path for _, rows in table.groupby("group") for path in _some(rows)]


def _some(rows: pd.DataFrame) -> list[str]:
    return rows.sample(min(EACH, len(rows)), random_state=0)["path"].tolist()


def spoiled(table: pd.DataFrame) -> dict[str, Any]:
    """On chests turned, inverted and cut; the last row is of crops that keep much of the lungs, for information."""
    made: dict[str, Callable[[np.ndarray, np.random.RandomState], np.ndarray]] = {
        **SPOILED,
        "crop of 70 px of 224": cropped(70 / 224, 70 / 224),
        "crop 0.5 to 0.67": cropped(0.5, 0.67),
    }
    found = {}
    for kind, spoil in made.items():
        for group, rows in table.groupby("group"):
            random = np.random.RandomState(1)
            found[f"{kind}, {group}"] = flagged(spoil(plane_of(path), random) for path in _some(rows))
    return found


def drawn() -> dict[str, Any]:
    """On everything of `DRAWN`, from another seed than the check was fitted with."""
    found = {}
    for kind, draw in DRAWN.items():
        random = np.random.RandomState(9)
        found[kind] = flagged(draw(random) for _ in range(EACH))
    return found


def unlike_anything_drawn(shared: Path) -> dict[str, Any]:
    """On photographs, whole and in parts, and the one real radiograph of a leg, whole, turned and cut."""
    found, random = {}, np.random.RandomState(2)
    leg = 255 * read_radiograph(shared / "cxr" / "dicom" / "RG3_J2KI.dcm")[0]
    found["radiograph of a leg"] = flagged([pad_resize(leg.astype(np.float32), 224), *_parts(leg, random, 40)])
    try:
        import skimage.data
    except ImportError:
        return found
    paths = sorted(Path(skimage.data.__file__).parent.glob("*.*g"))
    photos = [image for path in paths if (image := cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)) is not None]
    found["photographs"] = flagged(pad_resize(photo, 224) for photo in photos)
    found["parts of photographs"] = flagged(part for photo in photos for part in _parts(photo, random, 20))
    return found


def _parts(image: np.ndarray, random: np.random.RandomState, count: int) -> list[np.ndarray]:
    cut = cropped(0.4, 0.95)
    return [np.rot90(cut(image.astype(np.float32), random), random.randint(4)) for _ in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--shared", type=Path, required=True, help="folder of the packs cxr, nih128, nih224, unlabelled"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "chests.json")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    whole = read_table(arguments.shared)
    table = whole[whole["part"] == "report"]
    result = {
        "patients": {str(part): rows["patient"].nunique() for part, rows in whole.groupby("part")},
        "chests": false_alarms(table),
        "spoiled chests": spoiled(table),
        "drawn": drawn(),
        "other": unlike_anything_drawn(arguments.shared),
    }
    packages = ("torch", "numpy", "opencv-python-headless", "scikit-learn", "scikit-image", "monai-simclr")
    save(arguments.out, packages, check=ChestCheck.shipped().checksum, **result)


if __name__ == "__main__":
    main()
