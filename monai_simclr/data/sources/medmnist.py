"""ChestMNIST and PneumoniaMNIST: one ``.npz`` file, unpacked once into PNG files, to an image index."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd
from PIL import Image

from monai_simclr.data.columns import logger
from monai_simclr.data.findings import NIH14
from monai_simclr.data.sources.base import Source, make_index, patients_by_name
from monai_simclr.runtime.files import writing

_FINDINGS = {"chestmnist": NIH14, "pneumoniamnist": ("Pneumonia",)}
_SPLITS = ("train", "val", "test")
_BLOCK = 64


def read_medmnist(path: str | Path, patient_pattern: str = "", folder: str | Path = "") -> pd.DataFrame:
    """Image index of ``chestmnist_224.npz`` and the like (Yang et al., Scientific Data 2023).

    An index names files, and everything that reads an index reads files, so the pictures are unpacked once into PNG
    files (a few milliseconds each, in constant memory; a second call reuses them). ChestMNIST at 224 pixels is all of
    NIH ChestX-ray14 in one file of 4 GB; the store then decodes it like any archive.

    Args:
        path: the ``.npz`` file, or its folder.
        patient_pattern: regular expression for the patient in the names of the unpacked files ("train_000012.png").
            MedMNIST does not name patients: without it every image counts as its own, and the log says so.
        folder: where to unpack the pictures; ``<name>_images`` next to the file by default.

    Returns:
        The index with the official splits; ChestMNIST has NIH's fourteen findings, PneumoniaMNIST has Pneumonia.
    """
    file, kind = _find_file(Path(path))
    if file is None:
        raise FileNotFoundError(f"there is no .npz file at {path}")
    if not kind:
        raise ValueError(
            f"{file.name} is not chestmnist or pneumoniamnist; other MedMNIST sets are not chest radiographs"
        )
    target = Path(folder) if folder else file.with_name(f"{file.stem}_images")
    _unpack(file, target)
    with np.load(file, allow_pickle=False) as arrays:
        labels = {split: arrays[f"{split}_labels"] for split in _SPLITS}
    names = [f"{split}_{row:06d}.png" for split in _SPLITS for row in range(len(labels[split]))]
    values = np.concatenate(list(labels.values())).reshape(len(names), -1).astype(float)
    findings = pd.Index(_FINDINGS[kind])
    if values.shape[1] != len(findings):
        raise ValueError(f"{file.name} has {values.shape[1]} labels per image, {kind} has {len(findings)}")
    return make_index(
        pd.DataFrame(values, columns=findings),
        image=[str(target.absolute() / name) for name in names],
        patient_id=patients_by_name(names, patient_pattern, file.name),
        split=[name.split("_")[0] for name in names],
    )


def _find_file(path: Path) -> tuple[Path | None, str]:
    """An ``.npz`` file, or the only one in a folder; and which of the two sets it is, or ""."""
    files = [path] if path.is_file() and path.suffix == ".npz" else sorted(path.glob("*.npz"))
    if len(files) != 1:
        return None, ""
    kind = next((name for name in _FINDINGS if files[0].stem.lower().startswith(name)), "")
    members = {f"{split}_{part}.npy" for split in _SPLITS for part in ("images", "labels")}
    try:
        with zipfile.ZipFile(files[0]) as archive:
            return files[0], kind if members <= set(archive.namelist()) else ""
    except (OSError, zipfile.BadZipFile):
        return files[0], ""


def _unpack(file: Path, target: Path) -> None:
    """Unpack all pictures into a new folder, atomically, unless it was unpacked from this file before.

    The CRC-32 of every member, which the archive lists, identify the file without reading 4 GB again.
    """
    with zipfile.ZipFile(file) as archive:
        checksums = "".join(f"{member.filename} {member.CRC:08x}\n" for member in archive.infolist())
        stamp = target / "unpacked_from.txt"
        if stamp.is_file() and stamp.read_text(encoding="utf-8") == checksums:
            return
        if target.exists():
            raise ValueError(
                f"{target} exists, but was not unpacked from this {file.name}; remove it, or name a folder"
            )
        logger.info(f"unpacking the pictures of {file.name} once into {target}")
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            with writing(target):
                for split in _SPLITS:
                    with archive.open(f"{split}_images.npy") as member:
                        for row, picture in enumerate(_read_pictures(member, f"{file.name}: {split}_images")):
                            Image.fromarray(picture).save(part / f"{split}_{row:06d}.png", compress_level=1)
            (part / stamp.name).write_text(checksums, encoding="utf-8")
            part.chmod(0o755)
            os.replace(part, target)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _read_pictures(member: IO[bytes], name: str) -> Iterator[np.ndarray]:
    """The pictures of a ``.npy`` member one by one: NumPy itself would hold all 4 GB."""
    version = np.lib.format.read_magic(member)  # type: ignore[arg-type]
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read_header:
        raise ValueError(f"{name} is in an unknown .npy version, {version}")
    shape, fortran, dtype = read_header[version](member)  # type: ignore[arg-type]
    if dtype != np.uint8 or len(shape) != 3 or fortran:
        raise ValueError(f"{name} has {dtype} {shape}; uint8 (N, H, W) is needed")
    size = int(np.prod(shape[1:]))
    for start in range(0, shape[0], _BLOCK):
        length = min(_BLOCK, shape[0] - start) * size
        block = member.read(length)
        if len(block) < length:
            raise ValueError(f"{name} ends too early; download the file again")
        yield from np.frombuffer(block, np.uint8).reshape(-1, *shape[1:])


def _recognise(path: Path) -> str:
    file, kind = _find_file(path)
    return f"{file.name} is {kind} in MedMNIST's form" if file and kind else ""


MEDMNIST = Source("MedMNIST", _recognise, read_medmnist)
