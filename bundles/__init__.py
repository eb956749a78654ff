"""The MONAI Bundles that ship with monai-simclr; installed as `monai_simclr.bundles`."""

from pathlib import Path

CHEST_XRAY_SIMCLR = Path(__file__).resolve().parent / "chest_xray_simclr"
"""Folder of the bundle: configs, model card, LICENSE; copy it with `monai-simclr bundle DIR` before use."""
