"""What a linear model on frozen features finds: one logistic regression a finding, or one over classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from monai_simclr.evaluation.class_rows import accuracy_rows, class_rows
from monai_simclr.evaluation.embeddings import Embeddings
from monai_simclr.evaluation.leaks import refuse_shared_patients
from monai_simclr.evaluation.predictions import certain_labels
from monai_simclr.evaluation.scores import score_findings

C_GRID: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Inverse strengths of the L2 penalty that are tried on val patients."""

_DEFAULT_C = 1e-2


class Probe(NamedTuple):
    """A probe's table, the test scores it comes from ``(n_test, K)``, and the positions of the test rows."""

    table: pd.DataFrame
    scores: np.ndarray
    rows: np.ndarray


def probe_findings(
    embeddings: Embeddings,
    findings: Sequence[str],
    train_rows: np.ndarray | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> Probe:
    """Per-finding L2 logistic regression on frozen features, standardised on its train rows.

    The penalty is chosen by AUROC on val patients; where val does not hold both labels of a finding it is 0.01, and the
    column `c_chosen_on` says so. Test patients are scored once.

    Args:
        embeddings: index with `patient_id`, `split` and the findings (1, 0 or NaN).
        findings: columns of the index; a smoothed label counts as unknown.
        train_rows: positions of the labelled train rows to use (a label fraction); all of train by default.
        n_bootstrap: resamples of test patients.
        seed: of the resampling.

    Returns:
        A `Probe`; its table is that of `score_findings` with `c` and `c_chosen_on`. A finding whose train labels are
        all alike scores 0.5 by construction and says so there.

    Raises:
        ValueError: if `train_rows` names a row outside train, or train or test is empty.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> mass = np.tile([0.0, 1.0], 60)
        >>> split = ["train"] * 60 + ["val"] * 30 + ["test"] * 30
        >>> index = pd.DataFrame({"patient_id": [f"p{i}" for i in range(120)], "split": split, "Mass": mass})
        >>> features = rng.normal(size=(120, 3)) + 3 * mass[:, None]
        >>> bool(probe_findings(Embeddings(features, index), ["Mass"], n_bootstrap=20).table["auroc"][0] > 0.95)
        True
    """
    scores, test, chosen = probe_scores(embeddings, findings, train_rows)
    labels = embeddings.index[list(findings)].to_numpy(dtype=float)
    patients = embeddings.index["patient_id"].to_numpy()[test]
    table = score_findings(labels[test], scores, patients, findings, n_bootstrap, seed)
    return Probe(table.join(pd.DataFrame(chosen)), scores, test)


def probe_scores(
    embeddings: Embeddings, findings: Sequence[str], train_rows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, list[dict]]:
    """What `probe_findings` fits, without scoring it: logits ``(n_test, K)``, positions of the test rows, penalties.

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
    labels = certain_labels(embeddings.index[list(findings)].to_numpy(dtype=float))
    features = StandardScaler().fit(embeddings.features[train]).transform(embeddings.features)
    scores = np.zeros((len(test), len(findings)))
    chosen = []
    for k in range(len(findings)):
        known = [rows[np.isfinite(labels[rows, k])] for rows in (train, val)]
        model, c, how = _fit(features, labels[:, k], *known)
        scores[:, k] = 0.0 if model is None else model.decision_function(features[test])
        chosen.append({"c": c, "c_chosen_on": how})
    return scores, test, chosen


def probe_classes(
    embeddings: Embeddings,
    references: Mapping[str, np.ndarray],
    classes: np.ndarray,
    n_bootstrap: int = 1000,
    n_permutations: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """Multinomial logistic regression on frozen features: accuracy at test patients beside majority, null, references.

    The penalty is chosen by accuracy on val patients (0.01 without any). The null permutes the test classes over
    patients against the fixed answers: the accuracy of these answers if they knew nothing.

    Args:
        embeddings: index with `patient_id` and `split`.
        references: name -> features of the same rows.
        classes: as text, shape ``(N,)``; "" is left out.
        n_bootstrap: resamples of test patients.
        n_permutations: of the null.
        seed: of everything random.

    Returns:
        One row a set of features: `features, n, value, low, high, majority, null_low, null_high`.

    Raises:
        ValueError: if lengths differ, a patient is in train and test, or a split has no row with a class.
    """
    rows = class_rows(embeddings, references, classes)
    val = (embeddings.index["split"] == "val").to_numpy() & (rows.classes != "") & np.isin(rows.classes, rows.names)

    def answer(features: np.ndarray) -> np.ndarray:
        scaled = StandardScaler().fit(features[rows.train]).transform(features)
        models = [
            LogisticRegression(C=c, max_iter=1000).fit(scaled[rows.train], rows.classes[rows.train])
            for c in (C_GRID if val.any() else (_DEFAULT_C,))
        ]
        right = [model.score(scaled[val], rows.classes[val]) if val.any() else 0.0 for model in models]
        return models[int(np.argmax(right))].predict(scaled[rows.test])

    return accuracy_rows(embeddings, references, rows, answer, n_bootstrap, n_permutations, seed)


def _fit(
    features: np.ndarray, labels: np.ndarray, train: np.ndarray, val: np.ndarray
) -> tuple[LogisticRegression | None, float, str]:
    """The model whose penalty does best on val, its C, and what chose it."""
    if len(np.unique(labels[train])) < 2:
        return None, float("nan"), "none: train labels are all alike"
    if len(np.unique(labels[val])) < 2:
        model = LogisticRegression(C=_DEFAULT_C, max_iter=1000).fit(features[train], labels[train])
        return model, _DEFAULT_C, "default: val lacks one of the labels"
    models = [LogisticRegression(C=c, max_iter=1000).fit(features[train], labels[train]) for c in C_GRID]
    areas = [roc_auc_score(labels[val], model.decision_function(features[val])) for model in models]
    best = int(np.argmax(areas))
    return models[best], C_GRID[best], "val"
