"""What the model zoo's ci/verify_bundle.py checks in a bundle, by the same calls of MONAI, in the same order.

`python zoo_checks.py BUNDLE` says "min" after what a pull request gets on a CPU, and "full" after what it gets on a
GPU, which is that and more. It needs what metadata.json lists, and jsonschema, which the zoo installs beside
it; eval/schema.json is in the bundle.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

NECESSARY = ("configs/metadata.json", "LICENSE", "models/model.pt", "configs/inference.json")


def verify_min(bundle: Path) -> None:
    """Raise an error for what the zoo would refuse in a pull request, on a CPU."""
    from monai.bundle import verify_metadata

    missing = [name for name in NECESSARY if not (bundle / name).is_file()]
    if missing:
        raise ValueError(f"necessary files {missing} are not existing")
    path = bundle / "configs/metadata.json"
    metadata = json.loads(path.read_text(encoding="utf-8"))
    if metadata["version"] not in metadata["changelog"]:
        raise ValueError(f"version {metadata['version']} is missing in the changelog")
    verify_metadata(meta_file=str(path), filepath=str(bundle / "eval/schema.json"))


def verify_full(bundle: Path) -> None:
    """The same for what it runs after that, on a GPU: shapes of the network, and its export."""
    import torch
    from monai.bundle import ckpt_export, verify_net_in_out

    files = {
        "net_id": "network_def",
        "meta_file": str(bundle / "configs/metadata.json"),
        "config_file": str(bundle / "configs/inference.json"),
        "bundle_root": str(bundle),
    }
    verify_net_in_out(**files)
    made = str(bundle / "models/verify_model.ts")
    ckpt_export(filepath=made, ckpt_file=str(bundle / "models/model.pt"), **files)
    torch.jit.load(made)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    sys.path.insert(0, str(folder))  # the zoo does, so that a bundle's own code is found
    verify_min(folder)
    print("min: verified")
    verify_full(folder)
    print("full: verified", flush=True)
    os._exit(0)  # taking MONAI apart takes two seconds
