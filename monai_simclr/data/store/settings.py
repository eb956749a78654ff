"""What the pixels of a store depend on, and how two such sets of settings differ, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from monai_simclr.data.radiograph import DEFAULT_SETTINGS, ReaderSettings
from monai_simclr.runtime.metrics import installed_versions

_DECODERS = (
    "numpy",
    "opencv-python-headless",
    "pillow",
    "pydicom",
    "nibabel",
    "python-gdcm",
    "pyjpegls",
    "pylibjpeg-openjpeg",
)


@dataclass(frozen=True)
class StoreSettings:
    """How files become stored images.

    Attributes:
        size: side of the stored images in pixels.
        squash: resize without padding to a square first.
        reader: how files are read.

    Raises:
        ValueError: if the size is less than 1.
    """

    size: int
    squash: bool = False
    reader: ReaderSettings = DEFAULT_SETTINGS

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1 pixel, got {self.size}")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def versions() -> dict[str, str]:
    """Versions of everything that turns files into pixels, as far as it is installed."""
    return installed_versions("monai-simclr", *_DECODERS)


def differences(before: Mapping[str, Any], now: Mapping[str, Any], added: bool = True) -> list[str]:
    """Name what differs between two nested mappings.

    Args:
        before: as it was.
        now: as it is.
        added: whether a name that `before` lacks counts.

    Returns:
        One phrase a difference.

    Example:
        >>> differences({"size": 32, "reader": {"voi": "auto"}}, {"size": 64, "reader": {"voi": "none"}})
        ['size was 32, is 64', "reader.voi was 'auto', is 'none'"]
    """
    old, new = dict(_flat(before)), dict(_flat(now))
    names = [name for name in {**old, **new} if added or name in old]
    return [f"{name} was {old.get(name)!r}, is {new.get(name)!r}" for name in names if old.get(name) != new.get(name)]


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in mapping.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
