"""Who is on the images is planted in DICOM headers and PNG texts; nothing that a whole run leaves may say it."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from monai.bundle import run
from PIL import Image, PngImagePlugin
from typer.testing import CliRunner

from monai_simclr.cli.app import app
from monai_simclr.data import open_index, write_index
from monai_simclr.data.phantoms import FINDINGS, write_dicom_phantoms, write_nih_phantoms
from monai_simclr.runtime.artefacts import CHECKSUM
from monai_simclr.workflows.bundle import copy_bundle, run_bundle

pytestmark = pytest.mark.filterwarnings("ignore")

UIDS, PATIENT = "1.2.826.0.1.4711.", "MRN4711"
NEVER = (
    "Plantedname",
    "Plantedgiven",
    "Plantedhospital",
    "Planteddoctor",
    "Plantedstreet",
    "Plantedcomment",
    "ACC0815",
    "19470311",
    "1947-03-11",
    "20190923",
    "2019-09-23",
)
"""May stand nowhere. Ids of patients and studies may stand in the store's index, which is a copy of the archive's."""


def _planted(dataset: pydicom.Dataset, pixels: np.ndarray, row: int, patient: int) -> pydicom.Dataset:
    dataset.PatientName, dataset.PatientID = f"Plantedname^Plantedgiven{patient}", f"{PATIENT}-{patient:04d}"
    dataset.PatientBirthDate, dataset.PatientAddress = "19470311", "Plantedstreet 1"
    for name in ("StudyDate", "SeriesDate", "ContentDate", "AcquisitionDate"):
        setattr(dataset, name, "20190923")
    dataset.InstitutionName, dataset.ReferringPhysicianName = "Plantedhospital", "Planteddoctor^A"
    dataset.AccessionNumber, dataset.PatientComments, dataset.ImageComments = "ACC0815", "Plantedcomment", "Plantedname"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"{UIDS}1.{row}", f"{UIDS}2.{row}"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{UIDS}3.{row}"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PhotometricInterpretation, dataset.PresentationLUTShape = "MONOCHROME2", "IDENTITY"
    dataset.WindowCenter, dataset.WindowWidth, dataset.PixelData = 127.5, 256, pixels.tobytes()
    return dataset


def _text() -> PngImagePlugin.PngInfo:
    text = PngImagePlugin.PngInfo()
    text.add_text("Patient", f"Plantedname {PATIENT}-0000 born 1947-03-11")
    text.add_itxt("Comment", "Plantedhospital 2019-09-23")
    return text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of ours, every other image DICOM, the others PNG, with an index of planted ids; and two bad files."""
    folder = tmp_path_factory.mktemp("planted")
    index = open_index(write_nih_phantoms(folder / "drawn", n_patients=80, size=64))
    source = next(write_dicom_phantoms(folder / "template", n_patients=1, size=64).rglob("*.dcm"))
    (folder / "archive").mkdir()
    numbers = pd.factorize(index["patient_id"])[0]
    for row, (path, patient) in enumerate(zip(index["image"].tolist(), numbers.tolist(), strict=True)):
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("L"))
        made = folder / "archive" / f"{row:04d}.{'dcm' if row % 2 else 'png'}"
        if row % 2:
            _planted(pydicom.dcmread(source), pixels, row, patient).save_as(made)
        else:
            Image.fromarray(pixels).save(made, pnginfo=_text())
        index.loc[row, "image"] = str(made)
    index["patient_id"] = [f"{PATIENT}-{patient:04d}" for patient in numbers]
    index["study_id"] = [f"{UIDS}1.{row}" for row in range(len(index))]
    for row in (1, 3):  # one is no radiograph, one is cut off
        dataset = pydicom.dcmread(index["image"][row])
        dataset.Modality = "CT" if row == 1 else "DX"
        dataset.save_as(index["image"][row])
    cut = Path(index["image"][3])
    cut.write_bytes(cut.read_bytes()[:-500])
    write_index(index, folder / "archive" / "index.csv")
    return folder


