"""Copy the bundle for other findings, another image size or another encoder; read its metadata; run its configs."""

from __future__ import annotations

import copy
import difflib
import json
import logging
import math
import re
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_simclr.bundles import CHEST_XRAY_SIMCLR
from monai_simclr.data.findings import NIH14, canonical_finding, check_finding_names, is_known, nearest_finding
from monai_simclr.runtime.artefacts import read_json, reading
from monai_simclr.runtime.exit_codes import SettingError
from monai_simclr.runtime.files import write_json, writing

logger = logging.getLogger("monai_simclr")

ENCODER_NAMES = ("resnet10", "resnet18", "resnet34", "resnet50", "densenet121")
"""`networks.ENCODERS`, for commands that must not import torch; a test holds them equal."""

PACKAGE = Path(__file__).resolve().parents[1]
"""The folder of this package's code."""

_MAX_SIZE, _MAX_WIDTH = 4096, 16


def copy_bundle(
    folder: str | Path,
    findings: Sequence[str] = (),
    size: int | None = None,
    encoder: str | None = None,
    width: float | None = None,
    norm: str | None = None,
    own_findings: bool = False,
    with_code: bool = False,
) -> Path:
    """Copy the bundle to a folder and write the differences into its metadata.json, the only place that states them.

    The encoder that is installed with the package comes along where the copy is of its architecture, and the classifier
    too where the copy has its findings and size, so that ``inference.json`` predicts at once.

    Args:
        folder: the new bundle; must not exist, or be empty.
        findings: what the classifier predicts; by default NIH's fourteen. Spellings of the vocabulary's names become
            these names; your own names, which must be columns of the index, are accepted with a warning, unless they
            look like a misspelling.
        size: side of the network's input in pixels, a multiple of 8.
        encoder: a name of `networks.ENCODERS`, or ``timm/`` and that of a network of timm.
        width: factor on the encoder's channels; 1 for another encoder than the installed one, unless it is given.
        norm: of the encoder, "batch" or "group".
        own_findings: accept names that look like misspellings, without warnings.
        with_code: put a copy of this package into the folder, for places where it cannot be installed; the bundle then
            needs only the other packages that metadata.json lists.

    Returns:
        `folder`.

    Raises:
        FileExistsError: if the folder is not empty.
        SettingError: if a name cannot be a finding, is repeated or looks like a misspelling of the vocabulary's, or
            there is no such encoder, size, width or norm.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; name a new folder for the bundle")
    findings = _canonical(findings, own_findings)
    _check_encoder(size, encoder, width, norm)
    ignored = shutil.ignore_patterns("__pycache__", "output", "cache", "models")
    with writing(folder):
        shutil.copytree(CHEST_XRAY_SIMCLR, folder, dirs_exist_ok=True, ignore=ignored)
        (folder / "models").mkdir(exist_ok=True)
    path = folder / "configs" / "metadata.json"
    metadata = json.loads(path.read_text(encoding="utf-8"))
    installed = copy.deepcopy(metadata)
    formats = metadata["network_data_format"]
    if findings:
        channels = {str(number): name for number, name in enumerate(findings)}
        formats["outputs"]["pred"] |= {"num_channels": len(channels), "channel_def": channels}
    if size is not None:
        formats["inputs"]["image"]["spatial_shape"] = [size, size]
    if width is None and encoder not in (None, metadata["encoder"]["name"]):
        width = 1.0  # the half width is that of the encoder that comes along
    changes = {"name": encoder, "width": width, "norm": norm}
    metadata["encoder"] |= {key: value for key, value in changes.items() if value is not None}
    if with_code:
        _copy_code(folder, metadata["required_packages_version"].pop("monai-simclr"))
    write_json(path, metadata)
    _copy_weights(folder, metadata, installed)
    return folder


def _copy_weights(folder: Path, metadata: dict[str, Any], installed: dict[str, Any]) -> None:
    """Copy the installed encoder into a bundle of the same architecture, and the classifier into an equal bundle."""
    encoder, model = (Path(metadata["files"][name]) for name in ("encoder", "model"))
    files = []
    if metadata["encoder"] == installed["encoder"] and (CHEST_XRAY_SIMCLR / encoder).is_file():
        files.append(encoder)
        logger.info(
            f"{encoder} is the encoder that comes with monai-simclr; train starts from it, pretrain replaces it"
        )
        if metadata["network_data_format"] == installed["network_data_format"]:
            beside = (CHEST_XRAY_SIMCLR / model.parent).iterdir()
            files += [model.parent / path.name for path in beside if path.name not in (encoder.name, ".gitkeep")]
    for file in files:
        shutil.copyfile(CHEST_XRAY_SIMCLR / file, folder / file)


def _copy_code(folder: Path, version: str) -> None:
    """Put this package beside the configs, with the file that says its version, as an installed one has."""
    ignored = shutil.ignore_patterns("__pycache__", CHEST_XRAY_SIMCLR.name)
    with writing(folder):
        shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=ignored)
        shutil.copytree(CHEST_XRAY_SIMCLR.parent, folder / PACKAGE.name / "bundles", ignore=ignored, dirs_exist_ok=True)
        about = folder / f"{PACKAGE.name}-{version}.dist-info" / "METADATA"
        about.parent.mkdir()
        about.write_text(f"Metadata-Version: 2.1\nName: monai-simclr\nVersion: {version}\n", encoding="utf-8")


def _canonical(findings: Sequence[str], own: bool) -> list[str]:
    """Names in the vocabulary's spelling; refuses likely misspellings, warns of the user's own names."""
    if isinstance(findings, str):
        raise SettingError(f"findings must be a list of names, got the text {findings!r}")
    try:
        check_finding_names(findings)
    except ValueError as error:
        raise SettingError(str(error)) from None
    names = [canonical_finding(name) for name in findings]
    unknown = [name for name in names if not own and not is_known(name)]
    close = {name: nearest_finding(name) for name in unknown if nearest_finding(name)}
    if close:
        slips = "; ".join(f"there is no finding {name!r}, the nearest is {near!r}" for name, near in close.items())
        raise SettingError(f"{slips}; for a column of your own index with this name, pass --own-findings")
    if unknown:
        logger.warning(
            f"{', '.join(unknown)}: not in the vocabulary ({', '.join(NIH14[:2])} ...), so taken as columns of your "
            "own index; pretraining and training refuse an archive with labels that lacks them"
        )
    return names


def _check_encoder(size: int | None, encoder: str | None, width: float | None, norm: str | None) -> None:
    if size is not None and not (isinstance(size, int) and size >= 32):
        raise SettingError(f"size must be at least 32 pixels, got {size}; the encoders halve it five times")
    timm = re.fullmatch(r"timm/[\w.]+", str(encoder)) is not None
    if encoder is not None and encoder not in ENCODER_NAMES and not timm:
        near = difflib.get_close_matches(str(encoder), ENCODER_NAMES, 1)
        hint = f"; the nearest is {near[0]!r}" if near else ""
        raise SettingError(
            f"there is no encoder {encoder!r}; choose one of {', '.join(ENCODER_NAMES)}, timm/NAME{hint}"
        )
    if timm and (width not in (None, 1) or norm not in (None, "batch")):
        raise SettingError(f"{encoder} has a width and a norm of its own; leave out --width and --norm")
    if width is not None and not (0 < width < math.inf):
        raise SettingError(f"width must be above 0, got {width}")
    if norm not in (None, "batch", "group"):
        raise SettingError(f"norm must be batch or group, got {norm!r}")


def read_metadata(bundle: str | Path) -> dict[str, Any]:
    """The metadata.json of a bundle.

    Raises:
        FileNotFoundError: if the folder is not a bundle.
        ValueError: if the file cannot be read, or lacks what our commands read from it.
    """
    path = Path(bundle) / "configs" / "metadata.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{bundle} is not a bundle: it has no configs/metadata.json; make one with monai-simclr bundle"
        )
    remedy = "restore it, or make the bundle again with monai-simclr bundle and move its models there"
    needs = ("network_data_format", "encoder", "files")
    metadata: dict[str, Any] = read_json(path, "the metadata of a bundle", remedy, needs)
    with reading(path, "the metadata of a bundle", remedy):
        for name in needs:
            if not isinstance(metadata[name], dict):
                raise ValueError(f"{name} is {metadata[name]!r}, not a mapping")
        formats = metadata["network_data_format"]
        sides = formats["inputs"]["image"]["spatial_shape"]
        if len(sides) != 2 or not all(isinstance(side, int) and 8 <= side <= _MAX_SIZE for side in sides):
            raise ValueError(f"spatial_shape is {sides}, not two numbers of pixels")
        names = list(formats["outputs"]["pred"]["channel_def"].values())
        if not names or not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
            raise ValueError(f"channel_def is {names}, not names of findings, each once")
        encoder, width = metadata["encoder"], metadata["encoder"]["width"]
        if not isinstance(encoder["name"], str) or not isinstance(width, int | float) or not 0 < width <= _MAX_WIDTH:
            raise ValueError(f"the encoder is {encoder}, not a name and a width above 0 and at most {_MAX_WIDTH}")
        if not all(isinstance(metadata["files"][name], str) for name in ("encoder", "model", "store")):
            raise ValueError("files are not names of files")
    return metadata


def run_bundle(bundle: str | Path, name: str, **overrides: Any) -> None:
    """Run a config of the bundle in this process, as ``python -m monai.bundle run`` does.

    Args:
        bundle: its folder.
        name: of the config, without ``.json``.
        overrides: of the config's top-level keys.
    """
    from monai.bundle import run  # imports torch

    configs = Path(bundle) / "configs"
    for logger_name in ("monai", "monai.bundle.scripts", "monai.bundle.workflows"):  # each has a level of its own
        logging.getLogger(logger_name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # MONAI warns that configs are code; these are our own, and the README states it for all others
        warnings.filterwarnings("ignore", message="parsing config_file")
        run(
            config_file=str(configs / f"{name}.json"),
            logging_file=str(configs / "logging.conf"),
            bundle_root=str(Path(bundle).resolve()),
            **overrides,
        )
