"""Groups of files with the same bytes, and of images that look the same, without comparing every pair."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from monai_simclr.runtime.files import file_sha256

RADIUS = 15
"""Bits of 256 that may differ. Copies of NIH and Kermany images at other sizes and qualities differ in at most 8 bits;
other images of the same patient in at least 44, of different patients in at least 48 (2,775 images)."""
CORRELATION = 0.99
_BLOCKS = 16
_CHUNK = 1 << 20
_BIT_COUNTS = np.unpackbits(np.arange(1 << 16, dtype=np.uint16).view(np.uint8).reshape(-1, 2), axis=1).sum(axis=1)


def same_bytes(paths: Sequence[str], sizes: np.ndarray) -> np.ndarray:
    """Group of every file among those with the same bytes, -1 for a file without copies.

    Only files of equal size are read; a missing file (size -1), or one that cannot be read, is in no group.
    """
    _, place, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    digests = [""] * len(paths)
    for row in np.flatnonzero((counts[place] > 1) & (sizes >= 0)).tolist():
        try:
            digests[row] = file_sha256(paths[row])
        except OSError:  # gone or unreadable since its size was taken
            continue
    unique, place, counts = np.unique(np.array(digests, dtype=str), return_inverse=True, return_counts=True)
    return _renumber(np.where((unique[place] != "") & (counts[place] > 1), place, -1))


def near_duplicates(hashes: np.ndarray, thumbs: np.ndarray, radius: int = RADIUS) -> np.ndarray:
    """Group of every image among those that look the same, -1 for an image without copies.

    Two images are joined if their hashes differ in at most `radius` of 256 bits and their thumbnails correlate with at
    least 0.99. Candidates are found by multi-index hashing (Norouzi et al., CVPR 2012): two hashes that differ in at
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
    n = len(readable)
    if n < 2:
        return group
    unique, first, place = np.unique(hashes[readable], axis=0, return_index=True, return_inverse=True)
    place = place.reshape(-1)  # NumPy 2.0 gave it the shape of the rows
    close = np.concatenate(list(_close_pairs(unique, radius)) or [np.zeros((0, 2), int)])
    edges = np.concatenate([first[close], np.stack([np.arange(n), first[place]], axis=1)])
    edges = edges[_correlation(thumbs[readable], edges) >= CORRELATION]
    graph = coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(n, n))
    labels = connected_components(graph, directed=False)[1]
    group[readable] = np.where(np.bincount(labels)[labels] > 1, labels, -1)
    return _renumber(group)


def _close_pairs(hashes: np.ndarray, radius: int) -> Iterator[np.ndarray]:
    """Pairs of rows, shape ``(P, 2)``, whose hashes differ in at most `radius` bits; a pair may be repeated.

    The rows that share a block are neighbours when sorted by it: first all pairs one place apart are compared, then all
    two apart, and so on, until no block is shared by so many.
    """
    bits = np.unpackbits(hashes.view(np.uint8), axis=1)
    for block in range(_BLOCKS):
        key = np.packbits(bits[:, block::_BLOCKS], axis=1).view(np.uint16)[:, 0]
        order = np.argsort(key, kind="stable")
        key, left = key[order], np.arange(len(key))
        for apart in range(1, len(key)):
            left = left[left + apart < len(key)]
            left = left[key[left] == key[left + apart]]
            if not len(left):
                break
            for start in range(0, len(left), _CHUNK):
                part = left[start : start + _CHUNK]
                pairs = np.stack([order[part], order[part + apart]], axis=1)
                differing = (hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]]).view(np.uint16)
                near = _BIT_COUNTS[differing].sum(axis=1, dtype=np.int64) <= radius
                if near.any():
                    yield pairs[near]


def _correlation(thumbs: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Correlation of the thumbnails of each pair; 1 for an image with itself."""
    correlations = np.ones(len(pairs))
    for start in range(0, len(pairs), 4096):
        part = pairs[start : start + 4096]
        left, right = (thumbs[part[:, side]].reshape(len(part), -1).astype(np.float64) for side in (0, 1))
        left, right = left - left.mean(axis=1, keepdims=True), right - right.mean(axis=1, keepdims=True)
        norm = np.sqrt((left**2).sum(axis=1) * (right**2).sum(axis=1))
        correlations[start : start + 4096] = (left * right).sum(axis=1) / np.maximum(norm, 1e-9)
    correlations[pairs[:, 0] == pairs[:, 1]] = 1
    return correlations


def _renumber(group: np.ndarray) -> np.ndarray:
    """Number groups 0, 1, 2, ... in the order of their first member; -1 stays."""
    numbers: dict[int, int] = {}
    return np.array([-1 if name < 0 else numbers.setdefault(int(name), len(numbers)) for name in group], dtype=int)
