"""What every room's tests share: where the real radiographs are, few threads, and collections of new garbage only."""

from __future__ import annotations

import gc
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_finish() -> None:
    """What is imported by now stays, and new garbage is collected seldom: an eighth of the time of the tests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _shared(variable: str, folder: str) -> Path:
    path = Path(os.environ.get(variable, ROOT.parent / "shared" / folder))
    if not path.is_dir():
        pytest.skip(f"{path} is not there; set {variable} to a copy of it")
    return path


@pytest.fixture(scope="session")
def cxr() -> Path:
    """Real radiographs (`shared/cxr`); set MONAI_SIMCLR_CXR to point elsewhere."""
    return _shared("MONAI_SIMCLR_CXR", "cxr")


@pytest.fixture(scope="session")
def nih_metadata() -> Path:
    """The full NIH tables (`shared/nih_metadata`); set MONAI_SIMCLR_NIH_METADATA to point elsewhere."""
    return _shared("MONAI_SIMCLR_NIH_METADATA", "nih_metadata")
