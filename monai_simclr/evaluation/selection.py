"""Which images to label next: typical ones that together cover the archive, one a patient, without any label."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans

from monai_simclr.embeddings import Embeddings
from monai_simclr.evaluation.clusterers import reduce_features
from monai_simclr.evaluation.neighbors import nearest

__all__ = ["select_images", "typicality"]

_POOL = 20_000
"""Candidates that are clustered at most; a larger archive is thinned at random first."""


def typicality(features: np.ndarray, neighbors: int = 20) -> np.ndarray:
    """How dense the archive is around every image: the mean cosine to its nearest others, shape ``(N,)``.

    Hacohen et al., ICML 2022 ("Active learning on a budget"): with few labels, typical images teach more than odd ones.
    """
    parts = [
        (np.sort(close, axis=1)[:, :-1]).mean(axis=1) if close.shape[1] > 1 else np.ones(len(close))
        for _, close in nearest(features, features, neighbors + 1)
    ]
    return np.concatenate(parts)


def select_images(
    embeddings: Embeddings, budget: int, seed: int = 0, labelled: np.ndarray | None = None
) -> pd.DataFrame:
    """A work list for labelling: the most typical image of each of `budget` regions of the archive.

    Regions are k-means clusters on all candidates (with the labelled ones, which keep theirs), so the list covers the
    archive; within one the most typical image is taken (TypiClust, Hacohen et al. 2022). One image a patient: a second
    one teaches less. No label is read.

    Args:
        embeddings: index with `image` and `patient_id`; rows of split "test" and "val" are never offered.
        budget: images to label.
        seed: of the regions.
        labelled: mask of rows that have labels already; their regions are filled, and their patients left out.

    Returns:
        `order, image, patient_id, region, region_images, typicality`, the largest regions first, so that a prefix of
        the list is a selection too.

    Raises:
        ValueError: if there are fewer patients to choose from than the budget.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> index = pd.DataFrame({"image": [f"{i}.png" for i in range(60)], "patient_id": [f"p{i}" for i in range(60)]})
        >>> features = np.eye(3)[np.arange(60) % 3] + rng.normal(size=(60, 3)) / 20
        >>> chosen = select_images(Embeddings(features, index), budget=3)
        >>> sorted(int(name.split(".")[0]) % 3 for name in chosen["image"])
        [0, 1, 2]
    """
    index = embeddings.index
    done = np.zeros(len(index), dtype=bool) if labelled is None else np.asarray(labelled, dtype=bool)
    split = index["split"].to_numpy().astype(str) if "split" in index else np.full(len(index), "")
    patients = index["patient_id"].to_numpy().astype(str)
    free = ~np.isin(split, ["val", "test"]) & ~np.isin(patients, patients[done])
    there = len(np.unique(patients[free]))
    if not 1 <= budget <= there:
        raise ValueError(f"a budget of {budget} images is not within 1 to the {there} patients without labels")
    rows = _thinned(np.flatnonzero(free), seed)
    pool = np.r_[rows, np.flatnonzero(done)]
    reduced = reduce_features(embeddings.features[pool], np.ones(len(pool), dtype=bool), seed)
    dense = typicality(reduced)[: len(rows)]
    regions = min(len(pool), budget + len(np.unique(patients[done])))
    found = KMeans(regions, n_init=3, random_state=seed).fit_predict(reduced)
    filled = set(found[len(rows) :])
    chosen = _choose(found[: len(rows)], dense, patients[rows], budget, filled)
    return pd.DataFrame(
        {
            "order": np.arange(1, len(chosen) + 1), "image": index["image"].to_numpy()[rows[chosen]],
            "patient_id": patients[rows[chosen]], "region": found[chosen],
            "region_images": np.bincount(found, minlength=regions)[found[chosen]], "typicality": dense[chosen].round(6),
        }
    )  # fmt: skip


def _thinned(rows: np.ndarray, seed: int) -> np.ndarray:
    return rows if len(rows) <= _POOL else np.sort(np.random.default_rng(seed).permutation(rows)[:_POOL])


def _choose(regions: np.ndarray, dense: np.ndarray, patients: np.ndarray, budget: int, filled: set[int]) -> list[int]:
    """Round after round over the regions, empty ones and large ones first: the most typical image of a new patient."""
    sizes = np.bincount(regions)
    order = sorted(np.unique(regions), key=lambda region: (region in filled, -sizes[region], region))
    waiting = {region: list(np.flatnonzero(regions == region)[np.argsort(-dense[regions == region], kind="stable")])
               for region in order}  # fmt: skip
    chosen: list[int] = []
    taken: set[str] = set()
    while len(chosen) < budget and any(waiting.values()):
        for region in order:
            while waiting[region] and patients[waiting[region][0]] in taken:
                waiting[region].pop(0)
            if waiting[region] and len(chosen) < budget:
                row = int(waiting[region].pop(0))
                chosen.append(row)
                taken.add(str(patients[row]))
    return chosen
