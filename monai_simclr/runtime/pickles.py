"""What a file would run when it is loaded: pickles and TorchScript are read as bytes and never loaded."""

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

_CALLS = ("STACK_GLOBAL", "OBJ", "EXT1", "EXT2", "EXT4", "PERSID")
"""Opcodes that call or look up something without a GLOBAL; `torch.save` writes none of them."""

_PICKLED = (".pt", ".pth", ".ckpt", ".bin", ".tar", ".model", ".pkl", ".pickle", ".th", ".weights")
_ZIP, _PROTO, _NUMPY = b"PK\x03\x04", b"\x80", b"\x93NUMPY"


def pickled_code(path: str | Path) -> list[str]:
    """What loading a file would run apart from rebuilding tensors; [] if nothing.

    The kind of a file is told from its content, not its name: a pickle, a zip archive with pickles or TorchScript in it
    (what `torch.save` and `torch.jit.save` write), an array of Python objects (``.npy``, ``.npz``).

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
            lines = list(_archive(path)) if zipfile.is_zipfile(path) else []
            if head.startswith(_NUMPY):
                lines += _array(file)
            elif not head.startswith(_ZIP):  # also with an archive behind it: loaders look at the first bytes only
                lines += _pickle(file, path.suffix.lower() in _PICKLED, head.startswith(_PROTO))
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        return [f"cannot be read ({error})"]
    return list(dict.fromkeys(lines))


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
                    yield from _pickle(file, True)
                elif name.lower().endswith((".py", ".pyc", ".so")):
                    yield f"code in an archive ({name})"


def _array(file: IO[bytes]) -> Iterator[str]:
    """The header of an array is in its first bytes; objects (``|O``) are pickled after it."""
    header = file.read(10_000).split(b"\n", 1)[0]
    if re.search(rb"['\"]descr['\"]\s*:[^}]*?['\"][|<>=]?O", header):
        yield "an array of Python objects, which is unpickled"


def _pickle(file: IO[bytes], surely: bool, likely: bool = True) -> list[str]:
    """What a pickle looks up, or several in a row, as torch's old format has them.

    If it is `surely` loaded as one, one that cannot be read is worth a line; if it does not even begin like one
    (`likely`), it is one only if it can be read to its end.
    """
    lines: list[str] = []
    try:
        while True:
            for code, argument, _ in pickletools.genops(file):
                if code.name in _CALLS:
                    lines.append(f"unpickling calls or looks up what {code.name} names")
                elif code.name in ("GLOBAL", "INST"):
                    name = str(argument)  # "module name"
                    if re.fullmatch(r"[\w.]+ [\w.]+", name) and not _TENSORS.fullmatch(name):
                        lines.append(f"unpickling calls or looks up {name}")
            here = file.tell()
            head = file.read(2)
            file.seek(here)
            if len(head) < 2 or head[:1] != _PROTO or head[1] > 5:  # old files have raw values after the last pickle
                return lines
    except Exception:  # pickletools raises anything over damaged bytes, or bytes of another kind
        if surely:
            return lines or ["a pickle that cannot be read"]
        return lines if likely else []
