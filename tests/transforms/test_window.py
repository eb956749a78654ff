"""Windows: given or the image's own, against pydicom; jitter in the image's unit."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
import torch
from monai.data import MetaTensor, PydicomReader, list_data_collate
from monai.transforms import Compose, LoadImage, LoadImaged
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.pixels import apply_modality_lut, apply_windowing
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from monai_simclr.transforms import RandCLAHEd, RandWindow, RandWindowd, Window, Windowd


def write_dicom(path, function=None, center=(900.0,), width=(1500.0,), photometric="MONOCHROME2"):
    """A 12-bit file with rescale and windows; a CT, which MONAI's readers orient without a complaint."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID, data.Modality = CTImageStorage, meta.MediaStorageSOPInstanceUID, "DX"
    data.Rows, data.Columns, data.SamplesPerPixel = 24, 32, 1
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.PhotometricInterpretation, data.PixelSpacing = photometric, [0.5, 0.5]
    data.ImageOrientationPatient, data.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 0]
    data.RescaleSlope, data.RescaleIntercept = 1, -100
    data.WindowCenter, data.WindowWidth = list(center), list(width)
    if function:
        data.VOILUTFunction = function
    stored = (np.arange(24 * 32) * 5).reshape(24, 32).astype("<u2")
    data.PixelData = stored.tobytes()
    data.save_as(path, enforce_file_format=True)
    return data


def oracle(path) -> np.ndarray:
    data = pydicom.dcmread(path)
    shown = apply_windowing(apply_modality_lut(data.pixel_array, data).astype(np.float64), data)
    return (shown + 100) / 4095


def test_the_window_of_a_file_is_applied_once_and_jittered_in_the_range_that_it_made(tmp_path):
    write_dicom(tmp_path / "a.dcm", center=(900.0,), width=(1500.0,))
    steps = [LoadImaged("image", **READER), Windowd("image"), RandCLAHEd("image", prob=1.0), RandWindowd("image")]
    pipeline = Compose(steps).set_random_state(0)
    for _ in range(3):
        out = pipeline({"image": tmp_path / "a.dcm"})["image"]
        assert 0.1 < float(out.mean()) < 0.9
        assert float(out.std()) > 0.1


READER = {"reader": PydicomReader, "prune_metadata": False, "swap_ij": False, "ensure_channel_first": True}


@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_the_window_of_a_file_that_monais_reader_loaded_is_pydicoms(tmp_path, function):
    path = tmp_path / "a.dcm"
    write_dicom(path, function, center=(900.0, 500.0), width=(1500.0, 300.0))
    image = LoadImage(**READER)(path)
    assert image.max() > 1000  # the reader's values are in the modality's unit
    np.testing.assert_allclose(Window()(image)[0].numpy(), oracle(path), atol=2e-6)


@pytest.mark.parametrize(
    "names",
    [
        ("window_center", "window_width", "voi_lut_function"),
        ("WindowCenter", "WindowWidth", "VOILUTFunction"),
        ("0028|1050", "0028|1051", "0028|1056"),
    ],
)
def test_the_window_is_found_under_the_names_that_readers_use(names):
    values = torch.linspace(0, 4000, 50).view(1, 5, 10)
    for center, width in ((1000.0, 2000.0), ("1000\\7", "2000\\9"), ([1000.0, 7.0], [2000.0, 9.0])):
        image = MetaTensor(values, meta=dict(zip(names, (center, width, "SIGMOID"), strict=True)))
        torch.testing.assert_close(Window()(image).as_tensor(), Window(1000, 2000, "SIGMOID")(values).as_tensor())


def test_each_image_of_a_collated_batch_keeps_its_own_window(tmp_path):
    for i, (function, center) in enumerate(((None, 900.0), ("SIGMOID", 700.0), ("SIGMOID", 500.0))):
        write_dicom(tmp_path / f"{i}.dcm", function or "LINEAR", center=(center, 1.0), width=(1500.0, 1.0))
    items = [LoadImaged("image", **READER)({"image": tmp_path / f"{i}.dcm"}) for i in range(3)]
    together = Window().batch(list_data_collate(items)["image"])
    for i, item in enumerate(items):
        assert torch.equal(together[i], Window()(item["image"]).as_tensor())
        assert torch.equal(together[i], Windowd("image")(item)["image"].as_tensor())


