"""What an encoder has learned: clusters, neighbors and probes, with their baselines."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from monai_simclr import evaluation, recipes
from monai_simclr.data import Store, image_classes
from monai_simclr.data.pseudonyms import index_for_outputs
from monai_simclr.engines import embed, embed_spread
from monai_simclr.evaluation import Embeddings
from monai_simclr.evaluation.classes import class_rows
from monai_simclr.evaluation.clusterers import AUTO, COMPARED
from monai_simclr.runtime.cluster import check_engine, open_executor
from monai_simclr.runtime.metrics import closing_line, nest_rows, print_table, table_rows, write_metrics
from monai_simclr.runtime.tables import write_table
from monai_simclr.workflows.run import Run
from monai_simclr.workflows.seen import check_encoder

logger = logging.getLogger("monai_simclr")

CANDIDATES = (2, 3, 4, 5, 6, 8, 10, 14, 20)
_CURVE = (2, 5, 14, 50)
"""Numbers of clusters whose prevalence is scored; more clusters score higher by their number alone."""


@dataclass(frozen=True)
class Clustering:
    """How clusters are fitted and scored.

    Attributes:
        findings: columns of the index.
        n_clusters: numbers of clusters besides the number of classes; "auto" adds the one that `choose_clusters`
            picks without labels.
        method: a key of `clusterers.METHODS`; "auto" for the one that `choose_clusters` picks without labels.
        join_sides: make one of clusters that are each other's mirror image.
        remove: columns of the index whose part in the features is taken out for a second table of what clusters follow.
        n_seeds: fits whose spread is reported.
        n_bootstrap: resamples of test patients.
        allow_seen_patients: score patients even if they were seen in pretraining.
        engine: what spreads the embedding, see `monai_simclr.runtime.cluster.open_executor`; "" embeds in this process.
        workers: processes of the engine "processes".

    Raises:
        SettingError: if there is no such engine.
    """

    findings: Sequence[str]
    n_clusters: Sequence[int | str] = ("auto",)
    method: str = AUTO
    join_sides: bool = True
    remove: Sequence[str] = ("view_position", "source")
    n_seeds: int = 5
    n_bootstrap: int = 1000
    allow_seen_patients: bool = False
    engine: str = ""
    workers: int = 2

    def __post_init__(self) -> None:
        check_engine(self.engine)


def cluster(
    run: Run, store: Store, encoder: nn.Module, random_encoder: nn.Module, encoder_path: str | Path, options: Clustering
) -> None:
    """Cluster and probe an encoder's embeddings on held-out patients, next to raw pixels, histograms, random weights.

    Writes ``embeddings.npz``, ``clusters.csv``, ``metrics.json`` and tables to the run's folder.

    Args:
        run: settings of the run.
        store: the archive's images.
        encoder: to evaluate.
        random_encoder: the same network with random weights.
        encoder_path: the file of `encoder`, whose header has the patients seen in pretraining.
        options: of the clustering.

    Raises:
        ValueError: if the index has no train or no test images, or a test patient was seen in pretraining, unless
            `options` allow it.
    """
    index, seed, n_bootstrap = store.index, run.seed, options.n_bootstrap
    train, test = ((index["split"] == name).to_numpy() for name in ("train", "test"))
    if absent := " and no ".join(name for name, rows in (("train", train), ("test", test)) if not rows.any()):
        raise ValueError(
            f"the index has no {absent} images, and clusters are fitted on train and scored on test patients; its "
            f"splits are {sorted(set(index['split']))}: write an index with splits (monai-simclr index FOLDER --split "
            "-o index.csv) and pass it as --dataset_dir"
        )
    classes = image_classes(index)
    class_rows(Embeddings(np.zeros((len(index), 1)), index), {}, classes)  # refuses now what it would refuse later
    seen = check_encoder(encoder_path, index["patient_id"].to_numpy()[test], options.allow_seen_patients)
    embeddings, references, mirrored = embed_with_references(run, store, encoder, random_encoder, options)
    public_index = index_for_outputs(store)
    Embeddings(embeddings.features, public_index, embeddings.source).save(run.path("embeddings.npz"))
    method, chosen, curve = evaluation.choose_clusters(
        embeddings.features,
        train,
        index["patient_id"].to_numpy(),
        CANDIDATES,
        COMPARED if options.method == AUTO else [options.method],
        mirrored=mirrored.get("encoder"),
        n_resamples=5,
        seed=seed,
    )
    n_classes = len(set(classes[train & (classes != "")]))
    counts = [n_classes, *(chosen if count == "auto" else int(count) for count in options.n_clusters)]
    report = evaluation.evaluate_clusters(
        embeddings,
        references,
        classes,
        counts,
        seed,
        n_bootstrap,
        method=method,
        n_seeds=options.n_seeds,
        mirrored=mirrored,
    )
    largest, test_index = report.clusters[max(counts)], index[test].reset_index(drop=True)
    alignment = evaluation.align_clusters(largest[test], test_index, options.findings)
    probe = evaluation.probe_classes(embeddings, references, classes, n_bootstrap, seed=seed)
    probed = evaluation.probe_findings(embeddings, options.findings, None, n_bootstrap, seed)
    remove = [column for column in options.remove if column in index]
    follows = evaluation.score_alignment(
        embeddings, references, options.findings, max(counts), remove, method, seed, mirrored=mirrored
    )
    nearest = evaluation.knn_findings(embeddings, options.findings, 20, n_bootstrap, seed)
    tables = {
        "clusters": public_index[["image", "patient_id", "split"]]
        .rename(columns={"patient_id": "patient_hash"})
        .assign(**{"class": classes}, **{f"cluster_of_{count}": own for count, own in report.clusters.items()}),
        "n_clusters": curve,
        "alignment": alignment.table,
        "follows": follows,
        "enrichment": evaluation.enrich(largest[test], test_index, options.findings),
        "outliers": evaluation.find_outliers(embeddings),
        "label_errors": evaluation.find_label_errors(embeddings, options.findings),
        "copies_between_splits": evaluation.find_copies(embeddings),
    }
    for name, table in tables.items():
        write_table(table.drop(columns=["patient_id", "copy_patient_id"], errors="ignore"), run.path(f"{name}.csv"))
    values = {
        "clusters": report.to_dict(),
        "n_clusters": {"chosen": chosen, "method": method, "curve": nest_rows(curve, "method", "n_clusters")},
        "knn": nest_rows(evaluation.knn(embeddings, references, classes, 20, n_bootstrap, seed=seed), "features"),
        "knn_findings": nest_rows(nearest, "finding"),
        "probe_classes": nest_rows(probe, "features"),
        "probe_findings": nest_rows(probed.table, "finding"),
        "prevalence": nest_rows(
            _prevalence(embeddings, largest, max(counts), method, mirrored.get("encoder"), options, seed),
            "finding",
            "n_clusters",
        ),
        "alignment": {"sentence": alignment.sentence, **nest_rows(alignment.table, "what")},
        "follows": nest_rows(follows, "removed", "features", "what"),
        "enrichment": nest_rows(tables["enrichment"].head(20), "cluster", "finding"),
    }
    n = {**report.n, "seen_patients": seen}
    metrics = write_metrics(run.output_dir, values, command="cluster", split="test", seed=seed, n=n)
    print_table(alignment.table, title=alignment.sentence)
    if copies := len(tables["copies_between_splits"]):
        logger.warning(f"{copies} test images have a copy in another split: see copies_between_splits.csv")
    upper = f"upper bound, a linear probe with all train labels: {evaluation.format_score(table_rows(probe)[0])}"
    how = f"method {method}, {chosen} clusters: chosen without labels, by the clusters that come back"
    for line in [how, *report.lines(), upper, alignment.sentence]:
        logger.info(line)
    logger.info(closing_line([run.path("embeddings.npz"), metrics], "run configs/train.json"))


def embed_with_references(
    run: Run, store: Store, encoder: nn.Module, random_encoder: nn.Module, options: Clustering
) -> tuple[Embeddings, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Embeddings of the archive, what they are compared with, and all of these for the mirrored images by their names.

    The last is empty unless sides are joined; a histogram has no sides.
    """
    finish = functools.partial(recipes.to_network_input, size=run.size)
    mirror = functools.partial(_mirrored_input, size=run.size)

    def embed_all(network: nn.Module, finish: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
        if executor is None or store.folder is None:
            return embed(network, store.images, finish, run.device)
        return embed_spread(network, store.folder / "images.npy", finish, run.output_dir, executor, device=run.device)

    mirrored = {}
    with open_executor(options.engine, max(1, options.workers)) if options.engine else nullcontext() as executor:
        features, random = embed_all(encoder, finish), embed_all(random_encoder, finish)
        if options.join_sides:
            mirrored = {"encoder": embed_all(encoder, mirror), "random encoder": embed_all(random_encoder, mirror)}
    small, levels = [], []
    for image in map(np.array, store.images):  # one at a time: the store may be larger than memory
        small.append(recipes.to_network_input(torch.from_numpy(image)[None, None], 32).numpy()[0, 0])
        levels.append(np.bincount(image.ravel() // 8, minlength=32))
    pixels = np.stack(small)
    references = {
        "raw pixels": pixels.reshape(len(pixels), -1),
        "grey histogram": np.stack(levels).astype(np.float32),
        "random encoder": random,
    }
    if options.join_sides:
        mirrored["raw pixels"] = pixels[:, :, ::-1].reshape(len(pixels), -1)
    return Embeddings(features, store.index, {"size": str(run.size)}), references, mirrored


def _mirrored_input(images: torch.Tensor, size: int) -> torch.Tensor:
    return recipes.to_network_input(images.flip(-1), size)


def _prevalence(
    embeddings: Embeddings,
    clusters: np.ndarray,
    n_clusters: int,
    method: str,
    mirrored: np.ndarray | None,
    options: Clustering,
    seed: int,
) -> pd.DataFrame:
    """Cluster prevalence as a score of every finding, for these clusters with all resamples and for others with few."""
    train = (embeddings.index["split"] == "train").to_numpy()
    fitted = {n_clusters: (clusters, options.n_bootstrap)}
    for count in (count for count in _CURVE if count < train.sum() and count != n_clusters):
        own = evaluation.fit_clusters(embeddings.features, train, count, seed, 3, method, mirrored)
        fitted[count] = own, 200
    parts = [
        evaluation.prevalence_auroc(own, embeddings.index, options.findings, n, seed).assign(n_clusters=count)
        for count, (own, n) in fitted.items()
    ]
    return pd.concat(parts, ignore_index=True)
