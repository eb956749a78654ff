"""Rows of predictions, on the disk as soon as they are made, so that a killed run resumes where it was."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_simclr.runtime.artefacts import DamagedFileError
from monai_simclr.runtime.journal import AppendOnlyFile, read_lines
from monai_simclr.runtime.locks import try_lock

logger = logging.getLogger("monai_simclr")

_WHAT = "a journal of predictions"
_REMEDY = "move it, or pass another --output_dir"


class Rows:
    """Rows of predictions, in memory: what a worker has, whose rows another process writes.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder, self.rows = Path(folder), list[dict[str, Any]]()

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows."""
        self.rows.extend(dict(row) for row in rows)


class Journal(Rows):
    """One line of JSON per predicted file in ``predictions.jsonl``, held by one process at a time.

    The first line is the identity of the rows; rows of another identity are replaced. A line that a kill cut short or
    that was altered is dropped with a warning, and its file is predicted again.

    Args:
        folder: where the journal is.
        identity: what all rows have in common: the model's checksum and the settings that change a row.
        sync_seconds: how often rows are flushed to the disk; 0 does it before every `append` returns.

    Raises:
        FileExistsError: if another process is writing to it.
        ValueError: if the file is not a journal; somebody else's file is not overwritten.

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

    def __init__(self, folder: str | Path, identity: Mapping[str, Any], sync_seconds: float = 0.0) -> None:
        super().__init__(folder)
        self.identity, self.path = dict(identity), self.folder / "predictions.jsonl"
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.path.is_dir():
            raise DamagedFileError(self.path, f"cannot be read as {_WHAT}: it is a folder", _REMEDY)
        self._file = AppendOnlyFile(self.path, sync_seconds)
        if not try_lock(self._file.fileno()):
            self._file.close()
            raise FileExistsError(
                f"another process is writing predictions to {self.folder}; wait for it, or pass another --output_dir"
            )
        try:
            self.rows = self._resume()
        except BaseException:
            self._file.close()
            raise

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows; they survive a kill when this returns."""
        self._file.append(rows)
        super().append(rows)

    def done(self) -> dict[str, str]:
        """Stamps of the files that have a row, by the hashes of their paths."""
        return {row["file_hash"]: row["stamp"] for row in self.rows}

    def all_rows(self) -> list[dict[str, Any]]:
        """The newest row of every file."""
        return list({row["file_hash"]: row for row in self.rows}.values())

    def close(self) -> None:
        """Close the file and release its lock."""
        self._file.sync()
        self._file.close()

    def _resume(self) -> list[dict[str, Any]]:
        """Read the rows that are kept; the file then ends with the last of them."""
        identity, rows, size, damaged = _read(self.path)
        kept = rows if identity == self.identity else []
        if identity == self.identity and damaged:
            logger.warning(
                f"{len(damaged)} lines of {self.path} are damaged, the first is line {damaged[0]}; "
                "they are dropped, and their files are predicted again"
            )
        elif rows and not kept:
            reason = f"{self.path.name} is of another model or other settings ({_differences(identity, self.identity)})"
            reason = f"the first line of {self.path} is damaged" if identity is None else reason
            logger.warning(f"{reason}; its {len(rows)} rows are replaced")
        if kept:
            logger.info(f"{len(kept)} files already have a row in {self.path.name} and are skipped")
        if identity == self.identity and not damaged:
            self._file.truncate(size)
        else:  # in place, because the lock is on this file: what a kill costs here is predicted again
            self._file.truncate(0)
            self._file.append([self.identity, *kept])
        return kept


def _differences(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> str:
    """What differs between two identities, with the old and the new value."""

    def flat(identity: Mapping[str, Any]) -> dict[str, Any]:
        nested = (value if isinstance(value, Mapping) else {name: value} for name, value in identity.items())
        return {name: value for part in nested for name, value in part.items()}

    old, new = flat(before or {}), flat(now)
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    pairs = [f"{name} was {old.get(name, 'not given')}, is {new.get(name, 'not given')}" for name in names]
    return "; ".join([*pairs[:5], *([f"and {len(pairs) - 5} more"] if len(pairs) > 5 else [])])


def _read(path: Path) -> tuple[dict[str, Any] | None, list[dict[str, Any]], int, list[int]]:
    """Identity, rows, the number of bytes of whole lines, and the numbers of damaged lines."""
    content = path.read_bytes()
    lines = list(read_lines(io.BytesIO(content), unsealed=True))
    if content and all(line is None for line, _ in lines) and (lines or not content.startswith(b"{")):
        raise DamagedFileError(path, f"cannot be read as {_WHAT}: not one of its lines is a row", _REMEDY)
    first = lines[0][0] if lines else None
    rows = [line for line, _ in lines[1:] if _is_row(line)]
    damaged = [number for number, (line, _) in enumerate(lines[1:], start=2) if not _is_row(line)]
    return None if _is_row(first) else first, rows, lines[-1][1] if lines else 0, damaged  # type: ignore[return-value]


def _is_row(line: dict[str, Any] | None) -> bool:
    return line is not None and all(isinstance(line.get(name), str) for name in ("file_hash", "stamp"))
