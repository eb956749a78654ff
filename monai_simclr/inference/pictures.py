"""Files that accompany a row on request: an overlay of the leading finding, and results as DICOM."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from monai_simclr.data import read_radiograph
from monai_simclr.data.radiograph import quiet_libraries
from monai_simclr.inference.config import InferenceConfig
from monai_simclr.inference.dicom_results import capture, check_installed, encode, read_source_header, report
from monai_simclr.inference.grad_cam import overlay, write_overlay
from monai_simclr.networks import FindingClassifier
from monai_simclr.runtime.files import write_bytes

logger = logging.getLogger("monai_simclr")


class RowPictures:
    """Write the files that belong to a row, named by the hash of its file.

    Args:
        config: inference config of the classifier.
        network: the classifier.
        folder: of the run: ``overlays/`` and ``dicom/`` are made in it.
        overlays: PNG of every radiograph with a positive decision, colored by its leading finding.
        dicom: a Structured Report for every DICOM radiograph, and the overlay as a Secondary Capture. These files name
            the patient, as DICOM does.

    Raises:
        ImportError: if `dicom` is asked for and highdicom is not installed.
    """

    def __init__(
        self, config: InferenceConfig, network: FindingClassifier, folder: Path, overlays: bool, dicom: bool
    ) -> None:
        self.config, self.network, self.folder, self.overlays, self.dicom = config, network, folder, overlays, dicom
        if dicom:
            check_installed()

    def __call__(self, row: Mapping[str, Any], image: Tensor, path: str) -> str:
        """Write the files of one row; none for a file that was refused.

        Returns:
            Why there are no DICOM results where there should be; empty otherwise. One odd header ends no run.
        """
        if row["reason"]:
            return ""
        finding, name = leading_finding(row, self.config), row["file_hash"]
        picture = None if finding is None else overlay(self.network, image, finding, read_radiograph(path)[0])
        if self.overlays and picture is not None:
            write_overlay(picture, self.folder / "overlays" / f"{name}.png")
        if not self.dicom:
            return ""
        files: dict[str, bytes] = {}
        try:
            with quiet_libraries():  # their warnings contain the patient's name
                source = read_source_header(path)
                if source is not None:
                    files["sr"] = encode(report(source, row, self.config))
                    if picture is not None:
                        files["sc"] = encode(capture(source, picture))
        except MemoryError:  # of the run, not of this file
            raise
        except Exception as error:  # pydicom and highdicom raise many kinds on headers that they did not expect
            logger.debug("no DICOM results of one file", exc_info=error)
            return f"no DICOM results: {getattr(error, 'problem', type(error).__name__)}"
        for kind, content in files.items():
            write_bytes(self.folder / "dicom" / f"{name}.{kind}.dcm", content)
        return ""


def leading_finding(row: Mapping[str, Any], config: InferenceConfig) -> int | None:
    """Number of the positive finding that is furthest above its threshold in log-odds, None when there is none."""
    above = {
        k: (logit - threshold) / config.operating[config.findings[k]].temperature
        for k, (logit, threshold, decision) in enumerate(
            zip(row["logits"], config.thresholds(), row["decisions"], strict=True)
        )
        if decision and threshold is not None
    }
    return max(above, key=above.__getitem__) if above else None
