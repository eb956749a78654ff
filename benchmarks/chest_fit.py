"""Fit the chest check that the package ships.

Run: python benchmarks/chest_fit.py --shared DIR     (writes monai_simclr/ops/chest_check.npz; two minutes)

A logistic regression: half of the patients teach it, a quarter sets its threshold; benchmarks/chests.py reports on
the last quarter.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
from chest_data import plane_of, read_table
from lungs_fit import exposed, placement
from not_chests import DRAWN, SPOILED
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from monai_simclr.data.phantom import draw_phantom
from monai_simclr.files import write_atomically
from monai_simclr.ops.chest_check import ChestCheck, Seen, seen

__all__ = ["FALSE_ALARMS", "fitted", "lessons", "moved", "spoiled_kinds", "threshold"]

SHARES = {"adults (NIH)": 0.5, "children (Kermany)": 0.3, "adults (Hannover)": 0.15, "phantoms": 0.05}
"""Weight of each group of chests, however many images it has; drawn chests are there so that tutorials can run."""
COPIES = {"children (Kermany)": 2, "adults (Hannover)": 6}
"""How often a chest is shown moved; 1 elsewhere."""
MOST_NIH, DRAWINGS, PHANTOMS = 1500, 200, 100
PENALTY = 0.001
"""Inverse strength of the L2 penalty, as scikit-learn counts it, on standardized features."""
FALSE_ALARMS = 0.01
"""Share of the chests of the threshold's patients that may be flagged, in every group."""


class Lessons(NamedTuple):
    """What the regression learns from."""

    seen: np.ndarray
    """float32, shape ``(N, 2 * N_FEATURES)``."""
    is_chest: np.ndarray
    """bool, shape ``(N,)``."""
    weights: np.ndarray
    """float64, shape ``(N,)``: half for chests, half for the rest, there in equal shares of the kinds."""
    kinds: np.ndarray
    """str, shape ``(N,)``: group of a chest, or kind of what is none."""


def lessons(table: pd.DataFrame, seed: int = 0) -> Lessons:
    """Show chests as they are and moved, each spoiled in one way, drawn chests, and everything of `DRAWN`."""
    random = np.random.RandomState(seed)
    table = table[table["part"] == "fit"]
    nih = table.index[table["group"] == "adults (NIH)"]
    table = table.drop(index=random.permutation(nih)[MOST_NIH:])
    shown: list[tuple[str, bool, Seen | None]] = []
    for path, group in zip(table["path"], table["group"], strict=True):
        plane = plane_of(path)
        copies = [plane, *(moved(plane, random) for _ in range(COPIES.get(group, 1)))]
        shown += [(group, True, seen(copy)) for copy in copies]
        shown += [(kind, False, seen(spoiled)) for kind, spoiled in spoiled_kinds(copies, random)]
    for number in range(PHANTOMS):
        plane = 255 * draw_phantom(number, 0, 128, seed=20).pixels.astype(np.float32)
        shown.append(("phantoms", True, seen(moved(plane, random) if number % 2 else plane)))
    for kind, draw in DRAWN.items():
        shown += [(kind, False, seen(draw(random))) for _ in range(DRAWINGS)]
    kept = [(kind, chest, found.features) for kind, chest, found in shown if found is not None]
    kinds, is_chest = np.array([kind for kind, _, _ in kept]), np.array([chest for _, chest, _ in kept])
    return Lessons(np.stack([what for _, _, what in kept]), is_chest, _weights(kinds, is_chest), kinds)


def spoiled_kinds(copies: list[np.ndarray], random: np.random.RandomState) -> list[tuple[str, np.ndarray]]:
    """One way for every copy; crops twice as often as others, for they are the hardest."""
    names = [*SPOILED, *(name for name in SPOILED if name.startswith("crop"))]
    drawn = zip(copies, random.choice(names, len(copies), replace=False), strict=True)
    return [(name, np.ascontiguousarray(SPOILED[name](copy, random))) for copy, name in drawn]


def moved(plane: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """Another position, collimation and exposure, mirrored at times, and at times at 40 to 112 pixels."""
    side = len(plane)
    if random.rand() < 0.75:
        border = cv2.BORDER_CONSTANT if random.rand() < 0.4 else cv2.BORDER_REPLICATE
        value = 0.0 if random.rand() < 0.7 else float(random.uniform(0, 255))
        plane = cv2.warpAffine(plane, placement(random, side), (side, side), borderMode=border, borderValue=value)
    plane = exposed(plane, random) if random.rand() < 0.8 else plane
    if random.rand() < 0.3:
        small = int(random.randint(40, 112))
        plane = cv2.resize(cv2.resize(plane, (small, small), interpolation=cv2.INTER_AREA), (side, side))
    return plane.astype(np.float32)


def fitted(taught: Lessons, penalty: float = PENALTY) -> ChestCheck:
    """Solve the regression, on features as they are; its threshold is still at even odds."""
    scaler = StandardScaler().fit(taught.seen)
    regression = LogisticRegression(C=penalty, max_iter=500)
    regression.fit(scaler.transform(taught.seen), taught.is_chest, sample_weight=taught.weights)
    weights = regression.coef_[0] / scaler.scale_
    return ChestCheck(weights.astype(np.float32), float(regression.intercept_[0] - weights @ scaler.mean_))


def threshold(check: ChestCheck, table: pd.DataFrame) -> float:
    """The score that at most `FALSE_ALARMS` of the chests of every group lie below, on patients kept for this."""
    found = []
    for _, rows in table[table["part"] == "threshold"].groupby("group"):
        rows = rows.sample(min(len(rows), 1500), random_state=0)
        scores = np.sort([check.score(plane_of(path)) for path in rows["path"]])
        scores = scores[np.isfinite(scores)]  # what the cascade does not trust is flagged at any threshold
        found.append(scores[int(FALSE_ALARMS * len(scores))])
    return float(min(found))


def _weights(kinds: np.ndarray, is_chest: np.ndarray) -> np.ndarray:
    weights, others = np.zeros(len(kinds)), np.unique(kinds[~is_chest])
    for kind in np.unique(kinds):
        rows = kinds == kind
        weights[rows] = (SHARES[kind] if kind in SHARES else 1 / len(others)) / rows.sum()
    return weights * len(kinds) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--shared", type=Path, required=True, help="folder of the packs cxr, nih128, nih224, unlabelled"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "monai_simclr/ops/chest_check.npz")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    table = read_table(arguments.shared)
    check = fitted(lessons(table))
    check = ChestCheck(check.weights, check.bias - threshold(check, table))
    with write_atomically(arguments.out) as path, path.open("wb") as file:
        check.save(file)
    print(f"wrote {arguments.out}: {check.weights.size} weights, bias {check.bias:.3f}")


if __name__ == "__main__":
    main()
