"""The exported bundle in MONAI Deploy: its own application where the SDK is installed, its arrays everywhere."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose
from pydicom.pixels import apply_presentation_lut, apply_rescale
from small_bundle import FINDINGS, SIZE, small_bundle

from monai_simclr import recipes
from monai_simclr.data.phantoms import write_dicom_phantoms
from monai_simclr.inference import predict, read_inference_config
from monai_simclr.inference.calibrated import Calibratedd, postprocessing
from monai_simclr.transforms.in_memory import canonical
from monai_simclr.workflows.export import export_folder, export_torchscript

ROOT = Path(__file__).resolve().parents[2]
GRAY_LEVEL = 1.01 / 255
HAS_SDK = all(importlib.util.find_spec(name) for name in ("monai.deploy", "holoscan"))
needs_sdk = pytest.mark.skipif(not HAS_SDK, reason="monai-deploy-app-sdk 4.0.0 is not installed beside MONAI")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle whose classifier has random weights, scaled so that its probabilities depend on the image."""
    return small_bundle(tmp_path_factory.mktemp("deploy"), 60, scale=20)


@pytest.fixture
def radiograph(tmp_path):
    """A DICOM file with a window, alone in its folder."""
    first, *others = sorted(write_dicom_phantoms(tmp_path / "dicom", n_patients=1, size=64, seed=5).rglob("*.dcm"))
    for other in others:
        other.unlink()
    return first


def _change(path, *removed, **values):
    dataset = pydicom.dcmread(path)
    for name in removed:
        if name in dataset:
            delattr(dataset, name)
    for name, value in values.items():
        setattr(dataset, name, value)
    dataset.save_as(path)
    return path


def _as_the_sdk_gives_it(path, spacing=True):
    """What the bundle's preprocessing gets from the SDK 4.0.0, whose sources say so:

    `dicom_series_to_volume_operator.py`, `generate_voxel_data`: pydicom's rescale, then its presentation LUT, and the
    smallest type; the array is DHW. `monai_bundle_inference_operator.py`, `_convert_from_image_dicom_source`: axes 0
    and 2 swapped, WHD, no channel; `_convert_from_image`: not swapped where the header has no pixel spacing. The
    metadata are all properties of series and study, the patient's name among them.
    """
    data = pydicom.dcmread(path)
    values = apply_presentation_lut(apply_rescale(data.pixel_array, data), data)
    values = values.astype(np.uint16 if np.all(values > 0) else np.int16)[None]
    meta = {"PatientName": str(data.PatientName), "PatientID": data.PatientID, "original_channel_dim": "no_channel"}
    return MetaTensor.ensure_torch_and_prune_meta(np.swapaxes(values, 0, 2) if spacing else values, meta)


def _without_loading():
    """`filter_compose` of the SDK: transforms whose names have LoadImage or SaveImage in them go."""
    steps = recipes.preprocessing(SIZE).transforms
    return Compose([step for step in steps if not any(name in type(step).__name__ for name in ("LoadImage", "Save"))])


@pytest.mark.parametrize("shape", ["INVERSE", "IDENTITY"])
def test_an_array_in_memory_becomes_what_the_file_without_a_window_becomes(radiograph, shape):
    light = "MONOCHROME1" if shape == "INVERSE" else "MONOCHROME2"
    _change(radiograph, "WindowCenter", "WindowWidth", PresentationLUTShape=shape, PhotometricInterpretation=light)
    file = recipes.preprocessing(SIZE)({"image": str(radiograph)})["image"]
    for spacing in (True, False):
        array = _without_loading()({"image": _as_the_sdk_gives_it(radiograph, spacing)})["image"]
        np.testing.assert_allclose(array, file, atol=GRAY_LEVEL)


def test_a_window_is_what_an_array_in_memory_does_not_know(radiograph):
    file = recipes.preprocessing(SIZE)({"image": str(radiograph)})["image"]
    array = _without_loading()({"image": _as_the_sdk_gives_it(radiograph)})["image"]
    assert np.corrcoef(array.flatten(), file.flatten())[0, 1] > 0.99
    assert float((array - file).abs().max()) > 2 * GRAY_LEVEL


def test_monochrome1_without_a_presentation_lut_shape_comes_inverted_from_the_sdk(radiograph):
    _change(radiograph, "PresentationLUTShape", PhotometricInterpretation="MONOCHROME1")
    file = recipes.preprocessing(SIZE)({"image": str(radiograph)})["image"]
    array = _without_loading()({"image": _as_the_sdk_gives_it(radiograph)})["image"]
    assert np.corrcoef(array.flatten(), file.flatten())[0, 1] < -0.9


def test_the_metadata_of_an_array_in_memory_do_not_go_on(radiograph):
    image = _without_loading()({"image": _as_the_sdk_gives_it(radiograph)})["image"]
    assert isinstance(image, MetaTensor)  # the SDK asks for its metadata
    assert "PatientName" not in image.meta
    assert "PHANTOM" not in str(image.meta)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.zeros((4, 5, 2)), r"is one plane, \(W, H, 1\), \(W, H\) or \(1, H, W\), got \(4, 5, 2\)"),
        (np.array([[0.0, np.nan]]), "needs finite pixels"),
        (np.full((3, 3, 1), 7), r"is one value all over \(7\); a radiograph has contrast"),
    ],
)
def test_an_array_that_is_no_radiograph_is_refused(values, said):
    with pytest.raises(ValueError, match=said):
        canonical(values)


