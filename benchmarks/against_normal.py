"""Findings against films without any finding, on test patients: linear probes on the encoder that ships, and floors.

    python benchmarks/real_pack.py ../shared IDX
    python benchmarks/imagenet.py IDX IMAGENET.npy
    python benchmarks/against_normal.py IDX OUT ../shared/nih128/manifest.csv IMAGENET.npy

The other question of `protocol.md`: a film with another finding is left out, which is easier than telling a finding
from all other films, and less like a hospital. The macro mean is of the six main findings; Consolidation and Edema are
secondary. Probes, draws and baselines are those of `label_efficiency.py`. Writes `results/against_normal.csv`.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from label_efficiency import N_BOOTSTRAP, baselines, of_finding
from real_floor import probe_runs
from real_pack import MAIN_FINDINGS
from record import RESULTS

from monai_simclr import recipes
from monai_simclr.data import get_store, open_index
from monai_simclr.engines import embed
from monai_simclr.evaluation import MACRO, compare_arms
from monai_simclr.networks import encoder, load_encoder
from monai_simclr.runtime.tables import write_table

SECONDARY = ("Consolidation", "Edema")
SIZE = 128
"""Pixels, as the encoder ships."""

KEYS = {(1.0, 0), *((fraction, draw) for fraction in (0.02, 0.1) for draw in range(10))}
"""Fractions of the train patients, and draws."""


def main(folder: Path, out: Path, manifest: Path, imagenet: Path) -> None:
    """Write and print the table."""
    torch.set_num_threads(1)
    index, findings = open_index(folder / "nih128_normal"), [*MAIN_FINDINGS, *SECONDARY]
    store = get_store(folder / "nih128", out / "store", recipes.stored_size(SIZE), workers=1)
    if list(store.index["image"]) != list(index["image"]):
        raise ValueError("nih128 and nih128_normal have other films; write both with one run of real_pack.py")
    torch.manual_seed(0)
    networks = {"frozen": load_encoder("chest_xray_resnet18"), "random_frozen": encoder("resnet18", 0.5)}
    finish = functools.partial(recipes.to_network_input, size=SIZE)
    features = {arm: embed(network, store.images, finish) for arm, network in networks.items()}
    runs = probe_runs(index, {**features, **baselines(index, manifest, imagenet)}, findings, KEYS)
    main_runs = [{**run, **{key: run[key][:, : len(MAIN_FINDINGS)] for key in ("scores", "labels")}} for run in runs]
    parts = [compare_arms(main_runs, "imagenet", N_BOOTSTRAP).assign(finding=MACRO)]
    for k, finding in enumerate(findings):
        known = [
            {**run, **{key: run[key][np.isfinite(run["labels"][:, k])] for key in ("scores", "labels", "patients")}}
            for run in runs
        ]
        parts.append(compare_arms(of_finding(known, k), "imagenet", N_BOOTSTRAP).assign(finding=finding))
    table = pd.concat(parts, ignore_index=True).round(4)
    write_table(table, RESULTS / "against_normal.csv")
    print(table[["finding", "fraction", "arm", "draws", "mean", "mean_low", "mean_high"]].to_string(index=False))


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
