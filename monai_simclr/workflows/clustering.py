"""What an encoder has learned: clusters, neighbors and probes beside their floors."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from monai_simclr import recipes
from monai_simclr.data import Store, image_classes
from monai_simclr.data.pseudonyms import index_for_outputs
from monai_simclr.engines import embed
from monai_simclr.evaluation import (
    Alignment,
    Embeddings,
    align_clusters,
    choose_k,
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
from monai_simclr.runtime.metrics import closing_line, print_table, write_metrics
from monai_simclr.runtime.tables import write_table
from monai_simclr.workflows.run import Run
from monai_simclr.workflows.seen import check_encoder

logger = logging.getLogger("monai_simclr")

_CANDIDATES = (2, 3, 4, 5, 6, 8, 10, 14, 20, 30, 50)
_CURVE = (2, 5, 14, 50)
"""Numbers of clusters whose prevalence is scored; more clusters score higher by their number alone."""


@dataclass(frozen=True)
class Clustering:
    """How clusters are made and judged.

    Attributes:
        findings: columns of the index.
        n_clusters: numbers of clusters beside the number of classes; "auto" adds the one that `choose_k` picks without
            labels.
        method: a key of `clusterers.METHODS`.
        n_seeds: fits whose spread is given.
        n_bootstrap: resamples of test patients.
        allow_seen_patients: state that patients whom pretraining saw may be scored.
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
    """What an encoder has learned, on held-out patients, beside raw pixels, grey histograms and random weights.

    Writes ``embeddings.npz``, ``clusters.csv``, ``metrics.json`` and tables to the run's folder.

    Args:
        run: settings of the run.
        store: the archive's images.
        encoder: what is judged.
        random_encoder: the same network with random weights.
        encoder_path: the file of `encoder`, whose header says whom it has seen.
        how: settings of the clustering.

    Raises:
        ValueError: if the encoder has seen a test patient, unless `how` allows it.
    """
    test = (store.index["split"] == "test").to_numpy()
    seen = check_encoder(encoder_path, store.index["patient_id"].to_numpy()[test], how.allow_seen_patients)
    finish = functools.partial(recipes.to_network_input, size=run.size)
    made = Embeddings(embed(encoder, store.images, finish, run.device), store.index, {"size": str(run.size)})
    shown = index_for_outputs(store)
    Embeddings(made.features, shown, made.source).save(run.path("embeddings.npz"))
    references = {
        "raw pixels": _pixels(store.images),
        "grey histogram": _histograms(store.images),
        "random encoder": embed(random_encoder, store.images, finish, run.device),
    }
    values, lines, n = _judged(run, made, references, how, shown)
    path = write_metrics(
        run.output_dir, values, command="cluster", split="test", seed=run.seed, n={**n, "seen_patients": seen}
    )
    for line in lines:
        logger.info(line)
    logger.info(closing_line([run.path("embeddings.npz"), path], "run configs/train.json"))


