"""Damage files at random and open them by every entry point: the reader, the index, the audit, the store, inference.

One after another, in this process; its parent is test_reader_fuzz.py.

    python fuzz_reader.py CORPUS FIRST LAST

prints one JSON line before and one after each file. The memory beyond what the imports take is limited to 1 GiB, and a
file that takes longer than 10 s ends the process, wherever it hangs.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import random
import resource
import struct
import sys
import traceback
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from resident import forget_peak, peak_kib

from monai_simclr.audit.scan import header_facts, pixel_facts
from monai_simclr.data import RadiographError, ReaderSettings, read_radiograph
from monai_simclr.data.decoding import DecodeInto
from monai_simclr.data.formats.dicom_header import read_header
from monai_simclr.data.sources.dicom_tree import read_row
from monai_simclr.inference.dataset import describe_file

MEMORY, SECONDS = 2**30, 10
ABSURD = (0, 1, 2, 255, 32767, 32768, 65535)
_SETTINGS = (
    ReaderSettings(),
    ReaderSettings(voi="percentile", crop_collimation=True),
    ReaderSettings(voi="index", render_for_processing=True),
    ReaderSettings(voi="none"),
)


def truncate(content: bytearray, rng: random.Random) -> bytearray:
    return content[: rng.randrange(len(content))]


def flip_bits(content: bytearray, rng: random.Random) -> bytearray:
    for _ in range(rng.choice((1, 3, 10, 100))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return content


def flip_the_header(content: bytearray, rng: random.Random) -> bytearray:
    for _ in range(rng.choice((1, 2, 5))):
        content[rng.randrange(min(len(content), 1200))] = rng.randrange(256)
    return content


def overwrite(content: bytearray, rng: random.Random) -> bytearray:
    start, length = rng.randrange(len(content)), rng.choice((4, 16, 64, 512))
    content[start : start + length] = rng.choice((b"\0" * length, b"\xff" * length, rng.randbytes(length)))
    return content


def cut_or_repeat(content: bytearray, rng: random.Random) -> bytearray:
    start = rng.randrange(len(content))
    stop = start + rng.choice((1, 2, 7, 128, 1000))
    return content[:start] + content[start:stop] * rng.choice((0, 2, 5)) + content[stop:]


def swap_tags(content: bytearray, rng: random.Random) -> bytearray:
    """Give an attribute the tag of another: right values under wrong names."""
    tags = [
        at
        for at in range(132, min(len(content), 3000) - 8)
        if content[at + 4 : at + 6].isalpha() and content[at + 1] == 0
    ]
    if len(tags) > 1:
        one, other = rng.sample(tags, 2)
        content[one : one + 4], content[other : other + 4] = content[other : other + 4], content[one : one + 4]
    return content


def absurd_numbers(content: bytearray, rng: random.Random) -> bytearray:
    """Overwrite sizes: rows, columns and the like of DICOM, or 16 or 32 bits anywhere in the first bytes."""
    found = [
        content.find(struct.pack("<HH2s", 0x28, tag, b"US")) for tag in (2, 0x10, 0x11, 0x100, 0x101, 0x102, 0x103)
    ]
    places = [at + 8 for at in found if at >= 0]
    if places and rng.random() < 0.8:
        for at in rng.sample(places, rng.randrange(1, len(places) + 1)):
            content[at : at + 2] = struct.pack("<H", rng.choice(ABSURD))
        return content
    at = rng.randrange(min(len(content) - 4, 600))
    value = rng.choice((0, 1, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, rng.randrange(2**32)))
    content[at : at + 4] = struct.pack(rng.choice("<>") + "I", value)
    return content


def splice(content: bytearray, rng: random.Random) -> bytearray:
    """The start of the file and the end of itself from elsewhere."""
    return content[: rng.randrange(len(content))] + content[rng.randrange(len(content)) :]


VALUES = (
    b"",
    b"\\",
    b"\xff\xfe",
    b"1E999",
    b"nan",
    b"-",
    b"0,143\\0,143 ",
    b"\0\0",
    b"\x1b$B\xff\xff",
    b"ISO 2022 IR 999",
    b"\\ISO 2022 IR 87",
    b"18446744073709551616",
    b"\r\n\t ",
    b"A" * 70,
    b"CHEST (PA AND LAT)",
    b"1.2.840.10008.1.2.1.99",
)
KINDS = (b"SQ", b"UN", b"OB", b"AT", b"FD", b"UT", b"QQ", b"DS", b"IS", b"TM", b"PN", b"US", b"OW", b"zz", b"\0\0")


def _elements(content: bytearray) -> list[int]:
    """Places of what looks like an attribute with an explicit VR, in the header."""
    return [
        at
        for at in range(132, min(len(content), 4000) - 12)
        if content[at + 4 : at + 6].isalpha()
        and content[at + 4 : at + 6].isupper()
        and content[at + 1] in (0, 0x20, 0x7F)
    ]


def edit_values(content: bytearray, rng: random.Random) -> bytearray:
    """Values that can be none of their attribute, with a length that fits."""
    for _ in range(rng.choice((1, 2, 5))):
        places = _elements(content)
        if not places:
            return content
        at, value = rng.choice(places), rng.choice(VALUES)
        length = int.from_bytes(content[at + 6 : at + 8], "little")
        value += b" " * (len(value) % 2)
        content[at + 6 : at + 8 + length] = struct.pack("<H", len(value)) + value
    return content


def edit_kinds(content: bytearray, rng: random.Random) -> bytearray:
    """Another VR: the value is parsed as what it is not, and a sequence may begin anywhere."""
    for at in rng.sample(places, min(len(places), rng.choice((1, 3)))) if (places := _elements(content)) else ():
        content[at + 4 : at + 6] = rng.choice(KINDS)
    return content


def edit_lengths(content: bytearray, rng: random.Random) -> bytearray:
    for at in rng.sample(places, min(len(places), rng.choice((1, 2)))) if (places := _elements(content)) else ():
        content[at + 6 : at + 8] = struct.pack("<H", rng.choice((0, 1, 2, 7, 254, 0xFFFE, 0xFFFF)))
    return content


def edit_texts(content: bytearray, rng: random.Random) -> bytearray:
    """Single bytes of attributes: texts in no encoding, UIDs of letters, numbers with two points."""
    for at in rng.sample(places, min(len(places), rng.choice((1, 2, 9)))) if (places := _elements(content)) else ():
        end = min(at + 8 + int.from_bytes(content[at + 6 : at + 8], "little"), len(content))
        if at + 8 < end:
            content[rng.randrange(at + 8, end)] = rng.choice(b"\0\x1b\\^=.,-9AZ\x7f\x80\xff")
    return content


HEADER_DAMAGES = (edit_values, edit_kinds, edit_lengths, edit_texts)
DAMAGES: tuple[Callable[[bytearray, random.Random], bytearray], ...] = (
    truncate,
    flip_bits,
    flip_the_header,
    overwrite,
    cut_or_repeat,
    swap_tags,
    absurd_numbers,
    splice,
    *HEADER_DAMAGES,
)


def damaged(paths: list[Path], number: int) -> tuple[bytes, str]:
    """File `number`: a file of the corpus with one to three damages; the same for the same number."""
    rng = random.Random(number)
    path = paths[number % len(paths)]
    content = bytearray(path.read_bytes())
    names = []
    inside = _deflated_at(content) if rng.random() < 0.7 else 0
    if inside:
        meta, content = content[:inside], bytearray(zlib.decompress(content[inside:], -zlib.MAX_WBITS))
        content[:0] = bytes(132)  # so that the header is where it is in other files
    for damage in rng.sample(DAMAGES, rng.choice((1, 1, 1, 2, 3))):
        if len(content) > 8:
            content = damage(content, rng)
            names.append(damage.__name__)
    if inside:
        deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        content = meta + deflate.compress(content[132:]) + deflate.flush()
    return bytes(content), f"{path.name} {' '.join(names)}"


def _deflated_at(content: bytearray) -> int:
    """Where the deflated data set of a file begins; 0 in other files."""
    if b"1.2.840.10008.1.2.1.99" not in content[:600] or content[132:140] != b"\2\0\0\0UL\4\0":
        return 0
    return 132 + 12 + int.from_bytes(content[140:144], "little")


def other_entry_points(path: Path, pixels: Path) -> str:
    """What goes wrong where more is done with a file than reading it; each must report something about every file."""
    row = read_row(path)
    facts, look, about = header_facts(path), pixel_facts(path), describe_file(path, "key")
    [record] = DecodeInto(pixels, 0, 8)([(0, str(path))])
    with contextlib.suppress(RadiographError):
        read_header(path, whole=True)
    for name, reported in (("index", row), ("audit", facts), ("inference", about), ("store", record)):
        json.dumps(reported).encode()  # to be written down
        if not isinstance(reported, str | dict | tuple):
            return f"the {name} reports {reported!r}"
    if bool(record.reason) != bool(look["damage"]):
        return f"the store says {record.reason!r}, the audit {look['damage']!r}"
    if facts["problem"] and not record.reason:
        return f"the audit says {facts['problem']!r} of a file that is read"
    if isinstance(row, str) and facts["format"] == "DICOM" and not record.reason:
        return f"the index excludes what is read: {row}"
    return ""


def outcome(path: Path, number: int, pixels: Path) -> dict[str, Any]:
    """How the opening of a file ends: an image, our message, or what must not be."""
    try:
        wrong = other_entry_points(path, pixels)
        image, _ = read_radiograph(path, _SETTINGS[number % len(_SETTINGS)])
    except RadiographError as error:
        return {"wrong": wrong} if wrong else {"problem": error.problem}
    except BaseException:
        return {"wrong": traceback.format_exc()[-1500:]}
    if image.dtype != np.float32 or image.ndim != 2 or not (0 <= image.min() < image.max() <= 1):
        wrong = f"an image {image.dtype} {image.shape} from {image.min()} to {image.max()}"
    return {"wrong": wrong} if wrong else {"image": list(image.shape)}


def main(corpus: Path, first: int, last: int) -> None:
    paths = sorted(path for path in corpus.iterdir() if path.is_file())
    pixels = corpus / "damaged" / "pixels"
    pixels.parent.mkdir(exist_ok=True)
    pixels.write_bytes(bytes(64))
    for path in paths:
        outcome(path, 0, pixels)  # what is imported on first use is not the file's
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    forget_peak()
    before = peak_kib()
    path = corpus / "damaged" / f"{first}.bin"
    for number in range(first, last):
        content, what = damaged(paths, number)
        path.write_bytes(content)
        print(json.dumps({"number": number, "what": what}), flush=True)
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        result = outcome(path, number, pixels)
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps({"number": number, "what": what, **result}), flush=True)
    grown = peak_kib() - before
    print(json.dumps({"grown_mib": grown / 1024}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
