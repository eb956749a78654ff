"""Patients to splits and to label fractions; a patient is never divided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from monai_simclr.data.index import check_index, finding_columns


class NoPositiveError(ValueError):
    """A label fraction is so small that a finding has no positive patient in it."""


_AHEAD = 64
"""Patients of an order among whom the next one is chosen, at most; a tenth of a small archive."""

_MANY = 5
"""Patients with this many findings or more are counted together."""


def split_by_patient(index: pd.DataFrame, fractions: Mapping[str, float] | None = None, seed: int = 0) -> pd.DataFrame:
    """Put every patient into a split at random.

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
    patients = np.unique(index["patient_id"].to_numpy(dtype=str))
    order = np.random.default_rng(seed).permutation(len(patients))
    edges = np.round(np.cumsum(list(fractions.values())) * len(patients)).astype(int)
    names = np.array(list(fractions))[np.searchsorted(edges, np.arange(len(patients)), side="right")]
    split = dict(zip(patients[order], names, strict=True))
    return check_index(index.assign(split=[split[str(patient)] for patient in index["patient_id"]]))


def label_fraction(
    index: pd.DataFrame, fraction: float, draw: int = 0, findings: Sequence[str] | None = None
) -> np.ndarray:
    """Rows whose labels are used when only a share of the train patients is labelled.

    Patients are put into one order for each draw, and a fraction is the beginning of that order, so fractions are
    nested. Patients are spread over the order by systematic sampling with random starts (Madow and Madow, 1944), level
    by level: by their rarest finding, by how many findings they have, by their further findings, and by which labels
    are known. So every beginning has each finding, and patients with many findings, at their share of the archive; rare
    combinations of findings come at random places. One positive and one negative of each finding come first, so that a
    small fraction has them where they fit; those after them make up for it.

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
    positive = by_patient == 1
    _check_positives(positive, names)
    order = _order(positive.to_numpy(), by_patient.isin([0, 1]).to_numpy(), np.random.default_rng(draw))
    chosen = order[: max(1, round(fraction * len(order)))]
    empty = [
        name
        for name, any_positive in zip(names, positive.to_numpy()[chosen].any(axis=0), strict=True)
        if not any_positive
    ]
    if empty:
        raise NoPositiveError(
            f"label_fraction {fraction} is {len(chosen)} of {len(order)} train patients and leaves "
            f"{empty} without a positive; "
            "use a larger label_fraction, or fewer findings"
        )
    labelled = set(positive.index[chosen])
    return np.flatnonzero((index["split"] == "train").to_numpy() & index["patient_id"].isin(labelled).to_numpy())


def _check_positives(positive: pd.DataFrame, names: Sequence[str]) -> None:
    none = [name for name in names if not positive[name].any()]
    if none:
        raise ValueError(
            f"no train patient has {none}; leave them out of the findings in metadata.json, or pass --findings"
        )


def _order(positive: np.ndarray, known: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """An order of patients whose every beginning has each finding at its share; from ``(N, K)`` masks of labels."""
    rarest = np.argsort(positive.sum(axis=0), kind="stable")
    keys = [_key(has, mask.tobytes(), rarest) for has, mask in zip(positive, known, strict=True)]
    spread = _spread(list(generator.permutation(len(positive))), keys, generator)
    cut = int(generator.integers(len(spread)))  # turned like a wheel, so that each patient is as likely at each place
    order = np.array(spread[cut:] + spread[:cut])
    first = _first_of_each(positive[order][:, rarest], known[order][:, rarest])
    order = np.concatenate([order[first], np.delete(order, first)])
    return order[_settled(_traits(positive, known)[order], len(first), generator)]


def _key(has: np.ndarray, mask: bytes, rarest: np.ndarray) -> tuple[int | bytes, ...]:
    """What a patient is told apart by, level by level; on every level one value."""
    findings = [int(finding) for finding in rarest if has[finding]]
    return (*findings[:1], len(findings), *findings[1:], mask)


def _spread(
    patients: list[int], keys: list[tuple[int | bytes, ...]], generator: np.random.Generator, level: int = 0
) -> list[int]:
    """Patients in an order in which each group of a level, and each group within it, is evenly spaced."""
    groups: dict[tuple[int | bytes, ...], list[int]] = {}
    for patient in patients:
        groups.setdefault(keys[patient][level : level + 1], []).append(patient)
    spread = [_spread(group, keys, generator, level + 1) if key else group for key, group in groups.items()]
    return spread[0] if len(spread) == 1 else _evenly(spread, generator)


def _evenly(groups: list[list[int]], generator: np.random.Generator) -> list[int]:
    """Groups merged, each evenly spaced from a random start: a fixed one would keep a lone patient from every draw."""
    starts = generator.random(len(groups))
    places = [
        ((position + start) / len(group), patient)
        for group, start in zip(groups, starts, strict=True)
        for position, patient in enumerate(group)
    ]
    return [patient for _, patient in sorted(places)]


def _traits(positive: np.ndarray, known: np.ndarray) -> np.ndarray:
    """What a beginning is to have at its share, ``(N, T)``: each finding, numbers of findings, known labels."""
    counts = np.minimum(positive.sum(axis=1), _MANY)
    numbers = counts[:, None] == np.unique(counts)
    return np.hstack([positive, numbers, known[:, ~known.all(axis=0)]]).astype(float)


def _settled(traits: np.ndarray, first: int, generator: np.random.Generator) -> list[int]:
    """Positions of patients: the `first` ones, then always that one of the next few that the traits owed ask for most.

    What a trait is owed, in patients, is its share of the places less what it got, and starts at random, so that what
    cannot be divided is rounded at random.
    """
    share = traits.mean(axis=0)
    weights = 1 / np.sqrt(np.maximum(share, 1 / len(traits)))
    owed = generator.random(len(share)) - 0.5 + first * share - traits[:first].sum(axis=0)
    costs = traits @ weights  # the traits are 0 or 1, their squares too
    end = first + min(_AHEAD, max(1, len(traits) // 10), len(traits) - first)
    order, window = list(range(first)), list(range(first, end))
    while window:
        owed += share
        pick = window.pop(int((2 * traits[window] @ (weights * owed) - costs[window]).argmax()))
        owed -= traits[pick]
        order.append(pick)
        if end < len(traits):
            window.append(end)
            end += 1
    return order


def _first_of_each(positive: np.ndarray, known: np.ndarray) -> list[int]:
    """Positions of the first positive of each finding, then of the first negative; a patient may serve for several."""
    first: list[int] = []
    for labels in (positive, known & ~positive):
        for finding in range(labels.shape[1]):
            if labels[:, finding].any() and not labels[first, finding].any():
                first.append(int(labels[:, finding].argmax()))
    return first
