"""Lists of images to review: what to label next, similar images, outliers, copies, likely label errors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler, normalize

from monai_simclr.evaluation.embeddings import Embeddings, sample_rows
from monai_simclr.evaluation.neighbors import nearest
from monai_simclr.evaluation.predictions import certain_labels, sigmoid
from monai_simclr.evaluation.probe import fit_probe

_CANDIDATES, _COVERED = 4_000, 10_000
"""Largest numbers of images that are offered and that are to be covered; a larger archive is thinned at random."""


def typicality(features: np.ndarray, neighbors: int = 20) -> np.ndarray:
    """Density of the archive around every image: the mean cosine to its nearest others, shape ``(N,)``.

    Hacohen et al., ICML 2022 ("Active learning on a budget"): with few labels, typical images are worth more.
    """
    parts = [
        (np.sort(cosines, axis=1)[:, :-1]).mean(axis=1) if cosines.shape[1] > 1 else np.ones(len(cosines))
        for _, cosines in nearest(features, features, neighbors + 1)
    ]
    return np.concatenate(parts)


def select_images(
    embeddings: Embeddings, budget: int, seed: int = 0, labelled: np.ndarray | None = None
) -> pd.DataFrame:
    """A work list for labelling: images that together represent the archive, one per patient, the most telling first.

    Facility location (Wei et al., ICML 2015): every image of the archive is represented by the chosen one most similar
    to it (cosine of centered features); image after image is chosen that raises the sum of these similarities most.
    Every prefix of the list is a selection too. No label is read. The gain over random choice is in
    benchmarks/selection.json; on features with little information on the findings (raw pixels) ten draws show none.

    Args:
        embeddings: index with `image` and `patient_id`; rows of split "test" and "val" are never offered.
        budget: images to label.
        seed: of the thinning of archives of more than 4000 images.
        labelled: mask of rows that have labels already: they represent similar images, their patients are not offered.

    Returns:
        `order, image, patient_id, covers, typicality`: how many images it represents (of those looked at), and the
        density of the archive around it.

    Raises:
        ValueError: if there are fewer patients to choose from than the budget.

    Example:
        >>> index = pd.DataFrame({"image": [f"{i}.png" for i in range(60)], "patient_id": [f"p{i}" for i in range(60)]})
        >>> features = np.eye(3)[np.arange(60) % 3] + np.random.default_rng(0).normal(size=(60, 3)) / 20
        >>> chosen = select_images(Embeddings(features, index), budget=3)
        >>> sorted(int(name.split(".")[0]) % 3 for name in chosen["image"])
        [0, 1, 2]
    """
    index, patients = embeddings.index, embeddings.index["patient_id"].to_numpy().astype(str)
    done = np.zeros(len(index), dtype=bool) if labelled is None else np.asarray(labelled, dtype=bool)
    split = index["split"].to_numpy().astype(str) if "split" in index else np.full(len(index), "")
    open_rows = ~np.isin(split, ["val", "test"])
    free = np.flatnonzero(open_rows & ~np.isin(patients, patients[done]))
    n_patients = len(np.unique(patients[free]))
    if not 1 <= budget <= n_patients:
        raise ValueError(
            f"a budget of {budget} images is not within 1 to the {n_patients} patients without labels; choose another"
        )
    generator = np.random.default_rng(seed)
    offered = sample_rows(free, max(_CANDIDATES, 10 * budget), generator)
    covered = sample_rows(np.flatnonzero(open_rows), _COVERED, generator)
    unit = normalize(embeddings.features - embeddings.features[covered].mean(axis=0))
    start = (unit[covered] @ unit[done].T).max(axis=1) if done.any() else np.full(len(covered), -1.0, dtype=np.float32)
    similarity = unit[offered] @ unit[covered].T
    chosen = choose_covering(similarity, start, patients[offered], budget)
    density = typicality(unit[covered], 20) if len(covered) > 1 else np.ones(1)
    return pd.DataFrame(
        {
            "order": np.arange(1, len(chosen) + 1),
            "image": index["image"].to_numpy()[offered[chosen]],
            "patient_id": patients[offered[chosen]],
            "covers": np.bincount(similarity[chosen].argmax(axis=0), minlength=len(chosen)),
            "typicality": density[similarity[chosen].argmax(axis=1)].round(6),
        }
    )


def choose_covering(similarity: np.ndarray, start: np.ndarray, patients: np.ndarray, budget: int) -> np.ndarray:
    """Greedy facility location: rows of a similarity ``(N, M)`` that each raise its sum most, one per patient.

    `start` ``(M,)`` is the similarity of what covers the columns already. Gains only shrink as more is chosen (the sum
    is submodular), so an older bound that is too small already needs no update (Minoux 1978).
    """
    best, bound = start.copy(), np.full(len(similarity), np.inf)
    chosen: list[int] = []
    while len(chosen) < budget:
        fresh = np.zeros(len(similarity), dtype=bool)
        while True:
            row = int(bound.argmax())
            if fresh[row] or bound[row] == -np.inf:
                break
            bound[row], fresh[row] = np.maximum(similarity[row] - best, 0).sum(dtype=np.float64), True
        chosen.append(row)
        best = np.maximum(best, similarity[row])
        bound[patients == patients[row]] = -np.inf
    return np.array(chosen)


def similar_images(embeddings: Embeddings, row: int, n: int = 10) -> pd.DataFrame:
    """The `n` images most similar to the image at position `row`, at most one per patient, without its own patient.

    Returns:
        Index rows with `similarity` (cosine of centered features) in front, the most similar first.

    Example:
        >>> index = pd.DataFrame({"image": list("xyz"), "patient_id": list("abc")})
        >>> similar_images(Embeddings(np.array([[1, 0], [0.9, 0.1], [0, 1]]), index), 0, n=1)["image"].tolist()
        ['y']
    """
    unit = normalize(embeddings.features - embeddings.features.mean(axis=0))
    patients = embeddings.index["patient_id"].to_numpy()
    table = embeddings.index.assign(similarity=unit @ unit[row])
    table = table[patients != patients[row]].sort_values("similarity", ascending=False, kind="stable")
    table = table.drop_duplicates("patient_id").head(n).round({"similarity": 6})
    return table[["similarity", *(name for name in table.columns if name != "similarity")]].reset_index(drop=True)


def find_outliers(embeddings: Embeddings, n: int = 20) -> pd.DataFrame:
    """The `n` images least similar to their nearest others: wrong body parts, inverted or damaged images.

    Returns:
        `image, patient_id, typicality`, the least typical first.

    Example:
        >>> index = pd.DataFrame({"image": list("wxyz"), "patient_id": list("abcd")})
        >>> find_outliers(Embeddings(np.array([[1, 0.01], [1, 0], [1, -0.01], [0, 1]]), index), n=1)["image"].tolist()
        ['z']
    """
    density = typicality(embeddings.features)
    rows = np.argsort(density, kind="stable")[:n]
    table = embeddings.index.iloc[rows][["image", "patient_id"]].reset_index(drop=True)
    return table.assign(typicality=density[rows].round(6))


def find_copies(embeddings: Embeddings, similarity: float = 0.9999) -> pd.DataFrame:
    """Test images whose embedding equals that of an image of another split: the same picture, perhaps renamed.

    Two images count as one picture from this `similarity` on, the cosine of centered features.

    Returns:
        One row per test image with a copy: `image, copy, patient_id, copy_patient_id, similarity`, highest first.
    """
    index, features = embeddings.index, embeddings.features - embeddings.features.mean(axis=0)
    is_test = (index["split"] == "test").to_numpy()
    test, other = np.flatnonzero(is_test), np.flatnonzero(~is_test)
    best = list(nearest(features[other], features[test], 1)) if len(test) and len(other) else []
    copy, cosine = (np.concatenate([np.zeros(0), *(part[i][:, 0] for part in best)]) for i in (0, 1))
    order = np.argsort(-cosine, kind="stable")
    order = order[cosine[order] >= similarity]
    first = index.iloc[test[order]].reset_index(drop=True)
    second = index.iloc[other[copy[order].astype(int)]].reset_index(drop=True)
    table = pd.DataFrame({"image": first["image"], "copy": second["image"], "patient_id": first["patient_id"]})
    return table.assign(copy_patient_id=second["patient_id"], similarity=cosine[order])


def find_label_errors(embeddings: Embeddings, findings: Sequence[str], n: int = 20, folds: int = 5) -> pd.DataFrame:
    """The `n` labels least credible to a probe of other patients (in the spirit of Northcutt et al., JAIR 2021).

    The probability of every label comes from a logistic regression on the other folds of patients. Findings with fewer
    than 2 x `folds` patients of either label are skipped.

    Returns:
        `image, patient_id, finding, label, probability` (of the label in the index), the least credible first.
    """
    patients = embeddings.index["patient_id"].to_numpy().astype(str)
    parts = []
    for finding in findings:
        labels = certain_labels(embeddings.index[finding].to_numpy(dtype=float))
        known = np.flatnonzero(np.isfinite(labels))
        labels, features = labels[known], embeddings.features[known]
        if min(len(np.unique(patients[known][labels == value])) for value in (0, 1)) < 2 * folds:
            continue
        logits = np.zeros(len(known))
        for fit, judge in GroupKFold(folds).split(known, groups=patients[known]):
            scaler = StandardScaler().fit(features[fit])
            probe = fit_probe(scaler.transform(features[fit]), labels[fit], class_weight="balanced")
            logits[judge] = np.nan if probe.model is None else probe.logits(scaler.transform(features[judge]))
        rows = embeddings.index.iloc[known][["image", "patient_id"]]
        parts.append(rows.assign(finding=finding, label=labels, credible=np.where(labels == 1, logits, -logits)))
    if not parts:
        return pd.DataFrame(columns=["image", "patient_id", "finding", "label", "probability"])
    table = pd.concat(parts).sort_values("credible", kind="stable").head(n).reset_index(drop=True)
    return table.assign(probability=sigmoid(table.pop("credible").to_numpy()).round(6))
