"""No decision on what is no upright chest, whatever the encoder makes of it; and decisions on chests."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pydicom
import pytest
from small_bundle import csv_rows, run_inference, small_bundle

from monai_simclr.data.phantoms import draw_phantom
from monai_simclr.inference import read_inference_config, write_inference_config

PATIENTS = 24


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A classifier with random weights whose novelty calls nothing far: the weakest encoder that there can be."""
    path = small_bundle(tmp_path_factory.mktemp("weak"), patients=40) / "models" / "model.pt"
    config = read_inference_config(path)
    blind = {name: replace(one, threshold=0.0) for name, one in config.operating.items()}
    write_inference_config(replace(config, operating=blind, novelty=replace(config.novelty, threshold=1e9)), path)
    return path


@pytest.fixture(scope="module")
def chests():
    drawn = [draw_phantom(patient, 0, 160, seed=3).pixels for patient in range(1, PATIENTS + 1)]
    return [np.rint(255 * pixels).astype(np.uint8) for pixels in drawn]


def predicted(model, folder, output, **outputs):
    run_inference(model, folder, output, batch_size=8, **outputs)
    return csv_rows(output)


def rows_of(model, images, tmp_path):
    (tmp_path / "in").mkdir()
    for number, image in enumerate(images):
        cv2.imwrite(str(tmp_path / "in" / f"{number:03d}.png"), np.ascontiguousarray(image))
    return predicted(model, tmp_path / "in", tmp_path / "out")


def test_chests_get_decisions(model, chests, tmp_path):
    rows = rows_of(model, [*chests, *(chest[:, ::-1] for chest in chests)], tmp_path)
    flagged = [row["flags"] for row in rows if row["flags"]]
    assert len(flagged) <= 0.05 * len(rows), flagged
    assert all(row["Effusion decision"] in ("0", "1") for row in rows if not row["flags"])


NOT_CHESTS = {
    "turned 90": lambda chest, random: np.rot90(chest),
    "turned 180": lambda chest, random: np.rot90(chest, 2),
    "turned 270": lambda chest, random: np.rot90(chest, 3),
    "upside down": lambda chest, random: chest[::-1],
    "inverted": lambda chest, random: 255 - chest,
    "crop": lambda chest, random: chest[(top := random.randint(10, 90)) : top + 50, top : top + 50],
    "noise": lambda chest, random: random.randint(0, 256, chest.shape).astype(np.uint8),
    "smooth noise": lambda chest, random: cv2.normalize(
        cv2.GaussianBlur(random.rand(*chest.shape), (0, 0), 12), None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U
    ),
    "gradient": lambda chest, random: np.tile(np.linspace(0, 255, 160).astype(np.uint8), (160, 1)),
}


@pytest.mark.parametrize("kind", NOT_CHESTS)
def test_what_is_no_upright_chest_gets_a_flag_and_no_decision(kind, model, chests, tmp_path):
    random = np.random.RandomState(0)
    rows = rows_of(model, [NOT_CHESTS[kind](chest, random) for chest in chests], tmp_path)
    stopped = [row["flags"] == "not an upright chest" for row in rows]
    assert np.mean(stopped) >= 0.95
    for row in rows:
        assert (row["flags"] == "") == (row["Effusion decision"] != "")


def test_where_another_flag_stands_the_check_says_nothing_more(model, chests, tmp_path):
    config = read_inference_config(model)
    (tmp_path / "model").mkdir()
    for file in model.parent.iterdir():
        (tmp_path / "model" / file.name).write_bytes(file.read_bytes())
    path = tmp_path / "model" / model.name
    write_inference_config(replace(config, novelty=replace(config.novelty, threshold=1e-9)), path)
    rows = rows_of(path, [np.rot90(chests[0])], tmp_path)
    assert [row["flags"] for row in rows] == ["unlike the training images"]


def test_rows_of_another_check_are_made_again(model, chests, tmp_path, monkeypatch, caplog):
    rows_of(model, chests[:2], tmp_path)
    other = property(lambda self: "other numbers")
    monkeypatch.setattr("monai_simclr.ops.chest_check.ChestCheck.checksum", other)
    predicted(model, tmp_path / "in", tmp_path / "out")
    assert "its 2 rows are replaced" in caplog.text


def test_one_header_without_uids_leaves_predictions_and_a_reason_in_its_row_alone(model, tmp_path):
    pytest.importorskip("highdicom", reason="DICOM results need highdicom, from the extra [dicom]")
    from monai_simclr.data.phantoms import write_dicom_phantoms

    folder = write_dicom_phantoms(tmp_path / "in", n_patients=2, size=64)
    bad, *others = sorted(folder.rglob("*.dcm"))
    header = pydicom.dcmread(bad)
    del header.SOPInstanceUID
    header.file_meta.MediaStorageSOPInstanceUID = ""
    header.save_as(bad, enforce_file_format=False)
    rows = {row["path"]: row for row in predicted(model, folder, tmp_path / "out", dicom=True, paths=True)}
    assert "(0008,0018) SOP Instance UID is missing" in rows[str(bad)]["reason"]
    assert float(rows[str(bad)]["Effusion"]) > 0
    assert {rows[str(path)]["reason"] for path in others} == {""}
    assert len(list((tmp_path / "out" / "dicom").glob("*.sr.dcm"))) == len(others)
