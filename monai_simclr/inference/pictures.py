"""What a row brings along on request: an overlay of the leading finding, and results as DICOM."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from torch import Tensor

from monai_simclr.data import read_radiograph
from monai_simclr.data.formats.dicom_header import read_header
from monai_simclr.data.radiograph import quiet_libraries
from monai_simclr.inference.card import InferenceConfig
from monai_simclr.inference.dicom_results import capture, check_installed, encoded, report
from monai_simclr.inference.overlays import overlay, write_overlay
from monai_simclr.networks import FindingClassifier
from monai_simclr.runtime.files import open_regular, write_atomically

logger = logging.getLogger("monai_simclr")


class RowPictures:
    """Write what belongs to a row beside the table, named by the hash of its file.

    Args:
        card: of the classifier.
        network: the classifier.
        folder: of the run: ``overlays/`` and ``dicom/`` are made in it.
        overlays: PNG of every radiograph with a positive decision, colored by its leading finding.
        dicom: a Structured Report for every DICOM radiograph, and the overlay as a Secondary Capture. These files name
            the patient, as DICOM does.

    Raises:
        ImportError: if `dicom` is asked for and highdicom is not installed.
    """

    def __init__(
        self, card: InferenceConfig, network: FindingClassifier, folder: Path, overlays: bool, dicom: bool
    ) -> None:
        self.card, self.network, self.folder, self.overlays, self.dicom = card, network, folder, overlays, dicom
        if dicom:
            check_installed()

    def __call__(self, row: Mapping[str, Any], image: Tensor, path: str) -> str:
        """Write the files of one row; nothing for a file that was refused.

        Returns:
            Why there are no DICOM results where there should be; empty otherwise. One odd header ends no run.
        """
        if row["reason"]:
            return ""
        finding, name = leading_finding(row, self.card), row["file_hash"]
        picture = None if finding is None else overlay(self.network, image, finding, read_radiograph(path)[0])
        if self.overlays and picture is not None:
            write_overlay(picture, self.folder / "overlays" / f"{name}.png")
        return self._dicom_problem(row, picture, path) if self.dicom else ""

    def _dicom_problem(self, row: Mapping[str, Any], picture: np.ndarray | None, path: str) -> str:
        try:
            with quiet_libraries():  # their warnings have the patient's name in them
                made = self._dicom_files(row, picture, path)
        except MemoryError:  # of the run, not of this file
            raise
        except Exception as error:  # pydicom and highdicom raise many kinds on headers that they did not expect
            logger.debug("no DICOM results of one file", exc_info=error)
            return f"no DICOM results: {getattr(error, 'problem', type(error).__name__)}"
        for kind, content in made.items():
            with write_atomically(self.folder / "dicom" / f"{row['file_hash']}.{kind}.dcm") as part:
                part.write_bytes(content)
        return ""

    def _dicom_files(self, row: Mapping[str, Any], picture: np.ndarray | None, path: str) -> dict[str, bytes]:
        source = _dicom_header(path)
        if source is None:
            return {}
        made = {"sr": encoded(report(source, row, self.card))}
        return made if picture is None else {**made, "sc": encoded(capture(source, picture))}


def leading_finding(row: Mapping[str, Any], card: InferenceConfig) -> int | None:
    """Number of the positive finding that is furthest above its threshold in log-odds, None when there is none."""
    above = {
        k: (logit - threshold) / card.operating[card.findings[k]].temperature
        for k, (logit, threshold, decision) in enumerate(
            zip(row["logits"], card.thresholds(), row["decisions"], strict=True)
        )
        if decision and threshold is not None
    }
    return max(above, key=above.__getitem__) if above else None


def _dicom_header(path: str) -> pydicom.Dataset | None:
    """The whole header of a DICOM file, None for another one."""
    with open_regular(path) as file:
        if file.read(132)[128:] != b"DICM":
            return None
    return read_header(path, whole=True)[0]
