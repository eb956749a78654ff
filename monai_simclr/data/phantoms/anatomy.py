"""The shapes of the chest phantom: outlines, ribs, vessels, in a coordinate system of their own.

Anatomy coordinates: x from -1 (the patient's right, image left) to 1, y from -1 (cranial) to 1 (caudal), the midline
at x = 0. A `Canvas` maps them to pixels, so that rotation, position and size cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
Layer = npt.NDArray[np.float32]

_SHIFT = 4  # fractional bits of OpenCV's coordinates


@dataclass(frozen=True)
class Anatomy:
    """What is drawn, in anatomy coordinates; sides are indexed 0 for the patient's right and 1 for the left."""

    width: float  # half the width of the chest
    apex: float  # y of the lungs' tops
    domes: tuple[float, float]  # y of the two diaphragm domes
    heart: float  # width of the heart over that of the chest, the cardiothoracic ratio
    shift: float  # x by which the mediastinum is moved
    slope: float  # how steeply the ribs fall
    spacing: float  # between two ribs
    clavicle: float  # y of the clavicles
    scapula: float  # x by which the shoulder blades are turned out of the lungs
    breast: float  # absorption of the breasts, 0 for none
    stomach: float  # absorption that the stomach's air takes away, 0 for none


class Canvas:
    """Draws shapes given in anatomy coordinates as soft masks, float32 (size, size) in [0, 1].

    Args:
        size: side of the image in pixels.
        matrix: float (2, 3), anatomy coordinates to pixels.
    """

    def __init__(self, size: int, matrix: npt.NDArray[np.float64]) -> None:
        self.size, self.matrix = size, matrix
        self.unit = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))  # pixels in one unit

    def fill(self, *outlines: Points, value: float = 1.0) -> Layer:
        """The inside of closed outlines."""
        return self._filled([self._to_pixels(points) for points in outlines], value)

    def bands(self, lines: Sequence[Points], width: float) -> Layer:
        """Lines of equally many points, with a width in units; one thinner than a pixel is drawn paler."""
        drawn, paths = max(width, 1.0 / self.unit), np.stack(lines)
        along = np.gradient(paths, axis=1)
        along /= np.linalg.norm(along, axis=2, keepdims=True) + 1e-9
        across = np.stack([-along[..., 1], along[..., 0]], 2) * (drawn / 2)
        ribbons = np.concatenate([paths + across, (paths - across)[:, ::-1]], axis=1)
        return self._filled(self._to_pixels(ribbons), width / drawn)

    def tapered(self, quads: Points, strength: npt.NDArray[np.float64]) -> Layer:
        """Convex quadrilaterals `(N, 4, 2)` with a brightness each."""
        layer = np.zeros((self.size, self.size), np.uint8)
        for corners, value in zip(self._to_pixels(quads), (255 * strength).tolist(), strict=True):
            cv2.fillConvexPoly(layer, corners, value, cv2.LINE_AA, _SHIFT)
        return _to_float(layer)

    def _filled(self, outlines: Iterable[npt.NDArray[np.int32]], value: float) -> Layer:
        layer = np.zeros((self.size, self.size), np.uint8)
        for corners in outlines:
            cv2.fillPoly(layer, [corners], 255 * value, cv2.LINE_AA, _SHIFT)
        return _to_float(layer)

    def _to_pixels(self, points: Points) -> npt.NDArray[np.int32]:
        pixels = points @ self.matrix[:, :2].T + self.matrix[:, 2]
        return np.rint(pixels * (1 << _SHIFT)).astype(np.int32)


def _to_float(layer: npt.NDArray[np.uint8]) -> Layer:
    return np.multiply(layer, np.float32(1 / 255), dtype=np.float32)


