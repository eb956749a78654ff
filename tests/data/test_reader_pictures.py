"""PNG, JPEG, TIFF and NIfTI: scaled by their type, read as they are displayed, upright."""

from __future__ import annotations

import cv2
import nibabel as nib
import numpy as np
import pytest
from monai.data import MetaTensor
from monai.transforms import LoadImaged, SaveImage
from PIL import Image, ImageFile, ImageOps
from radiograph_corpus import picture

from monai_simclr.data import RadiographError, ReaderSettings, read_radiograph

RAMP = np.kron(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4, np.ones((4, 4), np.uint8))


def describe_problem(path):
    with pytest.raises(RadiographError) as error:
        read_radiograph(path)
    return error.value.problem


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_picture_is_scaled_by_its_type_and_not_by_its_content(tmp_path, bits, suffix):
    pixels = picture(bits) // 2
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}")
    image, meta = read_radiograph(tmp_path / f"a.{suffix}")
    np.testing.assert_allclose(image, pixels / (2**bits - 1), atol=1e-6)
    assert meta["format"] == {"png": "PNG", "tif": "TIFF"}[suffix]


def test_percentiles_are_taken_of_pictures_too_when_asked_for(tmp_path):
    pixels = picture(12)  # 12 bits in a 16-bit PNG, as in PadChest
    Image.fromarray(pixels).save(tmp_path / "a.png")
    low, high = np.percentile(pixels, (0.5, 99.5))
    image, meta = read_radiograph(tmp_path / "a.png", ReaderSettings(voi="percentile"))
    np.testing.assert_allclose(image, np.clip((pixels - low) / (high - low), 0, 1), atol=1e-6)
    assert meta["voi"] == "percentile"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_equal_channels_are_gray_in_full_depth(tmp_path, dtype, suffix):
    gray = picture(8 if dtype == np.uint8 else 16)
    cv2.imwrite(str(tmp_path / f"a.{suffix}"), np.stack([gray] * 3, axis=2))
    np.testing.assert_allclose(read_radiograph(tmp_path / f"a.{suffix}")[0], gray / np.iinfo(dtype).max, atol=1e-6)


