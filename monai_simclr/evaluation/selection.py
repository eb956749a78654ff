"""Which images to label next: those that together stand for the archive, one a patient, without any label."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.preprocessing import normalize

from monai_simclr.evaluation.embeddings import Embeddings
from monai_simclr.evaluation.neighbors import nearest

_CANDIDATES, _COVERED = 4_000, 10_000
"""Images that are offered and images that are to be covered, at most; a larger archive is thinned at random first."""


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
    """A work list for labelling: images that together stand for the archive, one a patient, the most telling first.

    Facility location (Wei et al., ICML 2015): every image of the archive is stood for by the chosen one that is most
    like it (cosine, after the mean of all was taken off); image after image is chosen that raises the sum of these
    likenesses most. Typical images come first, then what they do not cover; a prefix of the list is a selection too.
    No label is read. What it gains over random choice is in benchmarks/selection.json; on features that
    know little of the findings (raw pixels) it gains nothing that ten draws can show.

    Args:
        embeddings: index with `image` and `patient_id`; rows of split "test" and "val" are never offered.
        budget: images to label.
        seed: of the thinning of archives of more than 4000 images.
        labelled: mask of rows that have labels already; they stand for their like, and their patients are left out.

    Returns:
        `order, image, patient_id, covers, typicality`: for how many images it stands (of those looked at), and how
        dense the archive is around it.

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
    index, patients = embeddings.index, embeddings.index["patient_id"].to_numpy().astype(str)
    done = np.zeros(len(index), dtype=bool) if labelled is None else np.asarray(labelled, dtype=bool)
    split = index["split"].to_numpy().astype(str) if "split" in index else np.full(len(index), "")
    open_rows = ~np.isin(split, ["val", "test"])
    free = np.flatnonzero(open_rows & ~np.isin(patients, patients[done]))
    if not 1 <= budget <= len(np.unique(patients[free])):
        raise ValueError(
            f"a budget of {budget} images is not within 1 to the {len(np.unique(patients[free]))} patients without "
            "labels"
        )
    generator = np.random.default_rng(seed)
    offered = _some(free, max(_CANDIDATES, 10 * budget), generator)
    covered = _some(np.flatnonzero(open_rows), _COVERED, generator)
    unit = normalize(embeddings.features - embeddings.features[covered].mean(axis=0))
    start = (unit[covered] @ unit[done].T).max(axis=1) if done.any() else np.full(len(covered), -1.0, dtype=np.float32)
    likeness = unit[offered] @ unit[covered].T
    chosen = _greedy(likeness, start, patients[offered], budget)
    stands = np.bincount(likeness[chosen].argmax(axis=0), minlength=len(chosen))
    dense = typicality(unit[covered], 20) if len(covered) > 1 else np.ones(1)
    near = likeness[chosen].argmax(axis=1)
    return pd.DataFrame(
        {
            "order": np.arange(1, len(chosen) + 1),
            "image": index["image"].to_numpy()[offered[chosen]],
            "patient_id": patients[offered[chosen]],
            "covers": stands,
            "typicality": dense[near].round(6),
        }
    )


def _some(rows: np.ndarray, most: int, generator: np.random.Generator) -> np.ndarray:
    return rows if len(rows) <= most else np.sort(generator.permutation(rows)[:most])


def _greedy(likeness: np.ndarray, start: np.ndarray, patients: np.ndarray, budget: int) -> np.ndarray:
    """Positions of offered images, each raising the sum of likenesses most; at most one a patient.

    Gains only shrink as more is chosen (the sum is submodular), so a bound from before that is already too small needs
    no new look (Minoux 1978).
    """
    best, bound = start.copy(), np.full(len(likeness), np.inf)
    chosen: list[int] = []
    while len(chosen) < budget:
        fresh = np.zeros(len(likeness), dtype=bool)
        while True:
            row = int(bound.argmax())
            if fresh[row] or bound[row] == -np.inf:
                break
            bound[row], fresh[row] = np.maximum(likeness[row] - best, 0).sum(dtype=np.float64), True
        chosen.append(row)
        best = np.maximum(best, likeness[row])
        bound[patients == patients[row]] = -np.inf
    return np.array(chosen)
