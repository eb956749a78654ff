"""Rows of predictions as they are made: appended and synced, so that a killed run goes on where it was."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_simclr.locks import take

__all__ = ["Journal", "file_stamp"]

logger = logging.getLogger("monai_simclr")


def file_stamp(path: str | Path) -> str:
    """Size and time of change of a file: another file under the same name is predicted again."""
    found = os.stat(path)
    return f"{found.st_size}-{found.st_mtime_ns}"


class Journal:
    """One line of JSON a predicted file, ``predictions.jsonl``, held by one process at a time.

    The first line says which model the rows are of; rows of another model are replaced. A line that a kill cut short
    is dropped, and its file is predicted again. One process of several has a journal of its own.

    Args:
        folder: where the journal is.
        identity: what all rows have in common: the model's checksum and the settings that change a row.
        rank: number of this process.

    Raises:
        FileExistsError: if another process is writing to it.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> journal = Journal(folder, {"model": "a"})
        >>> journal.append([{"file_hash": "f", "stamp": "1-2", "reason": ""}])
        >>> journal.close()
        >>> again = Journal(folder, {"model": "a"})
        >>> [row["file_hash"] for row in again.rows]
        ['f']
        >>> again.close()
    """

    def __init__(self, folder: str | Path, identity: Mapping[str, Any], rank: int = 0) -> None:
        self.folder, self.identity = Path(folder), dict(identity)
        self.path = self.folder / ("predictions.jsonl" if rank == 0 else f"predictions.rank{rank}.jsonl")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "a+b")  # noqa: SIM115 (held, with its lock, for as long as the journal is)
        if not take(self._file.fileno()):
            self._file.close()
            raise FileExistsError(
                f"another process is writing predictions to {self.folder}; wait for it, or pass another --output_dir"
            )
        self.rows: list[dict[str, Any]] = self._resume()

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows, on the disk when this returns."""
        self._write("".join(json.dumps(row) + "\n" for row in rows))
        self.rows.extend(dict(row) for row in rows)

    def done(self) -> dict[str, str]:
        """Stamps of the files that have a row, by their hashes."""
        return {row["file_hash"]: row["stamp"] for row in self.rows}

    def all_rows(self) -> list[dict[str, Any]]:
        """The newest row of every file, of all processes that wrote into this folder for the same model."""
        rows = list(self.rows)
        for path in sorted(self.folder.glob("predictions.rank*.jsonl")):
            identity, others, _ = _read(path.read_bytes())
            rows.extend(others if identity == self.identity and path != self.path else [])
        return list({row["file_hash"]: row for row in rows}.values())

    def close(self) -> None:
        """Let go of the file and its lock."""
        self._file.close()

    def _resume(self) -> list[dict[str, Any]]:
        self._file.seek(0)
        identity, rows, whole = _read(self._file.read())
        if identity == self.identity:
            self._file.truncate(whole)
            if rows:
                logger.info(f"{len(rows)} files already have a row in {self.path.name} and are skipped")
            return rows
        if rows:
            what = _changed(identity or {}, self.identity)
            logger.warning(
                f"{self.path.name} is of another model or other settings ({what}); its {len(rows)} rows are replaced"
            )
        self._file.truncate(0)
        self._write(json.dumps(self.identity) + "\n")
        return []

    def _write(self, text: str) -> None:
        self._file.write(text.encode())
        self._file.flush()
        os.fsync(self._file.fileno())


def _changed(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between two identities, each with its old and its new value."""
    before, after = _flat(then), _flat(now)
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    pairs = [f"{name} was {before.get(name, 'not given')}, is {after.get(name, 'not given')}" for name in names]
    return "; ".join([*pairs[:5], *([f"and {len(pairs) - 5} more"] if len(pairs) > 5 else [])])


def _flat(identity: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in identity.items():
        found |= value if isinstance(value, Mapping) else {name: value}
    return found


def _read(content: bytes) -> tuple[dict[str, Any] | None, list[dict[str, Any]], int]:
    """Identity, rows, and how many bytes are whole lines."""
    whole = content.rfind(b"\n") + 1
    lines = content[:whole].splitlines()
    found = [json.loads(line) for line in lines]
    return (found[0] if found else None), found[1:], whole
