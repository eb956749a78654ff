"""What clusters of NIH radiographs follow: findings, or view, sex and age; before and after the view is taken out.

    python benchmarks/real_pack.py ../shared IDX
    python benchmarks/clusters.py IDX OUT ENCODER [--split val] [--size 96]

Clusters of the films of nih128 are fitted on train patients without labels, by the method and the number that
`choose_clusters` chooses, and by twenty clusters of that method and of k-means; they are compared with each finding and
fact of the acquisition on patients kept apart (test; `--split val` for everything that is tried), with raw pixels, grey
histograms and random weights as floors. To `results/clusters_SPLIT.json`; the image store stays in OUT.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import RESULTS, save

from monai_simclr import recipes
from monai_simclr.data import Store, finding_columns, get_store
from monai_simclr.evaluation import choose_clusters, score_alignment
from monai_simclr.networks import encoder, load_encoder
from monai_simclr.networks.weights import encoder_header
from monai_simclr.runtime.metrics import nest_rows, plain
from monai_simclr.workflows import Clustering, Run
from monai_simclr.workflows.clustering import CANDIDATES, embed_with_references

REMOVE = ("view_position", "source")


def scored_part(store: Store, split: str) -> Store:
    """Train and the patients that are scored, who are called test."""
    rows = np.flatnonzero(store.index["split"].isin(["train", split]))
    index = store.index.iloc[rows].reset_index(drop=True)
    index = index.assign(split=index["split"].replace({split: "test"}))
    return dataclasses.replace(store, images=store.images[rows], index=index, folder=None)


def main(idx: Path, out: Path, file: Path, split: str, size: int) -> None:
    """Embed, choose, score and write."""
    torch.set_num_threads(1)
    store = scored_part(get_store(idx / "nih128", out / "store", recipes.stored_size(size), workers=1), split)
    findings, header = finding_columns(store.index), encoder_header(file)
    torch.manual_seed(0)
    random = encoder(header["name"], float(header["width"]), header.get("norm", "batch"))  # type: ignore[arg-type]
    run, options = Run(str(out), size=size, seed=0, device="cpu"), Clustering(findings)
    embeddings, references, mirrored = embed_with_references(run, store, load_encoder(file), random, options)
    train, patients = (store.index["split"] == "train").to_numpy(), store.index["patient_id"].to_numpy()
    method, number, curve = choose_clusters(
        embeddings.features, train, patients, CANDIDATES, mirrored=mirrored["encoder"], n_resamples=5
    )
    print(curve.round(3).to_string(), flush=True)
    follows: dict[str, Any] = {}
    for how, count in dict.fromkeys([(method, number), (method, 20), ("kmeans", 20)]):
        table = score_alignment(embeddings, references, findings, count, REMOVE, how, mirrored=mirrored)
        follows[f"{how}, {count} clusters"] = plain(nest_rows(table, "removed", "features", "what"))
        print(f"{how}, {count} clusters\n{table.round(3).to_string()}", flush=True)
    save(
        RESULTS / f"clusters_{split}.json",
        ("torch", "monai", "scikit-learn"),
        encoder={"file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "size": size},
        split=split,
        images={name: int((store.index["split"] == name).sum()) for name in ("train", "test")},
        patients={
            name: int(store.index.loc[store.index["split"] == name, "patient_id"].nunique())
            for name in ("train", "test")
        },
        chosen={"method": method, "n_clusters": number},
        choice=plain(nest_rows(curve, "method", "n_clusters")),
        follows=follows,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for name in ("idx", "out", "encoder"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--split", default="test", choices=["val", "test"])
    parser.add_argument("--size", type=int, default=96)
    given = parser.parse_args()
    main(given.idx, given.out, given.encoder, given.split, given.size)
