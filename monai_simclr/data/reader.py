"""Files to canonical images: upright, (H, W), float32 in [0, 1], bright = dense."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from monai.config import PathLike
from monai.data import ImageReader
from PIL import Image, ImageOps, UnidentifiedImageError
from pydicom.errors import BytesLengthException
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from monai_simclr.data.radiograph import DEFAULT_SETTINGS, RadiographError, ReaderSettings

__all__ = ["RadiographError", "RadiographReader", "ReaderSettings", "read_radiograph"]

MODALITIES = ("CR", "DX", "RG", "PX", "SC", "OT")
_FORMATS = ("PNG", "JPEG", "TIFF")


def read_radiograph(path: PathLike, settings: ReaderSettings = DEFAULT_SETTINGS) -> tuple[np.ndarray, dict[str, Any]]:
    """Read a file as a canonical image.

    DICOM goes through DICOM PS3.3 C.11 in order: padding mask, modality LUT, VOI (LUT sequence, else the first
    window, else the 0.5 to 99.5 percentiles), one inversion at most, scaled by the known output
    range. PNG, JPEG and TIFF are scaled by their type. What a file is, its content decides.

    Args:
        path: the file.
        settings: policies, switches and limits.

    Returns:
        float32 ``(H, W)`` in [0, 1], upright, bright = dense; and metadata of plain Python values that name no patient:
        `view_position, photometric_interpretation, inverted, window, spacing (mm), spacing_source, format`.

    Raises:
        FileNotFoundError: if there is no such file.
        RadiographError: if the file is no radiograph that can be read (says why, and what to do).
    """
    max_pixels = settings.max_pixels
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    with open(path, "rb") as file:
        head = file.read(132)
    try:
        read = _read_dicom if head[128:132] == b"DICM" else _read_picture
        pixels, meta = read(path, max_pixels)
    except RadiographError:
        raise
    except (
        ValueError,
        OSError,
        RuntimeError,
        AttributeError,
        LookupError,
        TypeError,
        BytesLengthException,
        SyntaxError,
        EOFError,
        NotImplementedError,
        Image.DecompressionBombError,
    ) as error:
        raise RadiographError(
            path, f"cannot be decoded ({type(error).__name__}: {str(error).replace(str(path), '...')})"
        ) from error
    if not np.isfinite(pixels).all():
        raise RadiographError(path, "has pixels that are not finite")
    if pixels.min() == pixels.max():
        raise RadiographError(path, f"is one gray all over ({pixels.flat[0]:.3g}); a radiograph has contrast")
    return np.ascontiguousarray(pixels, dtype=np.float32), meta


def _read_picture(path: Path, max_pixels: int) -> tuple[np.ndarray, dict[str, Any]]:
    try:
        picture: Any = Image.open(path, formats=_FORMATS)
    except UnidentifiedImageError as error:
        with open(path, "rb") as file:
            if file.read(2) == b"\x08\x00":
                raise RadiographError(
                    path,
                    "looks like DICOM without the Part 10 header (128 bytes, then 'DICM', PS3.10 section 7.1), "
                    "which is not read on a guess; write the header, for instance with dcmtk's dcmconv",
                ) from error
        raise RadiographError(path, "is not DICOM, PNG, JPEG or TIFF; its content decides, not its name") from error
    with picture:
        if picture.width * picture.height > max_pixels:
            raise RadiographError(
                path, f"has {picture.width} x {picture.height} pixels, more than max_pixels={max_pixels}"
            )
        if getattr(picture, "n_frames", 1) != 1:
            raise RadiographError(path, f"has {picture.n_frames} pages; a radiograph has one")
        kind = picture.format
        picture = ImageOps.exif_transpose(picture)
        if picture.mode in ("P", "1"):
            picture = picture.convert("RGB" if picture.mode == "P" else "L")
        pixels = np.asarray(picture)
    meta = {**_META, "format": str(kind)}
    return _gray(path, pixels), meta


def _gray(path: Path, pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype.byteorder == ">":
        pixels = pixels.astype(pixels.dtype.newbyteorder("="))
    if pixels.dtype == np.int32 and (pixels.min() < 0 or pixels.max() > 65535):
        raise RadiographError(path, f"has values from {pixels.min()} to {pixels.max()}; 8 or 16 bits are needed")
    top = {"uint8": 255.0, "uint16": 65535.0, "int32": 65535.0}.get(str(pixels.dtype))
    if top is None:
        raise RadiographError(path, f"has pixels of type {pixels.dtype}; 8 or 16 bits are needed")
    if pixels.ndim == 3:
        colors = pixels[..., : 3 if pixels.shape[2] >= 3 else 1]
        spread = int(np.max(colors.max(axis=2).astype(int) - colors.min(axis=2)))
        if spread > 2:
            raise RadiographError(
                path, f"is a colour picture (channels differ by up to {spread}); a radiograph is gray"
            )
        pixels = colors[..., 0]
    return pixels.astype(np.float32) / np.float32(top)


_META: dict[str, Any] = {
    "view_position": "", "photometric_interpretation": "", "inverted": False, "window": (), "spacing": (),
    "spacing_source": "", "format": "",
}  # fmt: skip


def _read_dicom(path: Path, max_pixels: int) -> tuple[np.ndarray, dict[str, Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of odd values that the checks below name or that do not matter
        header = pydicom.dcmread(path, stop_before_pixels=True)
        _check_header(path, header, max_pixels)
        data = pydicom.dcmread(path)
        if not any(name in data for name in ("PixelData",)):
            raise RadiographError(path, f"has no pixels (Modality {header.get('Modality', '?')})")
        try:
            stored = data.pixel_array
        except (RuntimeError, NotImplementedError) as error:
            syntax = data.file_meta.TransferSyntaxUID
            raise RadiographError(
                path, f"(0002,0010) Transfer Syntax {syntax.name} ({syntax}) cannot be decoded here; "
                f'pip install "monai-simclr[dicom]" ({type(error).__name__})'
            ) from error  # fmt: skip
        return _render(path, data, stored)


def _check_header(path: Path, header: pydicom.Dataset, max_pixels: int) -> None:
    modality = str(header.get("Modality", ""))
    if modality not in MODALITIES:
        raise RadiographError(
            path, f"(0008,0060) Modality is {modality!r}; a radiograph (CR, DX, RG, PX or SC) is needed"
        )
    if str(header.get("PresentationIntentType", "")) == "FOR PROCESSING":
        raise RadiographError(
            path, "(0008,0068) Presentation Intent Type is FOR PROCESSING: raw detector values are not shown to people"
        )
    frames, samples = int(header.get("NumberOfFrames", 1) or 1), int(header.get("SamplesPerPixel", 1) or 1)
    rows, columns = int(header.get("Rows", 0) or 0), int(header.get("Columns", 0) or 0)
    if not rows or not columns:
        raise RadiographError(
            path, f"(0028,0010) Rows is {rows} and (0028,0011) Columns is {columns}; there are no pixels"
        )
    if frames != 1:
        raise RadiographError(path, f"(0028,0008) Number of Frames is {frames}; a radiograph has one")
    if samples != 1:
        raise RadiographError(
            path, f"(0028,0002) Samples per Pixel is {samples}: a colour picture; a radiograph is gray"
        )
    if rows * columns > max_pixels:
        raise RadiographError(path, f"has {rows} x {columns} pixels by its header, more than max_pixels={max_pixels}")
    photometric = str(header.get("PhotometricInterpretation", ""))
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise RadiographError(
            path, f"(0028,0004) Photometric Interpretation is {photometric!r}; MONOCHROME1 or 2 is needed"
        )
    needed = rows * columns * int(header.get("BitsAllocated", 8)) // 8
    syntax = getattr(getattr(header, "file_meta", None), "TransferSyntaxUID", None)
    whole = syntax is not None and not syntax.is_compressed and not syntax.is_deflated
    if whole and path.stat().st_size < needed:
        raise RadiographError(
            path, f"is truncated: {path.stat().st_size} bytes, the header speaks of {needed} bytes of pixels"
        )


def _render(path: Path, data: pydicom.Dataset, stored: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """DICOM PS3.3 C.11: padding, modality LUT, VOI, then exactly one inversion, scaled by the known output range."""
    padding = _padding(data, stored)
    if padding.all():
        raise RadiographError(path, "has (0028,0120) Pixel Padding Value everywhere; there is no picture")
    values = apply_modality_lut(stored, data).astype(np.float64)
    pixels, window = _voi(data, values, stored, padding)
    photometric = str(data.PhotometricInterpretation)
    inverse = str(data.get("PresentationLUTShape", "")) == "INVERSE"
    inverted = photometric == "MONOCHROME1" or inverse
    pixels = np.clip(1 - pixels if inverted else pixels, 0, 1)
    pixels[padding] = 0
    spacing, source = _spacing(data)
    meta = {
        "view_position": str(data.get("ViewPosition", "") or ""), "photometric_interpretation": photometric,
        "inverted": inverted, "window": window, "spacing": spacing, "spacing_source": source, "format": "DICOM",
    }  # fmt: skip
    return pixels, meta


def _padding(data: pydicom.Dataset, stored: np.ndarray) -> np.ndarray:
    if "PixelPaddingValue" not in data:
        return np.zeros(stored.shape, dtype=bool)
    low = int(data.PixelPaddingValue)
    high = int(data.get("PixelPaddingRangeLimit", low))
    return (stored >= min(low, high)) & (stored <= max(low, high))


def _voi(
    data: pydicom.Dataset, values: np.ndarray, stored: np.ndarray, padding: np.ndarray
) -> tuple[np.ndarray, tuple[float, ...]]:
    if data.get("VOILUTSequence"):
        item = data.VOILUTSequence[0]
        bits = int(item.LUTDescriptor[2])
        return apply_voi_lut(values.astype(np.int64), data, prefer_lut=True) / (2**bits - 1), ()
    width, center = _first(data.get("WindowWidth")), _first(data.get("WindowCenter"))
    if width is not None and center is not None and width >= _least_width(data):
        low, high = _output_range(data)
        shown = apply_voi_lut(values, data, index=0, prefer_lut=False)
        return (shown - low) / (high - low), (center, width)
    if width is not None and center is not None:
        low, high = float(values[~padding].min()), float(values[~padding].max())
    else:
        low, high = (float(v) for v in np.percentile(values[~padding], (0.5, 99.5)))
    return (values - low) / max(high - low, np.finfo(float).tiny), ()


def _least_width(data: pydicom.Dataset) -> float:
    """Smallest allowed window width: 1 for LINEAR, above 0 otherwise (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""
    return 1.0 if str(data.get("VOILUTFunction", "LINEAR") or "LINEAR") == "LINEAR" else float(np.finfo(float).tiny)


def _output_range(data: pydicom.Dataset) -> tuple[float, float]:
    """What pydicom's windowing scales to: the range of the stored bits after the modality LUT."""
    if data.get("ModalityLUTSequence"):
        return 0.0, float(2 ** int(data.ModalityLUTSequence[0].LUTDescriptor[2]) - 1)
    bits, signed = int(data.BitsStored), int(data.get("PixelRepresentation", 0))
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    slope, intercept = float(data.get("RescaleSlope", 1) or 1), float(data.get("RescaleIntercept", 0) or 0)
    return low * slope + intercept, high * slope + intercept


def _first(value: Any) -> float | None:
    if value is None or value == "":
        return None
    return float(value[0] if isinstance(value, Sequence) and not isinstance(value, str) else value)


def _spacing(data: pydicom.Dataset) -> tuple[tuple[float, ...], str]:
    for name in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        value = data.get(name)
        numbers = tuple(float(v) for v in value) if value is not None and len(value) == 2 else ()
        if numbers and all(np.isfinite(v) and v > 0 for v in numbers):
            return numbers, name
    return (), ""


class RadiographReader(ImageReader):
    """MONAI reader of radiographs: ``LoadImaged(keys, reader="monai_simclr.data.RadiographReader")``.

    Axes are rows, then columns, whatever the format: row 0 is cranial, bright is dense. The metadata name no patient.
    All checks are in `get_data`: an error raised in `read` would make `LoadImage` try another reader in silence.

    Args:
        settings: policies, switches and limits.
        kwargs: what `LoadImage` passes to every reader; not used.
    """

    def __init__(self, settings: ReaderSettings = DEFAULT_SETTINGS, **kwargs: Any) -> None:
        self.settings = settings

    def verify_suffix(self, filename: Any) -> bool:
        return True

    def read(self, data: Any, **kwargs: Any) -> list[str]:
        return [str(path) for path in ([data] if isinstance(data, (str, Path)) else data)]

    def get_data(self, img: Any) -> tuple[np.ndarray, dict[str, Any]]:
        path = img[0] if isinstance(img, list) else img
        pixels, meta = read_radiograph(path, self.settings)
        affine = np.eye(4)
        if meta["spacing"]:
            affine[0, 0], affine[1, 1] = meta["spacing"]
        return pixels, {
            **meta,
            "affine": affine,
            "spatial_shape": np.array(pixels.shape),
            "original_channel_dim": "no_channel",
        }
