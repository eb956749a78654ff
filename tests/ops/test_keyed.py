"""Keyed random numbers: Philox against its published vectors, and numbers that belong to keys."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from monai_simclr.ops.keyed import KeyedRandom, philox

# kat_vectors of Random123 1.14 (Salmon et al., SC 2011): counter, key, result of philox4x32-10
VECTORS = [
    ((0, 0, 0, 0), 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ((0xFFFFFFFF,) * 4, 0xFFFFFFFFFFFFFFFF, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        0xA4093822 | 0x299F31D0 << 32,
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


@pytest.mark.parametrize(("counter", "seed", "expected"), VECTORS)
def test_philox_gives_the_published_numbers(counter, seed, expected):
    words = philox(np.array(counter, dtype=np.uint32), seed)
    assert " ".join(f"{int(word):08x}" for word in words) == expected


def test_the_numbers_of_an_image_are_the_same_in_any_batch():
    rows = np.array([5, 0, 2**31, 7])
    whole = KeyedRandom(3, epoch=2, rows=rows)
    first, second = whole.random_sample(4), whole.random_sample((4, 2, 3))
    for i, row in enumerate(rows):
        alone = KeyedRandom(3, epoch=2, rows=np.array([row]))
        assert alone.random_sample(1)[0] == first[i]
        np.testing.assert_array_equal(alone.random_sample((1, 2, 3))[0], second[i])


def test_another_seed_epoch_row_stream_or_call_gives_other_numbers():
    def numbers(seed=1, epoch=1, row=1, stream=0):
        return KeyedRandom(seed, epoch, np.array([row]), stream).random_sample((1, 8))

    base = KeyedRandom(1, 1, np.array([1]))
    kinds = [base.random_sample((1, 8)), base.random_sample((1, 8)), numbers(seed=2), numbers(seed=1 << 32 | 1)]
    kinds += [numbers(epoch=2), numbers(row=2), numbers(stream=1)]
    assert len(np.unique(np.concatenate(kinds))) == 8 * len(kinds)


def test_the_numbers_are_uniform_and_unrelated_between_neighbouring_keys():
    u = KeyedRandom(0, epoch=3, rows=np.arange(50_000)).random_sample((50_000, 2))
    assert u.min() >= 0
    assert u.max() < 1
    assert stats.kstest(u.ravel(), "uniform").pvalue > 1e-4
    for first, second in ((u[:, 0], u[:, 1]), (u[:-1, 0], u[1:, 0])):
        assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(50_000)


def test_another_first_axis_than_the_images_is_refused():
    with pytest.raises(ValueError, match=r"first axis of keyed numbers must be the 2 images, got the shape \(3, 2\)"):
        KeyedRandom(0, 0, np.arange(2)).random_sample((3, 2))
