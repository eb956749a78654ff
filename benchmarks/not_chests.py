"""What is not an upright frontal chest: chests that are turned, inverted or cut, noise, and other things, drawn.

`SPOILED` makes one from a radiograph, `DRAWN` draws one from nothing, both float32 ``(SIDE, SIDE)`` in about [0, 255].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np

__all__ = ["DRAWN", "SIDE", "SPOILED", "cropped"]

SIDE = 128
Random = np.random.RandomState


def cropped(low: float, high: float) -> Callable[[np.ndarray, Random], np.ndarray]:
    """Give the function that magnifies a square part, its side between two shares of the image's."""

    def crop(plane: np.ndarray, random: Random) -> np.ndarray:
        side = round(random.uniform(low, high) * min(plane.shape))
        top, left = (random.randint(0, length - side + 1) for length in plane.shape)
        return cv2.resize(plane[top : top + side, left : left + side], (SIDE, SIDE))

    return crop


SPOILED: Mapping[str, Callable[[np.ndarray, Random], np.ndarray]] = {
    "turned 90": lambda plane, random: np.rot90(plane),
    "turned 180": lambda plane, random: np.rot90(plane, 2),
    "turned 270": lambda plane, random: np.rot90(plane, 3),
    "upside down": lambda plane, random: plane[::-1],
    "transposed": lambda plane, random: plane.T,
    "inverted": lambda plane, random: 255 - plane,
    "inverted and turned": lambda plane, random: 255 - np.rot90(plane, random.randint(1, 4)),
    "crop 0.2 to 0.4": cropped(0.2, 0.4),
    "crop 0.4 to 0.5": cropped(0.4, 0.5),
}


