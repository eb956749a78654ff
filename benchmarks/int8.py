"""Is an int8 ONNX file worth shipping? AUROC on held-out patients and speed, against the float32 file it is made of.

    python benchmarks/int8.py NAME=BUNDLE=ARCHIVE ... [RESULT.json]

BUNDLE has a trained classifier, ARCHIVE is what it was trained on. Static quantization of ONNX Runtime (QDQ, signed
weights with a scale a channel, activations signed or not, calibrated on 128 train images) and dynamic quantization;
scored on the test patients, with a bootstrap by patient of the difference; milliseconds on one thread.
"speed of ResNet-18, 224 px" is a network of full width with random weights at 224 pixels: milliseconds only.
The bar (issue 7): AUROC falls by less than 0.005, and it is faster than float32 at batch 1 or 16.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import onnxruntime
import torch
from inference import trained_bundle
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from record import RESULTS, save
from sklearn.metrics import roc_auc_score

from monai_simclr import recipes
from monai_simclr.data import get_store
from monai_simclr.workflows.export import export_onnx, trained_classifier

CALIBRATION, BATCH, RESAMPLES = 128, 16, 200


class Reader(CalibrationDataReader):
    """Batches of train images."""

    def __init__(self, images: np.ndarray) -> None:
        self.batches: Iterator[np.ndarray] = iter(np.array_split(images, len(images) // BATCH))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"image": batch}


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def logits_of(path: Path, images: np.ndarray) -> np.ndarray:
    running = session(path)
    parts = [running.run(None, {"image": images[n : n + BATCH]})[0] for n in range(0, len(images), BATCH)]
    return np.concatenate(parts)


def milliseconds(paths: dict[str, Path], images: np.ndarray) -> dict[str, float]:
    """Median of interleaved calls, one thread."""
    running, spent = {name: session(path) for name, path in paths.items()}, {name: [] for name in paths}
    for number in range(13):
        for name, one in running.items():
            start = time.perf_counter()
            one.run(None, {"image": images})
            if number > 2:
                spent[name].append(1000 * (time.perf_counter() - start))
    return {name: float(np.median(times)) for name, times in spent.items()}


def files(bundle: Path, train: np.ndarray, folder: Path) -> dict[str, Path]:
    """The float32 file and what is made of it."""
    paths = {"float32": export_onnx(bundle, folder / "float32.onnx")}
    ready = folder / "ready.onnx"
    quant_pre_process(str(paths["float32"]), str(ready), skip_symbolic_shape=True)
    for kind in (QuantType.QInt8, QuantType.QUInt8):
        name = f"static, {'signed' if kind == QuantType.QInt8 else 'unsigned'} activations"
        paths[name] = folder / f"{kind.name}.onnx"
        quantize_static(
            str(ready),
            str(paths[name]),
            Reader(train),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=kind,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
    paths["dynamic"] = folder / "dynamic.onnx"
    quantize_dynamic(str(ready), str(paths["dynamic"]), weight_type=QuantType.QUInt8)
    return paths


def auroc(labels: np.ndarray, logits: np.ndarray) -> float:
    """Macro mean over findings with both classes."""
    scores = []
    for k in range(labels.shape[1]):
        known = np.isfinite(labels[:, k])
        if len(np.unique(labels[known, k])) == 2:
            scores.append(roc_auc_score(labels[known, k], logits[known, k]))
    return float(np.mean(scores))


def falls(labels: np.ndarray, patients: np.ndarray, before: np.ndarray, after: np.ndarray) -> list[float]:
    """95 % interval of how far the AUROC falls, over resampled patients."""
    rng, rows = np.random.default_rng(0), {name: np.flatnonzero(patients == name) for name in np.unique(patients)}
    names, found = list(rows), []
    for _ in range(RESAMPLES):
        some = np.concatenate([rows[names[n]] for n in rng.integers(0, len(names), len(names))])
        found.append(auroc(labels[some], before[some]) - auroc(labels[some], after[some]))
    return [float(value) for value in np.percentile(found, (2.5, 97.5))]


def judge(bundle: Path, archive: Path, folder: Path) -> dict[str, Any]:
    """AUROC, its fall, and milliseconds of every file."""
    _, card, size = trained_classifier(bundle)
    store = get_store(archive, folder / "store", recipes.stored_size(size), 0)
    index = store.index
    images = recipes.to_network_input(torch.from_numpy(np.array(store.images))[:, None], size).numpy()
    train, test = (np.flatnonzero(index["split"] == split) for split in ("train", "test"))
    chosen = np.random.default_rng(0).choice(train, CALIBRATION, replace=False)
    paths = files(bundle, images[chosen], folder)
    labels, patients = index[list(card.findings)].to_numpy(float)[test], index["patient_id"].to_numpy()[test]
    logits = {name: logits_of(path, images[test]) for name, path in paths.items()}
    fast = {f"batch {batch}": milliseconds(paths, images[:batch]) for batch in (1, 16)}
    return {
        "test_images": len(test),
        "size": size,
        **{
            name: {
                "auroc": auroc(labels, found),
                "falls_by": auroc(labels, logits["float32"]) - auroc(labels, found),
                "falls_by_95": falls(labels, patients, logits["float32"], found),
                "largest_change_of_a_probability": float(
                    np.abs(card.probabilities(found) - card.probabilities(logits["float32"])).max()
                ),
                "megabytes": paths[name].stat().st_size / 1e6,
                **{f"ms, {batch}": times[name] for batch, times in fast.items()},
            }
            for name, found in logits.items()
        },
    }


def full_width() -> dict[str, Any]:
    """Milliseconds of a ResNet-18 of full width."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = trained_bundle(folder)
        images = np.random.default_rng(0).random((CALIBRATION // 4, 1, 224, 224), dtype=np.float32)
        paths = files(bundle, images, folder)
        return {f"ms, batch {batch}": milliseconds(paths, images[:batch]) for batch in (1, 16)}


def main(arguments: list[str]) -> None:
    """Judge every bundle and store what was found."""
    path = Path(arguments.pop()) if arguments[-1].endswith(".json") else RESULTS / "int8.json"
    result: dict[str, Any] = {}
    for argument in arguments:
        name, bundle, archive = argument.split("=")
        with tempfile.TemporaryDirectory() as folder:
            result[name] = judge(Path(bundle), Path(archive), Path(folder))
        print(name, result[name], flush=True)
    result["speed of ResNet-18, 224 px"] = full_width()
    save(path, ("onnxruntime", "onnx", "torch", "scikit-learn"), **result)


if __name__ == "__main__":
    main(sys.argv[1:])