def test_an_image_without_a_window_is_refused_with_the_reason():
    image = torch.rand(1, 4, 4)
    with pytest.raises(ValueError, match=r"no window of its own \(none in its metadata\); give center and width"):
        Window()(image)
    with pytest.raises(ValueError, match=r"it is windowed already, by RadiographReader or Window"):
        Window()(MetaTensor(image, meta={"window": (1.0, 2.0)}))
    with pytest.raises(ValueError, match=r"center and width belong together, got center=3 and width=None"):
        Window(center=3)
    inverted = {"0028|1050": "5", "0028|1051": "9", "0028|0004": "MONOCHROME1 "}
    with pytest.raises(ValueError, match=r"ITKReader has inverted this MONOCHROME1 image"):
        Window()(MetaTensor(image, meta=inverted))


def test_the_jitter_is_in_the_unit_of_the_image():
    image = torch.tensor([[[0.0, 1000.0, 2000.0, 3000.0, 4000.0]]])
    shifted = RandWindow(2000, 4000, center_jitter=400, width_jitter=0, prob=1.0).set_random_state(0)
    middles = torch.stack([shifted(image)[0, 0, 2].as_tensor() for _ in range(300)]) - 0.5
    assert 0.095 < float(middles.abs().max()) <= 0.1
    wider = RandWindow(2000, 4000, center_jitter=0, width_jitter=1000, prob=1.0).set_random_state(0)
    slopes = torch.stack([wider(image).diff()[0, 0, 1].as_tensor() for _ in range(300)])
    assert 1000 / 5000 - 1e-6 <= float(slopes.min()) < 0.21
    assert 0.32 < float(slopes.max()) <= 1000 / 3000 + 1e-6


def test_without_jitter_an_image_still_gets_its_window():
    image = MetaTensor(torch.linspace(0, 4000, 16).view(1, 4, 4), meta={"window_center": 900.0, "window_width": 700.0})
    assert torch.equal(RandWindow(prob=0.0)(image), Window()(image))
    some = RandWindow(prob=0.5).set_random_state(0)
    outs = [some(image) for _ in range(40)]
    assert all(float(out.min()) >= 0 and float(out.max()) <= 1 for out in outs)
    assert 5 < sum(torch.equal(out, Window()(image)) for out in outs) < 35


@pytest.mark.parametrize(("dtype", "top"), [(torch.uint8, 255), (torch.uint16, 65535), (torch.float32, 1)])
def test_without_any_window_the_range_is_that_of_a_canonical_image(dtype, top):
    image = torch.tensor([[[0, top]]]).to(dtype)
    assert RandWindow(prob=0.0)(image).flatten().tolist() == [0.0, 1.0]


@pytest.mark.parametrize("dtype", [torch.bool, torch.int8, torch.int16, torch.int32, torch.int64])
def test_other_integers_need_a_window_since_their_range_is_unknown(dtype):
    image = torch.tensor([[[0, 1, 100]]]).to(dtype)
    with pytest.raises(ValueError, match=rf"no window of its own.*got {dtype}; give center and width"):
        RandWindow(prob=0.0)(image)
    assert RandWindow(50, 100, prob=0.0)(image).min() == 0


@pytest.mark.parametrize(
    ("function", "width", "jitter", "narrowest"),
    [
        ("LINEAR", 300.0, 500.0, 3.0),
        ("LINEAR", 1.0, None, 1.0),
        ("LINEAR", 2.0, 500.0, 1.0),
        ("LINEAR_EXACT", 300.0, 500.0, 3.0),
        ("SIGMOID", 0.5, 7.0, 0.005),
    ],
)
def test_no_jitter_closes_the_window_that_an_image_came_with(function, width, jitter, narrowest):
    meta = {"window_center": 400.0, "window_width": width, "voi_lut_function": function}
    image = MetaTensor(torch.linspace(0, 1000, 64).view(1, 8, 8), meta=meta)
    jittered = RandWindow(width_jitter=jitter, prob=1.0).set_random_state(0)
    widths = [jittered(image).meta["window"][1] for _ in range(100)]
    assert min(widths) == pytest.approx(narrowest)
    assert max(widths) > width


def test_a_window_that_is_too_narrow_for_its_function_is_refused_with_a_jitter_too():
    image = MetaTensor(torch.rand(1, 4, 4), meta={"window_center": 0.5, "window_width": 0.5})
    for transform in (Window(), RandWindow(prob=0.0), RandWindow(width_jitter=0.1, prob=1.0)):
        with pytest.raises(ValueError, match=r"window width of LINEAR must be at least 1, got \[0.5"):
            transform(image)


def test_a_jitter_that_could_close_the_window_is_refused():
    with pytest.raises(ValueError, match=r"width_jitter must be less than the width 4, got 4"):
        RandWindow(2, 4, width_jitter=4)
    with pytest.raises(ValueError, match=r"center_jitter must be at least 0, in the unit of the image, got -1"):
        RandWindow(center_jitter=-1)
