"""Bundles and paths of somebody else: nothing of them runs when a classifier is exported or predicts."""

from __future__ import annotations

import json

import pytest
from small_bundle import small_bundle

from monai_simclr import predict
from monai_simclr.data.phantom_files import write_dicom_phantoms
from monai_simclr.exporting import export_torchscript, trained_classifier


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return small_bundle(tmp_path_factory.mktemp("foreign"), patients=40)


def test_an_export_of_a_foreign_bundle_runs_nothing_of_it(bundle, tmp_path, monkeypatch, caplog):
    path = bundle / "configs" / "inference.json"
    ours = path.read_text()
    evil = "$open('PWNED', 'w')"
    config = json.loads(ours) | {"network_def": evil, "size": evil, "imports": ["$import os", evil], "findings": evil}
    path.write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path)
    with caplog.at_level("WARNING", "monai_simclr"):
        made = export_torchscript(bundle, tmp_path / "model.ts")
    path.write_text(ours)
    assert made.is_file()
    assert not (tmp_path / "PWNED").exists()
    assert "runs 5 things that ours does not" in caplog.text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"encoder": {"name": "$open('PWNED', 'w')", "width": 1}}, "there is no encoder"),
        (
            {"encoder": None},
            r"metadata\.json cannot be read as the metadata of a bundle: encoder is None, not a mapping",
        ),
        ({"files": {}}, r"metadata\.json cannot be read as the metadata of a bundle: it lacks 'encoder'"),
    ],
)
def test_metadata_that_name_no_network_are_a_sentence(bundle, tmp_path, monkeypatch, change, said):
    path = bundle / "configs" / "metadata.json"
    ours = path.read_text()
    path.write_text(json.dumps(json.loads(ours) | change))
    monkeypatch.chdir(tmp_path)
    try:
        with pytest.raises(ValueError, match=said):
            trained_classifier(bundle)
    finally:
        path.write_text(ours)
    assert not (tmp_path / "PWNED").exists()


def test_folders_whose_names_are_code_to_a_config_are_folders_to_predict(bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "$open('PWNED', 'w')"
    write_dicom_phantoms(tmp_path / name, n_patients=2, size=64)
    table = predict(name, bundle, "%results.json")
    assert len(table)
    assert (tmp_path / "%results.json" / "predictions.csv").is_file()
    assert not (tmp_path / "PWNED").exists()


def test_rows_of_another_preprocessing_are_replaced_and_the_setting_is_named(bundle, tmp_path, caplog):
    folder = write_dicom_phantoms(tmp_path / "dicom", n_patients=2, size=64)
    first = predict(folder, bundle, tmp_path / "out")
    with caplog.at_level("INFO", "monai_simclr"):
        again = predict(folder, bundle, tmp_path / "out", num_workers=0, inference_batch=3, seed=0)
        assert f"{len(first)} files already have a row" in caplog.text
        assert again.equals(first)
        predict(folder, bundle, tmp_path / "out", **{"inferer#_target_": "monai_simclr.engines.AutocastInferer"})
    assert "inferer#_target_ was monai.inferers.SimpleInferer, is monai_simclr.engines.AutocastInferer" in caplog.text
    assert f"its {len(first)} rows are replaced" in caplog.text
