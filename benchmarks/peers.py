"""An environment of their own for what we are compared with: `.venv-bench`, on top of the one that runs this.

Nothing is installed into the environment of the project. A script of this folder calls `run_beside_peers` first:

    run_beside_peers("lightly")     # makes .venv-bench if it must, and starts the script again inside
    transforms = peer("lightly.transforms")

torchvision has no CPU wheel on PyPI. The ordinary one is installed without what it depends on; its compiled operators
do not load, so the module that describes them to the compiler is left out. Its transforms need neither.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import sysconfig
import types
import venv
from pathlib import Path

__all__ = ["PEERS", "leave_out_compiled_operators", "peer", "run_beside_peers"]

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv-bench"

PEERS = {
    "lightly": ["lightly==1.6.0", "lightly_utils==0.0.2", "lightning-utilities", "torchvision<0.29"],
    "torchvision": ["torchvision<0.29"],
    "albumentations": ["albumentations==2.0.8", "albucore==0.0.24", "simsimd==6.5.16", "stringzilla"],
    "kornia": ["kornia==0.9.0", "kornia-rs==0.2.0"],
}
"""What to install, without dependencies, for each peer."""


def run_beside_peers(*names: str) -> None:
    """Go on only inside `.venv-bench` with these peers: make it, install them, and start this script again there."""
    python = FOLDER / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not python.exists():
        _make()
    for name in names:
        note, wanted = FOLDER / f"{name}.installed", "\n".join(PEERS[name])
        if not note.exists() or note.read_text(encoding="utf-8") != wanted:
            subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", *PEERS[name]], check=True)
            note.write_text(wanted, encoding="utf-8")
    if Path(sys.prefix) != FOLDER:
        sys.exit(subprocess.run([python, "-W", "ignore", *sys.argv]).returncode)


def peer(module: str) -> types.ModuleType:
    """Import a module of a peer."""
    leave_out_compiled_operators()
    return importlib.import_module(module)


def leave_out_compiled_operators() -> None:
    """Let torchvision be imported without its compiled part: its description of that part is left out."""
    sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("torchvision._meta_registrations"))


def _make() -> None:
    print(f"making {FOLDER.name} (once)", flush=True)
    venv.create(FOLDER, with_pip=True)
    inside = FOLDER / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    outside = sysconfig.get_path("purelib")
    (inside / "project.pth").write_text(f"import site; site.addsitedir({outside!r})\n", encoding="utf-8")
