"""What spreading costs: an image store by a loop, by our processes and by a Dask cluster, on equal work.

    python benchmarks/spread.py [RESULT.json]

2,000 PNG of 512 x 512 pixels and 200 JPEG 2000 (DICOM, 16 bits, lossless) of 768 x 768, drawn phantoms, to stores of
64 x 64; the decoders' files are in the page cache. Two workers; the Dask cluster is a scheduler and two workers as
processes on this machine. CPU time is that of all processes from the call to its end: ours include their start; Dask's
scheduler and workers run already, their decoding processes do not. "idle" is what Dask's three processes take in 10 s
without work, with its own settings and with those of docs/how-to/at-scale.md, which all rows of Dask have. The engines
take turns, 3 rounds, medians; `cpu_of_loop` is the median of the rounds' own ratios, since the load of the machine
changes between rounds more than within one.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import numpy as np
import pandas as pd
import psutil
import pydicom
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless
from record import RESULTS, save

from monai_simclr.data import StoreOptions, build_store
from monai_simclr.data.phantoms import draw_phantom, write_dicom_phantoms

KINDS = {"PNG": (2000, 512), "JPEG 2000": (200, 768)}
SIZE, ROUNDS, PICTURES = 64, 3, 20
QUIET = {"DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "1s", "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "false"}


def write_archive(folder: Path, kind: str) -> pd.DataFrame:
    """An index of files, of `PICTURES` pictures in turn."""
    folder.mkdir()
    files, side = KINDS[kind]
    pictures = [encode(draw_phantom(1 + n, 0, side).pixels, kind) for n in range(PICTURES)]
    images = [str(folder / f"{n:05d}") for n in range(files)]
    for number, image in enumerate(images):
        Path(image).write_bytes(pictures[number % PICTURES])
    columns = dict.fromkeys(["study_id", "view_position", "sex", "split"], "")
    return pd.DataFrame({"image": images, "patient_id": [str(n) for n in range(files)], **columns, "age": np.nan})


def encode(pixels: np.ndarray, kind: str) -> bytes:
    """A picture with values in [0, 1] as the content of a file."""
    if kind == "PNG":
        return bytes(cv2.imencode(".png", np.rint(pixels * 255).astype(np.uint8))[1])
    with tempfile.TemporaryDirectory() as scratch:
        file = next(write_dicom_phantoms(Path(scratch) / "one", n_patients=1).rglob("*.dcm"))
        dataset = pydicom.dcmread(file)
    noise = np.random.default_rng(0).normal(0, 8, pixels.shape)  # of a detector, which no codec makes small
    values = np.clip(np.rint(pixels * 4000 + 48 + noise), 0, 4095).astype(np.uint16)
    dataset.Rows, dataset.Columns = values.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.PixelData = values.tobytes()
    dataset.compress(JPEG2000Lossless, encoding_plugin="pylibjpeg")
    content = BytesIO()
    dataset.save_as(content, enforce_file_format=True)
    return content.getvalue()


@contextmanager
def dask_cluster(settings: dict[str, str]) -> Iterator[str]:
    """The `engine` of a cluster of two workers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, **settings}
    place = [f"tcp://127.0.0.1:{port}", "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    commands = [["scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]]
    commands += [["worker", *place, "--local-directory", tempfile.gettempdir()]] * 2
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.dask_{kind}", *words], env=environment, stderr=subprocess.DEVNULL
        )
        for kind, *words in commands
    ]
    time.sleep(8)
    try:
        yield f"dask://127.0.0.1:{port}"
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()


def cpu_seconds() -> float:
    """Of this process, of its children that ended, and of all that run below it."""
    own = psutil.Process()
    total = sum(own.cpu_times()[:4])
    for child in own.children(recursive=True):
        total += sum(child.cpu_times()[:4])
    return total


def build(index: pd.DataFrame, folder: Path, workers: int, engine: str) -> dict[str, float]:
    started, cpu = time.perf_counter(), cpu_seconds()
    build_store(index, folder, SIZE, workers, options=StoreOptions(engine=engine, progress=lambda *_: None))
    return {"seconds": time.perf_counter() - started, "cpu_seconds": cpu_seconds() - cpu}


def compare(folder: Path, kind: str) -> dict[str, dict[str, float]]:
    """Medians of every engine, with the CPU time as a multiple of the loop's."""
    folder.mkdir()
    index = write_archive(folder / "files", kind)
    found: dict[str, list[dict[str, float]]] = {"loop": [], "processes": [], "dask": []}
    build(index.head(50), folder / "warm", 0, "processes")
    for number in range(ROUNDS):
        found["loop"].append(build(index, folder / f"loop{number}", 0, "processes"))
        found["processes"].append(build(index, folder / f"processes{number}", 2, "processes"))
        with dask_cluster(QUIET) as engine:  # a new one a round: its decoding processes start in the round
            found["dask"].append(build(index, folder / f"dask{number}", 2, engine))
        for name, runs in found.items():
            runs[-1]["cpu_of_loop"] = runs[-1]["cpu_seconds"] / found["loop"][-1]["cpu_seconds"]
            print(f"{kind}, round {number + 1}, {name}: {runs[-1]}", flush=True)
    images = {name: (folder / f"{name}0" / "images.npy").read_bytes() for name in found}
    assert images["loop"] == images["processes"] == images["dask"], "the engines make different bytes"
    return {name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in found.items()}


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS / "spread.json"
    idle = {}
    for name, settings in {"own settings": {}, "quiet": QUIET}.items():
        with dask_cluster(settings):
            cpu = cpu_seconds()
            time.sleep(10)
            idle[name] = cpu_seconds() - cpu
    with tempfile.TemporaryDirectory() as scratch:
        engines = {kind: compare(Path(scratch) / str(number), kind) for number, kind in enumerate(KINDS)}
    save(
        path,
        ("monai-simclr", "opencv-python-headless", "numpy", "pydicom", "pylibjpeg-openjpeg", "distributed"),
        files={kind: {"files": files, "side": side} for kind, (files, side) in KINDS.items()},
        size=SIZE,
        rounds=ROUNDS,
        load_average=os.getloadavg(),
        idle_cpu_seconds_in_10=idle,
        engines=engines,
    )


if __name__ == "__main__":
    main()
