"""A receiver of DICOM and the bundle's inference, over one folder: the command `listen`."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def run_listener(bundle: Path, output_dir: Path, dicom: bool, **options: Any) -> None:
    """Receive studies into ``output_dir/incoming`` and predict them as they become complete, until a signal comes.

    Args:
        bundle: folder of the bundle, with a trained classifier.
        output_dir: predictions are in it as `configs/inference.json` writes them.
        dicom: write DICOM results too.
        options: of `Receiver`.

    Raises:
        Preempted: on SIGTERM and SIGUSR1; `KeyboardInterrupt` on Ctrl-C. What was received is on the disk, and the next
            start predicts what has no row yet.
    """
    from monai_simclr.inference.receiver import Receiver
    from monai_simclr.workflows.bundle import run_bundle

    with Receiver(output_dir, **options) as receiver:
        run_bundle(
            bundle,
            "inference",
            dataset_dir=str(receiver.incoming.absolute()),
            output_dir=str(output_dir.absolute()),
            watch=2.0,
            **{"outputs#dicom": dicom},
        )
