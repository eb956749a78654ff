"""Fit the lung cascade that the package ships.

Run: python benchmarks/lungs_fit.py --cxr DIR     (writes monai_simclr/ops/lung_cascade.npz; half a minute on one core)
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from lungs_data import MaskedSet, read_masked_sets, tight_box

from monai_simclr.ops.lung_cascade import LungCascade, features, look, reduced
from monai_simclr.runtime.files import write_atomically

__all__ = ["Lessons", "exposed", "fit", "lessons", "no_chest", "overlap", "placement"]

MARGINS = (0.0, 0.2, 0.2, 0.2)
"""The first stage sees the whole image, the others a box with a fifth of its sides around it."""
SPREADS = (0.07, 0.05, 0.04)
"""How far from the truth the later stages are trained to start: standard deviation, in shares of the box's sides."""
WIDE_SPREADS = (0.02, 0.05, 0.1)
"""The same for the regression that says how well a box fits."""
PENALTY = 1.0
"""Of the ridge, in units of the mean variance of the features."""
SIDE = 128


class Lessons(NamedTuple):
    """What the stages learn from: features and answers of one set, with the index of the image that each is from."""

    seen: list[np.ndarray]
    """One ``(n, N_FEATURES)`` a stage."""
    moves: list[np.ndarray]
    """One ``(n, 4)`` a stage."""
    source: np.ndarray
    """``(n,)``"""
    fit_seen: np.ndarray
    """``(m, N_FEATURES)``"""
    fit: np.ndarray
    """``(m,)``: overlap of the box looked at with the lungs' box; 0 where no chest is shown upright."""
    fit_source: np.ndarray
    """``(m,)``"""

    def of(self, images: np.ndarray) -> Lessons:
        """Only what comes from these images."""
        keep, keep_fit = np.isin(self.source, images), np.isin(self.fit_source, images)
        return Lessons(
            [x[keep] for x in self.seen],
            [x[keep] for x in self.moves],
            self.source[keep],
            self.fit_seen[keep_fit],
            self.fit[keep_fit],
            self.fit_source[keep_fit],
        )


