"""Write a copy of the bundle, for other findings, another image size or another encoder than it ships with."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_simclr.artefacts import read_json, reading
from monai_simclr.bundles import CHEST_XRAY_SIMCLR
from monai_simclr.files import write_json, writing

__all__ = ["copy_bundle", "read_metadata", "run_bundle"]

_LARGEST, _WIDEST = 4096, 16


def copy_bundle(
    folder: str | Path,
    findings: Sequence[str] = (),
    size: int | None = None,
    encoder: str | None = None,
    width: float | None = None,
    norm: str | None = None,
) -> Path:
    """Copy the bundle to a folder and write what differs into its metadata.json, the only place where it stands.

    Args:
        folder: the new bundle; must not exist, or be empty.
        findings: what the classifier predicts; NIH's fourteen when none are given.
        size: side of the network's images in pixels, a multiple of 8.
        encoder: a name of `networks.ENCODERS`.
        width: factor on the encoder's channels.
        norm: of the encoder, "batch" or "group".

    Returns:
        `folder`.

    Raises:
        FileExistsError: if the folder has something in it.
        ValueError: if the size is too small for the encoders.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; name a new folder for the bundle")
    if size is not None and size < 32:
        raise ValueError(f"size must be at least 32 pixels, got {size}; the encoders halve it five times")
    ignored = shutil.ignore_patterns("__pycache__", "output", "cache", "*.pt", "*.safetensors")
    with writing(folder):
        shutil.copytree(CHEST_XRAY_SIMCLR, folder, dirs_exist_ok=True, ignore=ignored)
        (folder / "models").mkdir(exist_ok=True)
    path = folder / "configs" / "metadata.json"
    metadata = json.loads(path.read_text(encoding="utf-8"))
    formats = metadata["network_data_format"]
    if findings:
        named = {str(number): name for number, name in enumerate(findings)}
        formats["outputs"]["pred"] |= {"num_channels": len(named), "channel_def": named}
    if size is not None:
        formats["inputs"]["image"]["spatial_shape"] = [size, size]
    given = {"name": encoder, "width": width, "norm": norm}
    metadata["encoder"] |= {key: value for key, value in given.items() if value is not None}
    write_json(path, metadata)
    return folder


def read_metadata(bundle: str | Path) -> dict[str, Any]:
    """The metadata.json of a bundle.

    Raises:
        FileNotFoundError: if the folder is no bundle.
        ValueError: if the file cannot be read, or lacks what our commands read from it.
    """
    path = Path(bundle) / "configs" / "metadata.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{bundle} is no bundle: it has no configs/metadata.json; make one with monai-simclr bundle"
        )
    remedy = "restore it, or make the bundle again with monai-simclr bundle and move its models there"
    needs = ("network_data_format", "encoder", "files")
    metadata: dict[str, Any] = read_json(path, "the metadata of a bundle", remedy, needs)
    with reading(path, "the metadata of a bundle", remedy):
        _check_metadata(metadata)
    return metadata


def _check_metadata(metadata: dict[str, Any]) -> None:
    """Raise unless a bundle's metadata say what we read from them: sizes, findings, the encoder, names of files."""
    shape = metadata["network_data_format"]
    sides = shape["inputs"]["image"]["spatial_shape"]
    if len(sides) != 2 or not all(isinstance(side, int) and 8 <= side <= _LARGEST for side in sides):
        raise ValueError(f"spatial_shape is {sides}, not two numbers of pixels")
    names = list(shape["outputs"]["pred"]["channel_def"].values())
    if not names or not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise ValueError(f"channel_def is {names}, not names of findings, each once")
    encoder, width = metadata["encoder"], metadata["encoder"]["width"]
    if not isinstance(encoder["name"], str) or not isinstance(width, int | float) or not 0 < width <= _WIDEST:
        raise ValueError(f"the encoder is {encoder}, not a name and a width above 0 and at most {_WIDEST}")
    if not all(isinstance(metadata["files"][name], str) for name in ("encoder", "model", "store")):
        raise ValueError("files are not names of files")


def run_bundle(bundle: str | Path, name: str, **overrides: Any) -> None:
    """Run one of our bundle's configs in this process, as ``python -m monai.bundle run`` does.

    Args:
        bundle: its folder.
        name: of the config, without ``.json``.
        overrides: of the config's top keys.
    """
    from monai.bundle import run  # imports torch

    configs = Path(bundle) / "configs"
    for logger in ("monai", "monai.bundle.scripts", "monai.bundle.workflows"):  # MONAI gives each a level of its own
        logging.getLogger(logger).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # MONAI warns that configs are code; these are our own, and the README says so of all others
        warnings.filterwarnings("ignore", message="parsing config_file")
        run(
            config_file=str(configs / f"{name}.json"), logging_file=str(configs / "logging.conf"),
            bundle_root=str(Path(bundle).resolve()), **overrides,
        )  # fmt: skip
