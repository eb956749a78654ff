"""Inference: runtimes of the network side by side, the whole way from files to rows by stages, and the image store.

    python benchmarks/inference.py [RESULT.json]

runtimes   ResNet-18 of full width, 224 x 224 pixels, float32, random weights: PyTorch, its TorchScript file, its ONNX
           file in ONNX Runtime; one image and 16 at a time, interleaved; one thread (CPU time) and two (wall-clock
           time); median and 95th percentile of the calls. Beside it what the core can do: multiply-adds of the network,
           and of a product of matrices a second.
workflow   `workflows.infer` with the bundle's config: files of one kind to rows of predictions.csv, one process, one
           thread, no workers, batches of 16. CPU seconds by stage: "decode" is file to network input with the header
           and the check for a chest, "network", "writing" is the journal with its fsync and the tables; "rest" is what
           is left. Overlays (Grad-CAM and its PNG) are measured apart: they are made of positive images only, and on
           request.
end to end the same by `--runtime torch`, `onnx` and `int8` over PNG, interleaved, of that network and of the one that
           ships (half the width, 128 x 128 pixels): images per second of CPU time, one thread, starting and tables
           left out; medians of the rounds, and milliseconds an image of decoding and of the network in the same rounds.
store      `build_store` of the same files, one process in the caller (CPU time) to 256 x 256 pixels.

It takes four to five minutes of a quiet core.

The images are chest phantoms as DICOM (12 bits, uncompressed) and PNG of 1024 x 1024 pixels, and a real JPEG 2000
radiograph of 1955 x 1841 where the pack of radiographs is there; all in the page cache.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import numpy as np
import onnxruntime
import pandas as pd
import torch
from record import RESULTS, save
from torch.utils.flop_counter import FlopCounterMode

from monai_simclr import recipes
from monai_simclr.data import build_store, get_store
from monai_simclr.data.phantoms import draw_phantom, write_dicom_phantoms, write_nih_phantoms
from monai_simclr.inference import InferenceDataset, Journal, predict, write_inference_config
from monai_simclr.inference.pictures import RowPictures
from monai_simclr.inference.writer import LoadClassifier
from monai_simclr.networks import FindingClassifier, encoder, save_classifier
from monai_simclr.workflows import Run, inference
from monai_simclr.workflows.bundle import copy_bundle
from monai_simclr.workflows.export import export_int8, export_onnx, export_torchscript, trained_classifier
from monai_simclr.workflows.inference_config import make_inference_config

SIDE, FILES, LARGE, SHOWN = 1024, 48, 12, 8
CXR = Path(os.environ.get("MONAI_SIMCLR_CXR", Path(__file__).resolve().parents[2] / "shared" / "cxr"))
FINDINGS = ["Cardiomegaly", "Effusion", "Mass", "Pneumothorax", "Atelectasis"]


NETWORKS = {"ResNet-18, 224 px": (224, 1.0), "ResNet-18 x 0.5, 128 px, as it ships": (128, 0.5)}
"""Size and width of the networks that are run end to end."""


def trained_bundle(folder: Path, size: int = 224, width: float = 1.0) -> Path:
    """The bundle with random weights and a card: speed does not depend on the weights."""
    bundle = copy_bundle(folder / "bundle", FINDINGS, size=size, width=width)
    store = get_store(write_nih_phantoms(folder / "nih", 60, size=128), folder / "store", recipes.stored_size(size), 0)
    torch.manual_seed(0)
    network = FindingClassifier(encoder("resnet18", width), FINDINGS).eval()
    path = save_classifier(bundle / "models" / "model.pt", network)
    card = make_inference_config(Run(str(folder), size, 0, torch.device("cpu")), network, store)
    # everything is positive and nothing is novel: novelty would run the network twice, and flags leave no overlay
    sure = {name: replace(one, threshold=-1e3) for name, one in card.operating.items()}
    write_inference_config(replace(card, operating=sure, novelty=replace(card.novelty, threshold=1e9)), path)
    return bundle


def session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def runtimes(bundle: Path, folder: Path) -> dict[str, Any]:
    """Milliseconds a call, and how far the runtimes are apart."""
    network, _, size = trained_classifier(bundle)
    network.eval()
    onnx, script = bundle / "models" / "model.onnx", folder / "model.ts"
    export_torchscript(bundle, script)
    scripted = torch.jit.load(str(script)).eval()
    result: dict[str, Any] = {
        "largest_difference_of_logits": differences(network, scripted, session(onnx, 1), size),
        "core": what_the_core_can(network, size),
    }
    for threads in (1, 2):
        torch.set_num_threads(threads)
        running = session(onnx, threads)
        for batch in (1, 16):
            images = torch.rand(batch, 1, size, size)
            array = images.numpy()
            calls = {
                "PyTorch": lambda images=images: network(images),
                "TorchScript": lambda images=images: scripted(images),
                "ONNX Runtime": lambda array=array, running=running: running.run(None, {"image": array}),
            }
            result[f"{threads} threads, batch {batch}"] = interleaved(
                calls, batch, 20 if batch == 1 else 5, time.process_time if threads == 1 else time.perf_counter
            )
    torch.set_num_threads(1)
    return result


def what_the_core_can(network: Any, size: int, side: int = 1024) -> dict[str, float]:
    """Multiply-adds of an image, and of a second's products of large matrices: no convolution that multiplies each
    weight by each pixel is faster than their ratio."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 1, size, size))
    one, other, times = torch.rand(side, side), torch.rand(side, side), []
    for _ in range(20):
        start = time.process_time()
        torch.mm(one, other)
        times.append(time.process_time() - start)
    work, rate = counter.get_total_flops() / 2e9, side**3 / min(times) / 1e9
    return {"billion_multiply_adds": work, "billion_a_second": rate, "milliseconds": 1000 * work / rate}


