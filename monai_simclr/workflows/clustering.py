"""What an encoder has learned: clusters, neighbors and probes, with their baselines."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from monai_simclr import recipes
from monai_simclr.data import Store, image_classes
from monai_simclr.data.pseudonyms import index_for_outputs
from monai_simclr.engines import embed
from monai_simclr.evaluation import (
    Embeddings,
    align_clusters,
    choose_n_clusters,
    enrich,
    evaluate_clusters,
    find_copies,
    find_label_errors,
    find_outliers,
    fit_clusters,
    format_score,
    knn,
    knn_findings,
    prevalence_auroc,
    probe_classes,
    probe_findings,
)
from monai_simclr.runtime.metrics import closing_line, nest_rows, print_table, write_metrics
from monai_simclr.runtime.tables import write_table
from monai_simclr.workflows.run import Run
from monai_simclr.workflows.seen import check_encoder

logger = logging.getLogger("monai_simclr")

_CANDIDATES = (2, 3, 4, 5, 6, 8, 10, 14, 20, 30, 50)
_CURVE = (2, 5, 14, 50)
"""Numbers of clusters whose prevalence is scored; more clusters score higher by their number alone."""


@dataclass(frozen=True)
class Clustering:
    """How clusters are fitted and scored.

    Attributes:
        findings: columns of the index.
        n_clusters: numbers of clusters besides the number of classes; "auto" adds the one that `choose_n_clusters`
            picks without labels.
        method: a key of `clusterers.METHODS`.
        n_seeds: fits whose spread is reported.
        n_bootstrap: resamples of test patients.
        allow_seen_patients: score patients even if they were seen in pretraining.
    """

    findings: Sequence[str]
    n_clusters: Sequence[int | str] = ("auto",)
    method: str = "kmeans"
    n_seeds: int = 5
    n_bootstrap: int = 1000
    allow_seen_patients: bool = False


def cluster(
    run: Run, store: Store, encoder: nn.Module, random_encoder: nn.Module, encoder_path: str | Path, how: Clustering
) -> None:
    """Cluster and probe an encoder's embeddings on held-out patients, next to raw pixels, histograms, random weights.

    Writes ``embeddings.npz``, ``clusters.csv``, ``metrics.json`` and tables to the run's folder.

    Args:
        run: settings of the run.
        store: the archive's images.
        encoder: to evaluate.
        random_encoder: the same network with random weights.
        encoder_path: the file of `encoder`, whose header has the patients seen in pretraining.
        how: settings of the clustering.

    Raises:
        ValueError: if a test patient was seen in pretraining, unless `how` allows it.
    """
    index, seed, n_bootstrap = store.index, run.seed, how.n_bootstrap
    train, test = ((index["split"] == name).to_numpy() for name in ("train", "test"))
    seen = check_encoder(encoder_path, index["patient_id"].to_numpy()[test], how.allow_seen_patients)
    embeddings, references = _embed(run, store, encoder, random_encoder)
    public_index = index_for_outputs(store)
    Embeddings(embeddings.features, public_index, embeddings.source).save(run.path("embeddings.npz"))
    classes = image_classes(index)
    chosen, curve = choose_n_clusters(embeddings.features, train, _CANDIDATES, how.method)
    n_classes = len(set(classes[classes != ""]))
    counts = [n_classes, *(chosen if count == "auto" else int(count) for count in how.n_clusters)]
    report = evaluate_clusters(
        embeddings, references, classes, counts, seed, n_bootstrap, method=how.method, n_seeds=how.n_seeds
    )
    largest, test_index = report.clusters[max(counts)], index[test].reset_index(drop=True)
    alignment = align_clusters(largest[test], test_index, how.findings)
    probe = probe_classes(embeddings, references, classes, n_bootstrap, seed=seed)
    tables = {
        "clusters": public_index[["image", "patient_id", "split"]]
        .rename(columns={"patient_id": "patient_hash"})
        .assign(**{"class": classes}, **{f"cluster_of_{count}": own for count, own in report.clusters.items()}),
        "n_clusters": curve,
        "alignment": alignment.table,
        "enrichment": enrich(largest[test], test_index, how.findings),
        "outliers": find_outliers(embeddings),
        "label_errors": find_label_errors(embeddings, how.findings),
        "copies_between_splits": find_copies(embeddings),
    }
    for name, table in tables.items():
        write_table(table.drop(columns=["patient_id", "copy_patient_id"], errors="ignore"), run.path(f"{name}.csv"))
    values = {
        "clusters": report.to_dict(),
        "n_clusters": {"chosen": chosen, "curve": nest_rows(curve, "n_clusters")},
        "knn": nest_rows(knn(embeddings, references, classes, n_bootstrap=n_bootstrap, seed=seed), "features"),
        "knn_findings": nest_rows(knn_findings(embeddings, how.findings, 20, n_bootstrap, seed), "finding"),
        "probe_classes": nest_rows(probe, "features"),
        "probe_findings": nest_rows(probe_findings(embeddings, how.findings, None, n_bootstrap, seed).table, "finding"),
        "prevalence": nest_rows(_prevalence(embeddings, largest, max(counts), how, seed), "finding", "n_clusters"),
        "alignment": {"sentence": alignment.sentence, **nest_rows(alignment.table, "what")},
        "enrichment": nest_rows(tables["enrichment"].head(20), "cluster", "finding"),
    }
    n = {**report.n, "seen_patients": seen}
    metrics = write_metrics(run.output_dir, values, command="cluster", split="test", seed=seed, n=n)
    print_table(alignment.table, title=alignment.sentence)
    if copies := len(tables["copies_between_splits"]):
        logger.warning(f"{copies} test images have a copy in another split: see copies_between_splits.csv")
    upper = probe.iloc[0]
    null = (upper["null_low"], upper["null_high"])
    score = format_score(upper["value"], upper["low"], upper["high"], upper["majority"], null)
    for line in [*report.lines(), f"upper bound, a linear probe with all train labels: {score}", alignment.sentence]:
        logger.info(line)
    logger.info(closing_line([run.path("embeddings.npz"), metrics], "run configs/train.json"))


def _embed(
    run: Run, store: Store, encoder: nn.Module, random_encoder: nn.Module
) -> tuple[Embeddings, dict[str, np.ndarray]]:
    """Embeddings of the archive, and what they are compared with."""
    finish = functools.partial(recipes.to_network_input, size=run.size)
    features, random = (embed(network, store.images, finish, run.device) for network in (encoder, random_encoder))
    images = [np.array(image) for image in store.images]
    small = [recipes.to_network_input(torch.from_numpy(image)[None, None], 32).numpy().ravel() for image in images]
    levels = [np.bincount(image.ravel() // 8, minlength=32) for image in images]
    references = {"raw pixels": np.stack(small), "grey histogram": np.stack(levels).astype(np.float32)}
    return Embeddings(features, store.index, {"size": str(run.size)}), {**references, "random encoder": random}


def _prevalence(
    embeddings: Embeddings, clusters: np.ndarray, n_clusters: int, how: Clustering, seed: int
) -> pd.DataFrame:
    """Cluster prevalence as a score of every finding, for these clusters with all resamples and for others with few."""
    train = (embeddings.index["split"] == "train").to_numpy()
    scores = prevalence_auroc(clusters, embeddings.index, how.findings, how.n_bootstrap, seed)
    parts = [scores.assign(n_clusters=n_clusters)]
    for count in (count for count in _CURVE if count < train.sum() and count != n_clusters):
        others = fit_clusters(embeddings.features, train, count, seed, 3, how.method)
        parts.append(prevalence_auroc(others, embeddings.index, how.findings, 200, seed).assign(n_clusters=count))
    return pd.concat(parts, ignore_index=True)