def blurred(layer: Layer, sigma: float) -> Layer:
    """Gaussian blur of `sigma` pixels; a wide one is computed on a smaller image."""
    factor = int(sigma // 3)
    if factor < 2:
        return np.asarray(cv2.GaussianBlur(layer, (0, 0), sigma), np.float32)
    size = layer.shape[::-1]
    small = cv2.resize(layer, (max(1, size[0] // factor), max(1, size[1] // factor)), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma / factor)
    return np.asarray(cv2.resize(small, size, interpolation=cv2.INTER_LINEAR), np.float32)


def torso(width: float) -> Points:
    """Outline of the body: neck, sloping shoulders, arms cut off by the image's sides, flanks."""
    x = [0.17, 0.19, 0.34, 0.72, 1.02, 1.12, 1.00, 0.97, 0.98, 0.96, 0.96]
    y = [-1.5, -1.08, -0.98, -0.90, -0.72, -0.40, -0.15, 0.20, 0.60, 1.00, 1.6]
    half = np.stack([x, y], 1) * (width / 0.76, 1.0)
    return _spline(np.concatenate([half, half[::-1] * (-1, 1)]))


def lung(body: Anatomy, side: int) -> Points:
    """Outline of one lung, with a sharp costophrenic angle and the diaphragm's dome below."""
    wide, dome, top = body.width, body.domes[side], body.apex
    angle = max(dome + 0.22, 0.46)
    wall = [0.40, 0.60, 0.79, 0.90, 0.97, 1.0]
    wall_y = [top + (angle - top) * share for share in (0.0, 0.05, 0.19, 0.40, 0.63, 0.84)]
    base = [0.98, 0.97, 0.88, 0.72, 0.55, 0.38, 0.20]
    base_y = [angle, angle, dome + 0.10, dome + 0.02, dome, dome + 0.02, dome + 0.09]
    inner, inner_y = [0.10, 0.09, 0.10, 0.15, 0.24], [dome, -0.1, -0.4, top + 0.18, top + 0.05]
    points = np.stack([wide * np.array(wall + base + inner), wall_y + base_y + inner_y], 1)
    medial = np.clip(1 - points[:, 0] / (0.7 * wide), 0, 1)
    points[:, 0] += (1 if side else -1) * body.shift * medial
    return _spline(points) * (1 if side else -1, 1)


def heart(body: Anatomy) -> Points:
    """Outline of heart and great vessels; the widest part is `body.heart` of the chest."""
    base = max(body.domes) - 0.025
    wide = 2 * body.width * body.heart
    right, left = 0.31 * wide, 0.69 * wide
    x = [-0.10, -0.11, -0.8 * right, -right, -0.8 * right, 0.0]
    x += [0.7 * left, left, 0.92 * left, 0.55 * left, 0.15, 0.18, 0.14, 0.09]
    y = [-0.75, -0.35, base - 0.40, base - 0.18, base + 0.06, base + 0.16]
    y += [base + 0.14, base + 0.02, base - 0.16, base - 0.40, base - 0.54, -0.40, -0.50, -0.75]
    return _spline(np.stack([x, y], 1)) + (body.shift, 0.0)


def _ellipse(x: float, y: float, width: float, height: float) -> Points:
    """Outline of an upright ellipse by its center and half axes."""
    turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    return np.stack([x + width * np.cos(turn), y + height * np.sin(turn)], 1)


def hilum(body: Anatomy, side: int) -> npt.NDArray[np.float64]:
    """Where the vessels of one lung enter, float (2,); the left hilum is a little higher."""
    return np.array([(0.17 if side else -0.17) + 0.7 * body.shift, -0.16 - 0.05 * side])


def vessels(body: Anatomy, side: int, rng: np.random.Generator) -> tuple[Points, npt.NDArray[np.float64]]:
    """A vessel tree from the hilum outwards: quadrilaterals `(N, 4, 2)` and a brightness each.

    Every generation forks in two, a little shorter and by the cube root of two thinner (Murray's law).
    """
    heading = np.linspace(-1.4, 1.4, 8) + rng.normal(0, 0.12, 8)
    start = np.tile(hilum(body, side), (8, 1)) + rng.normal(0, 0.02, (8, 2))
    length, width, parts = rng.uniform(0.09, 0.17, 8), rng.uniform(0.026, 0.040, 8), []
    for _ in range(6):
        way = np.stack([np.cos(heading) * (1 if side else -1), np.sin(heading)], 1)
        end = start + length[:, None] * way
        across = np.stack([-way[:, 1], way[:, 0]], 1)
        near, far = 0.5 * width[:, None] * across, 0.42 * width[:, None] * across
        parts.append((np.stack([start - near, start + near, end + far, end - far], 1), np.clip(width / 0.03, 0.15, 1)))
        fork = rng.uniform(0.12, 0.42, (2, len(heading)))
        heading = np.concatenate([heading - fork[0], heading + fork[1]])
        start = np.concatenate([end, end])
        length = np.concatenate([length, length]) * rng.uniform(0.72, 1.02, len(heading))
        width = np.concatenate([width, width]) * 0.5 ** (1 / 3) * rng.uniform(0.85, 1.0, len(heading))
        kept = rng.random(len(heading)) < 0.8
        heading, start, length, width = heading[kept], start[kept], length[kept], width[kept]
    quads, strength = zip(*parts[::-1], strict=True)  # thick ones last, over the thin ones
    return np.concatenate(quads), np.concatenate(strength)


def bones(canvas: Canvas, body: Anatomy) -> Layer:
    """Absorption of ribs, spine, clavicles and shoulder blades, float32 (size, size)."""
    unit, back, front = canvas.unit, [], []
    t = np.linspace(0, 1, 14)
    for number in range(10):
        start = body.apex + body.spacing * number
        reach = body.width * 1.03 * min(1.0, 0.52 + 0.16 * number)
        x = 0.07 + (reach - 0.07) * np.sin(t * np.pi / 2)
        y = start - 0.05 * np.sin(np.pi * t) + body.slope * t**2.2
        x_front = reach - (reach - 0.30) * t**1.5
        y_front = start + body.slope + 0.05 * np.sin(t * np.pi) + body.slope * 1.1 * t
        back += [np.stack([sign * x, y], 1) for sign in (-1, 1)]
        front += [np.stack([sign * x_front, y_front], 1) for sign in (-1, 1) if number < 7]
    layer = 0.17 * canvas.bands(back, 0.050) - 0.06 * canvas.bands(back, 0.55 * 0.050)  # cortex is denser than marrow
    layer += 0.08 * canvas.bands(front, 0.058)
    spine = canvas.bands([np.array([[0, -1.4], [0, 0.3], [0, 1.4]])], 0.17)
    levels = np.arange(-1.1, 0.9, 0.115)
    discs = canvas.bands([np.array([[-0.07, y], [0, y + 0.004], [0.07, y]]) for y in levels], 0.022)
    t = np.linspace(0, 1, 12)
    curve = np.stack([0.07 + 0.62 * t, body.clavicle + 0.06 * np.sin(2 * np.pi * t) - 0.10 * t], 1)
    clavicles = canvas.bands([curve * (sign, 1) for sign in (-1, 1)], 0.055)
    layer += 0.13 * blurred(spine, 0.015 * unit) - 0.05 * discs * spine + 0.12 * clavicles
    # the inner edge of a shoulder blade lies over the lung
    corners = [[0.70, 1.00, 1.04, 0.90, 0.80, 0.72, 0.66], [-0.72, -0.70, -0.52, -0.25, 0.0, -0.06, -0.40]]
    scapula = _spline(np.stack(corners, 1)) * (body.width / 0.75, 1.0) + (
        body.scapula,
        0.0,
    )
    layer += 0.05 * np.maximum(*(canvas.fill(scapula * (sign, 1)) for sign in (-1, 1)))
    return blurred(layer, max(0.5, 0.006 * unit))


def soft_shapes(canvas: Canvas, body: Anatomy) -> Layer:
    """Breasts add tissue; the air in the stomach takes some away."""
    bubble = canvas.fill(_ellipse(0.36 * body.width / 0.75, body.domes[1] + 0.17, 0.17, 0.09))
    shapes = -body.stomach * 2 * blurred(bubble, 0.015 * canvas.unit)
    if body.breast:
        both = [canvas.fill(_ellipse(sign * 0.42, 0.16, 0.36, 0.30)) for sign in (-1, 1)]
        shapes += body.breast * blurred(np.maximum(*both), 0.03 * canvas.unit)
    return shapes


def smooth_noise(size: int, grid: int, rng: np.random.Generator) -> Layer:
    """Smooth noise, about normal, float32 (size, size), whose grain does not depend on the image's size."""
    coarse = rng.standard_normal((grid, grid), dtype=np.float32)
    return np.asarray(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC), np.float32)


def _spline(points: Points, steps: int = 8) -> Points:
    """A closed Catmull-Rom curve through the points."""
    t = np.linspace(0, 1, steps, endpoint=False)[:, None, None]
    before, after, beyond = (np.roll(points, k, axis=0) for k in (1, -1, -2))
    curve = points + 0.5 * t * (
        (after - before)
        + t * (2 * before - 5 * points + 4 * after - beyond + t * (3 * points - before - 3 * after + beyond))
    )
    return curve.transpose(1, 0, 2).reshape(-1, 2)