def differences(network: Any, scripted: Any, running: Any, size: int) -> dict[str, float]:
    found: dict[str, float] = defaultdict(float)
    with torch.no_grad():
        for batch in (1, 3, 16):
            images = torch.rand(batch, 1, size, size, generator=torch.Generator().manual_seed(batch))
            expected = network(images).numpy()
            others = {"TorchScript": scripted(images).numpy(), "ONNX": running.run(None, {"image": images.numpy()})[0]}
            for name, logits in others.items():
                found[name] = max(found[name], float(np.abs(logits - expected).max()))
    return dict(found)


def interleaved(
    calls: dict[str, Callable[[], Any]], batch: int, rounds: int, clock: Callable[[], float]
) -> dict[str, dict[str, float]]:
    spent: dict[str, list[float]] = {name: [] for name in calls}
    with torch.no_grad():
        for number in range(rounds + 2):
            for name, call in calls.items():
                start = clock()
                call()
                if number >= 2:
                    spent[name].append(1000 * (clock() - start))
    return {
        name: {
            "median_ms": float(np.median(times)),
            "p95_ms": float(np.percentile(times, 95)),
            "images_per_second": 1000 * batch / float(np.median(times)),
        }
        for name, times in spent.items()
    }


@contextmanager
def timed(clock: Callable[[], float] = time.perf_counter, **places: tuple[Any, str]) -> Iterator[dict[str, float]]:
    """Seconds spent in functions, by stage; each is a place (object, name) that is wrapped while the block runs."""
    seconds: dict[str, float] = defaultdict(float)
    before = [(*place, getattr(*place)) for place in places.values()]

    def wrapped(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = clock()
            try:
                return function(*args, **kwargs)
            finally:
                seconds[stage.split("_")[0]] += clock() - start

        return call

    for (stage, (owner, name)), (*_, function) in zip(places.items(), before, strict=True):
        setattr(owner, name, wrapped(stage, function))
    try:
        yield seconds
    finally:
        for owner, name, function in before:
            setattr(owner, name, function)


def workflow(bundle: Path, files: list[Path], folder: Path) -> dict[str, Any]:
    """CPU seconds of a whole run by stage, after a small run to warm up."""
    predict(files[:8], bundle, folder / "warm")
    whole, seconds = run(bundle, files, folder / "rows", overlays=False)
    shares = {stage: seconds[stage] for stage in ("decode", "network", "writing")}
    return {
        "files": len(files),
        "megabytes_each": files[0].stat().st_size / 1e6,
        "images_per_second": len(files) / whole,
        "seconds": {**shares, "rest": whole - sum(shares.values())},
    }


def run(bundle: Path, files: list[Path], out: Path, overlays: bool) -> tuple[float, dict[str, float]]:
    """CPU seconds of a whole run, without what it takes to start it, and of its stages."""
    stages = {
        "decode": (InferenceDataset, "__getitem__"),
        "network": (FindingClassifier, "forward"),
        "overlay": (RowPictures, "__call__"),
        "writing": (Journal, "append"),
        "writing_tables": (inference, "write_tables"),
        "loading": (LoadClassifier, "__call__"),
    }
    with timed(time.process_time, whole=(inference, "_predict"), last=(inference, "_finish"), **stages) as seconds:
        rows = predict(files, bundle, out, outputs={"overlays": overlays})
    assert (rows["reason"] == "").all()
    return seconds["whole"] + seconds["last"] - seconds["loading"], seconds


def end_to_end(bundle: Path, files: list[Path], folder: Path, rounds: int = 5) -> dict[str, Any]:
    """Images per second of CPU time by runtime, how many times PyTorch's, and milliseconds by stage."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ("torch", "onnx", "int8")}
    stages = {
        "decode": (InferenceDataset, "__getitem__"),
        "network": (FindingClassifier, "forward"),
        "loading": (LoadClassifier, "__call__"),
    }
    for number in range(rounds + 1):
        for runtime, rows in found.items():
            some = files if number else files[:16]
            with timed(time.process_time, whole=(inference, "_predict"), **stages) as seconds:
                predict(some, bundle, folder / f"{runtime}{number}", runtime=runtime)
            seconds["whole"] -= seconds["loading"]
            if number:
                rows.append({stage: 1000 * spent / len(some) for stage, spent in seconds.items()})
    medians = {
        name: {stage: float(np.median([row[stage] for row in rows])) for stage in ("decode", "network", "whole")}
        for name, rows in found.items()
    }
    return {
        name: {
            "milliseconds": stages,
            "images_per_cpu_second": 1000 / stages["whole"],
            "times_torch": float(
                np.median([one["whole"] / row["whole"] for one, row in zip(found["torch"], found[name], strict=True)])
            ),
        }
        for name, stages in medians.items()
    }


def showing(bundle: Path, files: list[Path], folder: Path) -> dict[str, float]:
    """Seconds an overlay; Grad-CAM runs the network forward and back."""
    _, seconds = run(bundle, files, folder / "overlays", overlays=True)
    made = len(list((folder / "overlays" / "overlays").glob("*.png")))
    return {"overlays": made, "seconds_each": seconds["overlay"] / made}


def storing(files: list[Path], folder: Path) -> dict[str, float]:
    """Images per second of CPU time, reading to whole store."""
    columns = dict.fromkeys(["study_id", "view_position", "sex", "split"], "")
    index = pd.DataFrame({"image": list(map(str, files)), "patient_id": list(map(str, range(len(files)))), **columns})
    index["age"] = np.nan
    spent = []
    for _ in range(3):
        shutil.rmtree(folder / "built", ignore_errors=True)
        start = time.process_time()
        build_store(index, folder / "built", 256, 0)
        spent.append(time.process_time() - start)
    return {"images_per_cpu_second": len(files) / float(np.median(spent)), "files": len(files)}


def archives(folder: Path) -> dict[str, list[Path]]:
    """Files of each kind: a few different ones, copied until there are enough."""
    (folder / "png").mkdir(parents=True)
    for n in range(10):
        pixels = np.rint(draw_phantom(n + 1, 0, SIDE).pixels * 255).astype(np.uint8)
        cv2.imwrite(str(folder / "png" / f"{n}.png"), pixels)
    dicom = write_dicom_phantoms(folder / "dicom", n_patients=8, size=SIDE)
    kinds = {
        f"PNG, {SIDE} x {SIDE}": sorted((folder / "png").glob("*.png")),
        f"DICOM uncompressed, {SIDE} x {SIDE}": sorted(dicom.rglob("*.dcm")),
        "DICOM JPEG 2000, 1955 x 1841": [CXR / "dicom" / "RG1_J2KI.dcm"],
    }
    found = {}
    for number, (kind, files) in enumerate(kinds.items()):
        if files[0].is_file():
            count = FILES if len(files) > 1 else LARGE
            (folder / f"many{number}").mkdir()
            copies = [folder / f"many{number}" / f"{n:04d}{files[0].suffix}" for n in range(count)]
            for n, copy in enumerate(copies):
                shutil.copyfile(files[n % len(files)], copy)
            found[kind] = copies
    return found


def main(path: Path) -> None:
    """Measure, print, and store with what it ran on."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    result: dict[str, Any] = {"workflow": {}, "store": {}, "end to end": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kinds = archives(folder)
        for number, (network, (size, width)) in enumerate(NETWORKS.items()):
            place = folder / f"network{number}"
            bundle = trained_bundle(place, size, width)
            export_onnx(bundle, bundle / "models" / "model.onnx")
            export_int8(bundle, bundle / "models" / "model_int8.onnx", place / "nih")
            png = kinds[f"PNG, {SIDE} x {SIDE}"]
            result["end to end"][network] = end_to_end(bundle, png, place)
            print(network, result["end to end"][network], flush=True)
        bundle = folder / "network0" / "bundle"
        result["runtimes"] = runtimes(bundle, folder)
        for number, (kind, files) in enumerate(kinds.items()):
            result["workflow"][kind] = workflow(bundle, files, folder / f"out{number}")
            result["store"][kind] = storing(files, folder / f"out{number}")
        shown = next(files for kind, files in kinds.items() if kind.startswith("DICOM"))[:SHOWN]
        result["overlays"] = showing(bundle, shown, folder)
    result["load"] = {"load_average": os.getloadavg()[1], "cores": os.cpu_count()}
    packages = ("torch", "monai", "monai-simclr", "onnxruntime", "onnx", "numpy", "opencv-python-headless", "pydicom")
    save(path, packages, **result)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS / "inference.json")
