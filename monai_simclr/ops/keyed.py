"""Random numbers that are functions of keys, without state, for a whole batch in one call (Philox)."""

from __future__ import annotations

import math

import numpy as np

_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = 0x9E3779B9, 0xBB67AE85
_LOW, _HIGH = np.uint64(0xFFFFFFFF), np.uint64(32)


def philox(counter: np.ndarray, seed: int) -> np.ndarray:
    """Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) over many counters.

    Counters and result are uint64 of 32-bit values, shape ``(4, ...)``; the seed, Philox's key, has 64 bits.

    Example:
        >>> [hex(int(word)) for word in philox(np.zeros(4, dtype=np.uint64), 0)]
        ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    a, b, c, d = counter
    low, high = seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF
    for _ in range(10):
        first, second = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, c = (second >> _HIGH) ^ b ^ np.uint64(low), (first >> _HIGH) ^ d ^ np.uint64(high)
        b, d = second & _LOW, first & _LOW
        low, high = (low + _WEYL[0]) & 0xFFFFFFFF, (high + _WEYL[1]) & 0xFFFFFFFF
    return np.stack([a, b, c, d])


class KeyedRandom:
    """Uniform numbers for n images at once: what image i gets is a function of its key alone.

    It replaces the `numpy.random.RandomState` of a `RandOperation`, whose draws have the images as their first axis.
    The key of an image is (seed, epoch, row, stream), so an image gets the same numbers in a batch of any size, in any
    worker, on any rank and after a resume.

    Args:
        seed: of the run.
        epoch: of the images: one number, or shape ``(n,)``.
        rows: of the images in their store, shape ``(n,)``, at most 2**32.
        stream: what the numbers are for, such as the number of a view.

    Example:
        >>> both = KeyedRandom(7, epoch=1, rows=np.array([42, 43])).random_sample((2, 3))
        >>> bool((both[1] == KeyedRandom(7, epoch=1, rows=np.array([43])).random_sample((1, 3))[0]).all())
        True
    """

    def __init__(self, seed: int, epoch: int | np.ndarray, rows: np.ndarray, stream: int = 0) -> None:
        self.seed = int(seed)
        self.rows = np.asarray(rows).astype(np.uint64)
        self.epoch = np.broadcast_to(np.asarray(epoch).astype(np.uint64), self.rows.shape)
        self.number = int(stream)
        self._blocks = 0

    def stream(self, number: int) -> KeyedRandom:
        """The numbers of the same images for another purpose, from the beginning."""
        return KeyedRandom(self.seed, self.epoch, self.rows, number)

    def random_sample(self, size: int | tuple[int, ...]) -> np.ndarray:
        """Draw from [0, 1) in steps of 2**-32; the first axis of the shape `size` must be the images."""
        shape = (size,) if isinstance(size, int | np.integer) else tuple(size)
        n = len(self.rows)
        if shape[0] != n:
            raise ValueError(f"the first axis of keyed numbers must be the {n} images, got the shape {shape}")
        each = math.prod(shape[1:])
        blocks = -(-each // 4)
        counter = np.empty((4, n, blocks), dtype=np.uint64)
        counter[0] = np.arange(self._blocks, self._blocks + blocks, dtype=np.uint64)
        counter[1], counter[2], counter[3] = self.rows[:, None], self.epoch[:, None], self.number
        self._blocks += blocks
        words = np.moveaxis(philox(counter, self.seed), 0, -1).reshape(n, 4 * blocks)
        return (words[:, :each] * 2.0**-32).reshape(shape)

    def uniform(self, low: float = 0.0, high: float = 1.0, size: int | tuple[int, ...] = 1) -> np.ndarray:
        """Draw from [low, high); see `random_sample`."""
        return low + (high - low) * self.random_sample(size)
