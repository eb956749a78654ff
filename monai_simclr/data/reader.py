"""MONAI's way to `read_radiograph`."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import ImageReader

from monai_simclr.data.radiograph import DEFAULT_SETTINGS, ReaderSettings
from monai_simclr.data.reading import read_radiograph


class RadiographReader(ImageReader):
    """MONAI reader of radiographs: ``LoadImaged(keys, reader="monai_simclr.data.RadiographReader")``.

    Axes are rows, then columns, whatever the format and whichever libraries are installed: row 0 is cranial, column 0
    the patient's right, bright is dense. The `affine` states this in MONAI's RAS: rows run to posterior, which stands
    for caudal in a single plane, columns to the left. The metadata are tensors and plain values, and contain no
    patient's name (`LoadImage` itself adds the file's name as `filename_or_obj`).

    All checks are in `get_data`: an error raised in `read` would make `LoadImage` try another reader silently.

    Args:
        settings: policies, switches and limits.
        **changes: fields of `ReaderSettings` to change in them, such as ``voi="percentile"``, for config files.

    Raises:
        ValueError: if there is no such setting (a `TypeError` would make `LoadImage` ignore them all).

    Example:
        >>> RadiographReader(voi="index", window_index=1).settings.window_index
        1
    """

    def __init__(self, settings: ReaderSettings = DEFAULT_SETTINGS, **changes: Any) -> None:
        known = [field.name for field in fields(ReaderSettings)]
        unknown = sorted(set(changes) - set(known))
        if unknown:
            raise ValueError(f"RadiographReader has no setting {unknown}; it has {known}")
        self.settings = replace(settings, **changes)

    def verify_suffix(self, filename: Any) -> bool:
        """Accept every name: the content decides."""
        return True

    def read(self, data: Any, **kwargs: Any) -> list[str]:
        """Return the paths; nothing is opened here."""
        return [str(path) for path in ([data] if isinstance(data, str | Path) else data)]

    def get_data(self, img: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """Read one file.

        Returns:
            float32 ``(H, W)``; and `RadiographMeta` with what MONAI needs: `affine` (float64 ``(4, 4)``, in
            millimeters, or in pixels where the spacing is unknown), `spatial_shape` and `original_channel_dim`.

        Raises:
            ValueError: if there is not exactly one path.
            RadiographError: see `read_radiograph`.
        """
        paths = self.read(img)
        if len(paths) != 1:
            raise ValueError(f"RadiographReader reads one file per image, got {len(paths)} files")
        image, meta = read_radiograph(paths[0], self.settings)
        between_rows, between_columns = np.nan_to_num(meta["spacing"], nan=1.0)
        top, left = meta["crop"][:2]
        affine = torch.eye(4, dtype=torch.float64)
        affine[0] = torch.tensor([0.0, -between_columns, 0.0, -between_columns * left])
        affine[1] = torch.tensor([-between_rows, 0.0, 0.0, -between_rows * top])
        return image, {
            **meta,
            "affine": affine,
            "spatial_shape": torch.tensor(image.shape),
            "original_channel_dim": "no_channel",
        }
