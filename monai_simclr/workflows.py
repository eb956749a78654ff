"""What a bundle's config calls that is more than one object: open the archive, finish a run, cluster, evaluate."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

from monai_simclr import recipes
from monai_simclr.data import Store, classes_of, store_of
from monai_simclr.data.loading import StoreDataset
from monai_simclr.embeddings import Embeddings
from monai_simclr.engines import embed
from monai_simclr.evaluation import (
    align_clusters,
    confounder_floor,
    evaluate_clusters,
    knn,
    prevalence_auroc,
    probe_classes,
    probe_findings,
    score_findings,
)
from monai_simclr.files import keyed_hash, write_atomically, write_json
from monai_simclr.handlers import PredictionWriter
from monai_simclr.networks import (
    FindingClassifier,
    SimCLR,
    load_classifier,
    load_encoder,
    save_classifier,
    save_encoder,
)
from monai_simclr.results import closing_line, print_table, write_metrics

__all__ = [
    "cluster",
    "distributed",
    "evaluate",
    "finish_inference",
    "finish_pretraining",
    "finish_training",
    "join_ranks",
    "loader",
    "open_archive",
    "save_executed_config",
    "start_classifier",
]

logger = logging.getLogger("monai_simclr")


def open_archive(dataset_dir: str | Path, store_dir: str | Path, size: int, workers: int = 2) -> Store:
    """The image store of an archive: opened when it is there and fits, built otherwise.

    Args:
        dataset_dir: the archive, anything that `open_index` recognises.
        store_dir: where stores are kept; each archive and size has a folder of its own in it.
        size: side of the network's images in pixels; the store keeps `recipes.stored_size(size)`.
        workers: processes that decode.
    """
    root = Path(dataset_dir).resolve()
    stored = recipes.stored_size(size)
    name = f"{root.name}-{stored}-{hashlib.sha256(str(root).encode()).hexdigest()[:8]}"
    return store_of(root, Path(store_dir) / name, stored, workers=workers)


def loader(dataset: Dataset, sampler: Sampler, batch_size: int, num_workers: int, seed: int) -> DataLoader:
    """Batches of equal size; its own random generator, so that opening it changes no other random number.

    Raises:
        ValueError: if the dataset has fewer images than one batch.
    """
    if len(dataset) < batch_size:  # type: ignore[arg-type]
        raise ValueError(
            f"batch_size is {batch_size}, but there are only {len(dataset)} images; pass --batch_size "  # type: ignore[arg-type]
            f"{len(dataset)} or less"  # type: ignore[arg-type]
        )
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(
        dataset, batch_size, sampler=sampler, num_workers=num_workers, drop_last=True, generator=generator,
        persistent_workers=num_workers > 0, pin_memory=torch.cuda.is_available(),
    )  # fmt: skip


def save_executed_config(output_dir: str | Path) -> Path | None:
    """Write the config of the running bundle, overrides included, to ``output_dir/config.json``.

    MONAI gives a config's expressions no way to the parser that evaluates them, so the parser is taken from the frames
    that
    called us; outside a bundle run there is none and nothing is written.
    """
    from monai.bundle import ConfigWorkflow

    frame = sys._getframe()
    while frame is not None:
        workflow = frame.f_locals.get("self")
        if isinstance(workflow, ConfigWorkflow):
            path = Path(output_dir) / "config.json"
            write_json(path, workflow.parser.config, default=str)
            return path
        frame = frame.f_back  # type: ignore[assignment]
    return None


def join_ranks(device: torch.device) -> None:
    """Join the processes that torchrun started: nccl on GPUs, gloo on CPUs."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")


def distributed(network: nn.Module, device: torch.device) -> nn.Module:
    """A network for several ranks: batch statistics over all of them (GPUs only), gradients averaged."""
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if device.type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return nn.parallel.DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)


def start_classifier(
    network: FindingClassifier, encoder_path: str | Path, pretrained: bool, device: torch.device
) -> FindingClassifier:
    """A classifier ready for training: its encoder as pretraining left it, or from scratch."""
    if pretrained:
        network.encoder.load_state_dict(load_encoder(encoder_path).state_dict())
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def finish_pretraining(
    network: nn.Module,
    path: str | Path,
    store: Store,
    dataset: StoreDataset,
    encoder_name: Mapping[str, Any],
    size: int,
    seed: int,
    history: Sequence[Mapping[str, float]],
    monitor: Sequence[Mapping[str, float]],
    output_dir: str | Path,
) -> None:
    """Leave the encoder with what it is and whom it saw, the metrics, and a closing line (on the first rank)."""
    if torch.distributed.is_initialized() and torch.distributed.get_rank():
        return
    model: SimCLR = getattr(network, "module", network)  # type: ignore[arg-type]
    patients = {str(store.index["patient_id"].iloc[record["row"]]) for record in dataset.data}
    key = secrets.token_hex(8)
    header = {
        **{name: str(value) for name, value in encoder_name.items()},
        "size": str(size),
        "seed": str(seed),
        "patients_key": key,
        "patients_seen": json.dumps(sorted(keyed_hash(key, patient) for patient in patients)),
    }
    save_encoder(path, model.encoder, header)
    values = {"loss": history[-1]["loss"], "images_per_second": history[-1]["images_per_second"], **monitor[-1]}
    n = {"images": len(dataset), "patients": len(patients), "rejected": len(store.rejected), "epochs": len(history)}
    made = write_metrics(
        output_dir, values, command="pretrain", split="+".join(dataset.splits), seed=seed, n=n,
        baselines={"top1": {"chance": monitor[-1]["chance"]}},
    )  # fmt: skip
    write_json(Path(output_dir) / "history.json", _joined(history, monitor))
    logger.info(closing_line([Path(path), made], "run configs/cluster.json and configs/train.json next"))