def test_colour_is_refused(tmp_path):
    Image.fromarray(np.stack([RAMP, RAMP, RAMP // 2], axis=2)).save(tmp_path / "rgb.png")
    assert describe_problem(tmp_path / "rgb.png") == (
        "is a color picture (its channels differ by 126 of 255); a radiograph is gray"
    )


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_lies_on_black(tmp_path, mode):
    alpha = np.full_like(RAMP, 255)
    alpha[:, :16] = 51
    picture_of = Image.merge(mode, [Image.fromarray(RAMP)] * (len(mode) - 1) + [Image.fromarray(alpha)])
    picture_of.save(tmp_path / "a.png")
    np.testing.assert_allclose(read_radiograph(tmp_path / "a.png")[0], np.rint(RAMP * (alpha / 255)) / 255, atol=1e-6)


def test_a_palette_is_read_as_it_is_displayed(tmp_path):
    shown = Image.fromarray(RAMP).convert("P")
    shown.putpalette([255 - i // 3 for i in range(768)])
    shown.save(tmp_path / "p.png")
    np.testing.assert_allclose(read_radiograph(tmp_path / "p.png")[0], 1 - np.asarray(shown) / 255, atol=1e-6)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_the_orientation_of_exif_and_tiff_is_applied(tmp_path, suffix, tag):
    exif = Image.Exif()
    exif[0x0112] = tag
    smooth = Image.fromarray(cv2.resize(RAMP, (48, 32)))
    smooth.save(tmp_path / f"e.{suffix}", exif=exif, **({"quality": 100} if suffix == "jpg" else {}))
    smooth.getexif()[0x0112] = tag
    upright = np.asarray(ImageOps.exif_transpose(smooth)) / 255
    assert upright.shape == ((32, 48) if tag < 5 else (48, 32))
    np.testing.assert_allclose(read_radiograph(tmp_path / f"e.{suffix}")[0], upright, atol=3 / 255)


def test_a_tiff_of_which_zero_is_white_is_inverted_once_in_either_depth(tmp_path):
    for pixels in (picture(8), picture(16)):
        Image.fromarray(pixels).save(tmp_path / "a.tif", tiffinfo={262: 0})
        image, meta = read_radiograph(tmp_path / "a.tif")
        top = np.iinfo(pixels.dtype).max
        as_shown = np.asarray(Image.open(tmp_path / "a.tif")) / top
        if pixels.dtype == np.uint16:  # Pillow shows these as stored
            as_shown = 1 - as_shown
        np.testing.assert_allclose(image, as_shown, atol=1e-6)
        assert meta["inverted"]


def test_a_jpeg_is_gray_whether_or_not_it_has_channels(tmp_path):
    Image.fromarray(picture(8)).save(tmp_path / "l.jpg", quality=95)
    Image.fromarray(picture(8)).convert("RGB").save(tmp_path / "rgb.jpg", quality=95)
    one, other = (read_radiograph(tmp_path / name)[0] for name in ("l.jpg", "rgb.jpg"))
    assert np.abs(one - other).max() <= 2 / 255


@pytest.mark.parametrize(
    ("mode", "name"), [("1", "a.png"), ("F", "a.tif"), ("I", "a.tif"), ("CMYK", "a.jpg"), ("LAB", "a.tif")]
)
def test_kinds_of_pixels_that_are_not_gray_are_refused_by_name(tmp_path, mode, name):
    colour = Image.fromarray(RAMP).convert("RGB")
    shown = {"CMYK": colour.convert("CMYK"), "LAB": Image.new("LAB", (32, 32))}.get(mode)
    (shown or Image.fromarray(RAMP).convert(mode)).save(tmp_path / name)
    assert describe_problem(tmp_path / name) == f"has pixels of the kind {mode!r}; 8 or 16 bits of gray are needed"


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_a_truncated_picture_is_refused_even_if_pillow_is_set_to_accept_it(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(picture(8)).save(path, **({"compression": "tiff_lzw"} if suffix == "tif" else {}))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    assert "damaged" in describe_problem(path)
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_several_pages_are_refused(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "a.tif", save_all=True, append_images=[Image.fromarray(RAMP)])
    assert describe_problem(tmp_path / "a.tif") == "has 2 pictures in it; a radiograph has one"
    Image.fromarray(RAMP).save(tmp_path / "a.png", save_all=True, append_images=[Image.fromarray(RAMP // 2)])
    assert describe_problem(tmp_path / "a.png") == "has 2 pictures in it; a radiograph has one"


def _nifti(path, array, affine=None, change=None):
    image = nib.Nifti1Image(array, np.diag([-1, -1, 1, 1]) if affine is None else affine)
    if change:
        change(image.header)
    nib.save(image, path)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("third", [False, True])
def test_a_plane_as_simpleitk_writes_it_is_the_picture(tmp_path, name, third):
    upright = picture(16)
    array = upright.T[:, :, None] if third else upright.T
    image, meta = read_radiograph(_nifti(tmp_path / name, array, np.diag([-0.2, -0.3, 1, 1])))
    np.testing.assert_allclose(image, upright / 65535, atol=1e-6)
    assert meta["spacing"] == pytest.approx((0.3, 0.2))
    assert (meta["format"], meta["spacing_source"]) == ("NIfTI", "pixdim")


@pytest.mark.parametrize(
    ("codes", "store"),
    [
        ("LP", lambda a: a.T),
        ("RA", lambda a: a[::-1, ::-1].T),
        ("LA", lambda a: a[::-1].T),
        ("PL", lambda a: a),
        ("LI", lambda a: a.T),
        ("RS", lambda a: a[::-1, ::-1].T),
        ("SR", lambda a: a[::-1, ::-1]),
        ("AI", lambda a: a.T),
        ("SP", lambda a: a[::-1]),
    ],
)
def test_the_affine_says_which_way_up_a_plane_is(tmp_path, codes, store):
    affine = np.zeros((4, 4))
    for axis, letter in enumerate(codes):
        affine["RLAPSI".index(letter) // 2, axis] = 1 if letter in "RAS" else -1
    affine[next(row for row in range(3) if not affine[row].any()), 2] = affine[3, 3] = 1
    image, _ = read_radiograph(_nifti(tmp_path / "a.nii", store(picture(16)), affine))
    np.testing.assert_allclose(image, picture(16) / 65535, atol=1e-6)


def test_a_nifti_is_scaled_by_its_display_range_else_its_type_else_percentiles(tmp_path):
    stored = picture(12).T

    def display(header):
        header["cal_min"], header["cal_max"] = 0, 4095

    known = read_radiograph(_nifti(tmp_path / "a.nii", stored.astype(np.int16), change=display))
    np.testing.assert_allclose(known[0], picture(12) / 4095, atol=1e-6)
    fractions = read_radiograph(_nifti(tmp_path / "b.nii", (stored / 4095).astype(np.float32)))
    np.testing.assert_allclose(fractions[0], picture(12) / 4095, atol=1e-6)
    low, high = np.percentile(stored, (0.5, 99.5))
    unknown, meta = read_radiograph(_nifti(tmp_path / "c.nii", stored.astype(np.int16)))
    np.testing.assert_allclose(unknown, np.clip((picture(12) - low) / (high - low), 0, 1), atol=1e-6)
    assert meta["voi"] == "percentile"
    with pytest.raises(RadiographError, match="fractions that are not in"):
        read_radiograph(_nifti(tmp_path / "d.nii", stored.astype(np.float32)), ReaderSettings(voi="none"))


def test_what_monai_saves_of_a_radiograph_is_read_back_the_same(tmp_path):
    Image.fromarray(picture(8)).save(tmp_path / "a.png")
    load = LoadImaged("image", reader="monai_simclr.data.RadiographReader", ensure_channel_first=True)
    image = load({"image": tmp_path / "a.png"})["image"]
    assert isinstance(image, MetaTensor)
    SaveImage(tmp_path, output_postfix="", output_ext=".nii.gz", separate_folder=False, print_log=False)(image)
    np.testing.assert_allclose(read_radiograph(tmp_path / "a.nii.gz")[0], image[0].numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((8, 8, 3), np.uint8), "has the shape (8, 8, 3); a radiograph is one plane"),
        (np.full((32, 32), np.nan, np.float32), "has pixels that are not finite"),
        (np.zeros((8, 8), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "gray numbers are needed"),
        (np.zeros((8, 8), np.complex64), "has pixels of type complex64"),
    ],
)
def test_what_is_not_a_plane_of_numbers_is_refused(tmp_path, array, words):
    assert words in describe_problem(_nifti(tmp_path / "a.nii", array))


def test_a_cut_nifti_is_refused_compressed_or_not(tmp_path):
    for name in ("a.nii", "a.nii.gz"):
        path = _nifti(tmp_path / name, picture(16))
        path.write_bytes(path.read_bytes()[:-600])
        assert "is truncated" in describe_problem(path)


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
def test_the_gray_level_that_a_png_calls_transparent_stays_as_it_is(tmp_path, mode):
    """An alpha channel is another thing: see its test."""
    pixels = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) % 251
    picture = Image.fromarray(pixels if mode == "I;16" else pixels.astype(np.uint8))
    key = (200, 200, 200) if mode == "RGB" else 200
    (picture.convert(mode) if mode == "RGB" else picture).save(tmp_path / "key.png", transparency=key)
    picture.save(tmp_path / "plain.png")
    assert Image.open(tmp_path / "key.png").info["transparency"] == key
    one, other = (read_radiograph(tmp_path / name)[0] for name in ("key.png", "plain.png"))
    np.testing.assert_array_equal(one, other)