def _grid() -> tuple[np.ndarray, np.ndarray]:
    """x and y of every pixel, from 0 to 1."""
    return np.meshgrid(*[(np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE] * 2)


def _stretched(plane: np.ndarray) -> np.ndarray:
    plane = plane.astype(np.float32)
    return 255 * (plane - plane.min()) / max(float(np.ptp(plane)), 1e-6)


def _white_noise(random: Random) -> np.ndarray:
    kind = random.randint(3)
    if kind == 0:
        return random.uniform(0, 255, (SIDE, SIDE)).astype(np.float32)
    if kind == 1:
        return np.clip(random.normal(128, random.uniform(5, 90), (SIDE, SIDE)), 0, 255).astype(np.float32)
    return (255.0 * (random.rand(SIDE, SIDE) < random.uniform(0.02, 0.98))).astype(np.float32)


def _smooth_noise(random: Random) -> np.ndarray:
    sigma = float(np.exp(random.uniform(np.log(1), np.log(35))))
    return _stretched(cv2.GaussianBlur(random.rand(SIDE, SIDE).astype(np.float32), (0, 0), sigma))


def _cloud_noise(random: Random) -> np.ndarray:
    """Noise whose spectrum falls with a power of the frequency, as that of photographs does."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE)))
    frequency[0, 0] = 1
    spectrum = np.fft.fft2(random.normal(0, 1, (SIDE, SIDE))) / frequency ** random.uniform(0.5, 2.5)
    spectrum[0, 0] = 0
    return _stretched(np.fft.ifft2(spectrum).real)


def _blocks(random: Random) -> np.ndarray:
    small = random.rand(*random.randint(2, 20, 2)).astype(np.float32)
    how = (cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC)[random.randint(3)]
    return _stretched(cv2.resize(small, (SIDE, SIDE), interpolation=how))


def _gradient(random: Random) -> np.ndarray:
    x, y = _grid()
    angle = random.uniform(0, 2 * np.pi)
    kinds = (np.cos(angle) * x + np.sin(angle) * y, np.hypot(x - random.rand(), y - random.rand()))
    plane = _stretched(_stretched(kinds[random.randint(2)]) ** random.uniform(0.5, 2))
    plane = plane if random.rand() < 0.5 else 255 - plane
    return plane + random.normal(0, random.uniform(0, 4), plane.shape).astype(np.float32)


def _nearly_even(random: Random) -> np.ndarray:
    plane = np.full((SIDE, SIDE), random.uniform(0, 255), np.float32)
    return plane + random.normal(0, random.uniform(0.01, 3), plane.shape).astype(np.float32)


def _pattern(random: Random) -> np.ndarray:
    x, y = _grid()
    waves = random.uniform(1, 20, 2)
    across, down = np.sin(2 * np.pi * waves[0] * x + random.rand()), np.sin(2 * np.pi * waves[1] * y + random.rand())
    plane = (across, down, across * down, across + down)[random.randint(4)]
    return _stretched(np.sign(plane) if random.rand() < 0.5 else plane)


def _shapes(random: Random) -> np.ndarray:
    """Ellipses and boxes anywhere."""
    plane = np.full((SIDE, SIDE), random.uniform(0, 255), np.float32)
    for _ in range(random.randint(1, 25)):
        gray = float(random.uniform(0, 255))
        middle, axes = random.randint(0, SIDE, 2).tolist(), random.randint(3, 52, 2).tolist()
        if random.rand() < 0.5:
            cv2.ellipse(plane, middle, axes, float(random.uniform(0, 360)), 0, 360, gray, -1)
        else:
            cv2.rectangle(plane, middle, (middle[0] + axes[0], middle[1] + axes[1]), gray, -1)
    return cv2.GaussianBlur(plane, (0, 0), random.uniform(0.3, 4))


def _text(random: Random) -> np.ndarray:
    plane = np.full((SIDE, SIDE), 255, np.uint8)
    size, left = random.uniform(0.2, 0.9), random.randint(0, 20)
    for y in range(random.randint(5, 20), SIDE, max(int(size * random.uniform(22, 34)), 4)):
        letters = "".join(chr(c) for c in random.randint(97, 123, random.randint(3, 60)))
        words = " ".join(letters[i : i + 5] for i in range(0, len(letters), 5))
        cv2.putText(plane, words, (int(left), int(y)), cv2.FONT_HERSHEY_SIMPLEX, size, 0.0, 1, cv2.LINE_AA)
    return (plane if random.rand() < 0.7 else 255 - plane).astype(np.float32)


class _Film:
    """A drawing of tissue and bone, each an amount along the ray, developed into a film at the end."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.amount = np.zeros((SIDE, SIDE), np.float32)

    def ellipse(self, x: float, y: float, a: float, b: float, turn: float, amount: float) -> None:
        """Add an ellipsoid; places and axes in shares of the side, the turn in degrees."""
        across, down = _grid()
        c, s = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
        u, v = (c * (across - x) + s * (down - y)) / a, (-s * (across - x) + c * (down - y)) / b
        self.amount += amount * np.sqrt(np.clip(1 - u**2 - v**2, 0, None))

    def limb(self, x0: float, y0: float, x1: float, y1: float, radius: float, amount: float) -> None:
        """Add a cylinder from one point to another, with round ends."""
        across, down = _grid()
        length = max(np.hypot(x1 - x0, y1 - y0), 1e-6)
        along = np.clip(((across - x0) * (x1 - x0) + (down - y0) * (y1 - y0)) / length**2, 0, 1)
        away = np.hypot(across - x0 - along * (x1 - x0), down - y0 - along * (y1 - y0)) / radius
        self.amount += amount * np.sqrt(np.clip(1 - away**2, 0, None))

    def bone(self, x0: float, y0: float, x1: float, y1: float, radius: float, amount: float = 1.0) -> None:
        """Add a long bone: a dense tube with heads that are thicker."""
        self.limb(x0, y0, x1, y1, radius, amount)
        self.limb(x0, y0, x1, y1, 0.55 * radius, -0.45 * amount)
        for x, y in ((x0, y0), (x1, y1)):
            self.ellipse(x, y, 1.5 * radius, 1.3 * radius, 0, 0.6 * amount)

    def developed(self) -> np.ndarray:
        """Blur, noise, exposure, a turn, a place and a marker at random."""
        random = self.random
        plane = _stretched(cv2.GaussianBlur(self.amount, (0, 0), random.uniform(0.4, 1.2))) / 255
        plane = plane ** random.uniform(0.4, 1.1)
        middle = (SIDE / 2 + random.uniform(-12, 12), SIDE / 2 + random.uniform(-12, 12))
        turn = float(random.uniform(-15, 15)) if random.rand() < 0.6 else float(random.uniform(0, 360))
        matrix = cv2.getRotationMatrix2D(middle, turn, float(random.uniform(0.8, 1.5)))
        plane = cv2.warpAffine(plane, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE)
        texture = cv2.GaussianBlur(random.normal(0, 1, plane.shape).astype(np.float32), (0, 0), random.uniform(0.4, 2))
        plane = plane + random.uniform(0, 0.05) * texture / texture.std()
        film = np.clip(255 * plane, 0, 255).astype(np.uint8)
        if random.rand() < 0.5:
            place = int(random.randint(3, 105)), int(random.randint(15, 122))
            cv2.putText(film, "LR"[random.randint(2)], place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 255, 1)
        return film.astype(np.float32)


def _long_bone(random: Random) -> np.ndarray:
    film, r = _Film(random), random.uniform
    x = r(0.35, 0.65)
    film.limb(x, -0.1, x + r(-0.1, 0.1), 1.1, r(0.15, 0.35), r(0.3, 0.8))
    ends = r(-0.2, 0.25), r(0.75, 1.2)
    film.bone(x, ends[0], x + r(-0.06, 0.06), ends[1], r(0.04, 0.08))
    if random.rand() < 0.6:
        film.bone(x + r(0.08, 0.16), ends[0], x + r(0.08, 0.16), ends[1], r(0.02, 0.04), 0.7)
    return film.developed()


def _joint(random: Random) -> np.ndarray:
    """A knee, an elbow or a shoulder: two long bones that meet, and a cap."""
    film, r = _Film(random), random.uniform
    x, y, bend = r(0.4, 0.6), r(0.4, 0.6), r(-0.3, 0.3)
    for x1, y1 in ((x + bend, -0.1), (x - bend * r(0, 2), 1.1)):
        film.limb(x, y, x1, y1, r(0.2, 0.35), r(0.3, 0.7))
        film.bone(x + r(-0.02, 0.02), y + 0.07 * np.sign(y1 - y), x1, y1, r(0.06, 0.11))
    film.ellipse(x, y, r(0.06, 0.1), r(0.06, 0.1), 0, r(0.2, 0.6))
    return film.developed()


def _hand(random: Random) -> np.ndarray:
    """A hand or, with short fingers, a foot."""
    film, r = _Film(random), random.uniform
    wrist, length = (r(0.45, 0.55), r(0.85, 0.95)), r(0.15, 0.3)
    film.ellipse(0.5, 0.62, r(0.16, 0.24), r(0.18, 0.26), 0, 0.5)
    film.limb(*wrist, wrist[0], 1.1, r(0.1, 0.16), 0.5)
    for k in range(5):
        angle = np.deg2rad(-90 + (k - 2) * r(12, 20) - (25 if k == 0 else 0))
        x, y, step = wrist[0] + 0.06 * (k - 2), wrist[1] - 0.2, length * (1.0 if 0 < k < 4 else 0.8)
        for share in (1.0, 0.75, 0.5, 0.35):
            x1, y1 = x + share * step * np.cos(angle), y + share * step * np.sin(angle)
            film.limb(x, y, x1, y1, 0.035, 0.25)
            film.bone(x + 0.1 * (x1 - x), y + 0.1 * (y1 - y), x1 - 0.1 * (x1 - x), y1 - 0.1 * (y1 - y), 0.014)
            x, y = x1, y1
    for _ in range(8):
        film.ellipse(wrist[0] + r(-0.07, 0.07), wrist[1] - r(0.05, 0.17), 0.03, 0.025, r(0, 180), 0.6)
    return film.developed()


def _skull(random: Random) -> np.ndarray:
    film, r = _Film(random), random.uniform
    a, b, y = r(0.26, 0.4), r(0.32, 0.44), r(0.4, 0.5)
    film.ellipse(0.5, y, a, b, 0, 1.2)
    film.ellipse(0.5, y, 0.93 * a, 0.94 * b, 0, -0.7)
    lateral = random.rand() < 0.5
    for x in (0.5 + a * r(0.5, 0.7),) if lateral else (0.5 - 0.4 * a, 0.5 + 0.4 * a):
        film.ellipse(x, y + 0.3 * b, r(0.25, 0.33) * a, r(0.2, 0.28) * a, 0, -r(0.15, 0.35))
    film.ellipse(0.5 + (0.5 * a if lateral else 0), y + 0.75 * b, 0.5 * a, 0.35 * b, 0, r(0.4, 0.8))
    for k in range(8):
        film.ellipse(0.5 + (k - 3.5) * 0.09 * a, y + 0.8 * b, 0.03 * a, 0.07 * b, 0, 0.5)
    film.limb(0.5, y + b, 0.5, 1.1, r(0.1, 0.15), 0.6)
    return film.developed()


def _abdomen(random: Random) -> np.ndarray:
    """Abdomen and pelvis: a column of vertebrae, wings of the pelvis, gas, the lowest ribs."""
    film, r = _Film(random), random.uniform
    film.ellipse(0.5, 0.5, r(0.4, 0.6), r(0.6, 1.0), 0, r(1.0, 2.0))
    _column(film, 0.5, -0.05, r(0.75, 0.9))
    low = r(0.7, 0.95)
    for side in (-1, 1):
        film.ellipse(0.5 + side * r(0.2, 0.28), low, r(0.14, 0.2), r(0.12, 0.18), side * 30, r(0.3, 0.8))
        for k in range(random.randint(0, 3)):
            film.limb(0.5 + side * 0.06, 0.03 + 0.09 * k, 0.5 + side * 0.45, 0.12 + 0.1 * k, 0.018, 0.2)
    for _ in range(random.randint(3, 16)):
        film.ellipse(r(0.15, 0.85), r(0.15, 0.9), r(0.02, 0.09), r(0.02, 0.07), r(0, 180), -r(0.1, 0.6))
    return film.developed()


def _pelvis(random: Random) -> np.ndarray:
    film, r = _Film(random), random.uniform
    film.ellipse(0.5, 0.45, r(0.5, 0.7), r(0.5, 0.9), 0, r(0.6, 1.2))
    _column(film, 0.5, -0.1, 0.3)
    for side in (-1, 1):
        film.ellipse(0.5 + side * r(0.22, 0.27), 0.33, r(0.14, 0.19), r(0.15, 0.2), side * 25, r(0.5, 1.0))
        film.ellipse(0.5 + side * 0.11, 0.66, r(0.08, 0.11), r(0.08, 0.11), 0, 0.7)
        film.ellipse(0.5 + side * 0.11, 0.67, 0.06, 0.06, 0, -0.6)
        film.bone(0.5 + side * 0.27, 0.55, 0.5 + side * r(0.3, 0.36), 1.1, r(0.045, 0.065))
    film.ellipse(0.5, 0.38, 0.1, 0.13, 0, r(0.3, 0.7))
    return film.developed()


def _spine(random: Random) -> np.ndarray:
    """A neck or a back, from the front or from the side."""
    film, r = _Film(random), random.uniform
    film.limb(0.5, -0.1, 0.5 + r(-0.1, 0.1), 1.1, r(0.2, 0.45), r(0.5, 1.5))
    _column(film, r(0.4, 0.6), -0.1, 1.1, r(0.06, 0.13))
    if random.rand() < 0.4:
        film.limb(r(0.35, 0.65), -0.1, r(0.35, 0.65), r(0.4, 1.1), r(0.02, 0.05), -0.4)
    return film.developed()


def _column(film: _Film, x: float, top: float, bottom: float, width: float = 0.06) -> None:
    bend, step = film.random.uniform(-0.04, 0.04), width * film.random.uniform(1.0, 1.4)
    for y in np.arange(top, bottom, step):
        film.limb(x + bend * y - 0.4 * width, y, x + bend * y + 0.4 * width, y, 0.42 * step, 0.7)


def _breast(random: Random) -> np.ndarray:
    film, r = _Film(random), random.uniform
    side = random.randint(2)
    film.ellipse(float(side), r(0.4, 0.6), r(0.4, 0.8), r(0.35, 0.55), 0, 1.0)
    for _ in range(30):
        film.ellipse(abs(side - r(0, 0.4)), r(0.3, 0.7), r(0.02, 0.1), r(0.01, 0.05), r(0, 180), r(0, 0.3))
    return film.developed()


DRAWN: Mapping[str, Callable[[Random], np.ndarray]] = {
    "white noise": _white_noise,
    "smooth noise": _smooth_noise,
    "cloud noise": _cloud_noise,
    "blocks": _blocks,
    "gradient": _gradient,
    "nearly even": _nearly_even,
    "pattern": _pattern,
    "shapes": _shapes,
    "text": _text,
    "long bone": _long_bone,
    "joint": _joint,
    "hand": _hand,
    "skull": _skull,
    "abdomen": _abdomen,
    "pelvis": _pelvis,
    "spine": _spine,
    "breast": _breast,
}
