"""Random numbers that are functions of keys, without state, for a whole batch in one call (Philox)."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

_MULTIPLIERS = np.array([0xD2511F53, 0xCD9E8D57], dtype=np.uint64)
_WEYL = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10


def philox(counter: np.ndarray, seed: int) -> np.ndarray:
    """Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) over many counters.

    Counters and result are uint32, shape ``(4, ...)``; the seed, Philox's key, has 64 bits.

    Example:
        >>> [hex(int(word)) for word in philox(np.zeros(4, dtype=np.uint32), 0)]
        ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    shape = (2, *[1] * (counter.ndim - 1))
    multipliers, keys = _MULTIPLIERS.reshape(shape), _round_keys(seed).reshape(_ROUNDS, *shape)
    even, odd = counter[::2], counter[1::2]  # both halves at once: the time goes into calls, not into numbers
    product = np.empty(even.shape, dtype="<u8")
    halves = product.view("<u4").reshape(*product.shape, 2)[::-1]  # low, high
    for key in keys:
        np.multiply(even, multipliers, out=product)
        even, odd = halves[..., 1] ^ odd ^ key, halves[..., 0].copy()
    return np.stack([even, odd], axis=1).reshape(counter.shape)


@lru_cache(maxsize=8)
def _round_keys(seed: int) -> np.ndarray:
    """Both words of Philox's key in every round."""
    words = [(seed + n * _WEYL[0], (seed >> 32) + n * _WEYL[1]) for n in range(_ROUNDS)]
    return np.array([[low & 0xFFFFFFFF, high & 0xFFFFFFFF] for low, high in words], dtype=np.uint32)


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
        counter = np.empty((4, n, blocks), dtype=np.uint32)
        counter[0] = np.arange(self._blocks, self._blocks + blocks)
        counter[1], counter[2], counter[3] = self.rows[:, None], self.epoch[:, None], self.number
        self._blocks += blocks
        words = np.moveaxis(philox(counter, self.seed), 0, -1).reshape(n, 4 * blocks)
        return (words[:, :each] * 2.0**-32).reshape(shape)

    def skip(self) -> None:
        """Leave out one number an image, as ``random_sample(n)`` draws it, when its value does not matter."""
        self._blocks += 1

    def uniform(self, low: float = 0.0, high: float = 1.0, size: int | tuple[int, ...] = 1) -> np.ndarray:
        """Draw from [low, high); see `random_sample`."""
        return low + (high - low) * self.random_sample(size)
