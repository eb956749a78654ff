"""Patients to splits and to label fractions; a patient is never divided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from monai_simclr.data.index import check_index, findings_of

__all__ = ["label_fraction", "split_by_patient"]


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
    index: pd.DataFrame, fraction: float, seed: int = 0, findings: Sequence[str] | None = None
) -> np.ndarray:
    """Rows whose labels are used when only a share of the train patients is labelled.

    Patients are put into one order for each seed, and a fraction is the beginning of that order, so fractions are
    nested. The
    order goes round the findings, the rarest first, so that a small fraction has a positive of each (in the spirit of
    iterative stratification, Sechidis et al., ECML 2011), mixed with patients without findings at their own share.

    Args:
        index: with splits and labels.
        fraction: share of the train patients, greater than 0, at most 1.
        seed: of the order.
        findings: which findings must have a positive; all of the index by default.

    Returns:
        Sorted positions of rows.

    Raises:
        ValueError: if the fraction is out of range, or leaves a finding without a positive patient (names it).
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"label_fraction must be greater than 0 and at most 1, got {fraction}")
    names = list(findings_of(index) if findings is None else findings)
    train = index[index["split"] == "train"]
    if not len(train) or not names:
        raise ValueError(f"the index has {len(train)} train rows and the findings {names}; labels of both are needed")
    positive = train.groupby("patient_id", sort=True)[names].max() == 1
    _check_positives(positive, names)
    order = _order(positive.to_numpy(), np.random.default_rng(seed))
    chosen = order[: max(1, round(fraction * len(order)))]
    empty = [
        name
        for name, any_positive in zip(names, positive.to_numpy()[chosen].any(axis=0), strict=True)
        if not any_positive
    ]
    if empty:
        raise ValueError(
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


def _order(positive: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """An order of patients whose every beginning has each finding at about its share, rounded up."""
    shuffled = generator.permutation(len(positive))
    has = np.zeros(positive.shape[1])
    left, order = list(shuffled), []
    rarest = np.argsort(positive.sum(axis=0), kind="stable")
    for finding in rarest:  # first one positive of each, the rarest first
        if not has[finding]:
            pick = next(patient for patient in left if positive[patient, finding])
            left.remove(pick)
            order.append(pick)
            has += positive[pick]
    for finding in rarest:  # and one negative of each, where there is one
        if positive[order, finding].all():
            pick = next((patient for patient in left if not positive[patient, finding]), None)
            if pick is not None:
                left.remove(pick)
                order.append(pick)
    groups = _by_pattern(positive, left)
    return np.array(order + _interleaved(groups))


def _by_pattern(positive: np.ndarray, left: Sequence[int]) -> list[list[int]]:
    groups: dict[bytes, list[int]] = {}
    for patient in left:
        groups.setdefault(positive[patient].tobytes(), []).append(patient)
    return list(groups.values())


def _interleaved(groups: list[list[int]]) -> list[int]:
    """Patients of all label patterns, each pattern spread evenly over the order."""
    places = [((position + 0.5) / len(group), patient) for group in groups for position, patient in enumerate(group)]
    return [patient for _, patient in sorted(places)]
