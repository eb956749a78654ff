"""What a bundle is made for is checked when it is made, and nothing in it can become code."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from monai_simclr.bundles import CHEST_XRAY_SIMCLR
from typer.testing import CliRunner

from monai_simclr.cli.app import app
from monai_simclr.data import read_index
from monai_simclr.data.findings import CHEXPERT14, NIH14, NO_FINDING
from monai_simclr.data.store import Store
from monai_simclr.networks import ENCODERS, PRETRAINED, encoder_header
from monai_simclr.runtime.exit_codes import SettingError, exit_code
from monai_simclr.workflows import bundle as bundling
from monai_simclr.workflows import check_store
from monai_simclr.workflows.bundle import copy_bundle, read_metadata
from monai_simclr.workflows.setting_rules import RULES


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"findings": ["Effusion", "Pneumothroax"]},
            "there is no finding 'Pneumothroax', the nearest is 'Pneumothorax'",
        ),
        ({"findings": ["cardiomegly"]}, "the nearest is 'Cardiomegaly'"),
        ({"findings": ["Effusion", "Effusion"]}, "the finding 'Effusion' is named twice"),
        ({"findings": ["Effusion", "Pleural Effusion"]}, "the finding 'Pleural Effusion' is named twice, also as 'Eff"),
        ({"findings": ["$print('x')"]}, "begins with '\\$', which MONAI's configs would run"),
        ({"findings": ["@device"]}, "begins with '@'"),
        ({"findings": ["%configs/train.json#run"]}, "begins with '%'"),
        ({"findings": [" $x"]}, "begins with '\\$'"),
        ({"findings": ["Mass", ""]}, "a text that is not empty"),
        ({"findings": ["No Finding"]}, "the absence of all findings"),
        ({"findings": ["normal"]}, "the absence of all findings"),
        ({"findings": ["a\nb"]}, "characters that are not text"),
        ({"findings": ["x" * 65]}, "has 65 characters; DICOM results have room for 64"),
        ({"findings": "Effusion"}, "a list of names, got the text 'Effusion'"),
        ({"encoder": "resnet81"}, "there is no encoder 'resnet81'; .*; the nearest is 'resnet18'"),
        ({"encoder": "$print('x')"}, "there is no encoder"),
        ({"width": 0}, "width must be above 0"),
        ({"width": float("nan")}, "width must be above 0"),
        ({"norm": "bacth"}, "norm must be batch or group, got 'bacth'"),
        ({"size": 16}, "size must be at least 32 pixels, got 16"),
    ],
    ids=str,
)
def test_a_bundle_for_impossible_settings_is_refused(tmp_path: Path, given: dict, message: str) -> None:
    with pytest.raises(SettingError, match=message) as caught:
        copy_bundle(tmp_path / "bundle", **given)
    assert exit_code(caught.value) == 2
    assert not (tmp_path / "bundle").exists()


def test_the_command_ends_with_2_and_writes_nothing(tmp_path: Path) -> None:
    for slip in (["--findings", "Effusion,Pneumothroax"], ["--encoder", "resnet81"], ["--findings", "$print(1)"]):
        done = CliRunner().invoke(app, ["bundle", str(tmp_path / "bundle"), *slip])
        assert exit_code(done.exception) == 2
        assert not (tmp_path / "bundle").exists()


def _findings(bundle: Path) -> list[str]:
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    return list(metadata["network_data_format"]["outputs"]["pred"]["channel_def"].values())


def test_own_names_are_accepted_with_a_warning_and_spellings_become_ours(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "monai_simclr"):
        made = copy_bundle(tmp_path / "a", ["Tuberculosis", "pleural effusion"])
    assert _findings(made) == ["Tuberculosis", "Effusion"]
    assert "Tuberculosis: not in the vocabulary" in caplog.text
    caplog.clear()
    assert _findings(copy_bundle(tmp_path / "b", ["Pneumothroax"], own_findings=True)) == ["Pneumothroax"]
    assert _findings(copy_bundle(tmp_path / "c", NIH14)) == list(NIH14)
    assert len(_findings(copy_bundle(tmp_path / "d", [name for name in CHEXPERT14 if name != NO_FINDING]))) == 13
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_the_light_list_of_encoders_is_the_networks_own() -> None:
    assert bundling.ENCODER_NAMES == ENCODERS


def test_a_copy_brings_the_installed_encoder_where_it_fits_and_says_so(tmp_path: Path, caplog) -> None:
    held = encoder_header("chest_xray_resnet18")
    fitting = {"encoder": held["name"], "width": float(held["width"]), "norm": held.get("norm", "batch")}
    with caplog.at_level(logging.INFO, "monai_simclr"):
        made = copy_bundle(tmp_path / "a", size=64, **fitting)
    assert (made / "models/encoder.safetensors").read_bytes() == PRETRAINED["chest_xray_resnet18"].read_bytes()
    assert "train starts from it, pretrain replaces it" in caplog.text
    assert not (copy_bundle(tmp_path / "b", **{**fitting, "width": 0.125}) / "models/encoder.safetensors").exists()


def test_a_copy_that_differs_in_nothing_predicts_at_once_and_any_other_must_train_first(tmp_path: Path) -> None:
    shipped = {path.name: path.read_bytes() for path in (CHEST_XRAY_SIMCLR / "models").iterdir() if path.suffix}
    made = copy_bundle(tmp_path / "a", size=128, width=0.5)
    assert {path.name: path.read_bytes() for path in (made / "models").iterdir()} == shipped
    assert {"encoder.safetensors", "model.pt", "classifier.json", "novelty.safetensors"} <= set(shipped)
    for name, differs in (("b", {"findings": ["Mass"]}), ("c", {"size": 96})):
        other = copy_bundle(tmp_path / name, **differs)
        assert [path.name for path in (other / "models").iterdir()] == ["encoder.safetensors"]
    other = copy_bundle(tmp_path / "d", encoder="resnet50")
    assert not list((other / "models").iterdir())
    assert read_metadata(other)["encoder"]["width"] == 1.0


def test_networks_of_timm_are_encoders_of_a_bundle(tmp_path: Path) -> None:
    made = copy_bundle(tmp_path / "a", encoder="timm/tf_efficientnet_lite0")
    assert read_metadata(made)["encoder"] == {"name": "timm/tf_efficientnet_lite0", "width": 1.0, "norm": "batch"}
    assert RULES["_meta_::encoder::name"]("timm/convnext_atto") == ""
    assert "timm/NAME" in RULES["_meta_::encoder::name"]("timm/$x")
    for wrong in ({"width": 0.5}, {"norm": "group"}):
        with pytest.raises(SettingError, match="a width and a norm of its own"):
            copy_bundle(tmp_path / "b", encoder="timm/resnet18", **wrong)


def _index(*findings: str) -> pd.DataFrame:
    rows = {"image": ["a.png"], "patient_id": ["p"], "study_id": [""], "view_position": ["PA"], "sex": [""]}
    return pd.DataFrame({**rows, "age": [40], "split": ["train"], **{name: [1.0] for name in findings}})


@pytest.mark.parametrize("name", ["$print('x')", "@device", "%a.json", " $x"])
def test_a_column_that_would_be_code_in_a_config_is_refused(tmp_path: Path, name: str) -> None:
    _index("Mass", name).to_csv(tmp_path / "index.csv", index=False)
    with pytest.raises(ValueError, match="which MONAI's configs would run or look up"):
        read_index(tmp_path / "index.csv")


def _store(*findings: str) -> Store:
    return Store(np.zeros((1, 8, 8), np.uint8), _index(*findings), pd.DataFrame(), {})


def test_an_archive_with_other_labels_than_the_bundles_is_refused_before_training() -> None:
    check_store(_store("Mass", "Edema"), ["Mass"])
    check_store(_store(), ["Mass"])
    message = r"no labels for Pneumothroax \(the nearest is Pneumothorax\); it has Pneumothorax"
    with pytest.raises(ValueError, match=message):
        check_store(_store("Pneumothorax"), ["Pneumothroax"])
    with pytest.raises(FileNotFoundError, match="no folder"):
        check_store(Store.empty(8, "there is no folder data"), ["Mass"])


def test_an_archive_of_other_labels_can_be_pretrained_on_when_that_is_stated(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "monai_simclr"):
        check_store(_store("Edema"), ["Mass"], allow_missing=True)
    assert "the archive has no labels for Mass; it has Edema" in caplog.text
