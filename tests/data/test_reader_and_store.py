"""Files to canonical images, and archives to stores: values by hand and from pydicom, refusals by name."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from monai.transforms import LoadImaged
from PIL import Image
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from monai_simclr.data import RadiographError, build_store, open_index, open_store, read_radiograph, store_of
from monai_simclr.data.loading import InferenceDataset, KeyedSampler, StoreDataset, list_radiographs
from monai_simclr.data.phantom import draw_phantom
from monai_simclr.data.phantom_files import phantom_to_dicom, write_nih_phantoms
from monai_simclr.recipes import augmentation

RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


def _dicom(path, change=None, photometric="MONOCHROME2"):
    data = phantom_to_dicom(draw_phantom(1, 0, 64), photometric)
    if change:
        change(data)
    data.save_as(path, enforce_file_format=True)
    return path


def _problem(path):
    with pytest.raises(RadiographError) as error:
        read_radiograph(path)
    assert str(error.value).startswith(f"{path.name}: ")
    return error.value.problem


@pytest.mark.parametrize("bits", [8, 16])
def test_a_png_is_scaled_by_its_type_and_not_by_its_content(tmp_path, bits):
    pixels = RAMP if bits == 8 else RAMP.astype(np.uint16) * 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_allclose(read_radiograph(tmp_path / "a.png")[0], pixels / (2**bits - 1), atol=1e-6)


def test_equal_channels_are_gray_and_colour_is_refused(tmp_path):
    Image.fromarray(np.stack([RAMP] * 3 + [RAMP * 0 + 255], axis=2)).save(tmp_path / "rgba.png")
    np.testing.assert_allclose(read_radiograph(tmp_path / "rgba.png")[0], RAMP / 255, atol=1e-6)
    Image.fromarray(np.stack([RAMP, RAMP, RAMP // 2], axis=2)).save(tmp_path / "rgb.png")
    assert "colour picture" in _problem(tmp_path / "rgb.png")


def test_a_palette_is_read_as_it_is_shown(tmp_path):
    picture = Image.fromarray(RAMP).convert("P")
    picture.putpalette([255 - i // 3 for i in range(768)])
    picture.save(tmp_path / "p.png")
    np.testing.assert_allclose(read_radiograph(tmp_path / "p.png")[0], 1 - np.asarray(picture) / 255, atol=1e-6)


def test_the_orientation_of_a_photograph_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RAMP).save(tmp_path / "e.png", exif=exif)
    np.testing.assert_allclose(read_radiograph(tmp_path / "e.png")[0], np.rot90(RAMP, -1) / 255, atol=1e-6)


def test_the_content_decides_and_not_the_name(tmp_path):
    path = _dicom(tmp_path / "dicom_named.png")
    assert read_radiograph(path)[1]["format"] == "DICOM"
    (tmp_path / "text.png").write_text("hello")
    assert "is not DICOM, PNG, JPEG or TIFF" in _problem(tmp_path / "text.png")


def test_dicom_is_what_pydicom_shows(tmp_path):
    path = _dicom(tmp_path / "a.dcm")
    data = pydicom.dcmread(path)
    shown = apply_voi_lut(apply_modality_lut(data.pixel_array, data), data) / (2**data.BitsStored - 1)
    np.testing.assert_allclose(read_radiograph(path)[0], np.clip(shown, 0, 1), atol=1e-6)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("shape", ["IDENTITY", "INVERSE"])
def test_there_is_one_inversion_at_most(tmp_path, photometric, shape):
    plain = read_radiograph(_dicom(tmp_path / "plain.dcm"))[0]
    stored = _dicom(tmp_path / "a.dcm", lambda data: setattr(data, "PresentationLUTShape", shape), photometric)
    pixels, meta = read_radiograph(stored)
    assert meta["inverted"] == (photometric == "MONOCHROME1" or shape == "INVERSE")
    expected = 1 - plain if (photometric, shape) == ("MONOCHROME2", "INVERSE") else plain
    np.testing.assert_allclose(pixels, expected, atol=1 / 255)


def test_padding_is_black_and_the_sigmoid_is_pydicoms(tmp_path):
    def change(data):
        pixels = data.pixel_array.copy()
        pixels[:4] = 4095
        data.PixelData = pixels.tobytes()
        data.add_new(0x00280120, "US", 4095)
        data.VOILUTFunction = "SIGMOID"
        data.WindowCenter, data.WindowWidth = 2000, 1000

    path = _dicom(tmp_path / "a.dcm", change)
    data = pydicom.dcmread(path)
    pixels = read_radiograph(path)[0]
    shown = apply_voi_lut(data.pixel_array, data) / 4095
    assert (pixels[:4] == 0).all()
    np.testing.assert_allclose(
        pixels[4:][data.pixel_array[4:] != 4095], shown[4:][data.pixel_array[4:] != 4095], atol=1e-5
    )


def test_zero_spacing_is_missing_and_the_next_tag_is_used(tmp_path):
    def change(data):
        data.PixelSpacing = [0, 0]
        data.ImagerPixelSpacing = [0.2, 0.1]

    assert read_radiograph(_dicom(tmp_path / "a.dcm", change))[1]["spacing"] == (0.2, 0.1)


@pytest.mark.parametrize(
    ("tag", "value", "words"),
    [
        ("Modality", "CT", "(0008,0060) Modality is 'CT'"),
        ("NumberOfFrames", 3, "(0028,0008) Number of Frames is 3"),
        ("SamplesPerPixel", 3, "(0028,0002) Samples per Pixel is 3"),
        ("PresentationIntentType", "FOR PROCESSING", "(0008,0068) Presentation Intent Type is FOR PROCESSING"),
        ("Rows", 65535, "is truncated"),
        ("Columns", 0, "(0028,0011) Columns is 0"),
    ],
)
def test_what_is_no_radiograph_is_refused_by_its_tag(tmp_path, tag, value, words):
    assert words in _problem(_dicom(tmp_path / "a.dcm", lambda data: setattr(data, tag, value)))


def test_an_absurd_size_is_refused_before_decoding(tmp_path):
    def change(data):
        data.Rows, data.Columns = 65535, 65535

    assert "more than max_pixels=64000000" in _problem(_dicom(tmp_path / "bomb.dcm", change))


def test_a_constant_and_a_cut_file_are_refused(tmp_path):
    Image.new("L", (8, 8), 7).save(tmp_path / "flat.png")
    assert "one gray all over" in _problem(tmp_path / "flat.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:2000])
    assert "cannot be decoded" in _problem(tmp_path / "cut.png")


def test_monai_loads_what_we_read_upright_and_without_names(tmp_path):
    path = _dicom(tmp_path / "a.dcm")
    loaded = LoadImaged("image", reader="monai_simclr.data.RadiographReader", ensure_channel_first=True)(
        {"image": path}
    )
    np.testing.assert_array_equal(np.asarray(loaded["image"])[0], read_radiograph(path)[0])
    data = pydicom.dcmread(path)
    assert str(data.PatientName) not in str(loaded["image"].meta)
    assert str(data.PatientID) not in {str(value) for value in loaded["image"].meta.values()}


def test_the_real_dicoms_are_read_or_refused_by_name(cxr):
    read, refused = [], {}
    for path in sorted((cxr / "dicom").glob("*.dcm")):
        try:
            read.append((path.name, read_radiograph(path)[1]["inverted"]))
        except RadiographError as error:
            refused[path.name] = error.problem
    assert dict(read)["RG1_J2KI.dcm"]
    assert not dict(read)["nih_dx_secondary_capture.dcm"]
    assert list(refused) == ["CR-MONO1-10-chest.dcm"]
    assert "without the Part 10 header" in refused["CR-MONO1-10-chest.dcm"]


@pytest.fixture
def archive(tmp_path):
    return write_nih_phantoms(tmp_path / "nih", n_patients=12, size=64, bad_files=1)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_store_holds_the_readable_images_in_order_and_lists_the_others(archive, tmp_path, workers):
    index = open_index(archive)
    store = build_store(index, tmp_path / "store", 32, workers=workers, max_rejected=0.2)
    assert store.images.shape == (len(index) - 1, 32, 32)
    assert len(store.rejected) == 1
    assert "cannot be decoded" in store.rejected["reason"].iloc[0]
    assert set(store.index["image"]) | set(store.rejected["image"]) == set(index["image"])
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".store")]


def test_too_many_damaged_images_stop_the_build_and_leave_nothing(archive, tmp_path):
    with pytest.raises(ValueError, match="more than max_rejected=1% are damaged"):
        build_store(open_index(archive), tmp_path / "store", 32, workers=0, max_rejected=0.01)
    assert [path.name for path in tmp_path.iterdir()] == ["nih"]


def test_a_store_is_opened_again_and_rebuilt_only_when_the_archive_changed(archive, tmp_path):
    first = build_store(open_index(archive), tmp_path / "s", 32, workers=0, max_rejected=0.5)
    stamp = (tmp_path / "s" / "images.npy").stat().st_mtime_ns
    assert len(store_of(archive, tmp_path / "s", 32, workers=0).images) == len(first.images)
    assert (tmp_path / "s" / "images.npy").stat().st_mtime_ns == stamp
    (tmp_path / "s" / "index.csv").write_text("changed")
    with pytest.raises(ValueError, match=r"index\.csv was changed after the store was built"):
        open_store(tmp_path / "s")


def test_items_have_a_key_and_not_a_history(archive, tmp_path):
    store = build_store(open_index(archive), tmp_path / "s", 64, workers=0, max_rejected=0.5)
    one, two = (StoreDataset(store, ["train", "val"], transform=augmentation(56), seed=3) for _ in range(2))
    first = [one[1, row]["image"] for row in range(4)]
    again = [two[1, row]["image"] for row in (3, 2, 1, 0)][::-1]
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert any((one[2, row]["image"] != first[row]).any() for row in range(4))


def test_the_sampler_hands_out_the_epoch_and_every_position_once(archive, tmp_path):
    store = build_store(open_index(archive), tmp_path / "s", 32, workers=0, max_rejected=0.5)
    sampler = KeyedSampler(StoreDataset(store, ["train", "val"]), seed=1)
    orders = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        keys = list(sampler)
        assert {key[0] for key in keys} == {epoch}
        orders.append([key[1] for key in keys])
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(len(orders[0])))
    assert orders[0] != orders[1]


def test_an_unknown_split_names_those_that_are_there(archive, tmp_path):
    store = build_store(open_index(archive), tmp_path / "s", 32, workers=0, max_rejected=0.5)
    with pytest.raises(ValueError, match=r"no image is in the splits \['holdout'\]; the index has \['test', 'train'"):
        StoreDataset(store, ["holdout"])


def test_a_file_that_cannot_be_read_is_an_item_with_a_reason_and_no_name(tmp_path):
    (tmp_path / "secret_name.dcm").write_text("no image")

    def transform(item):
        raise RadiographError(item["image"], "is nothing")

    dataset = InferenceDataset(list_radiographs(tmp_path), transform, 8)
    assert dataset[0]["reason"] == "is nothing"
    assert dataset[0]["image"].shape == (1, 8, 8)


def test_an_empty_folder_at_inference_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no files; pass --dataset_dir"):
        list_radiographs(tmp_path)
