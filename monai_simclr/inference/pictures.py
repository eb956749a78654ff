"""What a row brings along on request: an overlay of the leading finding, and results as DICOM."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydicom
from torch import Tensor

from monai_simclr.data import read_radiograph
from monai_simclr.data.formats.dicom_file import read_header
from monai_simclr.data.formats.quiet import quiet_libraries
from monai_simclr.files import open_regular
from monai_simclr.inference.card import ClassifierCard
from monai_simclr.inference.dicom_results import capture, report, write_dicom
from monai_simclr.inference.overlays import overlay, write_overlay
from monai_simclr.networks import FindingClassifier

__all__ = ["RowPictures", "leading_finding"]


class RowPictures:
    """Write what belongs to a row beside the table, named by the hash of its file.

    Args:
        card: of the classifier.
        network: the classifier.
        folder: of the run: ``overlays/`` and ``dicom/`` are made in it.
        overlays: PNG of every radiograph with a positive decision, colored by its leading finding.
        dicom: a Structured Report for every DICOM radiograph, and the overlay as a Secondary Capture. These files name
            the patient, as DICOM does.
    """

    def __init__(
        self, card: ClassifierCard, network: FindingClassifier, folder: Path, overlays: bool, dicom: bool
    ) -> None:
        self.card, self.network, self.folder, self.overlays, self.dicom = card, network, folder, overlays, dicom

    def __call__(self, row: Mapping[str, Any], image: Tensor, path: str) -> None:
        """Write the files of one row; nothing for a file that was refused."""
        if row["reason"]:
            return
        finding, name = leading_finding(row, self.card), row["file_hash"]
        picture = None if finding is None else overlay(self.network, image, finding, read_radiograph(path)[0])
        if self.overlays and picture is not None:
            write_overlay(picture, self.folder / "overlays" / f"{name}.png")
        source = _dicom_header(path) if self.dicom else None
        if source is not None:
            write_dicom(report(source, row, self.card), self.folder / "dicom" / f"{name}.sr.dcm")
            if picture is not None:
                write_dicom(capture(source, picture), self.folder / "dicom" / f"{name}.sc.dcm")


def leading_finding(row: Mapping[str, Any], card: ClassifierCard) -> int | None:
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
    with quiet_libraries():
        return read_header(path, whole=True)[0]
