"""What an encoder has learned: clusters, neighbors and probes beside their floors."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from monai_simclr import recipes
from monai_simclr.data import Store, classes_of
from monai_simclr.embeddings import Embeddings
from monai_simclr.engines import embed
from monai_simclr.evaluation import (
    align_clusters,
    evaluate_clusters,
    knn,
    prevalence_auroc,
    probe_classes,
    probe_findings,
)
from monai_simclr.files import write_atomically
from monai_simclr.results import closing_line, write_metrics
from monai_simclr.workflows.run import Run

__all__ = ["cluster"]

logger = logging.getLogger("monai_simclr")


def cluster(
    run: Run,
    store: Store,
    encoder: nn.Module,
    random_encoder: nn.Module,
    findings: Sequence[str],
    k: Sequence[int],
    n_bootstrap: int,
) -> None:
    """What an encoder has learned, on held-out patients, beside raw pixels and the same encoder with random weights.

    Writes ``embeddings.npz``, ``clusters.csv`` and ``metrics.json`` to the run's folder.
    """
    seed = run.seed
    finish = functools.partial(recipes.finish, size=run.size)
    made = Embeddings(embed(encoder, store.images, finish, run.device), store.index, {"size": str(run.size)})
    made.save(run.path("embeddings.npz"))
    references = {
        "raw pixels": _pixels(store.images),
        "random encoder": embed(random_encoder, store.images, finish, run.device),
    }
    classes = classes_of(store.index)
    counts = [len(set(classes[classes != ""])), *k]
    report = evaluate_clusters(made, references, classes, counts, seed=seed, n_bootstrap=n_bootstrap)
    most = report.clusters[max(counts)]
    test = (store.index["split"] == "test").to_numpy()
    alignment = align_clusters(most[test], store.index[test].reset_index(drop=True), findings)
    values: dict[str, Any] = {
        "clusters": _named(report.table, "features", "k", "measure"),
        "knn": _named(knn(made, references, classes, n_bootstrap=n_bootstrap, seed=seed), "features"),
        "probe of classes": _named(probe_classes(made, references, classes, n_bootstrap, seed=seed), "features"),
        "probe of findings": _named(probe_findings(made, findings, None, n_bootstrap, seed).table, "finding"),
        "prevalence of clusters": _named(prevalence_auroc(most, store.index, findings, n_bootstrap, seed), "finding"),
        "alignment": {"sentence": alignment.sentence, **_named(alignment.table, "what")},
    }
    _write_clusters(report.clusters, store, classes, run.path("clusters.csv"))
    path = write_metrics(run.output_dir, values, command="cluster", split="test", seed=seed, n=report.n)
    for line in (*report.lines(), alignment.sentence):
        logger.info(line)
    logger.info(closing_line([run.path("embeddings.npz"), path], "run configs/train.json next"))


def _pixels(images: np.ndarray, side: int = 32) -> np.ndarray:
    """The floor: images as they are, averaged to 32 x 32 and flattened."""
    small = [recipes.finish(torch.from_numpy(np.array(image))[None, None], side).numpy().ravel() for image in images]
    return np.stack(small)


def _write_clusters(clusters: Mapping[int, np.ndarray], store: Store, classes: np.ndarray, path: Path) -> None:
    table = store.index[["image", "patient_id", "split"]].assign(**{"class": classes})
    for count, assigned in clusters.items():
        table[f"cluster_of_{count}"] = assigned
    with write_atomically(path) as part:
        table.to_csv(part, index=False)


def _named(table: pd.DataFrame, *keys: str) -> dict[str, dict[str, Any]]:
    """Rows of a table by what they are about: ``{"encoder, k=6, ami": {...}}``."""
    named = {}
    for row in _rows_of(table):
        name = ", ".join(f"k={row[key]}" if key == "k" else str(row[key]) for key in keys)
        named[name] = {key: value for key, value in row.items() if key not in keys}
    return named


def _rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
