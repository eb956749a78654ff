"""A fresh environment with some packages and what they require, and nothing else that is installed here."""

from __future__ import annotations

import importlib.metadata
import os
import sys
import venv
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent


def bare_environment(folder: Path, packages: Iterable[str]) -> Path:
    """Make a virtual environment with links to distributions of this one; returns its Python.

    Args:
        folder: of the new environment.
        packages: names of distributions; what they require comes with them, extras that they do not ask for do not.
            ``monai-simclr`` is linked from this checkout, as its wheel would lie there, without what it requires.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for name in _with_requirements(packages):
        files = importlib.metadata.distribution(name).files or []
        for top in {file.parts[0] for file in files if file.parts[0] not in ("..", "__pycache__")}:
            (site / top).symlink_to(Path(str(importlib.metadata.distribution(name).locate_file(top))).resolve())
    if "monai-simclr" in packages:
        _link_own_package(site)
    return folder / "bin" / "python"


def clean_variables(**more: str) -> dict[str, str]:
    """Variables for a process in such an environment: nothing of this one's search paths."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return {**kept, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", **more}


def _with_requirements(packages: Iterable[str]) -> list[str]:
    waiting = [(name, frozenset[str]()) for name in packages if name != "monai-simclr"]
    done: dict[tuple[str, frozenset[str]], None] = {}
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in done:
            continue
        done[name, extras] = None
        for text in importlib.metadata.requires(name) or []:
            needed = Requirement(text)
            markers = [{"extra": extra} for extra in ("", *extras)]
            if needed.marker is None or any(needed.marker.evaluate(marker) for marker in markers):
                waiting.append((needed.name.lower(), frozenset(needed.extras)))
    return sorted({name for name, _ in done if _is_installed(name)})


def _is_installed(name: str) -> bool:
    """Whether it is; what torch asks for on machines with a GPU is not there on others."""
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _link_own_package(site: Path) -> None:
    package, version = site / "monai_simclr", importlib.metadata.version("monai-simclr")
    package.mkdir()
    for part in (ROOT / "monai_simclr").iterdir():
        (package / part.name).symlink_to(part)
    (package / "bundles").symlink_to(ROOT / "bundles")
    about = site / f"monai_simclr-{version}.dist-info" / "METADATA"
    about.parent.mkdir()
    about.write_text(f"Metadata-Version: 2.1\nName: monai-simclr\nVersion: {version}\n", encoding="utf-8")


if __name__ == "__main__":
    print(bare_environment(Path(sys.argv[1]), sys.argv[2:]))
