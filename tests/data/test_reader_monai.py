"""The reader in MONAI's hands: metadata that can be saved, collated and shared; the same without ITK."""

from __future__ import annotations

import hashlib
import io
import pickle
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.data.utils import affine_to_spacing
from monai.transforms import Compose, LoadImage, LoadImaged, Resized
from radiograph_corpus import BIRTH_DATE, NAME, PATIENT_ID, picture, write_dicom, write_pictures

from monai_simclr.data import RadiographError, RadiographReader, ReaderSettings, read_radiograph

ROOT = Path(__file__).resolve().parents[2]
READER = "monai_simclr.data.RadiographReader"
NAMES = ("one.dcm", "two.dcm", "gray.png", "plane.nii")


@pytest.fixture
def folder(tmp_path):
    write_pictures(tmp_path)
    write_dicom(tmp_path / "one.dcm", picture(12), WindowCenter=2000, WindowWidth=4000, PixelSpacing=[0.2, 0.1])
    write_dicom(tmp_path / "two.dcm", picture(12), PhotometricInterpretation="MONOCHROME1")
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_monai_loads_what_we_read(folder, name):
    loaded = LoadImaged("image", reader=READER, ensure_channel_first=True)({"image": folder / name})["image"]
    np.testing.assert_array_equal(loaded.numpy()[0], read_radiograph(folder / name)[0])
    assert loaded.dtype == torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_the_metadata_are_plain_and_contain_no_identity(folder, name):
    _, meta = LoadImage(reader=READER, image_only=False)(folder / name)
    saved = io.BytesIO()
    torch.save(dict(meta), saved)
    saved.seek(0)
    loaded = torch.load(saved, weights_only=True)
    assert loaded["format"] == meta["format"]
    for secret in (NAME, PATIENT_ID, BIRTH_DATE, "1.2.826"):
        assert secret not in str(loaded)


def test_metadata_of_all_formats_have_the_same_keys_and_are_collated(folder):
    metas = [RadiographReader().get_data(str(folder / name))[1] for name in NAMES]
    assert all(meta.keys() == metas[0].keys() for meta in metas)
    load = Compose([LoadImaged("image", reader=READER, ensure_channel_first=True), Resized("image", (32, 32))])
    data = Dataset([{"image": folder / name} for name in NAMES], load)
    batch = next(iter(DataLoader(data, batch_size=4)))["image"]
    assert batch.shape == (4, 1, 32, 32)
    assert batch.meta["inverted"].tolist() == [False, True, False, False]
    torch.testing.assert_close(batch.meta["window"][0][0].item(), 2000.0)


def test_the_affine_says_left_and_down_and_has_the_spacing(folder):
    image = LoadImage(reader=READER)(folder / "one.dcm")
    assert affine_to_spacing(image.affine, 2).tolist() == [0.2, 0.1]
    assert image.affine[:3, :2].tolist() == [[0, -0.1], [-0.2, 0], [0, 0]]


def test_the_affine_of_a_cropped_image_starts_where_it_was_cut(tmp_path):
    stored = np.pad(picture(12), ((7, 0), (5, 0)), constant_values=4095)
    path = write_dicom(tmp_path / "a.dcm", stored, PixelSpacing=[0.2, 0.1])
    image = LoadImage(reader=RadiographReader(crop_collimation=True))(path)
    assert image.shape == picture(12).shape
    torch.testing.assert_close(image.affine[:2, 3], torch.tensor([-0.5, -1.4], dtype=torch.float64))


def test_settings_can_be_given_by_name_in_a_config(folder):
    image = LoadImage(reader=READER, voi="percentile")(folder / "one.dcm")
    np.testing.assert_array_equal(image, read_radiograph(folder / "one.dcm", ReaderSettings(voi="percentile"))[0])
    assert asdict(RadiographReader(ReaderSettings(window_index=1), voi="index").settings)["window_index"] == 1


def test_a_setting_that_does_not_exist_is_not_ignored_silently(folder):
    with pytest.raises(ValueError, match=r"RadiographReader has no setting \['windw'\]; it has \['voi'"):
        LoadImage(reader=READER, windw=1)


def test_a_file_that_is_refused_reaches_no_other_reader(tmp_path):
    write_dicom(tmp_path / "a.dcm", picture(12), Modality="CT")
    with pytest.raises(RadiographError, match="Modality is 'CT'"):
        LoadImage(reader=READER)(tmp_path / "a.dcm")


def test_two_files_are_not_one_image(folder):
    with pytest.raises(ValueError, match="reads one file per image, got 2 files"):
        LoadImage(reader=READER)([folder / "one.dcm", folder / "two.dcm"])


def test_an_error_survives_the_trip_from_a_worker():
    error = pickle.loads(pickle.dumps(RadiographError("is nothing", "in/a.dcm")))
    assert (error.path, error.problem, str(error)) == ("in/a.dcm", "is nothing", "a.dcm: is nothing")


_SCRIPT = """
from monai.data.image_reader import has_itk
assert has_itk
import test_reader_monai
for path in sys.argv[1:]:
    print(test_reader_monai.fingerprint(path), flush=True)
os._exit(0)  # taking MONAI apart takes two seconds
"""


def fingerprint(path):
    image = LoadImage(reader=READER)(path)
    return hashlib.sha256(image.numpy().tobytes()).hexdigest(), sorted(map(str, image.meta.items()))


def test_whether_itk_can_be_imported_changes_nothing(folder, tmp_path_factory):
    stub = tmp_path_factory.mktemp("itk")
    (stub / "itk.py").write_text("def __getattr__(name):\n    raise RuntimeError(f'itk.{name} was used')\n")
    paths = [str(folder / name) for name in NAMES]
    code = f"import os, sys; sys.path[:0] = {[str(stub), str(Path(__file__).parent)]!r}\n{_SCRIPT}"
    command = [sys.executable, "-W", "ignore", "-c", code, *paths]
    with_itk = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=200)
    assert with_itk.stdout.splitlines() == [str(fingerprint(path)) for path in paths]
