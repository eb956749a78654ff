"""Files that accompany a row on request: an overlay of the leading finding, and results as DICOM."""

from __future__ import annotations

import logging
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from monai_simclr.data import read_radiograph
from monai_simclr.data.decoding import file_identity
from monai_simclr.data.radiograph import RadiographError, describe_os_error, quiet_libraries
from monai_simclr.inference.config import InferenceConfig
from monai_simclr.inference.dataset import file_stamp
from monai_simclr.inference.dicom_results import capture, check_installed, encode, read_source_header, report
from monai_simclr.inference.grad_cam import encode_overlay, overlay
from monai_simclr.networks import FindingClassifier
from monai_simclr.runtime.files import write_bytes

logger = logging.getLogger("monai_simclr")


class RowPictures:
    """Write the files that belong to a row, named by the hash of its file, and remove those that do not.

    What an earlier row of the same file had goes with it: a report of another patient, an overlay of a finding that the
    file no longer has. The file is opened once more, after the prediction; if it is not the file that was predicted any
    more, or cannot be read, nothing is written.

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

    def __call__(self, row: Mapping[str, Any], image: Tensor, path: str) -> dict[str, str]:
        """Write the files of one row; none for a file that was refused.

        Returns:
            What this changes in the row: nothing, or `reason`, why there are no pictures where there should be (one odd
            header ends no run), with an empty `stamp` if the file was changed or was not there, so that it is predicted
            again.
        """
        finding = None if row["reason"] else leading_finding(row, self.config)
        wanted = not row["reason"] and (self.dicom or (self.overlays and finding is not None))
        files, changes = self._draw(row, image, path, finding) if wanted else ({}, {})
        self.remove(row["file_hash"], keep=files)
        for name, content in files.items():
            write_bytes(self.folder / name, content)
        return changes

    def remove(self, file_hash: str, keep: Container[str] = ()) -> None:
        """Remove the files that an earlier row of the same file had; `keep` are names of those that stay."""
        for name in _names(file_hash).values():
            if name not in keep:
                (self.folder / name).unlink(missing_ok=True)

    def _draw(
        self, row: Mapping[str, Any], image: Tensor, path: str, finding: int | None
    ) -> tuple[dict[str, bytes], dict[str, str]]:
        """The content of a row's files by their names, and what changes in the row."""
        files, changes = dict[str, bytes](), dict[str, str]()
        names, lacking = _names(row["file_hash"]), "no DICOM results" if self.dicom else "no overlay"
        try:
            _check_unchanged(path, row["stamp"])
            picture = None if finding is None else overlay(self.network, image, finding, read_radiograph(path)[0])
            if self.overlays and picture is not None:
                files[names["overlay"]] = encode_overlay(picture)
            if self.dicom:
                results, problem = self._results(row, path, picture)
                files |= {names[kind]: content for kind, content in results.items()}
                changes = {"reason": f"{lacking}: {problem}"} if problem else {}
            _check_unchanged(path, row["stamp"])
        except (OSError, RadiographError) as error:
            problem = error.problem if isinstance(error, RadiographError) else describe_os_error(error)
            again = isinstance(error, OSError) or not _is_unchanged(path, row["stamp"])
            later = "; the next look predicts it again" if again else ""
            logger.warning(f"{lacking} of one file that was predicted: it {problem}{later}")
            return {}, {"reason": f"{lacking}: the file {problem}"} | ({"stamp": ""} if again else {})
        return files, changes

    def _results(self, row: Mapping[str, Any], path: str, picture: np.ndarray | None) -> tuple[dict[str, bytes], str]:
        """The DICOM files of a row by their kind, or none and why."""
        files: dict[str, bytes] = {}
        try:
            with quiet_libraries():  # their warnings contain the patient's name
                source = read_source_header(path)
                if source is not None:
                    files["sr"] = encode(report(source, row, self.config))
                    if picture is not None:
                        files["sc"] = encode(capture(source, picture))
        except (MemoryError, OSError):  # of the run, or of the file that is gone
            raise
        except Exception as error:  # pydicom and highdicom raise many kinds on headers that they did not expect
            logger.debug("no DICOM results of one file", exc_info=error)
            return {}, getattr(error, "problem", type(error).__name__)
        return files, ""


def _names(file_hash: str) -> dict[str, str]:
    """Every file that a row can have, by its kind, below the folder of the run."""
    dicom = {kind: f"dicom/{file_hash}.{kind}.dcm" for kind in ("sr", "sc")}
    return {"overlay": f"overlays/{file_hash}.png", **dicom}


def _is_unchanged(path: str, stamp: str) -> bool:
    """Whether a file is the one that was predicted, by its size and time (`file_stamp`)."""
    return stamp != "" and file_stamp(file_identity(path)) == stamp


def _check_unchanged(path: str, stamp: str) -> None:
    if not _is_unchanged(path, stamp):
        raise RadiographError("was changed or removed after it was predicted", path)


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
