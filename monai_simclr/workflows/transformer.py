"""A pretrained encoder as a scikit-learn transformer: files or images to features."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from monai_simclr import recipes
from monai_simclr.data.reading import read_radiograph
from monai_simclr.engines import embed
from monai_simclr.networks import encoder_header, feature_dim, fetch_encoder, load_encoder
from monai_simclr.ops import quantize, to_network_input


class EncoderTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Features of a frozen pretrained encoder, as a step of a scikit-learn `Pipeline`; `fit` only loads the encoder.

    Args:
        encoder: a name in `networks.PRETRAINED`, a file, a folder, or ``OWNER/NAME`` on the Hugging Face Hub, see
            `networks.fetch_encoder`.
        size: side of the network's input in pixels; None for the size that the encoder was pretrained with.
        batch_size: images at a time.
        device: where the network runs.

    Example:
        >>> from monai_simclr.data.phantoms import write_dicom_phantoms
        >>> files = sorted(write_dicom_phantoms("some", n_patients=2).rglob("*.dcm"))
        >>> features = EncoderTransformer("chest_xray_resnet18").fit_transform(files)
        >>> len(features) == len(files), features.dtype
        (True, dtype('float32'))
    """

    def __init__(
        self,
        encoder: str | Path = "chest_xray_resnet18",
        size: int | None = None,
        batch_size: int = 64,
        device: str = "cpu",
    ) -> None:
        self.encoder = encoder
        self.size = size
        self.batch_size = batch_size
        self.device = device

    def fit(self, X: Any, y: Any = None) -> EncoderTransformer:  # noqa: N803 (scikit-learn's name)
        """Load the encoder; nothing is learned from `X`.

        Raises:
            FileNotFoundError: if there is no encoder.
            ValueError: if `size` or `batch_size` is out of range, or the file was altered.
        """
        if self.batch_size < 1 or (self.size is not None and self.size < 32):
            raise ValueError(
                f"batch_size must be at least 1 and size at least 32, or None; got {self.batch_size} and {self.size}"
            )
        path = fetch_encoder(self.encoder)
        self.network_ = load_encoder(path)
        self.size_ = int(encoder_header(path).get("size", 224)) if self.size is None else self.size
        self._n_features_out = feature_dim(self.network_)
        return self

    def transform(self, X: Any) -> np.ndarray:  # noqa: N803
        """Features, float32 ``(N, D)``.

        Args:
            X: N paths of radiographs (DICOM, PNG, JPEG, TIFF, NIfTI); or N images ``(H, W)`` or ``(1, H, W)``, uint8 or
                float in [0, 1], upright, bright is dense.

        Raises:
            RadiographError: if a file cannot be read (names it).
            ValueError: if `X` holds something else, values outside [0, 1], or nothing.
        """
        if not hasattr(self, "network_"):
            self.fit(X)
        if len(X) == 0:
            raise ValueError("there are no images: X has 0 rows; give paths, or images (N, H, W)")
        side = recipes.stored_size(self.size_)
        stored = np.stack([quantize(_canonical(item, row), side) for row, item in enumerate(X)])
        finish = functools.partial(to_network_input, size=self.size_)
        return embed(self.network_, stored, finish, self.device, self.batch_size)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array, tags.input_tags.three_d_array, tags.input_tags.string = False, True, True
        return tags


def _canonical(item: Any, row: int) -> np.ndarray:
    """A file or an image as float32 ``(H, W)`` in [0, 1]."""
    if isinstance(item, str | Path):
        return read_radiograph(item)[0]
    image = np.asarray(item)
    if image.ndim == 3 and len(image) == 1:
        image = image[0]
    if image.ndim != 2 or image.dtype.kind not in "uf" or (image.dtype.kind == "u" and image.dtype != np.uint8):
        raise ValueError(
            f"row {row} is {image.dtype} of shape {image.shape}, not a path or an image (H, W), uint8 or float; give "
            "paths, or images (N, H, W)"
        )
    canonical: np.ndarray = image.astype(np.float32) / (255 if image.dtype == np.uint8 else 1)
    return canonical