def test_nearly_all_background_is_shown_from_its_smallest_to_its_largest_value():
    values = np.zeros((100, 100))
    values[3, 4] = 8
    assert canonical(values)[0, 4, 3] == 1
    assert canonical(values).sum() == 1


def test_the_archives_configs_are_where_the_sdk_looks_for_them(bundle, tmp_path):
    path = export_torchscript(bundle, tmp_path / "chest v1.ts")
    with zipfile.ZipFile(path) as archive:
        metadata = json.loads(archive.read("chest v1/extra/metadata.json"))
        inference = json.loads(archive.read("chest v1/extra/inference.json"))
    assert json.loads(metadata["findings"]) == FINDINGS
    assert {"preprocessing", "postprocessing", "inferer"} <= set(inference)


def test_the_exported_folder_gives_the_probabilities_of_the_bundle(bundle, radiograph, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the configs' bundle_root is "."
    folder = export_folder(bundle, tmp_path / "exported")
    parser = ConfigParser()
    parser.read_meta(json.loads((folder / "configs" / "metadata.json").read_text()))
    parser.read_config(folder / "configs" / "inference.json")
    network = torch.jit.load(str(folder / "models" / "model.ts")).eval()
    image = parser.get_parsed_content("preprocessing")({"image": str(radiograph)})["image"]
    with torch.no_grad():
        logits = parser.get_parsed_content("inferer")(inputs=image[None], network=network)[0]
    made = parser.get_parsed_content("postprocessing")({"pred": logits})["pred"]
    row = predict([radiograph], bundle).iloc[0]
    np.testing.assert_allclose(made, [row[name] for name in FINDINGS], atol=1e-5)
    with pytest.raises(FileExistsError, match="is not empty; name a new folder for the export"):
        export_folder(bundle, folder)


def test_calibration_comes_from_the_metadata_or_the_card_or_is_an_error(bundle, tmp_path):
    said = json.dumps({name: {"temperature": 2.0} for name in FINDINGS})
    logits = torch.tensor([4.0, -1.0])
    made = postprocessing(FINDINGS, said, tmp_path / "no.pt")({"pred": logits})["pred"]
    np.testing.assert_allclose(made, torch.sigmoid(logits / 2))
    config = read_inference_config(bundle / "models" / "model.pt")
    made = postprocessing(FINDINGS, None, bundle / "models" / "model.pt")({"pred": logits})["pred"]
    np.testing.assert_allclose(made, config.probabilities(logits.numpy()[None])[0], atol=1e-6)
    with pytest.raises(FileNotFoundError, match="say how the logits are calibrated; export the bundle with"):
        postprocessing(FINDINGS, None, tmp_path / "no.pt")


def test_a_probability_for_deploy_is_below_one_and_there_is_one_a_finding():
    assert int(Calibratedd("pred", [1.0])({"pred": torch.tensor([80.0])})["pred"]) == 0
    with pytest.raises(ValueError, match=r"1 logits are needed, got \(2,\)"):
        Calibratedd("pred", [1.0])({"pred": torch.zeros(2)})


def _deployed(model, study, *options, cwd=None):
    command = [sys.executable, "-W", "ignore", str(ROOT / "docs" / "how-to" / "deploy" / "app.py")]
    done = subprocess.run(
        [*command, str(model), str(study), *options],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])["probabilities"]


@needs_sdk
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["archive", "folder", "bundle itself"])
def test_the_sdk_gives_our_probabilities_with_our_reading(bundle, radiograph, tmp_path, kind):
    models = {
        "archive": lambda: export_torchscript(bundle, tmp_path / "chest.ts"),
        "folder": lambda: export_folder(bundle, tmp_path / "exported"),
        "bundle itself": lambda: bundle,
    }
    row = predict([radiograph], bundle).iloc[0]
    cwd = bundle if kind == "bundle itself" else tmp_path
    np.testing.assert_allclose(
        _deployed(models[kind](), radiograph.parent, cwd=cwd), [row[n] for n in FINDINGS], atol=1e-5
    )


@needs_sdk
@pytest.mark.slow
def test_the_sdks_own_reading_differs_by_the_window_alone(bundle, radiograph, tmp_path):
    archive = export_torchscript(bundle, tmp_path / "chest.ts")
    with_window = _deployed(archive, radiograph.parent, "--sdk-reader")
    _change(radiograph, "WindowCenter", "WindowWidth")
    without = _deployed(archive, radiograph.parent, "--sdk-reader")
    row = predict([radiograph], bundle).iloc[0]
    np.testing.assert_allclose(without, with_window, atol=1e-6)
    np.testing.assert_allclose(without, [row[name] for name in FINDINGS], atol=2e-3)


@needs_sdk
@pytest.mark.slow
def test_a_real_radiograph_gets_our_probabilities_from_the_sdk(bundle, cxr, tmp_path):
    (tmp_path / "study").mkdir()
    source = cxr / "dicom" / "derived_RG1_half_uncompressed.dcm"
    (tmp_path / "study" / "a.dcm").write_bytes(source.read_bytes())
    archive = export_torchscript(bundle, tmp_path / "chest.ts")
    row = predict([source], bundle).iloc[0]
    np.testing.assert_allclose(_deployed(archive, tmp_path / "study"), [row[n] for n in FINDINGS], atol=1e-5)
