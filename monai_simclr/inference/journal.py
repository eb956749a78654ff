"""Rows of predictions as they are made: appended and synced, so that a killed run goes on where it was."""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from monai_simclr.runtime.artefacts import DamagedFileError
from monai_simclr.runtime.files import writing
from monai_simclr.runtime.locks import try_lock

logger = logging.getLogger("monai_simclr")

_WHAT = "a journal of predictions"
_REMEDY = "move it, or pass another --output_dir"
_CRC = "crc32"


def file_stamp(path: str | Path) -> str:
    """Size and time of change of a file: another file under the same name is predicted again."""
    found = os.stat(path)
    return f"{found.st_size}-{found.st_mtime_ns}"


class Journal:
    """One line of JSON a predicted file, ``predictions.jsonl``, held by one process at a time.

    The first line says which model the rows are of; rows of another model are replaced. Each line ends in a checksum of
    its own. A line that a kill cut short, or that was altered, is dropped with a warning, and its file is predicted
    again. One process of several has a journal of its own.

    Args:
        folder: where the journal is.
        identity: what all rows have in common: the model's checksum and the settings that change a row.
        rank: number of this process.

    Raises:
        FileExistsError: if another process is writing to it.
        ValueError: if the file is no journal at all: somebody else's is not overwritten.

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
        if self.path.is_dir():
            raise DamagedFileError(self.path, f"cannot be read as {_WHAT}: it is a folder", _REMEDY)
        with writing(self.path):
            self._file = open(self.path, "a+b")  # noqa: SIM115 (held, with its lock, for as long as the journal is)
        if not try_lock(self._file.fileno()):
            self._file.close()
            raise FileExistsError(
                f"another process is writing predictions to {self.folder}; wait for it, or pass another --output_dir"
            )
        self.rows: list[dict[str, Any]] = self._resume()

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows, on the disk when this returns."""
        self._write(b"".join(_line(row) for row in rows))
        self.rows.extend(dict(row) for row in rows)

    def done(self) -> dict[str, str]:
        """Stamps of the files that have a row, by their hashes."""
        return {row["file_hash"]: row["stamp"] for row in self.rows}

    def all_rows(self) -> list[dict[str, Any]]:
        """The newest row of every file, of all processes that wrote into this folder for the same model."""
        rows = list(self.rows)
        for path in sorted(self.folder.glob("predictions.rank*.jsonl")):
            found = _read(path, path.read_bytes())
            rows.extend(found.rows if found.identity == self.identity and path != self.path else [])
        return list({row["file_hash"]: row for row in rows}.values())

    def close(self) -> None:
        """Let go of the file and its lock."""
        self._file.close()

    def _resume(self) -> list[dict[str, Any]]:
        self._file.seek(0)
        found = _read(self.path, self._file.read())
        if found.identity == self.identity:
            if found.damaged:
                logger.warning(
                    f"{len(found.damaged)} lines of {self.path} are damaged, the first is line {found.damaged[0]}; "
                    "they are dropped, and their files are predicted again"
                )
                self._begin(found.rows)
            else:
                self._file.truncate(found.whole)
            if found.rows:
                logger.info(f"{len(found.rows)} files already have a row in {self.path.name} and are skipped")
            return found.rows
        if found.rows:
            differs = _changed(found.identity or {}, self.identity)
            what = f"{self.path.name} is of another model or other settings ({differs})"
            what = f"the first line of {self.path} is damaged" if found.identity is None else what
            logger.warning(f"{what}; its {len(found.rows)} rows are replaced")
        self._begin([])
        return []

    def _begin(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the file anew. (In place, for its lock is on this file: what a kill costs here is predicted again.)"""
        self._file.truncate(0)
        self._write(_line(self.identity) + b"".join(_line(row) for row in rows))

    def _write(self, lines: bytes) -> None:
        with writing(self.path, len(lines)):
            self._file.write(lines)
            self._file.flush()
            os.fsync(self._file.fileno())


class _Found(NamedTuple):
    """What is in a journal: identity, rows, the bytes up to the last line break, and the numbers of damaged lines."""

    identity: dict[str, Any] | None
    rows: list[dict[str, Any]]
    whole: int
    damaged: list[int]


def _line(content: Mapping[str, Any]) -> bytes:
    """A line of JSON; its last key is the CRC-32 of what stands before it."""
    text = json.dumps(content)
    return f'{text[:-1]}{", " if content else ""}"{_CRC}": {zlib.crc32(text.encode())}}}\n'.encode()


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


def _read(path: Path, content: bytes) -> _Found:
    """Read a journal; lines without a CRC-32, of an older version, are taken when they are rows."""
    whole = content.rfind(b"\n") + 1
    texts = content[:whole].split(b"\n")[:-1]
    summed = bool(texts) and f'"{_CRC}": '.encode() in texts[0]
    lines = [_content(text, summed) for text in texts]
    if content and not any(line is not None for line in lines) and (lines or not content.startswith(b"{")):
        raise DamagedFileError(path, f"cannot be read as {_WHAT}: not one of its lines is a row", _REMEDY)
    identity = lines[0] if lines and not _is_row(lines[0]) else None
    numbered = list(enumerate(lines[1:], start=2))
    damaged = [number for number, line in numbered if not _is_row(line)]
    return _Found(identity, [line for _, line in numbered if line is not None and _is_row(line)], whole, damaged)


def _content(line: bytes, summed: bool) -> dict[str, Any] | None:
    """The content of a line; None where it is damaged, or lacks the CRC-32 that the others have."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    crc = found.pop(_CRC, None)
    if crc is None:
        return None if summed else found
    return found if crc == zlib.crc32(json.dumps(found).encode()) else None


def _is_row(line: dict[str, Any] | None) -> bool:
    return line is not None and all(isinstance(line.get(name), str) for name in ("file_hash", "stamp"))
