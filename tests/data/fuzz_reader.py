"""Damage files at random and read them, one after another, in this process; its parent is test_reader_fuzz.py.

    python fuzz_reader.py CORPUS FIRST LAST

prints one JSON line before and one after each file. The memory beyond what the imports take is limited to 1 GiB, and a
file that takes longer than 10 s ends the process, wherever it hangs.
"""

from __future__ import annotations

import faulthandler
import json
import random
import resource
import struct
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from resident import forget_peak, peak_kib

from monai_simclr.data import RadiographError, ReaderSettings, read_radiograph

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


DAMAGES: tuple[Callable[[bytearray, random.Random], bytearray], ...] = (
    truncate, flip_bits, flip_the_header, overwrite, cut_or_repeat, swap_tags, absurd_numbers, splice,
)  # fmt: skip


def damaged(paths: list[Path], number: int) -> tuple[bytes, str]:
    """File `number`: a file of the corpus with one to three damages; the same for the same number."""
    rng = random.Random(number)
    path = paths[number % len(paths)]
    content = bytearray(path.read_bytes())
    names = []
    for damage in rng.sample(DAMAGES, rng.choice((1, 1, 1, 2, 3))):
        if len(content) > 8:
            content = damage(content, rng)
            names.append(damage.__name__)
    return bytes(content), f"{path.name} {' '.join(names)}"


def outcome(path: Path, number: int) -> dict[str, Any]:
    """How the reading of a file ends: an image, our sentence, or what must not be."""
    try:
        image, _ = read_radiograph(path, _SETTINGS[number % len(_SETTINGS)])
    except RadiographError as error:
        return {"sentence": error.problem}
    except BaseException:
        return {"wrong": traceback.format_exc()[-1500:]}
    if image.dtype != np.float32 or image.ndim != 2 or not (0 <= image.min() < image.max() <= 1):
        return {"wrong": f"an image {image.dtype} {image.shape} from {image.min()} to {image.max()}"}
    return {"image": list(image.shape)}


def main(corpus: Path, first: int, last: int) -> None:
    paths = sorted(path for path in corpus.iterdir() if path.is_file())
    for path in paths:
        outcome(path, 0)  # what is imported on first use is not the file's
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    forget_peak()
    before = peak_kib()
    path = corpus / "damaged" / f"{first}.bin"
    path.parent.mkdir(exist_ok=True)
    for number in range(first, last):
        content, what = damaged(paths, number)
        path.write_bytes(content)
        print(json.dumps({"number": number, "what": what}), flush=True)
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        result = outcome(path, number)
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps({"number": number, "what": what, **result}), flush=True)
    grown = peak_kib() - before
    print(json.dumps({"grown_mib": grown / 1024}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