def _judged(
    run: Run, made: Embeddings, references: Mapping[str, np.ndarray], how: Clustering, shown: pd.DataFrame
) -> tuple[dict[str, Any], list[str], dict[str, int]]:
    """Values for metrics.json, lines for the log, counts; tables are written to the run's folder."""
    seed, n_bootstrap, classes = run.seed, how.n_bootstrap, image_classes(made.index)
    train, test = ((made.index["split"] == name).to_numpy() for name in ("train", "test"))
    best, curve = choose_k(made.features, train, _CANDIDATES, how.method)
    named = len(set(classes[classes != ""]))
    counts = list(dict.fromkeys([named, *(best if k == "auto" else int(k) for k in how.n_clusters)]))
    report = evaluate_clusters(
        made, references, classes, counts, seed, n_bootstrap, method=how.method, n_seeds=how.n_seeds
    )
    most, index = report.clusters[max(counts)], made.index[test].reset_index(drop=True)
    alignment = align_clusters(most[test], index, how.findings)
    probe = probe_classes(made, references, classes, n_bootstrap, seed=seed)
    tables = {
        "clusters": report.table,
        "choice_of_k": curve,
        "alignment": alignment.table,
        "enrichment": enrich(most[test], index, how.findings),
        "outliers": find_outliers(made),
        "label_errors": find_label_errors(made, how.findings),
        "copies_between_splits": find_copies(made),
    }
    for name, table in tables.items():
        write_table(table.drop(columns=["patient_id", "copy_patient_id"], errors="ignore"), run.path(f"{name}.csv"))
    write_table(_assigned(report.clusters, shown, classes), run.path("clusters.csv"))
    print_table(_shown(alignment), title=alignment.sentence)
    values = {
        "clusters": _named(report.table, "features", "k", "measure"),
        "choice of k": {"chosen": best, **_named(curve, "k")},
        "knn": _named(knn(made, references, classes, n_bootstrap=n_bootstrap, seed=seed), "features"),
        "probe of classes": _named(probe, "features"),
        "probe of findings": _named(probe_findings(made, how.findings, None, n_bootstrap, seed).table, "finding"),
        "knn of findings": _named(knn_findings(made, how.findings, n_bootstrap=n_bootstrap, seed=seed), "finding"),
        "prevalence of clusters": _prevalence(made, most, how, max(counts), seed),
        "alignment": {"sentence": alignment.sentence, **_named(alignment.table, "what")},
        "enrichment": _named(tables["enrichment"].head(20), "cluster", "finding"),
    }
    upper = {str(key): float(value) for key, value in probe.iloc[0].items() if key != "features"}
    null = (upper["null_low"], upper["null_high"])
    last = "upper line, a linear probe with all train labels: " + format_score(
        upper["value"], upper["low"], upper["high"], upper["majority"], null
    )
    if len(tables["copies_between_splits"]):
        logger.warning(
            f"{len(tables['copies_between_splits'])} test images have a copy in another split: see the table"
        )
    return values, [*report.lines(), last, alignment.sentence], report.n


def _prevalence(made: Embeddings, most: np.ndarray, how: Clustering, k: int, seed: int) -> dict[str, dict[str, Any]]:
    """Cluster prevalence as a score of every finding, at the chosen k with intervals and at others for the curve."""
    train = (made.index["split"] == "train").to_numpy()
    parts = [prevalence_auroc(most, made.index, how.findings, how.n_bootstrap, seed).assign(k=k)]
    for count in (count for count in _CURVE if count < train.sum() and count != k):
        clusters = fit_clusters(made.features, train, count, seed, 3, how.method)
        parts.append(prevalence_auroc(clusters, made.index, how.findings, 200, seed).assign(k=count))
    return _named(pd.concat(parts, ignore_index=True), "finding", "k")


def _pixels(images: np.ndarray, side: int = 32) -> np.ndarray:
    """The floor: images as they are, averaged to 32 x 32 and flattened."""
    small = [
        recipes.to_network_input(torch.from_numpy(np.array(image))[None, None], side).numpy().ravel()
        for image in images
    ]
    return np.stack(small)


def _histograms(images: np.ndarray, bins: int = 32) -> np.ndarray:
    """The other floor: how often each grey level occurs, and nothing of where."""
    return np.stack([np.bincount(np.array(image).ravel() // (256 // bins), minlength=bins) for image in images]).astype(
        np.float32
    )


def _assigned(clusters: Mapping[int, np.ndarray], index: pd.DataFrame, classes: np.ndarray) -> pd.DataFrame:
    """The cluster of every image; patients by their hash."""
    table = index[["image", "patient_id", "split"]].rename(columns={"patient_id": "patient_hash"})
    table = table.assign(**{"class": classes})
    return table.assign(**{f"cluster_of_{count}": assigned for count, assigned in clusters.items()})


def _shown(alignment: Alignment) -> list[dict[str, Any]]:
    return _rows_of(alignment.table)


def _named(table: pd.DataFrame, *keys: str) -> dict[str, dict[str, Any]]:
    """Rows of a table by what they are about: ``{"encoder, k=6, ami": {...}}``."""
    named = {}
    for row in _rows_of(table):
        name = ", ".join(f"{key}={row[key]}" if key in ("k", "cluster") else str(row[key]) for key in keys)
        named[name] = {key: value for key, value in row.items() if key not in keys}
    return named


def _rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
