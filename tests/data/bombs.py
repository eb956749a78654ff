"""Small files that promise, or inflate to, far more than a radiograph has; each is one of a kind of attack.

    python bombs.py FOLDER

writes one after another into a folder, opens it by every entry point of the package, and prints as JSON what each took:
seconds of CPU time, MiB beyond what the imports take, and the outcome.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom import uid
from pydicom.filereader import read_file_meta_info
from radiograph_corpus import make_dicom, picture, write_dicom
from resident import forget_peak, peak_kib


def _element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    size = len(value) if length is None else length
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    return (
        head + (struct.pack("<HL", 0, size) if vr in (b"OB", b"SQ", b"UN", b"UT") else struct.pack("<H", size)) + value
    )


def _start(path: Path, syntax: uid.UID) -> tuple[bytes, bytes]:
    """A radiograph's preamble and file meta, and its attributes up to the patient's."""
    data = make_dicom(picture(12))
    data.file_meta.TransferSyntaxUID = syntax
    data.save_as(path, enforce_file_format=True)
    content = path.read_bytes()
    start = 132 + 12 + read_file_meta_info(path).FileMetaInformationGroupLength
    head = _element(0x00080016, b"UI", uid.DigitalXRayImageStorageForPresentation.encode() + b"\0")
    head += _element(0x00080060, b"CS", b"DX") + _element(0x00100020, b"LO", b"p1")
    return content[:start], head


def _deflated(path: Path, head: bytes, mebibytes: int, filler: bytes = b"\0") -> Path:
    """A deflated data set that starts with `head` and continues with one byte: one block, again and again."""
    meta, _ = _start(path, uid.DeflatedExplicitVRLittleEndian)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    first = deflate.compress(head) + deflate.flush(zlib.Z_FULL_FLUSH)
    block = deflate.compress(filler * 2**20) + deflate.flush(zlib.Z_FULL_FLUSH)
    path.write_bytes(meta + first + block * mebibytes + deflate.flush())
    return path


def private_value(path: Path) -> Path:
    """Two gigabytes of zeros in a vendor's element before the pixels, 2 MB when they are deflated."""
    head = _start(path, uid.DeflatedExplicitVRLittleEndian)[1]
    return _deflated(path, head + _element(0x00111010, b"OB", b"", 2**31 - 2), 2048)


def zeros(path: Path) -> Path:
    """A gigabyte of zeros in place of a data set."""
    return _deflated(path, b"", 1024)


def description(path: Path) -> Path:
    """An attribute that everybody asks for, of 900 MB."""
    head = _start(path, uid.DeflatedExplicitVRLittleEndian)[1]
    return _deflated(path, head + _element(0x00081030, b"UT", b"", 900 * 2**20), 912, b" ")


def pixels(path: Path) -> Path:
    """A valid header and pixels of a gigabyte."""
    data = make_dicom(picture(12), PixelData=None)
    data.save_as(path, enforce_file_format=True)
    start = 132 + 12 + read_file_meta_info(path).FileMetaInformationGroupLength
    head = path.read_bytes()[start:]
    return _deflated(path, head + _element(0x7FE00010, b"OB", b"", 2**30), 1024)


def _long(path: Path, body: bytes) -> Path:
    meta, head = _start(path, uid.ExplicitVRLittleEndian)
    path.write_bytes(meta + head + body)
    return path


def many_elements(path: Path) -> Path:
    """Half a million private elements without a value."""
    body = np.zeros(500_000, [("group", "<u2"), ("element", "<u2"), ("vr", "S2"), ("length", "<u2")])
    body["group"], body["vr"] = 0x11, b"LO"
    body["element"] = np.arange(len(body)) % 65536
    return _long(path, body.tobytes())


def many_items(path: Path) -> Path:
    """A sequence of view codes, of known length, with half a million empty items."""
    items = struct.pack("<HHL", 0xFFFE, 0xE000, 0) * 500_000
    return _long(path, _element(0x00540220, b"SQ", items))


def many_endless_items(path: Path) -> Path:
    """The same with a delimiter instead of a length."""
    items = struct.pack("<HHL", 0xFFFE, 0xE000, 0) * 500_000
    return _long(path, _element(0x00540220, b"SQ", items, 0xFFFFFFFF))


def deep_sequences(path: Path) -> Path:
    """Half a million sequences, each in the one before."""
    one = _element(0x00540220, b"SQ", b"", 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    return _long(path, one * 500_000)


def deep_known_sequences(path: Path) -> Path:
    """Two hundred, with lengths: each is parsed when the one around it is looked at."""
    body = b""
    for _ in range(200):
        body = _element(0x00540220, b"SQ", struct.pack("<HHL", 0xFFFE, 0xE000, len(body)) + body)
    return _long(path, body)


def file_meta(path: Path) -> Path:
    """A private value of 200 MB in the file meta information."""
    meta, head = _start(path, uid.ExplicitVRLittleEndian)
    path.write_bytes(meta + _element(0x00020102, b"OB", bytes(200 * 2**20)) + head)
    return path


BOMBS: tuple[Callable[[Path], Path], ...] = (
    private_value,
    zeros,
    description,
    pixels,
    many_elements,
    many_items,
    many_endless_items,
    deep_sequences,
    deep_known_sequences,
    file_meta,
)


def _entry_points() -> dict[str, Callable[[Path], object]]:
    from monai_simclr.audit.scan import header_facts, pixel_facts
    from monai_simclr.data.decoding import decode
    from monai_simclr.data.formats.dicom_header import read_header
    from monai_simclr.data.sources.dicom_tree import read_row
    from monai_simclr.inference.dataset import describe_file

    return {
        "index": read_row,
        "audit": header_facts,
        "store": lambda path: decode(path, 64),
        "audit --pixels": pixel_facts,
        "inference": lambda path: describe_file(path, "key"),
        "dicom results": lambda path: read_header(path, whole=True),
    }


def cost(path: Path, valid: Path) -> dict[str, dict[str, float | str]]:
    """Seconds, MiB and the outcome of every entry point on a file, after a valid one."""
    costs: dict[str, dict[str, float | str]] = {}
    for name, call in _entry_points().items():
        call(valid)
        forget_peak()
        before, start = peak_kib(), time.process_time()
        try:
            outcome = str(call(path))
        except ValueError as error:
            outcome = f"refused: {error}"
        seconds = time.process_time() - start
        costs[name] = {"seconds": seconds, "mib": (peak_kib() - before) / 1024, "outcome": outcome[:300]}
    return costs


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    valid = write_dicom(folder / "valid.dcm", picture(12))
    print(json.dumps({make.__name__: cost(make(folder / "bomb.dcm"), valid) for make in BOMBS}), flush=True)
    os._exit(0)  # taking MONAI apart takes two seconds
