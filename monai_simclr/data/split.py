"""Splits and label fractions by patient: all images of a patient stay together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from monai_simclr.data.index import check_index, coerce_index, finding_columns


class NoPositiveError(ValueError):
    """A label fraction leaves a finding without a positive patient."""


_AHEAD = 64
"""Maximum number of next patients to choose from; a tenth of a small archive."""
_MANY = 5
"""Patients with this many findings or more are counted together."""


def split_by_patient(index: pd.DataFrame, fractions: Mapping[str, float] | None = None, seed: int = 0) -> pd.DataFrame:
    """Assign every patient to a split at random.

    Args:
        index: an image index; an earlier split is overwritten.
        fractions: share of the patients for each split, adding up to 1; 0.7 train, 0.1 val and 0.2 test by default.
        seed: the same seed gives the same split, whatever the order of the rows.

    Returns:
        A new index.

    Raises:
        ValueError: if the fractions do not add up to 1.
    """
    fractions = fractions or {"train": 0.7, "val": 0.1, "test": 0.2}
    if abs(sum(fractions.values()) - 1) > 1e-9:
        raise ValueError(f"the fractions must add up to 1, got {dict(fractions)}")
    index = coerce_index(index.assign(split=""))
    patients = np.unique(index["patient_id"].to_numpy(dtype=str))
    order = np.random.default_rng(seed).permutation(len(patients))
    edges = np.round(np.cumsum(list(fractions.values())) * len(patients)).astype(int)
    names = np.array(list(fractions))[np.searchsorted(edges, np.arange(len(patients)), side="right")]
    split = dict(zip(patients[order], names, strict=True))
    return check_index(index.assign(split=[split[str(patient)] for patient in index["patient_id"]]))


def label_fraction(
    index: pd.DataFrame, fraction: float, draw: int = 0, findings: Sequence[str] | None = None
) -> np.ndarray:
    """Rows whose labels are used if only a share of the train patients is labelled.

    Each draw orders the patients, and a fraction is a prefix of that order, so fractions are nested. Patients are
    spread over the order by systematic sampling with random starts (Madow and Madow, 1944), level by level: by their
    rarest finding, their number of findings, their other findings, and which labels are known. So every prefix has each
    finding, and patients with many findings, at their share of the archive; rare combinations are placed at random. One
    positive and one negative of each finding come first, so that a small fraction has them if possible; later patients
    compensate for it.

    Args:
        index: with splits and labels.
        fraction: share of the train patients, greater than 0, at most 1.
        draw: seed of the order.
        findings: which findings must have a positive; all of the index by default.

    Returns:
        Sorted positions of rows.

    Raises:
        NoPositiveError: if the fraction leaves a finding without a positive patient (names it).
        ValueError: if the fraction is out of range, or no train patient has a finding.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"label_fraction must be greater than 0 and at most 1, got {fraction}")
    names = list(finding_columns(index) if findings is None else findings)
    train = index[index["split"] == "train"]
    if not len(train) or not names:
        raise ValueError(f"the index has {len(train)} train rows and the findings {names}; labels of both are needed")
    by_patient = train.groupby("patient_id", sort=True)[names].max()
    positive: np.ndarray = by_patient.eq(1).to_numpy(dtype=bool)
    absent = [name for name, count in zip(names, positive.sum(axis=0), strict=True) if not count]
    if absent:
        raise ValueError(
            f"no train patient has {absent}; leave them out of the findings in metadata.json, or pass --findings"
        )
    order = _order(positive, by_patient.isin([0, 1]).to_numpy(), np.random.default_rng(draw))
    chosen = order[: max(1, round(fraction * len(order)))]
    absent = [name for name, count in zip(names, positive[chosen].sum(axis=0), strict=True) if not count]
    if absent:
        raise NoPositiveError(
            f"label_fraction {fraction} is {len(chosen)} of {len(order)} train patients and leaves {absent} without a "
            "positive; use a larger label_fraction, or fewer findings"
        )
    labelled = index["patient_id"].isin(by_patient.index[chosen])
    return np.flatnonzero((index["split"] == "train").to_numpy() & labelled.to_numpy())


def _order(positive: np.ndarray, known: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """An order of patients in which every prefix has each finding at its share; from ``(N, K)`` masks of labels."""
    rarest = np.argsort(positive.sum(axis=0), kind="stable")
    keys = []
    for has, mask in zip(positive, known, strict=True):
        present = [int(finding) for finding in rarest if has[finding]]
        keys.append((*present[:1], len(present), *present[1:], mask.tobytes()))
    spread = _spread(list(generator.permutation(len(positive))), keys, generator)
    cut = int(generator.integers(len(spread)))  # rotated, so that each patient is equally likely at each place
    order = np.array(spread[cut:] + spread[:cut])
    first: list[int] = []  # a positive of each finding, then a negative; a patient may serve for several
    for labels in (positive[order][:, rarest], (known & ~positive)[order][:, rarest]):
        for finding in labels.T:
            if finding.any() and not finding[first].any():
                first.append(int(finding.argmax()))
    order = np.concatenate([order[first], np.delete(order, first)])
    counts = np.minimum(positive.sum(axis=1), _MANY)
    traits = np.hstack([positive, counts[:, None] == np.unique(counts), known[:, ~known.all(axis=0)]]).astype(float)
    return order[_balance(traits[order], len(first), generator)]


def _spread(
    patients: list[int], keys: list[tuple[int | bytes, ...]], generator: np.random.Generator, level: int = 0
) -> list[int]:
    """Patients in an order in which each group of a level, and each group within it, is evenly spaced.

    Each group starts at random: a fixed start would keep a lone patient from every draw.
    """
    groups: dict[tuple[int | bytes, ...], list[int]] = {}
    for patient in patients:
        groups.setdefault(keys[patient][level : level + 1], []).append(patient)
    spread = [_spread(group, keys, generator, level + 1) if key else group for key, group in groups.items()]
    if len(spread) == 1:
        return spread[0]
    places = [
        ((position + start) / len(group), patient)
        for group, start in zip(spread, generator.random(len(spread)), strict=True)
        for position, patient in enumerate(group)
    ]
    return [patient for _, patient in sorted(places)]


def _balance(traits: np.ndarray, first: int, generator: np.random.Generator) -> list[int]:
    """Positions of patients: the `first` ones, then always the one of the next few with the most traits still due.

    What is due of a trait, in patients, is its share of the places minus what was chosen. It starts at random, so that
    fractions of a patient are rounded at random.

    Args:
        traits: what every prefix should have at its share, ``(N, T)``, 0 or 1: each finding, numbers of findings, and
            which labels are known.
        first: patients that stay in front.
        generator: of the start.
    """
    share = traits.mean(axis=0)
    weights = 1 / np.sqrt(np.maximum(share, 1 / len(traits)))
    due = generator.random(len(share)) - 0.5 + first * share - traits[:first].sum(axis=0)
    costs = traits @ weights  # the squares of 0 and 1 are 0 and 1
    end = first + min(_AHEAD, max(1, len(traits) // 10), len(traits) - first)
    order, window = list(range(first)), list(range(first, end))
    while window:
        due += share
        pick = window.pop(int((2 * traits[window] @ (weights * due) - costs[window]).argmax()))
        due -= traits[pick]
        order.append(pick)
        if end < len(traits):
            window.append(end)
            end += 1
    return order