def lessons(data: MaskedSet, copies: int, seed: int = 0) -> Lessons:
    """Show every image as it is and in `copies` other exposures and positions, each stage from a perturbed start."""
    random = np.random.RandomState(seed)
    planes, boxes, source = _varied(data, copies, random)
    starts = [np.tile([0.0, 0.0, 1.0, 1.0], (len(boxes), 1)), *(_near(boxes, spread, random) for spread in SPREADS)]
    seen = [_seen(planes, start, margin) for start, margin in zip(starts, MARGINS, strict=True)]
    moves = [(boxes - start) / _sides(start) for start in starts]
    wide = _near(boxes, random.choice(WIDE_SPREADS, (len(boxes), 1)), random)
    wrong = random.permutation(len(boxes))[: len(boxes) // 3]
    no_chests = [no_chest(planes[i], random) for i in wrong]
    return Lessons(
        seen,
        moves,
        source,
        np.concatenate([_seen(planes, wide, MARGINS[-1]), _seen(no_chests, boxes[wrong], MARGINS[-1])]),
        np.concatenate([overlap(wide, boxes), np.zeros(len(wrong))]),
        np.concatenate([source, source[wrong]]),
    )


def fit(sets: Sequence[Lessons], stages: int = len(MARGINS)) -> LungCascade:
    """Solve all regressions; every set has the same weight, however many images it has."""
    shares = np.concatenate([np.full(len(lesson.source), 1 / len(lesson.source)) for lesson in sets])
    solved = []
    for k in range(stages):
        seen, moves = (np.concatenate([getattr(lesson, name)[k] for lesson in sets]) for name in ("seen", "moves"))
        solved.append(_ridge(seen, moves, shares))
    fit_shares = np.concatenate([np.full(len(lesson.fit), 1 / len(lesson.fit)) for lesson in sets])
    fit_seen, answers = (np.concatenate([getattr(lesson, name) for lesson in sets]) for name in ("fit_seen", "fit"))
    fit_weights, fit_bias = _ridge(fit_seen, answers[:, None], fit_shares)
    weights, biases = (np.stack(parts).astype(np.float32) for parts in zip(*solved, strict=True))
    margins = np.array(MARGINS[:stages])
    return LungCascade(margins, weights, biases, fit_weights[:, 0].astype(np.float32), float(fit_bias[0]))


def overlap(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes ``(n, 4)``, one by one."""
    inner = np.maximum(np.minimum(one[:, 2:], two[:, 2:]) - np.maximum(one[:, :2], two[:, :2]), 0).prod(1)
    return inner / ((one[:, 2:] - one[:, :2]).prod(1) + (two[:, 2:] - two[:, :2]).prod(1) - inner)


def _ridge(seen: np.ndarray, answers: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted ridge regression with a free intercept: weights and bias, float64."""
    shares = (shares / shares.sum())[:, None]
    middle, answer = (shares * seen).sum(0), (shares * answers).sum(0)
    centered = (seen - middle) * np.sqrt(shares)
    gram = centered.T @ centered
    penalty = PENALTY * np.trace(gram) / len(gram) * np.eye(len(gram))
    weights = np.linalg.solve(gram + penalty, centered.T @ ((answers - answer) * np.sqrt(shares)))
    return weights, answer - middle @ weights


def _varied(
    data: MaskedSet, copies: int, random: np.random.RandomState
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    planes, boxes, source = [], [], []
    for i, (image, mask) in enumerate(zip(data.images, data.masks, strict=True)):
        plane, lungs = reduced(image.astype(np.float32)), reduced(mask.astype(np.float32))
        planes.append(plane)
        boxes.append(data.boxes[i])
        for _ in range(copies):
            moved, box = _moved(plane, lungs, random)
            planes.append(exposed(moved, random))
            boxes.append(box)
        source += [i] * (copies + 1)
    return planes, np.stack(boxes), np.array(source)


def _moved(plane: np.ndarray, lungs: np.ndarray, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """Another collimation and position, mirrored at times, with another border; most of the lungs stay inside."""
    while True:
        matrix = placement(random)
        size = abs(np.linalg.det(matrix[:, :2]))
        moved_lungs = cv2.warpAffine(lungs, matrix, (SIDE, SIDE))
        if moved_lungs.sum() >= 0.85 * size * lungs.sum():
            break
    border = cv2.BORDER_CONSTANT if random.rand() < 0.4 else cv2.BORDER_REPLICATE
    value = 0.0 if random.rand() < 0.7 else float(random.uniform(0, 255))
    moved = cv2.warpAffine(plane, matrix, (SIDE, SIDE), borderMode=border, borderValue=value)
    return moved, tight_box(moved_lungs > 0.5)


def placement(random: np.random.RandomState, side: int = SIDE) -> np.ndarray:
    scale_x = np.exp(random.uniform(-0.25, 0.15))
    scale_y = scale_x * np.exp(random.uniform(-0.2, 0.2))
    turn, shift = np.deg2rad(random.uniform(-6, 6)), random.uniform(-0.08, 0.08, 2) * side
    linear = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * [scale_x, scale_y]
    linear[:, 0] *= -1 if random.rand() < 0.5 else 1
    middle = np.full(2, (side - 1) / 2)
    return np.column_stack([linear, middle + shift - linear @ middle])


def exposed(plane: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    plane = 255 * np.clip(plane / 255, 0, 1) ** np.exp(random.uniform(-0.5, 0.5))
    if random.rand() < 0.3:
        plane = cv2.createCLAHE(2.0, (8, 8)).apply(plane.astype(np.uint8))
    return (plane + random.normal(0, 1, plane.shape) * random.uniform(0, 6)).astype(np.float32)


def no_chest(plane: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """Something that must not pass for upright lungs: turned, upside down, a part magnified, or noise."""
    kind = random.randint(5)
    if kind < 3:
        return np.ascontiguousarray((np.rot90(plane), np.rot90(plane, 3), plane[::-1])[kind])
    if kind == 3:
        side = random.randint(24, 56)
        top, left = random.randint(0, SIDE - side, 2)
        return cv2.resize(plane[top : top + side, left : left + side], (SIDE, SIDE))
    noise = random.rand(*random.randint(3, 40, 2)).astype(np.float32)
    return cv2.resize(255 * noise, (SIDE, SIDE))


def _seen(planes: Sequence[np.ndarray], boxes: np.ndarray, margin: float) -> np.ndarray:
    return np.stack([features(look(plane, box, margin)) for plane, box in zip(planes, boxes, strict=True)])


def _near(boxes: np.ndarray, spread: float | np.ndarray, random: np.random.RandomState) -> np.ndarray:
    return boxes + random.normal(0, 1, boxes.shape) * spread * _sides(boxes)


def _sides(boxes: np.ndarray) -> np.ndarray:
    return np.tile(boxes[:, 2:] - boxes[:, :2], 2)


COPIES = {"kermany": 6, "hannover": 60}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cxr", type=Path, required=True, help="folder with manifest.csv")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "monai_simclr/ops/lung_cascade.npz")
    arguments = parser.parse_args()
    sets = read_masked_sets(arguments.cxr)
    cascade = fit([lessons(data, COPIES[name]) for name, data in sets.items()])
    with write_atomically(arguments.out) as path, path.open("wb") as file:
        cascade.save(file)
    print(f"wrote {arguments.out}: {cascade.weights.size + cascade.fit_weights.size} weights")


if __name__ == "__main__":
    main()
