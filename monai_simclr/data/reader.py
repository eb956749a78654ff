"""MONAI's way to our reading of radiographs."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import ImageReader

from monai_simclr.data.radiograph import DEFAULT_SETTINGS, RadiographMeta, ReaderSettings
from monai_simclr.data.reading import read_radiograph as read_radiograph


class RadiographReader(ImageReader):
    """MONAI reader of radiographs: ``LoadImaged(keys, reader="monai_simclr.data.RadiographReader")``.

    Axes are rows, then columns, whatever the format and whichever libraries are installed: row 0 is cranial, column 0
    the patient's right, bright is dense. The `affine` says so in MONAI's RAS: rows run to posterior, which stands for
    caudal in a single plane, columns to the left. The metadata are tensors and plain values, and name no patient
    (`LoadImage` itself adds the file's name as `filename_or_obj`).

    All checks are in `get_data`: an error raised in `read` would make `LoadImage` try another reader in silence.

    Args:
        settings: policies, switches and limits.
        **changes: fields of `ReaderSettings` to change in them, such as ``voi="percentile"``, for config files.

    Raises:
        ValueError: if there is no such setting (a `TypeError` would make `LoadImage` go on without any).

    Example:
        >>> RadiographReader(voi="index", window_index=1).settings.window_index
        1
    """

    def __init__(self, settings: ReaderSettings = DEFAULT_SETTINGS, **changes: Any) -> None:
        known = [field.name for field in fields(ReaderSettings)]
        unknown = sorted(set(changes) - set(known))
        if unknown:
            raise ValueError(f"RadiographReader has no setting {unknown}; it has {known}")
        self.settings = ReaderSettings(**{**{name: getattr(settings, name) for name in known}, **changes})

    def verify_suffix(self, filename: Any) -> bool:
        """Say yes to every name: the content decides."""
        return True

    def read(self, data: Any, **kwargs: Any) -> list[str]:
        """Give the paths; nothing is opened here."""
        return [str(path) for path in ([data] if isinstance(data, str | Path) else data)]

    def get_data(self, img: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """Read one file.

        Returns:
            float32 ``(H, W)``; and `RadiographMeta` with what MONAI needs: `affine` (float64 ``(4, 4)``),
            `spatial_shape` and `original_channel_dim`.

        Raises:
            ValueError: if there is not one path.
            RadiographError: see `read_radiograph`.
        """
        paths = self.read(img)
        if len(paths) != 1:
            raise ValueError(f"RadiographReader reads one file an image, got {len(paths)} files")
        image, meta = read_radiograph(paths[0], self.settings)
        return image, {
            **meta,
            "affine": _affine(meta),
            "spatial_shape": torch.tensor(image.shape),
            "original_channel_dim": "no_channel",
        }


def _affine(meta: RadiographMeta) -> torch.Tensor:
    """(row, column) in pixels to RAS in millimeters, in pixels where the spacing is unknown."""
    between_rows, between_columns = np.nan_to_num(meta["spacing"], nan=1.0)
    top, left = meta["crop"][:2]
    return torch.tensor(
        [
            [0.0, -between_columns, 0.0, -between_columns * left],
            [-between_rows, 0.0, 0.0, -between_rows * top],
            [0.0, 0.0, 1.0, 0.0],
            [0.0, 0.0, 0.0, 1.0],
        ],
        dtype=torch.float64,
    )
