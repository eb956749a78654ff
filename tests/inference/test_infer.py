"""Inference end to end in one process: rows, flags, reasons, a restart, a watched folder, and nobody's name."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time

import numpy as np
import pydicom
import pytest
import torch
from monai.engines import SupervisedEvaluator
from small_bundle import FINDINGS, csv_rows, run_inference, small_bundle, small_network
from torch.utils.data import DataLoader

from monai_simclr.data import RadiographError
from monai_simclr.data.phantoms import write_dicom_phantoms
from monai_simclr.evaluation import Embeddings
from monai_simclr.inference import InferenceDataset, Journal, OutputOptions, list_radiographs
from monai_simclr.inference.dataset import describe_file
from monai_simclr.runtime.names import unescape
from monai_simclr.runtime.signals import Preempted, StopSignals
from monai_simclr.runtime.tables import read_table
from monai_simclr.workflows import Run, infer
from monai_simclr.workflows.arrivals import Arrivals
from monai_simclr.workflows.bundle import run_bundle
from monai_simclr.workflows.inference import _looks
from monai_simclr.workflows.run import without_names


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A classifier with random weights: what is tested here is everything around it."""
    return small_bundle(tmp_path_factory.mktemp("model"), 150) / "models" / "model.pt"


@pytest.fixture
def dicom(tmp_path):
    return write_dicom_phantoms(tmp_path / "dicom", n_patients=4, size=64, seed=5)


def _infer(model, folder, output, **outputs):
    run_inference(model, folder, output, **outputs)
    return csv_rows(output)


def _change(path, **values):
    dataset = pydicom.dcmread(path)
    for name, value in values.items():
        setattr(dataset, name, value)
    dataset.save_as(path)


def test_a_row_has_probability_threshold_and_decision_of_every_finding(model, dicom, tmp_path):
    rows = _infer(model, dicom, tmp_path / "out")
    assert len(rows) == len(list_radiographs(dicom))
    clear = [row for row in rows if not row["flags"]]
    assert len(clear) >= len(rows) / 2
    for row in clear:
        for name in FINDINGS:
            above = float(row[f"{name} logit"]) >= float(row[f"{name} threshold logit"])
            assert row[f"{name} decision"] == str(int(above))
    content = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [row["file_hash"] for row in content["rows"]] == [row["file_hash"] for row in rows]
    assert content["findings"]["Effusion"]["specificity"] == 0.9


def test_images_of_one_patient_share_a_hash_and_no_two_patients_do(model, dicom, tmp_path):
    rows = _infer(model, dicom, tmp_path / "out", paths=True)
    by_folder = {(row["path"].split("/")[-2], row["patient_hash"]) for row in rows}
    assert len(by_folder) == len({folder for folder, _ in by_folder}) == len({one for _, one in by_folder}) == 4
    assert len({row["sop_instance_hash"] for row in rows}) == len(rows)


def test_what_the_header_speaks_against_gets_a_flag_and_no_decision(model, dicom, tmp_path):
    lateral, leg = (record["image"] for record in list_radiographs(dicom)[:2])
    _change(lateral, ViewPosition="LL")
    _change(leg, BodyPartExamined="LEG")
    rows = {row["path"]: row for row in _infer(model, dicom, tmp_path / "out", paths=True)}
    assert rows[lateral]["view_position"] == "LL"
    assert "lateral" in rows[lateral]["flags"].split(";")
    assert "not a chest" in rows[leg]["flags"].split(";")
    assert {rows[path][f"{name} decision"] for path in (lateral, leg) for name in FINDINGS} == {""}


def test_an_image_unlike_training_is_flagged(model, tmp_path):
    rng = np.random.default_rng(0)
    from PIL import Image

    (tmp_path / "in").mkdir()
    Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8)).save(tmp_path / "in" / "noise.png")
    (row,) = _infer(model, tmp_path / "in", tmp_path / "out")
    assert row["flags"] in ("unlike the training images", "likely inverted")
    assert float(row["novelty"]) > 1
    assert row["Effusion decision"] == ""


def test_one_bad_file_has_a_reason_and_stops_nobody(model, dicom, tmp_path):
    (dicom / "a_bad_one.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\1" * 50)
    rows = _infer(model, dicom, tmp_path / "out")
    assert [bool(row["reason"]) for row in rows].count(True) == 1
    bad = next(row for row in rows if row["reason"])
    assert bad["Effusion"] == bad["flags"] == ""


