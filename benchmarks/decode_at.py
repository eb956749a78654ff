"""Stores from JPEG 2000 and JPEG, decoded in full and at the resolution that is needed: rate, gray levels, AUROC.

    python benchmarks/decode_at.py [RESULT.json]

rate    CPU milliseconds an image of `build_store(workers=0)` to 256 pixels, interleaved, medians of 5: "pydicom" is
        pydicom's plugin for Pillow, as before; "full" and "needed" are ours. Files: two real JPEG 2000 radiographs,
        and NIH films of 1024 pixels written as JPEG 2000 (lossless, and 10:1) and as JPEG (quality 90), a few copied.
gray    mean and largest difference of the stored images of "needed" from those of "full", in gray levels of 255.
auroc   1,299 NIH films of 224 pixels written as lossless JPEG 2000, stored at 112 pixels (one halving) and 56 (two):
        features of the encoder in `benchmarks/encoders`, a linear probe for each finding against films without any,
        split by patient as in `real_pack.py`, whose test patients the encoder never saw. "needed minus full" has a
        95 % interval over 1,000 resamples of test patients, the same for both. "mixed" is fitted on full images and
        scored on needed ones, as inference would that decodes otherwise than the store. There are no films of 1024
        pixels with labels here in the number that this needs: halving 224 to 112 stands for halving 512 to 256.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import numpy as np
import pandas as pd
import pydicom
import torch
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate
from real_pack import split_of
from record import RESULTS, save

from monai_simclr import recipes
from monai_simclr.data import ReaderSettings, Store, StoreOptions, build_store
from monai_simclr.data.formats import dicom_pixels
from monai_simclr.engines import embed
from monai_simclr.evaluation import Embeddings, probe_scores
from monai_simclr.evaluation.intervals import bootstrap_interval, patient_counts
from monai_simclr.evaluation.scores import auroc_resamples, mean_of_known
from monai_simclr.networks import load_encoder

SIZE, FILES, ROUNDS = 256, 8, 5
SHARED = Path(os.environ.get("MONAI_SIMCLR_CXR", Path(__file__).resolve().parents[2] / "shared" / "cxr")).parent
ENCODER = Path(__file__).resolve().parent / "encoders" / "resnet18_half_width_nih16k.safetensors"
FINDINGS = ("Effusion", "Infiltration", "Atelectasis", "Cardiomegaly", "Pneumothorax")
MODES = {"full": ReaderSettings(), "needed": ReaderSettings(decode_at="needed")}


def write(path: Path, pixels: np.ndarray, kind: str) -> Path:
    """A gray picture, uint8, as a DICOM file with JPEG 2000 or JPEG in it."""
    options: dict[str, Any] = {
        "lossless": {"no_jp2": True, "irreversible": False},
        "10:1": {"no_jp2": True, "irreversible": True, "quality_mode": "rates", "quality_layers": [10]},
        "JPEG": {"quality": 90},
    }[kind]
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "JPEG" if kind == "JPEG" else "JPEG2000", **options)
    data = pydicom.Dataset()
    data.SOPClassUID, data.SOPInstanceUID = uid.DigitalXRayImageStorageForPresentation, uid.generate_uid()
    data.Modality, data.PresentationIntentType, data.PhotometricInterpretation = "DX", "FOR PRESENTATION", "MONOCHROME2"
    data.SamplesPerPixel, data.PixelRepresentation = 1, 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
    data.Rows, data.Columns = pixels.shape
    data.WindowCenter, data.WindowWidth = 128, 256
    data.PixelData = encapsulate([encoded.getvalue()])
    data["PixelData"].is_undefined_length = True
    data.file_meta = pydicom.dataset.FileMetaDataset()
    syntaxes = {"lossless": uid.JPEG2000Lossless, "10:1": uid.JPEG2000, "JPEG": uid.JPEGBaseline8Bit}
    data.file_meta.TransferSyntaxUID = syntaxes[kind]
    data.save_as(path, enforce_file_format=True)
    return path


def index_of(files: list[Path], **columns: Any) -> pd.DataFrame:
    base = dict.fromkeys(["study_id", "view_position", "sex", "split"], "")
    names = [str(n) for n in range(len(files))]
    return pd.DataFrame({"image": list(map(str, files)), "patient_id": names, **base, "age": np.nan, **columns})


def built(index: pd.DataFrame, folder: Path, size: int, reader: ReaderSettings) -> Store:
    shutil.rmtree(folder, ignore_errors=True)
    return build_store(index, folder, size, 0, options=StoreOptions(reader=reader))


def measure(files: list[Path], folder: Path) -> dict[str, Any]:
    """Rate and gray levels of one kind of files."""
    index, ours = index_of(files), dicom_pixels._decode_by_pillow
    ways = {"pydicom": (lambda *args: None, MODES["full"]), **{name: (ours, mode) for name, mode in MODES.items()}}
    spent: dict[str, list[float]] = {name: [] for name in ways}
    images: dict[str, np.ndarray] = {}
    for number in range(ROUNDS + 1):
        for name, (decode, reader) in ways.items():
            dicom_pixels._decode_by_pillow = decode
            start = time.process_time()
            store = built(index, folder / name, SIZE, reader)
            if number:
                spent[name].append(1000 * (time.process_time() - start) / len(files))
            images[name] = np.array(store.images, dtype=float)
    dicom_pixels._decode_by_pillow = ours
    assert (images["pydicom"] == images["full"]).all()
    difference = np.abs(images["needed"] - images["full"])
    times = {name: float(np.median(each)) for name, each in spent.items()}
    return {
        "cpu_ms": times,
        "full_times_pydicom": times["pydicom"] / times["full"],
        "needed_times_pydicom": times["pydicom"] / times["needed"],
        "gray_levels": {"mean": float(difference.mean()), "largest": float(difference.max())},
    }


def kinds(folder: Path) -> dict[str, list[Path]]:
    """Files by kind: real ones, and NIH films written anew."""
    found: dict[str, list[Path]] = {}
    for name in ("RG1_J2KI", "RG3_J2KI"):
        path = SHARED / "cxr" / "dicom" / f"{name}.dcm"
        shape = f"{pydicom.dcmread(path, stop_before_pixels=True).Rows} pixels high"
        found[f"{name}, {shape}"] = [Path(shutil.copy(path, folder / f"{name}{n}.dcm")) for n in range(FILES)]
    originals = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in films()]
    for kind in ("lossless", "10:1", "JPEG"):
        paths = [folder / f"{kind.replace(':', '')}{n}.dcm" for n in range(len(originals))]
        found[f"NIH, 1024 pixels, {kind}"] = [write(*pair, kind) for pair in zip(paths, originals, strict=True)]
    return found


def films() -> list[Path]:
    paths = sorted((SHARED / "cxr" / "nih" / "originals_1024").glob("*.png"))
    return [path for path in paths if Image.open(path).mode == "L"]


def auroc(folder: Path) -> dict[str, Any]:
    """Probes on stores of either mode, at one and at two halvings."""
    rows = pd.read_csv(SHARED / "nih224" / "manifest.csv", dtype=str, keep_default_na=False)
    normal = rows["labels"] == "No Finding"
    labels = {
        name: np.where(rows["labels"].str.split("|").map(lambda found, name=name: name in found), 1.0, np.nan)
        for name in FINDINGS
    }
    labels = {name: np.where(normal, 0.0, known) for name, known in labels.items()}
    files = [
        write(folder / f"{n:04d}.dcm", cv2.imread(str(SHARED / "nih224" / file), cv2.IMREAD_GRAYSCALE), "lossless")
        for n, file in enumerate(rows["file"])
    ]
    patients = rows["patient_id"].to_numpy()
    index = index_of(files, patient_id=patients, split=[split_of(one) for one in patients], **labels)
    network, result = load_encoder(ENCODER), {}
    for halvings, size in ((1, 112), (2, 56)):
        stores = {name: built(index, folder / name, size, reader) for name, reader in MODES.items()}
        features = {
            name: embed(network, store.images, lambda images, size=size: recipes.to_network_input(images, size))
            for name, store in stores.items()
        }
        test = np.flatnonzero(index["split"] == "test")
        mixed = np.where((index["split"] == "test").to_numpy()[:, None], features["needed"], features["full"])
        codes, counts = patient_counts(patients[test], 1000, 0)
        truth, found = index[list(FINDINGS)].to_numpy(float)[test], {}
        for name, one in {**features, "mixed": mixed}.items():
            scores = probe_scores(Embeddings(one, index, {}), FINDINGS)[0]
            found[name] = mean_of_known(auroc_resamples(truth, scores, codes, counts))
        images = [np.array(store.images, dtype=float) for store in stores.values()]
        result[f"{size} pixels, halved {halvings} times"] = {
            "macro_auroc": {name: float(values[0]) for name, values in found.items()},
            **{
                f"{name} minus full": bootstrap_interval(
                    found[name][0] - found["full"][0], found[name][1:] - found["full"][1:]
                ).as_dict()
                for name in ("needed", "mixed")
            },
            "mean_gray_levels": float(np.abs(images[0] - images[1]).mean()),
        }
    return {"films": len(files), "test_films": len(test), "test_patients": len(set(patients[test])), **result}


def main(path: Path) -> None:
    """Measure, print, and store with what it ran on."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    result: dict[str, Any] = {"files": {}}
    with tempfile.TemporaryDirectory() as name:
        for kind, files in kinds(Path(name)).items():
            result["files"][kind] = measure(files, Path(name))
            print(kind, result["files"][kind], flush=True)
    with tempfile.TemporaryDirectory() as name:
        result["auroc"] = auroc(Path(name))
    print(result["auroc"])
    save(path, ("pillow", "pydicom", "opencv-python-headless", "numpy", "torch"), **result)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS / "decode_at.json")
