"""The short way of a plain PNG gives Pillow's gray levels, and leaves everything else to Pillow."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from monai_simclr.data import read_radiograph
from monai_simclr.data.formats import pictures
from monai_simclr.data.formats.pictures import read_plain_png
from monai_simclr.data.radiograph import RadiographError

PIXELS = np.random.RandomState(0).randint(0, 65536, (37, 53), dtype=np.uint16)


def _chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png(data, bits=8, colour=0, more=b"", shape=PIXELS.shape):
    header = struct.pack(">IIBBBBB", shape[1], shape[0], bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + more + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _raw(pixels):
    return b"".join(b"\0" + row.tobytes() for row in pixels)


def _read(path):
    return read_plain_png(path.read_bytes())


GRAY = zlib.compress(_raw(PIXELS.astype(np.uint8)))


@pytest.mark.parametrize("bits", [8, 16])
def test_a_plain_png_has_the_gray_levels_that_pillow_gives(tmp_path, monkeypatch, bits):
    Image.fromarray(PIXELS.astype(f"u{bits // 8}")).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        np.testing.assert_array_equal(_read(tmp_path / "a.png"), np.asarray(picture))
    short, meta = read_radiograph(tmp_path / "a.png")
    monkeypatch.setattr(pictures, "read_plain_png", lambda content: None)
    long, same = read_radiograph(tmp_path / "a.png")
    np.testing.assert_array_equal(short, long)
    assert str(meta) == str(same)


def test_real_radiographs_have_the_gray_levels_that_pillow_gives(cxr):
    paths = sorted((cxr / "nih").rglob("*.png"))[::40]
    read = [(_read(path), path) for path in paths]
    assert sum(pixels is not None for pixels, _ in read) > 20
    for pixels, path in read:
        if pixels is not None:
            with Image.open(path) as picture:
                np.testing.assert_array_equal(pixels, np.asarray(picture))


EXIF = Image.Exif()
EXIF[0x0112] = 6


@pytest.mark.parametrize(
    "picture",
    [
        _png(zlib.compress(_raw(np.zeros((37, 53, 3), np.uint8))), colour=2),
        _png(GRAY, more=_chunk(b"tRNS", b"\0\5")),
        _png(GRAY, more=_chunk(b"eXIf", EXIF.tobytes()[6:])),
        _png(GRAY, more=_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"x"))),
        _png(GRAY, more=_chunk(b"acTL", struct.pack(">II", 2, 0))),
        _png(zlib.compress(_raw(np.zeros((37, 7), np.uint8))), bits=1),
    ],
    ids=["colour", "transparency", "EXIF", "text", "animation", "one bit"],
)
def test_what_is_not_plain_is_left_to_pillow(tmp_path, picture):
    (tmp_path / "a.png").write_bytes(picture)
    assert _read(tmp_path / "a.png") is None


def _flipped(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


SOUND = _png(GRAY)


@pytest.mark.parametrize(
    "picture",
    [
        SOUND[: len(SOUND) // 2],
        SOUND[:-4],
        SOUND + b"more",
        _flipped(SOUND, 200),
        _flipped(SOUND, 20),
    ],
    ids=["cut", "cut at the end", "more", "flipped", "header"],
)
def test_a_png_with_a_wrong_checksum_is_left_to_pillow(tmp_path, picture):
    (tmp_path / "a.png").write_bytes(picture)
    assert _read(tmp_path / "a.png") is None


@pytest.mark.parametrize(
    "picture",
    [
        _png(GRAY[:-4] + b"abcd"),
        _png(_flipped(GRAY, 200)),
        _png(GRAY[: len(GRAY) // 2]),
        _png(zlib.compress(_raw(PIXELS.astype(np.uint8))[: 20 * 54])),
    ],
    ids=["adler", "deflate", "short stream", "few rows"],
)
def test_damaged_pixels_with_right_checksums_are_refused(tmp_path, picture):
    (tmp_path / "a.png").write_bytes(picture)
    with pytest.raises(RadiographError, match="is damaged: its PNG pixels cannot be decoded"):
        read_radiograph(tmp_path / "a.png")


def test_a_cut_png_is_refused_in_our_own_words(tmp_path):
    text = io.BytesIO()
    Image.fromarray(PIXELS.astype(np.uint8)).save(text, "PNG", pnginfo=PngImagePlugin.PngInfo())
    (tmp_path / "a.png").write_bytes(text.getvalue()[:-200])
    with pytest.raises(RadiographError, match=r"^a\.png: is damaged: its PNG pixels cannot be decoded"):
        read_radiograph(tmp_path / "a.png")