def test_files_with_names_that_are_not_utf8_or_run_in_a_spreadsheet_have_rows_like_others(model, dicom, tmp_path):
    files = sorted(dicom.rglob("*.dcm"))[:4]
    names = [b"M\xfcller.dcm", b"a\nb.dcm", b"=1+1.dcm", b"'x.dcm"]
    for path, name in zip(files, names, strict=True):
        os.rename(path, os.fsencode(path.parent) + b"/" + name)
    _infer(model, dicom, tmp_path / "out", paths=True, dicom=True, embeddings=True)
    paths = read_table(tmp_path / "out" / "predictions.csv")["path"].tolist()
    assert paths == [one["image"] for one in list_radiographs(dicom)]
    assert {os.fsencode(os.path.basename(path)) for path in paths} >= set(names)
    rows = json.loads((tmp_path / "out" / "predictions.json").read_text("utf-8"))["rows"]
    assert [unescape(row["path"]) for row in rows] == paths
    for name in ("predictions.csv", "predictions.json", "predictions.jsonl"):
        content = (tmp_path / "out" / name).read_text("utf-8")
        assert "\\udc" not in content
        assert r"M\xfcller.dcm" in content.replace("\\\\", "\\")
    before = (tmp_path / "out" / "predictions.jsonl").read_bytes()
    _infer(model, dicom, tmp_path / "out", paths=True, dicom=True, embeddings=True)
    assert (tmp_path / "out" / "predictions.jsonl").read_bytes() == before


def test_a_restart_predicts_only_what_is_new_or_changed(model, dicom, tmp_path, caplog):
    first = _infer(model, dicom, tmp_path / "out")
    files = [record["image"] for record in list_radiographs(dicom)]
    _change(files[0], ViewPosition="LL")
    shutil.copy(files[1], dicom / "another.dcm")
    journal = tmp_path / "out" / "predictions.jsonl"
    lines = len(journal.read_text().splitlines())
    second = _infer(model, dicom, tmp_path / "out")
    assert len(second) == len(first) + 1
    assert len({row["file_hash"] for row in second}) == len(second)
    assert len(journal.read_text().splitlines()) == lines + 2


def test_embeddings_are_kept_on_request_only(model, dicom, tmp_path):
    rows = _infer(model, dicom, tmp_path / "out", embeddings=True)
    made = Embeddings.load(tmp_path / "out" / "embeddings.npz")
    assert len(made) == len(rows)
    assert list(made.index["file_hash"]) == [row["file_hash"] for row in rows]
    _infer(model, dicom, tmp_path / "without")
    assert not (tmp_path / "without" / "embeddings.npz").exists()


def test_nothing_that_is_left_behind_names_a_patient(model, dicom, tmp_path):
    secrets = {
        "PatientName": "Zaphod^Beeblebrox",
        "PatientID": "ID-424242",
        "PatientBirthDate": "19420101",
        "AccessionNumber": "ACC-777",
        "InstitutionName": "Milliways",
    }
    for record in list_radiographs(dicom):
        _change(record["image"], **secrets)
    _infer(model, dicom, tmp_path / "out", embeddings=True)
    left = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    for text in (*secrets.values(), "Beeblebrox", str(tmp_path)):
        assert text.encode() not in left, text


@pytest.fixture
def named(model, dicom, tmp_path):
    """A bundle, and radiographs whose names say who is on them."""
    bundle = model.parent.parent
    files = sorted(dicom.rglob("*.dcm"))[:2]
    names = [file.rename(tmp_path / f"PLANTEDNAME_{number}.dcm") for number, file in enumerate(files)]
    return bundle, [str(name) for name in names]


@pytest.mark.parametrize("paths", [False, True])
def test_names_of_a_list_of_files_are_recorded_only_where_paths_are_asked_for(named, tmp_path, paths):
    bundle, files = named
    run_bundle(
        bundle,
        "inference",
        dataset_dir=files,
        output_dir=str(tmp_path / "out"),
        num_workers=0,
        **{"outputs#paths": paths},
    )
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["dataset_dir"] == (files if paths else "2 files")
    naming = [path.name for path in (tmp_path / "out").rglob("*") if path.is_file() and b"PLANTED" in path.read_bytes()]
    assert sorted(naming) == (
        ["config.json", "predictions.csv", "predictions.json", "predictions.jsonl"] if paths else []
    )


def test_a_single_file_and_the_query_of_a_service_are_not_recorded(named):
    _, (file, _) = named
    assert without_names({"dataset_dir": file, "outputs": {"paths": False}})["dataset_dir"] == "1 file"
    for outputs in ({"outputs": {"paths": True}}, {"outputs": {"paths": False}}, {}):
        recorded = without_names({"dataset_dir": "dicomweb+https://host/web?PatientName=DOE", **outputs})
        assert recorded["dataset_dir"] == "dicomweb+https://host/web"
    archive = {"dataset_dir": "/archives/nih", "outputs": {"paths": False}}
    assert without_names(archive) == archive


def test_another_size_than_in_training_is_refused(model, dicom, tmp_path):
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"), val_data_loader=DataLoader(InferenceDataset([], dict, 64)), network=small_network()
    )
    with pytest.raises(ValueError, match="size is 64 now and was 48"):
        infer(Run(str(tmp_path), 64, 0, torch.device("cpu")), model, evaluator, dicom, OutputOptions())


