"""An environment for benchmarks, with the peers that the package must not depend on, made from the one that runs."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv-bench"
PEERS = (
    "lightly==1.6.0", "lightly-utils==0.0.2", "pytorch-lightning", "lightning-utilities", "torchmetrics",
    "albumentations==2.0.8", "albucore==0.0.24", "simsimd==6.5.16", "stringzilla",
    "kornia==0.9.0", "kornia-rs==0.2.0", "torchvision<0.29",
)  # fmt: skip


def enter() -> None:
    """Run this script again in the environment, which is made first where it is not there.

    The environment sees the packages of the one that runs, so that torch is there once, and holds the peers only;
    they come without their dependencies, of which torchvision would pull in another torch.
    """
    python = FOLDER / "bin" / "python"
    if Path(sys.prefix).resolve() == FOLDER.resolve():
        return
    if not (FOLDER / ".done").is_file():
        print(f"making {FOLDER.name} (once)", file=sys.stderr)
        venv.EnvBuilder(with_pip=False, symlinks=True, clear=True).create(FOLDER)
        seen = [path for path in sys.path if path.endswith("site-packages")]
        packages = next(FOLDER.glob("lib/python3*/site-packages"))
        (packages / "seen.pth").write_text("\n".join([*seen, str(ROOT)]) + "\n")
        command = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", *PEERS]
        subprocess.run(command, check=True)
        (FOLDER / ".done").touch()
    os.execv(python, [str(python), *sys.argv])


def stand_in_for_torchvision_operators() -> torch.library.Library:
    """Declare the operators that torchvision's compiled part would bring, so that its transforms import without it.

    Keep what comes back: the declarations live as long as it does.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("torchvision is not there; run this through enter()")
    text = (Path(spec.submodule_search_locations[0]) / "_meta_registrations.py").read_text(encoding="utf-8")
    names = set(re.findall(r'torchvision::(\w+)"', text)) | set(re.findall(r'register_meta\("(\w+)"', text))
    library = torch.library.Library("torchvision", "DEF")
    for name in sorted(names):
        library.define(f"{name}() -> Tensor")
    return library