def _run_everything(folder: Path) -> Path:
    bundle = copy_bundle(folder / "bundle", FINDINGS, size=32, width=0.125)
    shared = {"dataset_dir": str(folder / "archive"), "num_workers": 0}
    small = {"max_epochs": 1, "batch_size": 32}
    few = {"label_fraction": 1.0, "n_bootstrap": 10}
    run_bundle(bundle, "pretrain", **shared, **small)
    run_bundle(bundle, "cluster", n_bootstrap=10, n_seeds=1, method="kmeans", remove=[], **shared)
    run_bundle(bundle, "train", **shared, **small, **few)
    files = [str(bundle / "configs" / f"{name}.json") for name in ("train", "evaluate")]
    run(config_file=files, bundle_root=str(bundle), n_bootstrap=10, **shared)
    (folder / "new").mkdir()
    for path in sorted((folder / "archive").glob("*.dcm"))[:60]:  # enough for a positive one
        (folder / "new" / path.name).write_bytes(path.read_bytes())
    keep = {"outputs#embeddings": True, "outputs#overlays": True}
    run_bundle(bundle, "inference", **{**shared, "dataset_dir": str(folder / "new"), **keep})
    said = CliRunner().invoke(app, ["report", str(bundle / "output"), "-o", str(bundle / "report.html")])
    assert said.exit_code == 0, said.output
    (bundle / "said_by_report.txt").write_text(said.output)
    return bundle


def _contents(path: Path) -> Iterator[bytes]:
    """A file's bytes; of archives (npz, pt) those of their members too, of arrays of text the text."""
    raw = path.read_bytes()
    yield raw
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as members:
            yield from (members.read(name) for name in members.namelist())
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            texts = [arrays[name] for name in arrays.files if name != CHECKSUM]
            yield from (str(text.tolist()).encode() for text in texts if text.dtype.kind == "U")


def _found(folder: Path, words: tuple[str, ...]) -> list[str]:
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        texts = [text.lower() for text in (name.encode(), *_contents(path))]
        for word in words:
            forms = [word.encode(code) for code in ("utf-8", "utf-16-le", "utf-32-le")]
            if any(form.lower() in text for text in texts for form in forms):
                found.append(f"{name}: {word}")
    return found


@pytest.mark.timeout(300)
def test_no_output_of_a_whole_run_identifies_a_patient(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bundle = _run_everything(folder)
    said = "".join(capfd.readouterr())
    (bundle / "said.txt").write_text(said)
    assert "2 of " in said, "the two bad files were met"
    assert len(list((bundle / "output").glob("*/metrics.json"))) == 5
    assert (bundle / "output/inference/embeddings.npz").is_file()
    assert list((bundle / "output/inference").rglob("*.png")), "overlays were drawn"
    assert _found(bundle, NEVER) == []
    ids = _found(bundle, (PATIENT, UIDS))
    assert [place for place in ids if not re.fullmatch(r"cache/[^/]+/index\.csv: .*", place)] == []
    assert len(ids) == 2, "the store's index is a copy of the archive's and has its ids"


def test_the_search_finds_what_is_planted(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", patients=np.array(["Plantedname"]), features=np.zeros(3))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, index=np.array("image,patient\nx,MRN4711-0001"))
    (tmp_path / "b.npz").write_bytes(buffer.getvalue())
    (tmp_path / "c_acc0815.bin").write_bytes("Plantedhospital".encode("utf-16-le"))
    assert _found(tmp_path, (*NEVER, PATIENT)) == [
        "a.npz: Plantedname",
        "b.npz: MRN4711",
        "c_acc0815.bin: Plantedhospital",
        "c_acc0815.bin: ACC0815",
    ]


def test_the_same_patient_has_one_hash_in_clusters_embeddings_and_scores(folder: Path) -> None:
    output = folder / "bundle/output"
    if not output.is_dir():
        pytest.skip("runs after the test of the whole run")
    clusters = pd.read_csv(output / "cluster/clusters.csv", dtype=str)
    with np.load(output / "train/scores.npz", allow_pickle=False) as scores:
        tested = set(scores["patients"].tolist())
    assert tested == set(clusters.loc[clusters["split"] == "test", "patient_hash"])
    assert clusters["patient_hash"].str.fullmatch("[0-9a-f]{16}").all()