def test_a_view_that_could_be_a_name_is_not_repeated(dicom):
    (record, *_) = list_radiographs(dicom)
    _change(record["image"], ViewPosition="DOE 1942")
    assert describe_file(record["image"], "key")["view_position"] == ""


def test_overlays_and_dicom_results_belong_to_rows(model, dicom, tmp_path):
    pytest.importorskip("highdicom", reason="DICOM results need highdicom, from the extra [dicom]")
    rows = _infer(model, dicom, tmp_path / "out", overlays=True, dicom=True)
    positive = {row["file_hash"] for row in rows if any(row[f"{name} decision"] == "1" for name in FINDINGS)}
    assert {path.stem for path in (tmp_path / "out" / "overlays").glob("*.png")} == positive
    assert positive
    reports = {path.name.split(".")[0] for path in (tmp_path / "out" / "dicom").glob("*.sr.dcm")}
    assert reports == {row["file_hash"] for row in rows}
    captures = {path.name.split(".")[0] for path in (tmp_path / "out" / "dicom").glob("*.sc.dcm")}
    assert captures == positive


def test_a_file_that_cannot_be_read_is_an_item_with_a_reason_and_no_name(tmp_path):
    (tmp_path / "secret_name.dcm").write_text("no image")

    def transform(item):
        raise RadiographError("is nothing", item["image"])

    dataset = InferenceDataset(list_radiographs(tmp_path), transform, 8)
    assert dataset[0]["reason"] == "is nothing"
    assert dataset[0]["image"].shape == (1, 8, 8)


def test_an_empty_folder_at_inference_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no files; pass --dataset_dir"):
        list_radiographs(tmp_path)


def test_a_log_says_now_and_then_how_far_it_is(model, dicom, tmp_path, caplog, monkeypatch):
    (dicom / "A_bad_one.dcm").write_text("no image")
    monkeypatch.setattr("monai_simclr.runtime.progress._SECONDS", 1e-9)
    with caplog.at_level("INFO", logger="monai_simclr"):
        rows = _infer(model, dicom, tmp_path / "out")
    said = [record.message for record in caplog.records if record.message.startswith("predicted ")]
    assert said[0].startswith(f"predicted 4 of {len(rows)} images, 1 could not be read, ")
    assert said[-1].startswith(f"predicted {len(rows)} of {len(rows)} images, 1 could not be read, ")
    assert "about 0 min left" in said[-1]


def test_a_terminal_shows_a_bar(model, dicom, tmp_path, monkeypatch):
    import io
    import sys

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    rows = _infer(model, dicom, tmp_path / "out")
    shown = sys.stderr.getvalue()
    assert "predicting" in shown
    assert f"{len(rows)}/{len(rows)}" in shown
    assert "0 could not be read" in shown


@pytest.mark.parametrize(
    ("number", "kind", "said"),
    [
        (signal.SIGTERM, Preempted, "stopped by SIGTERM, every row that was predicted is kept"),
        (signal.SIGUSR1, Preempted, "stopped by SIGUSR1, every row that was predicted is kept"),
        (signal.SIGINT, KeyboardInterrupt, "stopped by Ctrl-C, every row that was predicted is kept"),
    ],
)
def test_a_signal_keeps_the_rows_of_the_batch_and_the_tables_and_the_same_call_goes_on(
    model, dicom, tmp_path, monkeypatch, number, kind, said
):
    written = Journal.append

    def append_and_be_asked(journal, rows):
        os.kill(os.getpid(), number)
        written(journal, rows)

    monkeypatch.setattr(Journal, "append", append_and_be_asked)
    before = signal.getsignal(number)
    with pytest.raises(kind, match=said):
        _infer(model, dicom, tmp_path / "out")
    assert signal.getsignal(number) == before
    monkeypatch.undo()
    kept = csv_rows(tmp_path / "out")
    assert len(kept) == 4, "one batch"
    rows = _infer(model, dicom, tmp_path / "out")
    assert len(rows) == len(list_radiographs(dicom)) > 4
    assert [row for row in rows if row["file_hash"] in {one["file_hash"] for one in kept}] == kept


def test_a_signal_ends_the_pause_between_two_looks_at_once():
    asked, arrivals = StopSignals(), Arrivals([], dict, "key", 60.0)
    looks = _looks(arrivals, asked)
    next(looks)
    asked.catch()
    started = time.monotonic()
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1)).start()
    with pytest.raises(Preempted, match="stopped by SIGUSR1"):
        next(looks)
    assert time.monotonic() - started < 10
    asked.release()
    looks = _looks(arrivals, asked)
    next(looks)
    with pytest.raises(Preempted, match="stopped by SIGUSR1"):  # one that came while the look was going on
        next(looks)
