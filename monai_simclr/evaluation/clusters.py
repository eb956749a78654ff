"""Do clusters follow the classes? Clusters and their map to classes learned on train, scored on held-out patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import pairwise_distances, silhouette_samples
from sklearn.metrics.cluster import expected_mutual_information

from monai_simclr.evaluation.classes import ENCODER, ClassRows, class_rows, format_score
from monai_simclr.evaluation.clusterers import check_method, cuts, reduce_both
from monai_simclr.evaluation.embeddings import Embeddings, sample_rows
from monai_simclr.evaluation.intervals import bootstrap_interval, compare_to_null, patient_counts, permute_over_patients
from monai_simclr.evaluation.predictions import refuse_shared_patients
from monai_simclr.runtime.metrics import nest_rows, table_rows

MEASURES: tuple[str, ...] = (
    "acc_one_to_one",
    "acc_many_to_one",
    "balanced_acc",
    "ami",
    "nmi",
    "ari",
    "v_measure",
    "oracle_map_acc",
)
"""What `agreement` measures, in its order."""

_NOT_CENTERED = ("acc_one_to_one", "acc_many_to_one", "balanced_acc")
"""Measures whose resamples are not raised by patients drawn twice."""

_PRINTED = {"acc_one_to_one": "majority", "acc_many_to_one": "majority", "oracle_map_acc": "most frequent test class"}
"""Measures that are printed, and the name of the constant answer that each is compared with."""


_SILHOUETTE_ROWS = 2000
_NULL_ROWS = 500
"""Largest number of rows that a silhouette is computed on."""


@dataclass(frozen=True)
class ClusterReport:
    """Result of `evaluate_clusters`.

    Attributes:
        table: one row per features, number of clusters and measure: `features, n_clusters, measure, value, low, high,
            majority, null_low, null_high, p, seed_sd`; `p` is of the permutation null, `seed_sd` the spread over seeds.
            `majority` is what a constant answer scores: the most frequent training class, or test class for
            `oracle_map_acc`, whose map is fitted on the test classes.
        clusters: for every number of clusters, the cluster of every row of the embeddings, shape ``(N,)``.
        n: images and patients that clusters were fitted on (`fitted_...`, all of train), that the map was learned on
            (`train_...`, those with a class) and that were scored (`test_...`); `excluded`, images of these splits
            without a class.
    """

    table: pd.DataFrame
    clusters: dict[int, np.ndarray]
    n: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """The table for ``metrics.json``: ``{"encoder": {"6": {"ami": {"value": ..., "low": ..., ...}}}}``."""
        return nest_rows(self.table, "features", "n_clusters", "measure")

    def lines(self) -> list[str]:
        """Every accuracy as a line of text with its interval, majority and null, references included.

        A measure that a number of clusters does not define (the one-to-one map needs as many as classes) has no line.
        """
        known = self.table[self.table["measure"].isin(list(_PRINTED)) & np.isfinite(self.table["value"])]
        return [
            f"{row['features']}, {row['n_clusters']} clusters: "
            + format_score(row, row["measure"], _PRINTED[row["measure"]])
            for row in table_rows(known)
        ]


def evaluate_clusters(
    embeddings: Embeddings,
    references: Mapping[str, np.ndarray],
    classes: np.ndarray,
    n_clusters: Sequence[int],
    seed: int = 0,
    n_bootstrap: int = 1000,
    n_permutations: int = 200,
    *,
    method: str = "kmeans",
    n_seeds: int = 1,
    mirrored: Mapping[str, np.ndarray] | None = None,
) -> ClusterReport:
    """Cluster, map clusters to classes on train patients, and score that map on test patients, with baselines.

    Every set of features (the embeddings, and each reference) goes through the same steps: L2-normalisation, PCA and
    clusters fitted on all of train, labelled or not; a map from clusters to classes learned on train rows with a class
    (Hungarian one-to-one where there are as many clusters as classes in train, and many-to-one); `MEASURES` at test
    rows with a class, and the silhouette (which needs no labels) at all test rows, with an interval from resampling
    test patients; and the 95 % band of the same steps, map included, with the classes permuted over patients. The
    interval is of the scoring: clusters and map are fixed.

    Args:
        embeddings: index with `patient_id` and `split`.
        references: name -> features of the same rows, ``(N, D)``: raw pixels, a random encoder.
        classes: the class of every row as text, shape ``(N,)``; rows with "" are clustered, not scored, and counted.
        n_clusters: numbers of clusters.
        seed: of everything random.
        n_bootstrap, n_permutations: resamples of test patients, and permutations of the null.
        method: a key of `clusterers.METHODS`.
        n_seeds: fits with seed, seed + 1, ...; all but the first only for the spread of the values.
        mirrored: features of the mirrored images by the names of `references`, and "encoder": clusters that are each
            other's mirror image become one, see `fit_clusters`.

    Raises:
        ValueError: if lengths differ, there is no such method, a patient is in train and test, or train or test has no
            row with a class.

    Example:
        >>> rng, kind = np.random.default_rng(0), np.tile(["Mass", "Edema"], 40)
        >>> features = rng.normal(size=(80, 4)) + 4 * (kind == "Mass")[:, None] * np.eye(4)[0]
        >>> index = pd.DataFrame({"patient_id": [f"p{i}" for i in range(80)], "split": ["train"] * 40 + ["test"] * 40})
        >>> report = evaluate_clusters(Embeddings(features, index), {}, kind, [2], n_bootstrap=50, n_permutations=20)
        >>> report.lines()[0].split(":")[0], report.n["excluded"]
        ('encoder, 2 clusters', 0)
    """
    rows = class_rows(embeddings, references, classes)
    split, patients, codes = embeddings.index["split"].to_numpy().astype(str), rows.patients, rows.codes
    fit, held_out = split == "train", split == "test"
    refuse_shared_patients({"train": patients[fit], "test": patients[held_out]})
    n: dict[str, int] = {}
    for name, part in {"fitted": fit, "train": rows.train, "test": rows.test}.items():
        n |= {f"{name}_images": int(part.sum()), f"{name}_patients": len(np.unique(patients[part]))}
    n["excluded"] = int(((rows.classes == "") & (fit | held_out)).sum())
    clusters: dict[int, np.ndarray] = {}
    records: list[dict] = []
    for name, features in {ENCODER: embeddings.features, **references}.items():
        reduced, copies = reduce_both(features, (mirrored or {}).get(name), fit, seed)
        flipped = None if copies is None else copies[fit]
        for count in n_clusters:
            check_method(method, count, int(fit.sum()))
        divided = [cuts(method, reduced[fit], flipped, seed + i) for i in range(n_seeds)]
        for count in dict.fromkeys(n_clusters):
            fits = [cut(count)[1](reduced) for cut in divided]
            if name == ENCODER:
                clusters[count] = fits[0]
            spread: dict[str, float] = {}
            if n_seeds > 1:
                values = [agreement(*_table_and_maps(rows, own, codes, count)) for own in fits]
                spread = dict(zip(MEASURES, np.std(values, axis=0, ddof=1), strict=True))
            scored = _score_agreement(rows, fits[0], count, seed, n_bootstrap, n_permutations)
            scored.append(_score_silhouette(reduced, fits[0], held_out, patients, seed, n_bootstrap, n_permutations))
            for row in scored:
                seed_sd = float(spread.get(row["measure"], np.nan))
                records.append({"features": name, "n_clusters": count, **row, "seed_sd": seed_sd})
    return ClusterReport(pd.DataFrame(records), clusters, n)


def contingency(
    clusters: np.ndarray, classes: np.ndarray, shape: tuple[int, int], weights: np.ndarray | None = None
) -> np.ndarray:
    """Table of clusters x classes, of the given shape: the number of images in both, each counted `weights` times."""
    counts = np.bincount(clusters * shape[1] + classes, weights=weights, minlength=shape[0] * shape[1])
    return np.rint(counts).astype(np.int64).reshape(shape)


def one_to_one(table: np.ndarray) -> np.ndarray:
    """A class for every cluster of a table, each class at most once, with as many images right as possible (Kuhn 1955).

    The table is of training patients, never of those to be scored; -1 for clusters without a class.
    """
    clusters, classes = linear_sum_assignment(table, maximize=True)
    mapping = np.full(len(table), -1)
    mapping[clusters] = classes
    return mapping


def many_to_one(table: np.ndarray) -> np.ndarray:
    """The most frequent class of every cluster of a table; an empty cluster gets the most frequent class of all."""
    mapping = table.argmax(axis=1)
    mapping[table.sum(axis=1) == 0] = table.sum(axis=0).argmax()
    return mapping


def agreement(table: np.ndarray, single: np.ndarray | None, many: np.ndarray) -> np.ndarray:
    """`MEASURES` of a table of clusters x classes, given the one-to-one map (None without one) and the many-to-one map.

    `oracle_map_acc` is the accuracy of a one-to-one map fitted on the very labels it is scored on: an upper bound that
    published numbers often are. Balanced accuracy (mean recall of the classes that occur) uses the one-to-one map where
    there is one; the one-to-one accuracy is NaN without it. AMI is Vinh et al. (JMLR 2010) with the arithmetic mean, as
    in scikit-learn; ARI is Hubert and Arabie (1985). V-measure (Rosenberg and Hirschberg 2007) with equal weights is
    the NMI with the arithmetic mean.
    """

    def hits(mapping: np.ndarray) -> np.ndarray:
        """Images of every class whose cluster has that class."""
        mapped = np.flatnonzero(mapping >= 0)
        right = np.zeros(table.shape[1])
        np.add.at(right, mapping[mapped], table[mapped, mapping[mapped]])
        return right

    total, sizes = table.sum(), table.sum(axis=0)
    single_accuracy = np.nan if single is None else hits(single).sum() / total
    recall = hits(many if single is None else single)[sizes > 0] / sizes[sizes > 0]
    adjusted, normalized = adjusted_information(table)
    oracle = table[linear_sum_assignment(table, maximize=True)].sum() / total
    accuracies = [single_accuracy, hits(many).sum() / total, recall.mean()]
    return np.array([*accuracies, adjusted, normalized, _adjusted_rand(table), normalized, oracle])


def adjusted_information(table: np.ndarray) -> tuple[float, float]:
    """AMI and NMI of a table of clusters x classes."""
    table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    if 1 in table.shape:  # as in scikit-learn: one cluster agrees fully with one class, and not at all with several
        return (1.0, 1.0) if table.shape == (1, 1) else (0.0, 0.0)
    total = table.sum()
    rows, columns = table.sum(axis=1) / total, table.sum(axis=0) / total
    mean = sum(-float((share * np.log(share)).sum()) for share in (rows, columns)) / 2
    joint = table / total
    filled = joint > 0
    mutual = float((joint[filled] * np.log(joint[filled] / np.outer(rows, columns)[filled])).sum())
    expected = expected_mutual_information(table.astype(np.int64), int(total))
    room = mean - expected
    room = min(room, -np.finfo(float).eps) if room < 0 else max(room, np.finfo(float).eps)
    return (mutual - expected) / room, mutual / mean


def _adjusted_rand(table: np.ndarray) -> float:
    pairs = float((table * (table - 1.0)).sum()) / 2
    rows, columns = (float((sums * (sums - 1.0)).sum()) / 2 for sums in (table.sum(axis=1), table.sum(axis=0)))
    total = table.sum() * (table.sum() - 1.0) / 2
    expected = rows * columns / total if total else 0.0
    room = (rows + columns) / 2 - expected
    return 1.0 if room == 0 else (pairs - expected) / room


def _table_and_maps(
    rows: ClassRows, clusters: np.ndarray, codes: np.ndarray, n_clusters: int
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """The table of test rows, and the one-to-one and many-to-one map learned on train rows."""
    shape = (n_clusters, len(rows.names))
    train, test = (contingency(clusters[part], codes[part], shape) for part in (rows.train, rows.test))
    return test, one_to_one(train) if n_clusters == rows.n_train_classes else None, many_to_one(train)


def _score_agreement(
    rows: ClassRows, clusters: np.ndarray, n_clusters: int, seed: int, n_bootstrap: int, n_permutations: int
) -> list[dict]:
    labels = rows.codes
    table, single, many = _table_and_maps(rows, clusters, labels, n_clusters)
    values, own, classes = agreement(table, single, many), clusters[rows.test], labels[rows.test]
    codes, counts = patient_counts(rows.patients[rows.test], n_bootstrap, seed)
    drawn = np.array([agreement(contingency(own, classes, table.shape, row[codes]), single, many) for row in counts])
    generator, null = np.random.default_rng(seed), []
    numbers = np.unique(rows.patients, return_inverse=True)[1]  # names would be sorted again at each permutation
    for _ in range(n_permutations):
        permuted = labels.copy()
        for part in (rows.train, rows.test):
            permuted[part] = permute_over_patients(permuted[part], numbers[part], generator)
        null.append(agreement(*_table_and_maps(rows, clusters, permuted, n_clusters)))
    # a constant answer: the most frequent training class, and for an oracle's map the most frequent test class
    share = float((classes == np.bincount(labels[rows.train]).argmax()).mean())
    majority = {
        "acc_one_to_one": share,
        "acc_many_to_one": share,
        "balanced_acc": float(share > 0) / len(np.unique(classes)),
        "oracle_map_acc": float(np.bincount(classes).max() / len(classes)),
    }
    scored = []
    for value, resamples, chance, measure in zip(values, drawn.T, np.array(null).T, MEASURES, strict=True):
        recenter = measure not in _NOT_CENTERED
        units = counts.shape[1]
        interval = bootstrap_interval(value, resamples, recenter=recenter, units=units, share=not recenter)
        about = {"measure": measure, **interval.as_dict(), "majority": majority.get(measure, 0.0)}
        scored.append({**about, **compare_to_null(value, chance)})
    return scored


def _score_silhouette(
    reduced: np.ndarray,
    clusters: np.ndarray,
    held_out: np.ndarray,
    patients: np.ndarray,
    seed: int,
    n_bootstrap: int,
    n_permutations: int,
) -> dict:
    """Separation of the clusters at test images; needs no class, so its null is clusters permuted over patients."""

    def silhouette(apart: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Silhouette (Rousseeuw 1987) of every row by the distances of all; NaN for one cluster."""
        if not 1 < len(np.unique(labels)) < len(labels):
            return np.full(len(labels), np.nan)
        return silhouette_samples(apart, labels, metric="precomputed").astype(np.float64)

    positions = sample_rows(np.flatnonzero(held_out), _SILHOUETTE_ROWS, seed)
    values = silhouette(pairwise_distances(reduced[positions]), clusters[positions])
    codes, counts = patient_counts(patients[positions], n_bootstrap, seed)
    weights = counts[:, codes].astype(float)
    interval = bootstrap_interval(float(values.mean()), weights @ values / weights.sum(axis=1), units=counts.shape[1])
    few, generator = sample_rows(positions, _NULL_ROWS, seed), np.random.default_rng(seed)
    apart = pairwise_distances(reduced[few])
    numbers = np.unique(patients[few], return_inverse=True)[1]
    permuted = [permute_over_patients(clusters[few], numbers, generator) for _ in range(n_permutations)]
    null = compare_to_null(interval.value, np.array([silhouette(apart, labels).mean() for labels in permuted]))
    return {"measure": "silhouette", **interval.as_dict(), "majority": 0.0, **null}
