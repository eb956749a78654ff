"""Overlay and DICOM results beside a row are those of the file that the row is about, whenever the file changes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pydicom
import pytest
from small_bundle import FINDINGS, csv_rows, run_inference, small_bundle, small_network

from monai_simclr.data.phantoms import write_dicom_phantoms
from monai_simclr.inference import InferenceDataset, OutputOptions, PredictionWriter, list_radiographs
from monai_simclr.inference.config import read_inference_config
from monai_simclr.inference.dataset import identify_file
from monai_simclr.inference.journal import Rows
from monai_simclr.workflows.dicomweb import DicomWeb

pytest.importorskip("highdicom", reason="DICOM results need highdicom, from the extra [dicom]")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return small_bundle(tmp_path_factory.mktemp("model"), 150) / "models" / "model.pt"


@pytest.fixture(scope="module")
def by_decision(model, tmp_path_factory):
    """A radiograph with a positive decision, which names Alice, and one without, which names Bob."""
    folder = tmp_path_factory.mktemp("radiographs")
    files = [Path(one["image"]) for one in list_radiographs(write_dicom_phantoms(folder / "in", 6, size=64, seed=5))]
    run_inference(model, folder / "in", folder / "out", paths=True)
    found = {}
    for row, file in zip(csv_rows(folder / "out"), files, strict=True):
        assert row["path"] == str(file)
        if not row["flags"]:
            found[any(row[f"{name} decision"] == "1" for name in FINDINGS)] = file
    for positive, name in ((True, "ALICE"), (False, "BOB")):
        dataset = pydicom.dcmread(found[positive])
        dataset.PatientName = name
        dataset.save_as(found[positive])
    return found


def _place(source, target, ago=60):
    target.parent.mkdir(exist_ok=True)
    shutil.copy(source, target)
    os.utime(target, (target.stat().st_mtime - ago,) * 2)


def _files(output):
    """The kinds of files beside the rows; and whom the DICOM results name."""
    names = [path.name.partition(".")[2] for folder in ("overlays", "dicom") for path in (output / folder).glob("*")]
    named = {str(pydicom.dcmread(path).PatientName) for path in (output / "dicom").glob("*.dcm")}
    return sorted(names), named


ALL = ["png", "sc.dcm", "sr.dcm"]


def _flagged(by_decision, file):
    _place(by_decision[True], file, ago=30)
    dataset = pydicom.dcmread(file)
    dataset.ViewPosition, dataset.PatientName = "LL", "CARL"
    dataset.save_as(file)


CHANGES = {
    "negative": (lambda radiographs, file: _place(radiographs[False], file, ago=30), ["sr.dcm"], {"BOB"}),
    "flagged": (_flagged, ["sr.dcm"], {"CARL"}),
    "refused": (lambda radiographs, file: file.write_bytes(b"no image"), [], set()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_takes_what_belonged_to_its_old_row_away(model, by_decision, tmp_path, change):
    file, output = tmp_path / "in" / "x.dcm", tmp_path / "out"
    _place(by_decision[True], file)
    run_inference(model, file.parent, output, overlays=True, dicom=True)
    assert _files(output) == (ALL, {"ALICE"})
    become, kinds, named = CHANGES[change]
    become(by_decision, file)
    run_inference(model, file.parent, output, overlays=True, dicom=True)
    assert _files(output) == (kinds, named)


def test_a_run_without_pictures_removes_those_of_the_rows_that_it_replaces(model, by_decision, tmp_path):
    _place(by_decision[True], tmp_path / "in" / "x.dcm")
    run_inference(model, tmp_path / "in", tmp_path / "out", overlays=True, dicom=True)
    run_inference(model, tmp_path / "in", tmp_path / "out")
    assert _files(tmp_path / "out") == ([], set())


@pytest.mark.parametrize("when", ["before", "while"])
@pytest.mark.parametrize("to", ["another", "nothing"])
def test_a_file_that_changes_after_its_prediction_has_no_pictures_until_it_is_predicted_again(
    model, by_decision, tmp_path, monkeypatch, caplog, when, to
):
    from monai_simclr.inference import pictures

    file, output = tmp_path / "in" / "x.dcm", tmp_path / "out"
    _place(by_decision[True], file)

    def change():
        if to == "another":
            _place(by_decision[False], file, ago=30)
        else:
            file.unlink()

    def then_change(function):
        def changed(*arguments):
            result = function(*arguments)
            change()
            return result

        return changed

    with monkeypatch.context() as patched:
        if when == "before":
            patched.setattr(InferenceDataset, "__getitem__", then_change(InferenceDataset.__getitem__))
        else:
            patched.setattr(pictures, "read_source_header", then_change(pictures.read_source_header))
        run_inference(model, file.parent, output, overlays=True, dicom=True)
    (row,) = csv_rows(output)
    assert row["reason"] == "no DICOM results: the file was changed or removed after it was predicted"
    assert row[f"{FINDINGS[0]} logit"]
    assert _files(output) == ([], set())
    assert "was changed or removed after it was predicted; the next look predicts it again" in caplog.text
    if to == "nothing":
        _place(by_decision[True], file)  # the folder of a file server is back, with the file as it was
    run_inference(model, file.parent, output, overlays=True, dicom=True)
    assert csv_rows(output)[0]["reason"] == ""
    assert _files(output) == ((["sr.dcm"], {"BOB"}) if to == "another" else (ALL, {"ALICE"}))


def test_a_file_that_cannot_be_opened_again_has_a_row_and_no_pictures_and_is_predicted_again(
    model, by_decision, tmp_path, monkeypatch
):
    def denied(path):
        raise PermissionError(13, "Permission denied", path)

    _place(by_decision[True], tmp_path / "in" / "x.dcm")
    with monkeypatch.context() as patched:
        patched.setattr("monai_simclr.inference.pictures.read_radiograph", denied)
        run_inference(model, tmp_path / "in", tmp_path / "out", overlays=True)
    (row,) = csv_rows(tmp_path / "out")
    assert row["reason"] == "no overlay: the file cannot be opened (PermissionError)"
    run_inference(model, tmp_path / "in", tmp_path / "out", overlays=True)
    assert csv_rows(tmp_path / "out")[0]["reason"] == ""
    assert _files(tmp_path / "out") == (["png"], set())


def test_a_file_that_changes_while_it_is_read_is_no_image(by_decision, tmp_path):
    file = tmp_path / "in" / "x.dcm"
    _place(by_decision[True], file)

    def transform(item):
        _place(by_decision[False], file, ago=30)
        return item

    (record,) = list_radiographs(file.parent)
    item = InferenceDataset([record], lambda item: {"image": [[[0.0]]], **transform({})}, 8)[0]
    assert item["reason"] == "was changed or removed while it was read"


def test_a_file_that_is_lost_with_its_worker_keeps_nothing_of_its_old_row(model, by_decision, tmp_path):
    about, kept = (identify_file(tmp_path / name, "key") for name in ("a.dcm", "b.dcm"))
    for name in ("overlays/{}.png", "dicom/{}.sr.dcm", "dicom/{}.sc.dcm"):
        for one in (about, kept):
            path = tmp_path / name.format(one["file_hash"])
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"old")
    writer = PredictionWriter(read_inference_config(model), small_network(), Rows(tmp_path), OutputOptions())
    assert writer.lost(about, "a.dcm", "ended the process")["reason"] == "ended the process"
    left = {path.name.partition(".")[0] for folder in ("overlays", "dicom") for path in (tmp_path / folder).glob("*")}
    assert left == {kept["file_hash"]}


def test_only_results_of_files_that_have_a_row_are_stored(tmp_path, monkeypatch):
    pytest.importorskip("dicomweb_client", reason="DICOMweb needs dicomweb-client, from the extra [pacs]")
    (tmp_path / "dicom").mkdir()
    for name in ("a.sr.dcm", "a.sc.dcm", "old.sr.dcm"):
        (tmp_path / "dicom" / name).write_bytes(b"result")
    sent = []
    monkeypatch.setattr(
        "monai_simclr.workflows.dicomweb.store_results", lambda address, paths: sent.extend(paths) or paths
    )
    service = DicomWeb("dicomweb+https://host/dicom-web", tmp_path, OutputOptions(dicom=True, stow=True), 0.0)
    for _ in range(2):
        service.store({"a": "1-2"})
    assert [path.name for path in sent] == ["a.sc.dcm", "a.sr.dcm"]
