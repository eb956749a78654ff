"""What a result is stored with: the commit, the machine, the versions; and how memory is measured."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from monai_simclr.runtime.files import write_atomically

__all__ = ["RESULTS", "peak_megabytes", "private_megabytes", "save"]

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"


def save(path: Path, packages: tuple[str, ...], **content: Any) -> None:
    """Write a result as JSON, whole or not at all, with what it ran on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole: Mapping[str, Any] = {
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no", "--", "monai_simclr")),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in packages}},
        "hardware": _hardware(),
        **content,
    }
    with write_atomically(path) as part:
        part.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {path}")


def peak_megabytes(work: Callable[[], object]) -> float:
    """Highest resident memory while something runs, above what there was before (Linux)."""
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    work()
    return _resident("VmHWM") - before


def private_megabytes() -> float:
    """Memory of this process alone, without files that it maps (Linux)."""
    return _resident("RssAnon")


def _resident(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


def _hardware() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "bfloat16_instructions": [flag for flag in flags if "bf16" in flag],
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=ROOT).stdout.strip()
    except FileNotFoundError:  # a machine that only computes has a copy of the files, and no git
        return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
