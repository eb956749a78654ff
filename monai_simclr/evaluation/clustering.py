"""Do clusters follow the classes? Clusters and their map to classes learned on train, scored on held-out patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from monai_simclr.evaluation.agreement import MEASURES, agreement, contingency, many_to_one, one_to_one
from monai_simclr.evaluation.bootstrap import bootstrap_interval, p_value, patient_counts, permute_over_patients
from monai_simclr.evaluation.class_rows import ENCODER, class_rows
from monai_simclr.evaluation.clusterers import METHODS, reduce_features, silhouette
from monai_simclr.evaluation.embeddings import Embeddings
from monai_simclr.evaluation.formatting import format_score
from monai_simclr.evaluation.leaks import refuse_shared_patients

_PRINTED = {"acc_one_to_one": "majority", "acc_many_to_one": "majority", "oracle_map_acc": "commonest test class"}
"""Measures that are printed, and what the constant answer beside each is called."""


@dataclass(frozen=True)
class ClusterReport:
    """What `evaluate_clusters` found.

    Attributes:
        table: one row for each features, k and measure: `features, k, measure, value, low, high, majority, null_low,
            null_high, p, seed_sd`; `p` is of the permutation null, `seed_sd` the spread over seeds. `majority` is what
            a constant answer scores: the commonest training class, and for `oracle_map_acc`, whose map knows the test
            classes, the commonest test class.
        clusters: for every k, the cluster of every row of the embeddings, shape ``(N,)``, also of rows left out.
        names: for every k, the class that every cluster stands for (many-to-one, learned on train).
        crosses: for every k, test images by cluster x class.
        n: images and patients that clusters were fitted on (`fitted_...`, all of train), that the map was learned on
            (`train_...`, those with a class) and that were scored (`test_...`); `left_out`, images of these splits
            without a class.
    """

    table: pd.DataFrame
    clusters: dict[int, np.ndarray]
    names: dict[int, list[str]]
    crosses: dict[int, pd.DataFrame]
    n: dict[str, int]

    def values(self, features: str = ENCODER) -> dict[str, dict[str, dict[str, float]]]:
        """For ``metrics.json``: ``{"k=5": {"ami": {"value", "low", "high", "majority", "null_low", "null_high"}}}``."""
        chosen = self.table[self.table["features"] == features]
        numbers = ["value", "low", "high", "majority", "null_low", "null_high"]
        return {
            f"k={k}": {str(row["measure"]): {name: float(row[name]) for name in numbers} for _, row in rows.iterrows()}
            for k, rows in chosen.groupby("k")
        }

    def lines(self) -> list[str]:
        """Every accuracy as a line of text, each with its interval, majority and null, references included.

        A measure that a k does not define (the one-to-one map needs as many clusters as classes) has no line.
        """
        known = self.table[self.table["measure"].isin(list(_PRINTED)) & np.isfinite(self.table["value"])]
        return [
            f"{row['features']}, k={row['k']}: "
            + format_score(
                row["value"],
                row["low"],
                row["high"],
                row["majority"],
                (row["null_low"], row["null_high"]),
                str(row["measure"]),
                _PRINTED[str(row["measure"])],
            )
            for _, row in known.iterrows()
        ]


@dataclass(frozen=True)
class _Rows:
    """The rows that have a class, as numbers: what every set of features is scored on; and `fit`, all train rows."""

    fit: np.ndarray
    held_out: np.ndarray
    classes: np.ndarray
    patients: np.ndarray
    train: np.ndarray
    test: np.ndarray
    width: int

    def permuted(self, generator: np.random.Generator) -> np.ndarray:
        """The classes laid on other patients, within train and within test."""
        classes = self.classes.copy()
        for part in (self.train, self.test):
            classes[part] = permute_over_patients(classes[part], self.patients[part], generator)
        return classes


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
) -> ClusterReport:
    """Cluster, name the clusters on train patients, and score the names on test patients, with what to compare beside.

    Every set of features (the embeddings, and each reference) goes through the same steps: L2-normalisation, PCA and
    clusters fitted on all of train, labelled or not; a map from clusters to classes learned on train rows with a class
    (Hungarian one-to-one if k is the number of classes, and many-to-one); the measures of `agreement.MEASURES` at test
    rows with a class, and the silhouette (which needs no labels) at all test rows, with an interval from resampling
    test patients; and the 95 % band of the same steps, map included, with the classes permuted over patients. The
    interval is of the scoring, with clusters and map fixed.

    Args:
        embeddings: index with `patient_id` and `split`.
        references: name -> features of the same rows, ``(N, D)``: raw pixels, a random encoder.
        classes: the class of every row as text, shape ``(N,)``; "" has none: clustered, not scored (and counted).
        n_clusters: numbers of clusters.
        seed: of everything random.
        n_bootstrap: resamples of test patients.
        n_permutations: of the null.
        method: a key of `clusterers.METHODS`.
        n_seeds: fits with seed, seed + 1, ...; all but the first only for the spread of the values.

    Raises:
        ValueError: if lengths differ, there is no such method, a patient is in train and test, or train or test has no
            row with a class.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> kind = np.tile(["Mass", "Edema"], 40)
        >>> features = rng.normal(size=(80, 4)) + 4 * (kind == "Mass")[:, None] * np.eye(4)[0]
        >>> index = pd.DataFrame({"patient_id": [f"p{i}" for i in range(80)], "split": ["train"] * 40 + ["test"] * 40})
        >>> noise = {"noise": rng.normal(size=(80, 4))}
        >>> report = evaluate_clusters(Embeddings(features, index), noise, kind, [2], n_bootstrap=50, n_permutations=20)
        >>> [line.split(":")[0] for line in report.lines()][::3], report.n["left_out"]
        (['encoder, k=2', 'noise, k=2'], 0)
    """
    if method not in METHODS:
        raise ValueError(f"there is no clustering {method!r}; choose one of {list(METHODS)}")
    rows, names, n = _rows(embeddings, references, classes)
    clusters: dict[int, np.ndarray] = {}
    records: list[dict] = []
    for name, features in {ENCODER: embeddings.features, **references}.items():
        reduced = reduce_features(features, rows.fit, seed)
        for count in dict.fromkeys(n_clusters):
            if not 1 <= count <= rows.fit.sum():
                raise ValueError(f"{count} clusters cannot be fitted on {rows.fit.sum()} train rows")
            found = [METHODS[method](reduced, rows.fit, count, seed + i, 10) for i in range(n_seeds)]
            if name == ENCODER:
                clusters[count] = found[0]
            scored = _score(found[0], rows, count, seed, n_bootstrap, n_permutations)
            spread = np.std([_value(each, rows, count) for each in found], axis=0, ddof=1) if n_seeds > 1 else None
            about = {"features": name, "k": count}
            records += [
                {**about, **row, "seed_sd": float("nan") if spread is None else float(spread[i])}
                for i, row in enumerate(scored)
            ]
            records.append({**about, **_silhouette(reduced, found[0], rows, seed, n_bootstrap)})
    named, crosses = {}, {}
    for count, mine in clusters.items():
        shape = (count, len(names))
        many = many_to_one(contingency(mine[rows.train], rows.classes[rows.train], shape))
        named[count] = [names[code] for code in many]
        table = contingency(mine[rows.test], rows.classes[rows.test], shape)
        crosses[count] = pd.DataFrame(table, columns=names).rename_axis("cluster")
    return ClusterReport(pd.DataFrame(records), clusters, named, crosses, n)


def _rows(
    embeddings: Embeddings, references: Mapping[str, np.ndarray], classes: np.ndarray
) -> tuple[_Rows, list[str], dict[str, int]]:
    known = class_rows(embeddings, references, classes)
    train, test, patients, names = known.train, known.test, known.patients, known.names
    labelled = known.classes != ""
    split = embeddings.index["split"].to_numpy().astype(str)
    fit, held_out = split == "train", split == "test"
    refuse_shared_patients({"train": patients[fit], "test": patients[held_out]})
    codes = np.searchsorted(names, np.where(train | test, known.classes, names[0]))
    n = {
        "fitted_images": int(fit.sum()),
        "fitted_patients": len(np.unique(patients[fit])),
        "train_images": int(train.sum()),
        "train_patients": len(np.unique(patients[train])),
        "test_images": int(test.sum()),
        "test_patients": len(np.unique(patients[test])),
        "left_out": int((~labelled & np.isin(split, ["train", "test"])).sum()),
    }
    return _Rows(fit, held_out, codes, patients, train, test, len(names)), [str(name) for name in names], n


def _score(clusters: np.ndarray, rows: _Rows, k: int, seed: int, n_bootstrap: int, n_permutations: int) -> list[dict]:
    single, many = _maps(clusters, rows.classes, rows, k)
    mine, right = clusters[rows.test], rows.classes[rows.test]
    value = agreement(contingency(mine, right, (k, rows.width)), single, many)
    codes, counts = patient_counts(rows.patients[rows.test], n_bootstrap, seed)
    drawn = np.array([agreement(contingency(mine, right, (k, rows.width), row[codes]), single, many) for row in counts])
    null = _null(clusters, rows, k, seed, n_permutations)
    majority = _majority(rows)
    scored = []
    for i, measure in enumerate(MEASURES):
        interval = bootstrap_interval(
            value[i], drawn[:, i], recenter=not measure.endswith(("one", "balanced_acc")), units=counts.shape[1]
        )
        low, high = np.quantile(null[:, i], [0.025, 0.975])
        beside = {"majority": majority[measure], "null_low": float(low), "null_high": float(high)}
        scored.append({"measure": measure, **interval.as_dict(), **beside, "p": p_value(value[i], null[:, i])})
    return scored


def _value(clusters: np.ndarray, rows: _Rows, k: int) -> np.ndarray:
    table = contingency(clusters[rows.test], rows.classes[rows.test], (k, rows.width))
    return agreement(table, *_maps(clusters, rows.classes, rows, k))


def _silhouette(reduced: np.ndarray, clusters: np.ndarray, rows: _Rows, seed: int, n_bootstrap: int) -> dict:
    """How apart the clusters lie at test images: knows no class, so its null is clusters laid on other patients."""
    positions, values = silhouette(reduced, clusters, rows.held_out, seed)
    positions = positions.astype(int)
    codes, counts = patient_counts(rows.patients[positions], n_bootstrap, seed)
    weights = counts[:, codes].astype(float)
    interval = bootstrap_interval(float(values.mean()), weights @ values / weights.sum(axis=1), units=counts.shape[1])
    few, generator, null = positions[:500], np.random.default_rng(seed), []
    for _ in range(20):
        shuffled = clusters.copy()
        shuffled[few] = permute_over_patients(clusters[few], rows.patients[few], generator)
        null.append(silhouette(reduced, shuffled, np.isin(np.arange(len(clusters)), few), seed)[1].mean())
    low, high = np.quantile(null, [0.025, 0.975])
    return {
        "measure": "silhouette",
        **interval.as_dict(),
        "majority": 0.0,
        "null_low": float(low),
        "null_high": float(high),
        "p": p_value(interval.value, np.array(null)),
        "seed_sd": float("nan"),
    }


def _maps(clusters: np.ndarray, classes: np.ndarray, rows: _Rows, k: int) -> tuple[np.ndarray | None, np.ndarray]:
    table = contingency(clusters[rows.train], classes[rows.train], (k, rows.width))
    return (one_to_one(table) if k == rows.width else None), many_to_one(table)


def _null(clusters: np.ndarray, rows: _Rows, k: int, seed: int, n: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        classes = rows.permuted(generator)
        table = contingency(clusters[rows.test], classes[rows.test], (k, rows.width))
        found.append(agreement(table, *_maps(clusters, classes, rows, k)))
    return np.array(found)


def _majority(rows: _Rows) -> dict[str, float]:
    """What a constant answer scores: the commonest training class, and where the map is an oracle's, of the test."""
    commonest = np.bincount(rows.classes[rows.train]).argmax()
    share = float((rows.classes[rows.test] == commonest).mean())
    balanced = float(share > 0) / len(np.unique(rows.classes[rows.test]))
    return {
        "acc_one_to_one": share,
        "acc_many_to_one": share,
        "balanced_acc": balanced,
        "ami": 0.0,
        "nmi": 0.0,
        "ari": 0.0,
        "v_measure": 0.0,
        "oracle_map_acc": float(np.bincount(rows.classes[rows.test]).max() / rows.test.sum()),
    }
