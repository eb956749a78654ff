"""What a file would run when it is loaded: pickles and TorchScript are read as bytes, and never loaded."""

from __future__ import annotations

import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_TENSORS = re.compile(
    r"collections OrderedDict"
    r"|torch\._utils _rebuild_(tensor|tensor_v2|tensor_v3|parameter)"
    r"|torch(\.storage)? (Byte|Char|Short|Int|Long|Half|BFloat16|Float|Double|Bool|Untyped|Typed)Storage"
    r"|torch (Size|device|float16|bfloat16|float32|float64|uint8|int8|int16|int32|int64|bool)"
    r"|torch\.serialization _get_layout"
    r"|torch\._tensor _rebuild_from_type_v2"
)
"""What weights are rebuilt with; a pickle that names anything else is listed."""

_ALWAYS = ("STACK_GLOBAL", "OBJ", "EXT1", "EXT2", "EXT4", "PERSID")
"""Opcodes that call or look up what no GLOBAL names; `torch.save` writes none of them."""

_PICKLED = (".pt", ".pth", ".ckpt", ".bin", ".tar", ".model", ".pkl", ".pickle", ".th", ".weights")
_ZIP, _PROTO, _NUMPY = b"PK\x03\x04", b"\x80", b"\x93NUMPY"


def pickled_code(path: str | Path) -> list[str]:
    """What loading a file would run beside putting tensors together; [] for a file that holds none.

    Known by what is in it, not by its name: a pickle, a zip archive with pickles or TorchScript in it (what
    `torch.save` and `torch.jit.save` write), an array of Python objects (``.npy``, ``.npz``).

    Args:
        path: of any file.

    Returns:
        One sentence each.

    Example:
        >>> import pickle, tempfile
        >>> path = Path(tempfile.mkdtemp()) / "model.pt"
        >>> _ = path.write_bytes(pickle.dumps(print, protocol=2))
        >>> pickled_code(path)
        ['unpickling calls or looks up __builtin__ print']
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            head = file.read(len(_NUMPY))
            file.seek(0)
            found = list(_archive(path)) if zipfile.is_zipfile(path) else []
            if head.startswith(_NUMPY):
                found += _array(file)
            elif not head.startswith(_ZIP):  # also before an archive: loaders look at the first bytes only
                found += _plain(file, path.suffix.lower(), head)
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        return [f"cannot be read ({error})"]
    return list(dict.fromkeys(found))


def _plain(file: IO[bytes], suffix: str, head: bytes) -> list[str]:
    """Of a file that may be a pickle: by its ending, by its first byte, or because it can be read as one to its end."""
    found, whole = _pickle(file)
    if suffix in _PICKLED:
        return found if whole or found else ["a pickle that cannot be read"]
    return found if whole or head.startswith(_PROTO) else []


def _archive(path: Path) -> Iterator[str]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            name = entry.filename
            if "/code/" in f"/{name}" and name.endswith(".py"):
                yield "a TorchScript program, which runs when it is called"
                continue
            with archive.open(entry) as file:
                head = file.read(8)
            with archive.open(entry) as file:
                if head.startswith(_NUMPY):
                    yield from _array(file)
                elif name.lower().endswith((".pkl", ".pickle")) or (head.startswith(_PROTO) and "/data/" not in name):
                    found, whole = _pickle(file)
                    yield from found if whole or found else ["a pickle that cannot be read"]
                elif name.lower().endswith((".py", ".pyc", ".so")):
                    yield f"code in an archive ({name})"


def _array(file: IO[bytes]) -> Iterator[str]:
    """An array's header stands in its first bytes; objects (``|O``) are pickled behind it."""
    header = file.read(10_000).split(b"\n", 1)[0]
    if re.search(rb"['\"]descr['\"]\s*:[^}]*?['\"][|<>=]?O", header):
        yield "an array of Python objects, which is unpickled"


def _pickle(file: IO[bytes]) -> tuple[list[str], bool]:
    """What a pickle looks up, or several in a row, as torch's old format has them; and whether it can be read."""
    found: list[str] = []
    try:
        while True:
            for code, argument, _ in pickletools.genops(file):
                if code.name in ("GLOBAL", "INST") and _is_foreign(str(argument)):
                    found.append(f"unpickling calls or looks up {argument}")
                elif code.name in _ALWAYS:
                    found.append(f"unpickling calls or looks up what {code.name} names")
            if not _more(file):
                return found, True
    except Exception:  # pickletools raises whatever damaged bytes, or bytes of anything else, make it raise
        return found, False


def _is_foreign(name: str) -> bool:
    """Whether "module name" can be looked up at all, and is not what tensors are rebuilt with."""
    return re.fullmatch(r"[\w.]+ [\w.]+", name) is not None and not _TENSORS.fullmatch(name)


def _more(file: IO[bytes]) -> bool:
    """Whether another pickle follows: old files have the raw values of storages behind the last one."""
    here = file.tell()
    head = file.read(2)
    file.seek(here)
    return len(head) == 2 and head[0:1] == _PROTO and head[1] <= 5
