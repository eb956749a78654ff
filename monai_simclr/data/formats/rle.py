"""DICOM's run lengths (PS3.5 Annex G) of one gray frame, with an output that can never be larger than was asked for."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

_HEADER = 64  # bytes


def decode_rle(content: bytes, n_pixels: int, n_bytes: int) -> np.ndarray:
    """Decode a frame.

    pydicom's own decoder expands whatever it is given, 64 times at the most, before it looks at the size.

    Args:
        content: the frame: a header of offsets, then one segment for each byte of a pixel, most significant first.
        n_pixels: rows x columns.
        n_bytes: bytes of a pixel.

    Returns:
        uint8 ``(n_pixels, n_bytes)``, least significant byte first.

    Raises:
        ValueError: if the segments are not as many as the bytes, or one is too short.

    Example:
        >>> header = np.array([1, 64, *[0] * 14], "<u4").tobytes()
        >>> decode_rle(header + bytes([254, 7, 1, 8, 9]), 5, 1).ravel().tolist()
        [7, 7, 7, 8, 9]
    """
    if len(content) < _HEADER:
        raise ValueError(f"has {len(content)} bytes, less than its header")
    header = np.frombuffer(content[:_HEADER], dtype="<u4").astype(np.int64)
    if header[0] != n_bytes:
        raise ValueError(f"has {header[0]} segments, {n_bytes} are needed")
    ends = [*header[1 : n_bytes + 1], len(content)]
    if ends[0] < _HEADER or any(after < before for before, after in pairwise(ends)):
        raise ValueError("has segments that overlap")
    pixels = np.empty((n_pixels, n_bytes), dtype=np.uint8)
    for k in range(n_bytes):
        segment = _decode_segment(content[ends[k] : ends[k + 1]], n_pixels)
        if len(segment) < n_pixels:
            raise ValueError(f"is truncated: segment {k + 1} holds {len(segment)} of {n_pixels} bytes")
        pixels[:, n_bytes - 1 - k] = np.frombuffer(segment, dtype=np.uint8, count=n_pixels)
    return pixels


def _decode_segment(content: bytes, most: int) -> bytearray:
    decoded = bytearray()
    at = 0
    while at + 1 < len(content) and len(decoded) < most:
        run = content[at]
        if run < 128:  # run + 1 bytes as they are
            decoded += content[at + 1 : at + 2 + run]
            at += 2 + run
        elif run > 128:  # the next byte, 257 - run times
            decoded += content[at + 1 : at + 2] * (257 - run)
            at += 2
        else:
            at += 1
    return decoded
