"""Our own files: written with a checksum inside, and read so that damage ends in a message with the file's name.

The content of a file that was cut, altered or replaced can make any library raise anything. So whatever is raised while
one of our files is read becomes a `DamagedFileError`: the file, what is wrong, what to do. A file without a checksum,
of an older version or written by somebody else, is read and checked as far as that goes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import logging
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_simclr.runtime.files import write_bytes, write_json

logger = logging.getLogger("monai_simclr")

CHECKSUM = "checksum"
"""Key, or name of an array, under which a file holds the checksum of everything else in it."""

_SUM = re.compile(r"sha256:[0-9a-f]{64}")
_ALTERED = "its content does not fit its checksum, so it was altered"
_UNREADABLE = (errno.EISDIR, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ELOOP, errno.EINVAL)
_FORBIDDEN = re.compile(r"Unsupported (?:global|class)[^\w]*(?:GLOBAL )?([\w.]+)")


class DamagedFileError(ValueError):
    """One of our files was cut or altered, or a file is not one of ours: the file, what is wrong, what to do."""

    def __init__(self, path: str | Path, problem: str, remedy: str) -> None:
        super().__init__(f"{path} {problem}; {remedy}")
        self.path, self.problem, self.remedy = Path(path), problem, remedy

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.problem, self.remedy)


@contextlib.contextmanager
def reading(path: str | Path, what: str, remedy: str) -> Iterator[None]:
    """Turn whatever is raised while a file's content is read and checked into a `DamagedFileError`.

    A missing file and an error of the disk are raised as they are.

    Args:
        path: the file.
        what: what it should be, as in "an encoder", and `remedy`: what to do when it is not.

    Example:
        >>> with reading("metrics.json", "metrics", "run the command again"):
        ...     json.loads("{")
        Traceback (most recent call last):
        monai_simclr.runtime.artefacts.DamagedFileError: metrics.json cannot be read as metrics: Expecting property \
name enclosed in double quotes: line 1 column 2 (char 1); run the command again
    """
    try:
        yield
    except (DamagedFileError, FileNotFoundError):
        raise
    except Exception as error:
        reason = _reason(error)
        if isinstance(error, OSError):
            if error.errno is not None and error.errno not in _UNREADABLE:
                raise
            reason = error.strerror or reason
        raise DamagedFileError(path, f"cannot be read as {what}: {reason}", remedy) from error


def _reason(error: BaseException) -> str:
    """An error's message on one line; without the advice of torch and NumPy to switch their guards off."""
    text = " ".join(str(error).split())
    forbidden = _FORBIDDEN.search(text)
    if forbidden:
        return f"it would run {forbidden[1]}, and only tensors, numbers and text are read"
    if "weights_only" in text or "pickle" in text.lower():
        return "it holds something other than arrays, numbers and text, or is a file of another kind"
    if isinstance(error, KeyError):
        return f"it lacks {text}"
    if isinstance(error, MemoryError):
        return "it claims to hold more than fits into memory"
    return (text[:300] or type(error).__name__).rstrip(".;")


def checksum(parts: Sequence[bytes | memoryview]) -> str:
    """Checksum of some bytes, and of where each part ends.

    Example:
        >>> checksum([b"ab", b"c"]) == checksum([b"a", b"bc"])
        False
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(memoryview(part).nbytes.to_bytes(8, "little"))
        digest.update(part)
    return f"sha256:{digest.hexdigest()}"


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Content for JSON with the checksum of its values, whatever the order of their keys.

    Example:
        >>> unsealed(sealed({"b": 1.5, "a": [None]}))
        {'b': 1.5, 'a': [None]}
    """
    plain: dict[str, Any] = json.loads(json.dumps(content, allow_nan=False))
    return {**plain, CHECKSUM: checksum([_canonical(plain)])}


def unsealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content that `sealed` was given, or that has no checksum; raises `ValueError` if a value was changed."""
    plain = dict(content)
    expected = plain.pop(CHECKSUM, None)
    if expected is None:
        renamed = [key for key, value in plain.items() if isinstance(value, str) and _SUM.fullmatch(value)]
        if renamed:
            raise ValueError(f"its checksum is called {renamed[0]!r}, so it was altered")
    elif expected != checksum([_canonical(plain)]):
        raise ValueError(_ALTERED)
    return plain


def _canonical(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def write_sealed_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a mapping as JSON with a checksum inside, whole or not at all."""
    write_json(path, sealed(content))


def read_json(path: str | Path, what: str, remedy: str, needs: Sequence[str] = (), kind: type = dict) -> Any:
    """The content of a JSON file of ours, a `dict` with the keys `needs` or a `list`; see `reading`.

    Raises:
        FileNotFoundError: if there is no file.
        DamagedFileError: if it is not JSON of that kind with these keys, or does not fit the checksum inside it.
    """

    def refuse(text: str) -> None:
        raise ValueError(f"{text} is not a number that JSON has")

    with reading(path, what, remedy):
        content = json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=refuse)
        if not isinstance(content, kind):
            raise ValueError(f"it holds a {type(content).__name__}, not a {kind.__name__}")
        if not isinstance(content, dict):
            return content
        _check_names(needs, content)
        return unsealed(content)