def cluster(
    store: Store,
    encoder: nn.Module,
    random_encoder: nn.Module,
    findings: Sequence[str],
    size: int,
    k: Sequence[int],
    n_bootstrap: int,
    seed: int,
    device: torch.device,
    output_dir: str | Path,
) -> None:
    """What an encoder has learned, on held-out patients, beside raw pixels and the same encoder with random weights.

    Writes ``embeddings.npz``, ``clusters.csv`` and ``metrics.json`` to `output_dir`.
    """
    finish = functools.partial(recipes.finish, size=size)
    made = Embeddings(embed(encoder, store.images, finish, device), store.index, {"size": str(size)})
    made.save(Path(output_dir) / "embeddings.npz")
    references = {
        "raw pixels": _pixels(store.images),
        "random encoder": embed(random_encoder, store.images, finish, device),
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
    _write_clusters(report.clusters, store, classes, Path(output_dir) / "clusters.csv")
    path = write_metrics(output_dir, values, command="cluster", split="test", seed=seed, n=report.n)
    for line in (*report.lines(), alignment.sentence):
        logger.info(line)
    logger.info(closing_line([Path(output_dir) / "embeddings.npz", path], "run configs/train.json next"))


def finish_training(
    network: FindingClassifier,
    path: str | Path,
    store: Store,
    rows: np.ndarray,
    size: int,
    device: torch.device,
    seed: int,
    label_fraction: float,
    draw: int,
    arm: str,
    history: Sequence[Mapping[str, float]],
    output_dir: str | Path,
) -> None:
    """Leave the classifier, its scores on held-out patients beside the confounder floor, and a closing line."""
    save_classifier(path, network)
    patients = store.index["patient_id"].iloc[rows].nunique()
    n = {"labelled_images": len(rows), "labelled_patients": int(patients)}
    settings = {"label_fraction": label_fraction, "draw": draw, "arm": arm}
    made = _score(network, store, size, device, seed, "test", "train", n, settings, history, output_dir)
    logger.info(closing_line([Path(path), made], "run configs/inference.json on new images next"))


def evaluate(
    network: FindingClassifier,
    path: str | Path,
    store: Store,
    size: int,
    device: torch.device,
    seed: int,
    split: str,
    output_dir: str | Path,
) -> None:
    """Score a trained classifier on a split, beside the confounder floor."""
    classifier = load_classifier(network, path, device)
    made = _score(classifier, store, size, device, seed, split, "evaluate", {}, {}, [], output_dir)
    logger.info(closing_line([made], "run configs/inference.json on new images next"))


def finish_inference(writer: PredictionWriter, path: str | Path, seed: int, output_dir: str | Path) -> None:
    """Count what was predicted and what was refused, and say where it is."""
    counts = {"files": len(writer.rows), "predicted": writer.predicted, "refused": len(writer.rows) - writer.predicted}
    made = write_metrics(output_dir, counts, command="inference", split="", seed=seed, n=counts)
    logger.info(
        f"{counts['predicted']} of {counts['files']} files have predictions, {counts['refused']} a reason instead"
    )
    logger.info(closing_line([writer.path, made], "read the model card's limits: not for diagnosis"))


def _score(
    network: FindingClassifier,
    store: Store,
    size: int,
    device: torch.device,
    seed: int,
    split: str,
    command: str,
    n: Mapping[str, int],
    settings: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
    output_dir: str | Path,
) -> Path:
    """Score a classifier on the images of a split; write scores.npz (for paired comparisons) and metrics.json."""
    findings = network.findings
    chosen = np.flatnonzero((store.index["split"] == split).to_numpy())
    if not len(chosen):
        raise ValueError(f"no image is in the split {split!r}; the index has {sorted(set(store.index['split']))}")
    index = store.index.iloc[chosen].reset_index(drop=True)
    logits = embed(network, store.images[chosen], functools.partial(recipes.finish, size=size), device)
    labels = index[list(findings)].to_numpy(dtype=float)
    patients = index["patient_id"].to_numpy(dtype=str)
    table = score_findings(labels, logits, patients, findings, seed=seed)
    with write_atomically(Path(output_dir) / "scores.npz") as part, open(part, "wb") as file:
        np.savez(file, scores=logits, labels=labels, patients=patients, findings=np.array(findings))
    floor = confounder_floor(store.index, findings, seed=seed).to_dict("records") if split == "test" else []
    shown = table[["finding", "n", "positives", "auroc", "low", "high", "auprc"]]
    print_table(_rows_of(shown), title=f"AUROC on the split {split!r} (confounder floor in metrics.json)")
    values = {"findings": {row["finding"]: row for row in table.to_dict("records")}, **settings}
    counts = {"images": len(chosen), "patients": len(set(patients)), **n}
    return write_metrics(
        output_dir, values, command=command, split=split, seed=seed, n=counts,
        baselines={"chance": 0.5, "confounder_floor": floor}
    )  # fmt: skip


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


def _joined(first: Sequence[Mapping[str, float]], second: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    return [{**one, **other} for one, other in zip(first, second, strict=True)]
