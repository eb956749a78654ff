"""Linear probes: logistic regressions on frozen features, per finding or over classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from monai_simclr.evaluation.classes import class_rows, score_accuracy
from monai_simclr.evaluation.embeddings import Embeddings
from monai_simclr.evaluation.predictions import certain_labels, refuse_shared_patients
from monai_simclr.evaluation.scores import score_findings

C_GRID: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Inverse strengths of the L2 penalty that are tried on val patients."""

_DEFAULT_C = 1e-2


class FittedProbe(NamedTuple):
    """A probe of one finding: the model (None if the train labels were all alike), its C, and what chose C."""

    model: LogisticRegression | None
    c: float
    c_chosen_on: str

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Logits ``(N,)`` of features ``(N, D)``; 0 without a model."""
        return np.zeros(len(features)) if self.model is None else self.model.decision_function(features)


class Probe(NamedTuple):
    """A probe's table, its test logits ``(n_test, K)``, and the positions of the test rows."""

    table: pd.DataFrame
    scores: np.ndarray
    rows: np.ndarray


def fit_probe(
    features: np.ndarray,
    labels: np.ndarray,
    val: tuple[np.ndarray, np.ndarray] | None = None,
    class_weight: str | None = None,
    default_c: float = _DEFAULT_C,
) -> FittedProbe:
    """Fit an L2 logistic regression of one finding on frozen, standardised features.

    C is the one of `C_GRID` with the highest AUROC on val patients, or `default_c` where val does not hold both labels.

    Args:
        features: of train images, shape ``(N, D)``.
        labels: of the same images, shape ``(N,)``; rows whose label is neither 1 nor 0 are not used.
        val: features and labels of val images.
        class_weight: None, or "balanced".
        default_c: C without `val`.

    Example:
        >>> probe = fit_probe(np.array([[-1.0], [1.0], [9.0]]), np.array([0, 1, np.nan]))
        >>> probe.logits(np.array([[-2.0], [2.0]])).round(2).tolist(), probe.c
        ([-0.02, 0.02], 0.01)
    """

    def known(rows: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values = certain_labels(values)
        return rows[np.isfinite(values)], values[np.isfinite(values)]

    def fit(c: float) -> LogisticRegression:
        return LogisticRegression(C=c, max_iter=1000, class_weight=class_weight).fit(features, labels)

    features, labels = known(features, labels)
    if len(np.unique(labels)) < 2:
        return FittedProbe(None, float("nan"), "none: train labels are all alike")
    val_features, val_labels = known(*val) if val else (features[:0], labels[:0])
    if len(np.unique(val_labels)) < 2:
        return FittedProbe(fit(default_c), default_c, "default: val lacks one of the labels")
    models = [fit(c) for c in C_GRID]
    best = int(np.argmax([roc_auc_score(val_labels, model.decision_function(val_features)) for model in models]))
    return FittedProbe(models[best], C_GRID[best], "val")


def probe_layer(
    features: np.ndarray, labels: np.ndarray, class_weight: str | None = None, c: float = _DEFAULT_C
) -> tuple[np.ndarray, np.ndarray]:
    """The probes of all findings (`fit_probe`) as one linear layer on features that are not standardised.

    Args:
        features: of train images, shape ``(N, D)``.
        labels: of the same images, shape ``(N, K)``; where a label is neither 1 nor 0, the image is not used.
        class_weight: None, or "balanced".
        c: inverse strength of the L2 penalty.

    Returns:
        Weights ``(K, D)`` and biases ``(K,)``; zeros for a finding whose labels are all alike.

    Example:
        >>> weights, biases = probe_layer(np.array([[-1.0], [1.0]]), np.array([[0, 1], [1, 1]]))
        >>> weights.round(2).tolist(), biases.round(2).tolist()
        ([[0.01], [0.0]], [0.0, 0.0])
    """
    features, findings = features.astype(np.float64), labels.shape[1]  # the solver is exact in double precision only
    scaler = StandardScaler().fit(features)
    scaled = scaler.transform(features)
    weights, biases = np.zeros((findings, features.shape[1])), np.zeros(findings)
    for k in range(findings):
        model = fit_probe(scaled, labels[:, k], class_weight=class_weight, default_c=c).model
        if model is not None:
            weights[k] = model.coef_[0] / scaler.scale_
            biases[k] = model.intercept_[0] - weights[k] @ scaler.mean_
    return weights, biases


def probe_findings(
    embeddings: Embeddings,
    findings: Sequence[str],
    train_rows: np.ndarray | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> Probe:
    """A linear probe per finding (`fit_probe`), on features standardised on its train rows, scored on test patients.

    Args:
        embeddings: index with `patient_id`, `split` and the findings (1, 0 or NaN).
        findings: columns of the index; a smoothed label counts as unknown.
        train_rows: positions of the labelled train rows to use (a label fraction); all of train by default.
        n_bootstrap, seed: of the resampling of test patients.

    Returns:
        A `Probe`; its table is that of `score_findings` with `c` and `c_chosen_on`. A finding whose train labels are
        all alike scores 0.5 by construction, and `c_chosen_on` says so.

    Raises:
        ValueError: if `train_rows` has a row outside train, or train or test is empty.
    """
    scores, test, chosen = probe_scores(embeddings, findings, train_rows)
    labels = embeddings.index[list(findings)].to_numpy(dtype=float)
    patients = embeddings.index["patient_id"].to_numpy()[test]
    table = score_findings(labels[test], scores, patients, findings, n_bootstrap, seed)
    return Probe(table.join(pd.DataFrame(chosen)), scores, test)


def probe_scores(
    embeddings: Embeddings, findings: Sequence[str], train_rows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]:
    """Logits ``(n_test, K)`` of `probe_findings`, positions of the test rows, and per finding `c` and `c_chosen_on`.

    Raises:
        ValueError: as `probe_findings` does.
    """
    split = embeddings.index["split"].to_numpy().astype(str)
    train = np.flatnonzero(split == "train") if train_rows is None else np.asarray(train_rows)
    val, test = np.flatnonzero(split == "val"), np.flatnonzero(split == "test")
    if not len(train) or not len(test) or (split[train] != "train").any():
        raise ValueError(
            f"{len(train)} train and {len(test)} test rows: a probe needs both, and only rows of train to fit"
        )
    patients = embeddings.index["patient_id"].to_numpy().astype(str)
    refuse_shared_patients({"train": patients[train], "val": patients[val], "test": patients[test]})
    features = StandardScaler().fit(embeddings.features[train]).transform(embeddings.features)
    scores, chosen = np.zeros((len(test), len(findings))), []
    for k, finding in enumerate(findings):
        labels = embeddings.index[finding].to_numpy(dtype=float)
        probe = fit_probe(features[train], labels[train], (features[val], labels[val]))
        scores[:, k] = probe.logits(features[test])
        chosen.append({"c": probe.c, "c_chosen_on": probe.c_chosen_on})
    return scores, test, chosen


def probe_classes(
    embeddings: Embeddings,
    references: Mapping[str, np.ndarray],
    classes: np.ndarray,
    n_bootstrap: int = 1000,
    n_permutations: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """Multinomial logistic regression on frozen features: accuracy at test patients with majority, null, references.

    The penalty is chosen by accuracy on val patients (0.01 without any). Arguments and errors are those of `knn`.
    """
    rows = class_rows(embeddings, references, classes)
    val = (embeddings.index["split"] == "val").to_numpy() & (rows.classes != "") & np.isin(rows.classes, rows.names)
    parts = {"train": rows.train, "val": val, "test": rows.test}
    refuse_shared_patients({name: rows.patients[part] for name, part in parts.items()})

    def predict(features: np.ndarray) -> np.ndarray:
        scaled = StandardScaler().fit(features[rows.train]).transform(features)
        models = [
            LogisticRegression(C=c, max_iter=1000).fit(scaled[rows.train], rows.classes[rows.train])
            for c in (C_GRID if val.any() else (_DEFAULT_C,))
        ]
        accuracies = [model.score(scaled[val], rows.classes[val]) if val.any() else 0.0 for model in models]
        return models[int(np.argmax(accuracies))].predict(scaled[rows.test])

    return score_accuracy(embeddings, references, rows, predict, n_bootstrap, n_permutations, seed)
