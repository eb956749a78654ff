"""Predictions to a table: one row a file, a probability a finding or the reason why there is none."""

from __future__ import annotations

import csv
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import CommonKeys

from monai_simclr.files import keyed_hash, write_atomically, write_text

__all__ = ["PredictionWriter", "hash_key"]

KEY_VARIABLE = "MONAI_SIMCLR_HASH_KEY"


class PredictionWriter:
    """Collect an evaluator's predictions and write ``predictions.csv`` at the end, whole or not at all.

    Args:
        output_dir: where the table goes.
        findings: names of the K columns of logits.
        data: the records that were predicted, with the path under ``"image"``, in the order of ``"row"``.
        keep_paths: also write the file's path; paths often identify patients, so it is off.

    The identity of a file in the table is a hash of its path under a key that only you have: the environment variable
    MONAI_SIMCLR_HASH_KEY, or ``hash_key.txt`` in `output_dir`, made when it is missing and readable by its owner only.
    """

    def __init__(
        self,
        output_dir: str | Path,
        findings: Sequence[str],
        data: Sequence[Mapping[str, Any]],
        keep_paths: bool = False,
    ) -> None:
        self.path = Path(output_dir) / "predictions.csv"
        self.findings, self.data, self.keep_paths = list(findings), data, keep_paths
        self.rows: list[dict[str, Any]] = []

    @property
    def predicted(self) -> int:
        """How many files have probabilities."""
        return sum(not row["reason"] for row in self.rows)

    def attach(self, engine: Engine) -> None:
        """Register on an evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _start(self, engine: Engine) -> None:
        self.rows = []
        self._key = hash_key(self.path.parent)

    def _collect(self, engine: Engine) -> None:
        batch, output = cast(Any, engine.state.batch), cast(Any, engine.state.output)
        probabilities = torch.sigmoid(output[CommonKeys.PRED].float()).cpu()
        for row, reason, values in zip(batch["row"], batch["reason"], probabilities, strict=True):
            image = str(self.data[int(row)]["image"])
            shown = {
                name: "" if reason else f"{float(value):.6f}" for name, value in zip(self.findings, values, strict=True)
            }
            path = {"path": image} if self.keep_paths else {}
            self.rows.append(
                {"row": int(row), "file_hash": keyed_hash(self._key, image), **path, **shown, "reason": reason}
            )

    def _write(self, engine: Engine) -> None:
        with write_atomically(self.path) as part, open(part, "w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, list(self.rows[0]))
            table.writeheader()
            table.writerows(self.rows)


def hash_key(folder: Path) -> str:
    """The key of this folder's hashes: the environment's, the folder's own, or a new one that is left in the folder."""
    if os.environ.get(KEY_VARIABLE):
        return os.environ[KEY_VARIABLE]
    path = folder / "hash_key.txt"
    if not path.is_file():
        write_text(path, secrets.token_hex(32))
        path.chmod(0o600)
    return path.read_text(encoding="utf-8").strip()
