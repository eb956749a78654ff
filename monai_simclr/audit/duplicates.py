"""Files with the same bytes, and images that look the same: in groups, without comparing all with all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from monai_simclr.runtime.files import file_sha256

RADIUS = 15
"""Bits of 256 that may differ. Copies of NIH and Kermany images at other sizes and qualities differ in 8 bits at the
most; other images of the same patient in 44 at the least, of different patients in 48 (2,775 images)."""
CORRELATION = 0.99
_BLOCKS = 16
_CHUNK = 1 << 20


def same_bytes(paths: Sequence[str], sizes: np.ndarray) -> np.ndarray:
    """Group of every file among those with the same bytes, -1 for a file that is the only one.

    Only files whose size another one has are read; a missing file (size -1) is in no group.

    Args:
        paths: N files.
        sizes: their sizes in bytes, shape ``(N,)``.
    """
    _, place, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    alike = (counts[place] > 1) & (sizes >= 0)
    digests = np.array([_digest(path) if again else "" for path, again in zip(paths, alike, strict=True)])
    alike &= digests != ""
    _, place, counts = np.unique(digests, return_inverse=True, return_counts=True)
    return _numbered(np.where(alike & (counts[place] > 1), place, -1))


def _digest(path: str) -> str:
    """SHA-256 of a file; "" when it cannot be read, or has gone since its size was taken."""
    try:
        return file_sha256(path)
    except OSError:
        return ""


def near_duplicates(hashes: np.ndarray, thumbs: np.ndarray, radius: int = RADIUS) -> np.ndarray:
    """Group of every image among those that look the same, -1 for an image that is the only one.

    Two images are joined when their hashes differ in at most `radius` of 256 bits and their thumbnails correlate with
    0.99 or more. Candidates are found by multi-index hashing (Norouzi et al., CVPR 2012): two hashes that differ in at
    most 15 bits agree in one of 16 blocks of 16 bits, so only images that share a block are compared; this is exact.
    The bits of a block are spread over the hash, because neighbouring frequencies of a chest are alike in everyone.

    Args:
        hashes: uint64 ``(N, 4)``; zeros for an image that could not be read, which is in no group.
        thumbs: uint8 ``(N, h, w)``.
        radius: at most 15.
    """
    if not 0 <= radius < _BLOCKS:
        raise ValueError(f"radius must be from 0 to {_BLOCKS - 1} of 256 bits for an exact search, got {radius}")
    readable = np.flatnonzero(hashes.any(axis=1))
    group = np.full(len(hashes), -1)
    if len(readable) < 2:
        return group
    unique, first, place = np.unique(hashes[readable], axis=0, return_index=True, return_inverse=True)
    place = place.reshape(-1)  # NumPy 2.0 gave it the shape of the rows
    close = np.concatenate(list(_close(unique, radius)) or [np.zeros((0, 2), int)])
    edges = np.concatenate([first[close], np.stack([np.arange(len(readable)), first[place]], axis=1)])
    edges = edges[_correlation(thumbs[readable], edges) >= CORRELATION]
    n = len(readable)
    graph = coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(n, n))
    labels = connected_components(graph, directed=False)[1]
    group[readable] = np.where(np.bincount(labels)[labels] > 1, labels, -1)
    return _numbered(group)


def _close(hashes: np.ndarray, radius: int) -> Iterator[np.ndarray]:
    """Pairs of rows, shape ``(P, 2)``, whose hashes differ in at most `radius` bits; a pair may come twice."""
    bits = np.unpackbits(hashes.view(np.uint8), axis=1)
    for block in range(_BLOCKS):
        key = np.packbits(bits[:, block::_BLOCKS], axis=1).view(np.uint16)[:, 0]
        order = np.argsort(key, kind="stable")
        for left, right in _pairs_of_runs(key[order]):
            near = _differing_bits(hashes[order[left]], hashes[order[right]]) <= radius
            if near.any():
                yield np.stack([order[left[near]], order[right[near]]], axis=1)


def _pairs_of_runs(key: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs of places within runs of one key of a sorted array, in chunks: first all neighbours, then all places
    two apart, and so on, until no run is that long."""
    left = np.arange(len(key))
    for apart in range(1, len(key)):
        left = left[left + apart < len(key)]
        left = left[key[left] == key[left + apart]]
        if not len(left):
            return
        for start in range(0, len(left), _CHUNK):
            part = left[start : start + _CHUNK]
            yield part, part + apart


def _differing_bits(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    differing = one ^ other
    if hasattr(np, "bitwise_count"):  # NumPy 2
        return np.bitwise_count(differing).sum(axis=1, dtype=np.int64)
    return _BITS[differing.view(np.uint16)].sum(axis=1, dtype=np.int64)


_BITS = np.unpackbits(np.arange(1 << 16, dtype=np.uint16).view(np.uint8).reshape(-1, 2), axis=1).sum(axis=1)


def _correlation(thumbs: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    found = np.ones(len(pairs))
    for start in range(0, len(pairs), 4096):
        part = pairs[start : start + 4096]
        one, other = (thumbs[part[:, side]].reshape(len(part), -1).astype(np.float64) for side in (0, 1))
        one, other = one - one.mean(axis=1, keepdims=True), other - other.mean(axis=1, keepdims=True)
        norm = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
        found[start : start + 4096] = (one * other).sum(axis=1) / np.maximum(norm, 1e-9)
    found[pairs[:, 0] == pairs[:, 1]] = 1
    return found


def _numbered(group: np.ndarray) -> np.ndarray:
    """Groups as 0, 1, 2, ... in the order of their first member; -1 stays."""
    numbers: dict[int, int] = {}
    return np.array([-1 if name < 0 else numbers.setdefault(int(name), len(numbers)) for name in group], dtype=int)