def _check_names(needs: Sequence[str], names: Any) -> None:
    missing = [name for name in needs if name not in names]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")


def seal_zip(content: bytes) -> bytes:
    """A zip archive, as `torch.save` and `numpy.savez` make them, with one more member: the checksum of the others."""
    file = io.BytesIO(content)
    with zipfile.ZipFile(file, "a") as archive:
        text, first = _sum_of_members(archive), archive.namelist()[0]
        if first.endswith(".npy"):  # a reader of all arrays finds one of text
            array = io.BytesIO()
            np.save(array, np.array(text), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{CHECKSUM}.npy"), array.getvalue())
        else:  # torch reads one folder, and ignores what it does not know in there
            archive.writestr(zipfile.ZipInfo(f"{first.split('/')[0]}/{CHECKSUM}"), text)
    return file.getvalue()


def check_zip(content: bytes) -> bool:
    """Whether an archive has a checksum; raises `ValueError` if its members do not fit it."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        name = next((name for name in archive.namelist() if _is_checksum(name)), None)
        if name is None:
            return False
        member = archive.read(name)
        expected = str(np.load(io.BytesIO(member), allow_pickle=False)) if name.endswith(".npy") else member.decode()
        if expected != _sum_of_members(archive):
            raise ValueError(_ALTERED)
        return True


def _is_checksum(name: str) -> bool:
    return name.rpartition("/")[2].removesuffix(".npy") == CHECKSUM


def _sum_of_members(archive: zipfile.ZipFile) -> str:
    names = sorted(name for name in archive.namelist() if not _is_checksum(name))
    return checksum([part for name in names for part in (name.encode(), archive.read(name))])


def write_arrays(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays of numbers and text as ``.npz`` with a checksum inside, whole or not at all; nothing is pickled."""
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)  # type: ignore[arg-type]
    write_bytes(path, seal_zip(file.getvalue()))


def read_arrays(path: str | Path, what: str, remedy: str, needs: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz`` file of ours, with those that it `needs`; raises as `read_json` does."""
    with reading(path, what, remedy):
        content = Path(path).read_bytes()
        if not check_zip(content):
            warn_no_checksum(path)
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            _check_names(needs, file.files)
            return {name: file[name] for name in file.files if name != CHECKSUM}


def write_tensor_file(path: str | Path, content: bytes) -> None:
    """Write what safetensors made with a checksum in its header, whole or not at all; equal content, equal bytes.

    safetensors puts a header's metadata in an order that differs from process to process.
    """
    header, data = _split(content)
    metadata = dict(sorted(header.pop("__metadata__", {}).items()))
    metadata[CHECKSUM] = checksum([_canonical([metadata, header]), data])
    text = json.dumps({"__metadata__": metadata, **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    write_bytes(path, len(text).to_bytes(8, "little") + text + data)


def read_tensor_file(path: str | Path, what: str, remedy: str) -> tuple[dict[str, str], bytes]:
    """The metadata of a safetensors file of ours, and the file's bytes; raises as `read_json` does."""
    with reading(path, what, remedy):
        content = Path(path).read_bytes()
        header, data = _split(content)
        metadata: dict[str, str] = header.pop("__metadata__", {})
        expected = metadata.pop(CHECKSUM, None)
        if expected is not None and expected != checksum([_canonical([metadata, header]), data]):
            raise ValueError(_ALTERED)
        if any(_SUM.fullmatch(str(value)) for value in metadata.values()):
            raise ValueError("its checksum has another name, so it was altered")
        if expected is None:
            warn_no_checksum(path)
        return metadata, content


def is_torch_file(path: str | Path) -> bool:
    """Whether `torch.save` wrote a file, by how it begins: a zip archive or a pickle; its name can be anything.

    A file of safetensors begins with a number, which may look like either, and the brace of its header. A missing or
    empty file, and any other kind, is none.
    """
    if not Path(path).is_file():
        return False
    with open(path, "rb") as file:
        start = file.read(9)
    return start.startswith((b"PK\x03\x04", b"\x80")) and start[8:] != b"{"


def warn_no_checksum(path: str | Path) -> None:
    """Warn that a file cannot be compared with what was written."""
    logger.warning(f"{path} has no checksum, as older versions left it; whether it was altered cannot be told")


def _split(content: bytes) -> tuple[dict[str, Any], memoryview]:
    """Header and data of a safetensors file."""
    start = 8 + int.from_bytes(content[:8], "little")
    if not 10 <= start <= len(content):
        raise ValueError(f"its {len(content)} bytes do not begin with a header of safetensors")
    header = json.loads(content[8:start])
    if not isinstance(header, dict) or not isinstance(header.get("__metadata__", {}), dict):
        raise ValueError("its header is not one of safetensors")
    return header, memoryview(content)[start:]
