"""Inference on a worklist of a DICOMweb service: fetch before each look, store the results after it."""

from __future__ import annotations

import logging
from collections.abc import Container, Sequence
from contextlib import closing
from pathlib import Path

from monai_simclr.data.decoding import file_identity
from monai_simclr.inference import OutputOptions
from monai_simclr.inference.dicomweb import Worklist, is_dicomweb, store_results
from monai_simclr.runtime.exit_codes import SettingError
from monai_simclr.runtime.journal import AppendOnlyFile, read_lines
from monai_simclr.runtime.progress import LoggedProgress, Wording

logger = logging.getLogger("monai_simclr")

_WORDING = Wording("fetching", "fetched", "instances could not be fetched", unit="studies")


class DicomWeb:
    """The service behind a run of inference, if `dataset_dir` is the address of one; otherwise it does nothing.

    Args:
        dataset_dir: of `infer`.
        output_dir: fetched radiographs go to ``incoming`` in it; ``stored.jsonl`` lists the results that were stored.
        outputs: of `infer`; with `stow`, the files in ``dicom`` are stored at the service.
        watch: seconds between two looks; while watching, a service that does not answer is asked again later.

    Raises:
        SettingError: if results are to be stored, but there is no service, or no DICOM results are written.
    """

    def __init__(
        self,
        dataset_dir: str | Path | Sequence[str | Path],
        output_dir: str | Path,
        outputs: OutputOptions,
        watch: float,
    ) -> None:
        self.folder = dataset_dir
        self._worklist: Worklist | None = None
        self._output_dir, self._stow, self._watch = Path(output_dir), outputs.stow, watch
        if isinstance(dataset_dir, (str, Path)) and is_dicomweb(dataset_dir):
            self.address = str(dataset_dir)
            self._worklist = Worklist(self.address, self._output_dir / "incoming")
            self.folder = self._worklist.folder
            self._worklist.folder.mkdir(parents=True, exist_ok=True)
        if self._stow and (self._worklist is None or not outputs.dicom):
            raise SettingError(
                "outputs#stow needs --outputs#dicom True and --dataset_dir dicomweb+https://HOST/PATH, where results go"
            )

    def fetch(self) -> None:
        """Fetch what the worklist has and ``incoming`` lacks."""
        if self._worklist is None:
            return
        try:
            paths, failed = self._worklist.fetch(LoggedProgress(_WORDING))
        except ConnectionError as error:
            if not self._watch:
                raise
            logger.warning(f"{error}; asking again in {self._watch:g} s")
            return
        if failed:
            logger.warning(f"{failed} of {failed + len(paths)} radiographs could not be fetched; run again to retry")

    def store(self, rows: Container[str]) -> None:
        """Store the DICOM results that are not stored yet.

        Args:
            rows: hashes of the files that have a row; what an earlier run has left of other files is not stored.
        """
        if not self._stow:
            return
        with closing(AppendOnlyFile(self._output_dir / "stored.jsonl")) as journal:
            with journal.path.open("rb") as lines:
                done = {line["file"]: line["identity"] for line, _ in read_lines(lines) if line}
            found = sorted((self._output_dir / "dicom").glob("*.dcm"))
            files = {path: [*file_identity(path)] for path in found if path.name.partition(".")[0] in rows}
            new = [path for path, identity in files.items() if done.get(path.name) != identity]
            for path in store_results(self.address, new):
                journal.append([{"file": path.name, "identity": files[path]}])
