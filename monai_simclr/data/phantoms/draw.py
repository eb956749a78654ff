"""A chest phantom: radiographs drawn from a seed, with findings that are known because they were drawn.

The picture is modelled as X-ray absorption. Thicknesses of soft tissue, bone and air are summed along the ray, turned
into transmitted intensity, veiled with scatter, given quantum noise and shown on a logarithmic scale, as a detector
does (Bushberg et al., The Essential Physics of Medical Imaging, chapters 4 and 7). Exposure, position, rotation and
size change from image to image and dominate the pixels, so that a finding cannot be read from brightness.

It is for tests, tutorials and benchmarks, not a substitute for patients: nothing measured on it is clinical evidence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from monai_simclr.data.findings import NO_FINDING
from monai_simclr.data.phantoms import anatomy
from monai_simclr.data.phantoms.anatomy import Anatomy, Canvas, Layer, blurred

FINDINGS: tuple[str, ...] = ("Atelectasis", "Cardiomegaly", "Consolidation", "Effusion", "Pneumothorax")
"""What the phantom can have: one of these or "No Finding", in turn, so that six patients have each once."""


@dataclass(frozen=True)
class Phantom:
    """One drawn radiograph and what is known about it.

    Attributes:
        pixels: float32 (H, W) in [0, 1], bright = dense, row 0 cranial, column 0 the patient's right.
        lung_mask: bool (H, W), the pleural spaces with all air and fluid in them, not behind heart or mediastinum.
        finding: one of `FINDINGS`, or "No Finding".
        view_position: "PA" or "AP".
        sex: "M" or "F".
        age: years.
        patient: number of the patient.
        follow_up: number of the patient's image, from 0.
    """

    pixels: Layer
    lung_mask: npt.NDArray[np.bool_]
    finding: str
    view_position: str
    sex: str
    age: int
    patient: int
    follow_up: int


@dataclass(frozen=True)
class _State:
    """What one image shows: the finding, on which side (0 right, 1 left), how severe (0 to 1), and how it was taken."""

    finding: str
    side: int
    severity: float
    projection: str

    @property
    def sign(self) -> int:
        """1 on the left, -1 on the right."""
        return 1 if self.side else -1


def draw_phantom(patient: int, follow_up: int, size: int = 256, seed: int = 0) -> Phantom:
    """Draw one radiograph of one invented patient.

    Args:
        patient: number of the patient, from 0; its anatomy and finding follow from (seed, patient).
        follow_up: number of the image, from 0; exposure, position and severity follow from (seed, patient, follow_up).
            The finding of image 0 stays in most later ones and is gone (No Finding) in about one of ten.
        size: side in pixels, 64 to 1024; the anatomy and the exposure do not depend on it.
        seed: another seed is another archive.

    Returns:
        The image with its mask and labels.

    Raises:
        ValueError: if a number is negative, or `size` is not within 64 to 1024.

    Example:
        >>> phantom = draw_phantom(patient=3, follow_up=0, size=64)
        >>> phantom.pixels.shape, phantom.view_position in ("PA", "AP"), phantom.finding in (*FINDINGS, "No Finding")
        ((64, 64), True, True)
    """
    if min(patient, follow_up, seed) < 0:
        raise ValueError(f"patient, follow_up and seed must not be negative; got {patient}, {follow_up}, {seed}")
    if not 64 <= size <= 1024:
        raise ValueError(f"a phantom's size must be from 64 to 1024 pixels; got {size}")
    person, image = _generator(seed, 1, patient), _generator(seed, 2, patient, follow_up)
    sex, age = ("M", "F")[int(person.integers(2))], int(person.integers(20, 86))
    block, place = divmod(patient + 5, 6)  # patients 1 to 6 are a block, as the archives number from 1
    finding = (*FINDINGS, NO_FINDING)[int(_generator(seed, 0, block).permutation(6)[place])]
    side = int(person.integers(2))
    severity = float(np.clip(person.uniform(0.1, 0.9) + image.uniform(-0.1, 0.1), 0, 1))
    resolved = follow_up > 0 and image.random() < 0.1
    bedridden = 0.25 if finding in (NO_FINDING, "Cardiomegaly") else 0.45  # ill patients are more often imaged in bed
    projection = "AP" if image.random() < bedridden else "PA"
    state = _State(NO_FINDING if resolved else finding, side, severity, projection)
    body = _draw_body(state, sex, person, image)
    angle, scale = np.deg2rad(image.normal(0, 3.0)), image.uniform(0.94, 1.16) * size / 2
    center = size / 2 + size * np.clip(image.normal(0, 0.025, 2), -0.05, 0.05) + (0, 0.06 * size)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    canvas = Canvas(size, np.array([[cos, -sin, center[0]], [sin, cos, center[1]]]))
    absorption, mask = _absorb(canvas, body, state, _generator(seed, 3, patient), image)
    pixels = _expose(absorption, state.projection, image)
    return Phantom(pixels, mask, state.finding, state.projection, sex, age + follow_up, patient, follow_up)


def n_films_of_patient(patient: int, seed: int = 0) -> int:
    """Return how many images, 1 to 4, a patient has in a written archive.

    Example:
        >>> sorted({n_films_of_patient(patient) for patient in range(100)})
        [1, 2, 3, 4]
    """
    return int(_generator(seed, 4, patient).integers(1, 5))


def _generator(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def _draw_body(state: _State, sex: str, person: np.random.Generator, image: np.random.Generator) -> Anatomy:
    supine = state.projection == "AP"
    width, spacing = person.uniform(0.70, 0.80), person.uniform(0.150, 0.172)
    dome = person.uniform(0.26, 0.36) + image.normal(0, 0.02) - 0.06 * supine
    domes = [dome, dome + person.uniform(0.03, 0.07)]
    ratio, shift = person.uniform(0.40, 0.46) + 0.02 * supine, image.normal(0, 0.012)
    if state.finding == "Cardiomegaly":
        ratio += 0.17 + 0.08 * state.severity
    elif state.finding == "Atelectasis":
        domes[state.side] -= 0.24 + 0.14 * state.severity
        shift += state.sign * (0.08 + 0.05 * state.severity)
    elif state.finding == "Pneumothorax":
        shift -= state.sign * 0.05 * state.severity
    elif state.finding == "Effusion":
        shift -= state.sign * 0.03 * state.severity
    return Anatomy(
        width=width,
        apex=person.uniform(-0.86, -0.78),
        domes=(domes[0], domes[1]),
        heart=ratio,
        shift=shift,
        slope=person.uniform(0.16, 0.26),
        spacing=spacing,
        clavicle=person.uniform(-0.74, -0.66) - 0.10 * supine,
        scapula=person.uniform(0.0, 0.05) - 0.10 * supine,
        breast=person.uniform(0.04, 0.10) * (sex == "F"),
        stomach=max(0.0, image.uniform(-0.10, 0.15)),
    )


def _absorb(
    canvas: Canvas, body: Anatomy, state: _State, person: np.random.Generator, image: np.random.Generator
) -> tuple[Layer, npt.NDArray[np.bool_]]:
    """Absorption along the ray, and the mask of the lungs; only the lung of the diseased side shows the finding."""
    unit = canvas.unit
    spaces = [canvas.fill(anatomy.lung(body, side)) for side in (0, 1)]
    shadow = blurred(canvas.fill(anatomy.heart(body)), 0.012 * unit)
    outline = blurred(canvas.fill(anatomy.torso(body.width)), 0.02 * unit)
    air, dense = np.zeros_like(shadow), np.zeros_like(shadow)
    for side, space in enumerate(spaces):
        trees = blurred(canvas.tapered(*anatomy.vessels(body, side, person)), max(0.4, 0.006 * unit))
        finding = state.finding if side == state.side else NO_FINDING
        if finding == "Pneumothorax":
            aerated, solid = _pneumothorax(canvas, body, state, space, trees)
        else:
            opacity = _OPACITIES[finding](canvas, body, state, image) if finding in _OPACITIES else np.float32(0)
            aerated, solid = space * (1 - opacity), space * (0.20 * trees * (1 - opacity) + 0.02 * opacity)
        air += aerated
        dense += solid
    both = np.maximum(*spaces)
    air *= 1 + 0.025 * anatomy.smooth_noise(canvas.size, 24, image)
    air *= 0.62 + 0.5 * blurred(both, 0.14 * unit)  # a lung is thickest in its middle
    air *= 1 - 0.82 * shadow
    absorption = outline * (0.72 + 0.28 * blurred(outline, 0.16 * unit)) + 0.10 * shadow + dense * (1 - 0.6 * shadow)
    absorption += (anatomy.bones(canvas, body) + anatomy.soft_shapes(canvas, body)) * outline - 0.72 * air
    return np.maximum(absorption, 0.02), (both > 0.5) & (shadow < 0.5)


def _pneumothorax(canvas: Canvas, body: Anatomy, state: _State, space: Layer, trees: Layer) -> tuple[Layer, Layer]:
    outline, root = anatomy.lung(body, state.side), anatomy.hilum(body, state.side)
    high = np.clip((0.45 - outline[:, 1]) / 0.9, 0, 1)
    amount = (0.26 + 0.20 * state.severity) * (0.35 + 0.65 * high)
    shrunk = root + (outline - root) * (1 - amount)[:, None]
    inside = canvas.fill(shrunk) * space
    # the outline runs from the apex down the wall; its inner part lies against the mediastinum and shows no line
    pleura = canvas.bands([np.concatenate([shrunk[-12:], shrunk[:64]])], 0.022) * space
    return space * (1.30 - 0.36 * inside), 0.20 * trees * inside + 0.16 * pleura


def _effusion(canvas: Canvas, body: Anatomy, state: _State, image: np.random.Generator) -> Layer:
    level = body.domes[state.side] - 0.10 - 0.30 * state.severity
    t = np.linspace(0, 1, 16)
    edge = np.stack([body.width * (0.05 + 1.0 * t), level + 0.02 - 0.26 * t**4 - 0.08 * (1 - t) ** 6], 1)
    corners = np.array([[1.2, edge[-1, 1]], [1.2, 1.2], [0.0, 1.2]])
    fluid = canvas.fill(np.concatenate([edge, corners]) * (state.sign, 1))
    return 0.95 * blurred(fluid, 0.014 * canvas.unit)


def _consolidation(canvas: Canvas, body: Anatomy, state: _State, image: np.random.Generator) -> Layer:
    """A fluffy patch, and the air-filled bronchi that fan out from the hilum through it."""
    sign, unit = state.sign, canvas.unit
    center = np.array([body.width * image.uniform(0.50, 0.62), image.choice([-0.45, -0.22, 0.02])])
    radius = 0.25 + 0.09 * state.severity
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    wobble = np.ones(24)
    for k in (2, 3, 4):
        wobble += image.normal(0, 0.16 / k) * np.cos(k * turn + image.uniform(0, 6.28))
    ring = np.stack([0.95 * np.cos(turn), 1.1 * np.sin(turn)], 1) * (radius * wobble)[:, None]
    patch = blurred(canvas.fill((center + ring) * (sign, 1)), 0.06 * unit)
    patch = np.clip(1.25 * patch + 0.16 * patch * anatomy.smooth_noise(canvas.size, 20, image), 0, 1)
    root = np.abs(anatomy.hilum(body, state.side)) * (1, -1)
    reach, heading = np.linalg.norm(center - root) + 0.3 * radius, np.arctan2(*(center - root)[::-1])
    t = np.linspace(image.uniform(0.25, 0.4), 1, 8)[:, None]
    bronchi = []
    for turn_out in (-0.55, -0.2, 0.15, 0.5):
        end = heading + turn_out * 1.2 + image.normal(0, 0.08)
        angle = heading + (end - heading) * t
        bronchi.append((root + reach * t * np.concatenate([np.cos(angle), np.sin(angle)], 1)) * (sign, 1))
    return patch * (0.88 - 0.32 * blurred(canvas.bands(bronchi, 0.020), 0.010 * unit))


def _atelectasis(canvas: Canvas, body: Anatomy, state: _State, image: np.random.Generator) -> Layer:
    plates = []
    for height in (0.10, 0.21):
        y = body.domes[state.side] - height - image.uniform(0, 0.03)
        near, far = body.width * image.uniform(0.18, 0.3), body.width * image.uniform(0.85, 0.95)
        line = np.array([[near, y + 0.02], [0.5 * (near + far), y], [far, y + image.uniform(-0.12, 0.04)]])
        plates.append(line * (state.sign, 1))
    return 0.8 * blurred(canvas.bands(plates, 0.045 + 0.02 * state.severity), 0.008 * canvas.unit)


_OPACITIES = {"Atelectasis": _atelectasis, "Consolidation": _consolidation, "Effusion": _effusion}


def _expose(absorption: Layer, projection: str, image: np.random.Generator) -> Layer:
    """From absorption to the displayed image: scatter, quantum noise, logarithm, window, gamma, collimation."""
    size = absorption.shape[0]
    intensity = np.exp(-3.0 * absorption)
    scatter = image.uniform(0.05, 0.14) * (1.4 if projection == "AP" else 1.0)
    intensity += scatter * (blurred(intensity, 0.08 * size) - 0.5 * intensity)
    dose = image.uniform(3000, 12000) * (0.5 if projection == "AP" else 1.0) * (256 / size) ** 2
    intensity += np.sqrt(intensity / dose) * image.standard_normal(absorption.shape, dtype=np.float32)
    shown = np.log(np.maximum(intensity, 1e-3)) * np.float32(-1 / 3.0)
    low, high = image.uniform(-0.05, 0.20), image.uniform(1.0, 1.4)
    shown = np.clip((shown - low) / (high - low), 0, 1) ** np.float32(2 ** image.uniform(-0.9, 0.9))
    shown = shown.astype(np.float32)
    top, bottom, left, right = (size * np.maximum(0, image.normal(-0.01, 0.025, 4))).astype(int).tolist()
    shown[:top], shown[size - bottom :], shown[:, :left], shown[:, size - right :] = 0, 0, 0, 0
    return shown
