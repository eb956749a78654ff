"""Core-hours, hours and price for millions of radiographs, from the measured images per second and a stated price.

    python benchmarks/at_scale.py [--price 0.05] [--cores 100]
    python benchmarks/at_scale.py --memory ROWS

Prints a Markdown table. `price` is of one core for one hour, in any currency: look up your own. One process a core, the
time of starting (about ten seconds a process) and of waiting for the network file system left out.

`--memory` writes results/at_scale.json: the memory of a training process, measured in a process of its own that opens a
store of ROWS rows (and one of half as many), makes the data set, its fingerprint, the sampler's order and a batch, as
pretrain.json does; and what it takes at 100 million rows, on the line through both. `before` is what the imports take,
`peak` the largest sum of what is allocated after them (tracemalloc), `held` what is left. Pixels are mapped: pages that
all processes share and the system takes back when it needs room; a network and its batch come on top.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

RESULT = Path(__file__).resolve().parent / "results" / "inference.json"
COUNTS = (1, 10, 100)
HEAD = "| work, files | images/s a core | millions | core-hours | hours on {cores} cores | price, {price} a core-hour |"


def table(result: dict[str, Any], price: float, cores: int) -> list[str]:
    """Lines of the table.

    Args:
        result: content of ``inference.json``.
        price: of a core-hour.
        cores: that work at the same time.

    Example:
        >>> table({"workflow": {"PNG": {"images_per_second": 10.0}}, "store": {}}, 0.05, 100)[2]
        '| inference, PNG | 10 | 1 | 28 | 0.28 | 1.4 |'
    """
    rates = [(f"inference, {kind}", one["images_per_second"]) for kind, one in result["workflow"].items()]
    rates += [(f"store, {kind}", one["images_per_cpu_second"]) for kind, one in result["store"].items()]
    lines = [HEAD.format(cores=cores, price=f"{price:g}"), "|---" * 6 + "|"]
    for name, rate in rates:
        for millions in COUNTS:
            hours = millions * 1e6 / rate / 3600
            cells = [_short(rate), str(millions), _short(hours), _short(hours / cores), _short(hours * price)]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def write_store(folder: Path, rows: int) -> None:
    """A store of three images a patient, its tables as a build writes them; its pixels are a hole in the file."""
    import numpy as np

    from monai_simclr.data.store.rows import text_keys
    from monai_simclr.runtime.artefacts import write_sealed_json

    keys = np.random.default_rng(0).integers(0, 2**63, rows, dtype=np.uint64)
    columns = {"image": keys, "patient_id": np.repeat(keys, 3)[:rows], "split": text_keys(["train"]).repeat(rows)}
    crcs = np.full(rows, 0x758D6336, dtype=np.uint32)  # of 64 zeros
    none = {"labels": np.zeros((rows, 0), dtype=np.float32), "findings": np.array([], dtype=str)}
    np.savez(folder / "rows.npz", **columns, **none, pixels=crcs)
    with open(folder / "index.csv", "w", encoding="utf-8") as file:
        file.write("image,patient_id,study_id,view_position,sex,age,split\n")
        block = "".join(f"/archive/{n:06d}/{n:09d}.png,{n // 3:08d},{n:08d},PA,M,50.0,train\n" for n in range(1000))
        file.writelines(block for _ in range(rows // 1000))  # its bytes are compared, its rows are not read
    (folder / "rejected.csv").write_text("image,reason\n")
    (folder / "sources.csv").write_text("image,bytes,modified,sha256,pixels\n")
    np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (rows, 8, 8))
    sums = {}
    for path in folder.iterdir():
        with open(path, "rb") as content:
            sums[path.name] = hashlib.file_digest(content, "sha256").hexdigest()
    counts = {"images": rows, "rejected": 0, "size": 8}
    write_sealed_json(folder / "provenance.json", {"format": 2, **counts, "versions": {}, "index": "", "sha256": sums})


def train_once(folder: str) -> None:
    """In a process of its own: what a training process holds of its data, in MB on stdout, as JSON."""
    from record import private_megabytes

    from monai_simclr.data import KeyedSampler, StoreDataset, loader, open_store
    from monai_simclr.transforms import MultiViewd  # noqa: F401 (imported by training too)
    from monai_simclr.workflows import contrastive_trainer  # noqa: F401

    before = private_megabytes()
    tracemalloc.start()
    dataset = StoreDataset(open_store(folder), ["train", "val", ""], seed=3, replace_damaged=True)
    print(dataset.fingerprint, file=sys.stderr)
    batches = iter(loader(dataset, KeyedSampler(dataset, 3), 256, 0, 3, fewest=2))
    next(batches)
    peak, held = tracemalloc.get_traced_memory()[1] / 2**20, private_megabytes() - before
    print(json.dumps({"before_megabytes": before, "peak_megabytes": peak, "held_megabytes": held}))


def measure_memory(rows: int) -> None:
    """Write results/at_scale.json."""
    from record import RESULTS, save

    found = {}
    for count in (rows // 2, rows):
        with tempfile.TemporaryDirectory() as folder:
            write_store(Path(folder), count)
            command = [sys.executable, __file__, "--train-once", folder]
            found[count] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(count, found[count], flush=True)
    few, many = found[rows // 2], found[rows]
    slope = (many["peak_megabytes"] - few["peak_megabytes"]) / (rows - rows // 2)
    at_100_million = many["before_megabytes"] + many["peak_megabytes"] + slope * (1e8 - rows)
    save(
        RESULTS / "at_scale.json",
        ("monai-simclr", "numpy", "pandas", "torch"),
        training_process={str(count): facts for count, facts in found.items()},
        bytes_a_row=slope * 2**20,
        gigabytes_at_100_million=at_100_million / 1024,
    )


def _short(number: float) -> str:
    """Two digits that count."""
    return f"{float(f'{number:.2g}'):,g}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--price", type=float, default=0.05)
    parser.add_argument("--cores", type=int, default=100)
    parser.add_argument("--memory", type=int, metavar="ROWS")
    parser.add_argument("--train-once", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train_once:
        train_once(options.train_once)
    elif options.memory:
        measure_memory(options.memory)
    else:
        print("\n".join(table(json.loads(RESULT.read_text()), options.price, options.cores)))
