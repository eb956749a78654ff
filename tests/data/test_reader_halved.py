"""JPEG 2000 and JPEG at a lower resolution: the same place, nearly the same gray levels, and only where asked for."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import get_decoder
from radiograph_corpus import make_dicom, write_dicom

from monai_simclr.data import RadiographError, ReaderSettings, read_radiograph
from monai_simclr.data.decoding import decode
from monai_simclr.data.formats import dicom_pixels
from monai_simclr.data.formats.halved import count_halvings, decode_jpeg2000, jpeg2000_resolutions
from monai_simclr.data.phantoms import draw_phantom

NEEDED = ReaderSettings(decode_at="needed")
SHAPE = (389, 333)  # of no power of two: sides are rounded up at every halving


def radiograph(shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """A phantom, float in [0, 1]."""
    pixels = np.asarray(draw_phantom(3, 0, max(shape)).pixels, dtype=np.float64)
    return pixels[: shape[0], : shape[1]]


def as_integers(pixels: np.ndarray, bits: int, signed: bool) -> np.ndarray:
    values = np.rint(pixels * (2**bits - 1)) - (2 ** (bits - 1) if signed else 0)
    return values.astype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}")


def write_jpeg2000(path: Path, pixels: np.ndarray, bits: int, syntax=uid.JPEG2000Lossless, **attributes) -> Path:
    data = make_dicom(pixels, bits, **attributes)
    options = {} if syntax == uid.JPEG2000Lossless else {"j2k_cr": [4]}
    data.compress(syntax, generate_instance_uid=False, **options)
    data.save_as(path, enforce_file_format=True)
    return path


def write_jpeg(path: Path, pixels: np.ndarray, **attributes) -> Path:
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "JPEG", quality=95)
    data = make_dicom(pixels, 8, **attributes)
    data.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    data.PixelData = encapsulate([encoded.getvalue()])
    data["PixelData"].is_undefined_length = True
    data.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_values_of_jpeg_2000_are_those_of_pydicoms_plugin(tmp_path, bits, signed, photometric):
    pixels = as_integers(radiograph((96, 80)), bits, signed)
    path = write_jpeg2000(tmp_path / "a.dcm", pixels, bits, PhotometricInterpretation=photometric)
    data = pydicom.dcmread(path)
    by_pydicom, _ = get_decoder(uid.JPEG2000Lossless).as_array(data, index=0, decoding_plugin="pillow")
    np.testing.assert_array_equal(by_pydicom, pixels)
    image, _ = read_radiograph(path, ReaderSettings(voi="none"))
    gray = (by_pydicom.astype(float) + (2 ** (bits - 1) if signed else 0)) / (2**bits - 1)
    np.testing.assert_allclose(image, 1 - gray if photometric == "MONOCHROME1" else gray, atol=1e-6)


@pytest.mark.parametrize("attributes", [{}, {"PatientOrientation": ["R", "H"]}, {"PatientOrientation": ["F", "L"]}])
@pytest.mark.parametrize("syntax", [uid.JPEG2000Lossless, uid.JPEG2000, uid.JPEGBaseline8Bit])
@pytest.mark.parametrize("size", [160, 96, 64])
def test_what_is_needed_lies_where_the_whole_image_lies(tmp_path, syntax, size, attributes):
    path, pixels = tmp_path / "a.dcm", radiograph()
    if syntax == uid.JPEGBaseline8Bit:
        write_jpeg(path, as_integers(pixels, 8, False), **attributes)
    else:
        write_jpeg2000(path, as_integers(pixels, 12, False), 12, syntax, **attributes)
    halved, _ = read_radiograph(path, NEEDED, size)
    whole, _ = read_radiograph(path)
    assert halved.shape != whole.shape
    assert min(halved.shape) >= size
    small = cv2.resize(whole, halved.shape[::-1], interpolation=cv2.INTER_AREA)
    inner = (slice(2, -2), slice(2, -2))
    error = np.abs(halved - small)[inner].mean()
    assert error < 0.008
    for axis in (0, 1):  # half a pixel further is further off, by the same on either side
        moved = [np.float64([[1, 0, step * axis], [0, 1, step * (1 - axis)]]) for step in (-0.5, 0.5)]
        shifted = [cv2.warpAffine(small, matrix, small.shape[::-1]) for matrix in moved]
        errors = [np.abs(halved - other)[inner].mean() for other in shifted]
        assert min(errors) > 1.7 * error
        assert errors[0] == pytest.approx(errors[1], rel=0.1)
    stored, before = (decode(path, size, reader=settings).astype(float) for settings in (NEEDED, ReaderSettings()))
    assert np.abs(stored - before).mean() < 2


def film(shape: tuple[int, int], seed: int = 1) -> np.ndarray:
    """Smooth clouds, float in [0, 1]: their place can be measured to a small part of a pixel."""
    coarse = np.random.default_rng(seed).random((16, 16), np.float32)
    return np.clip(cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC), 0, 1)


@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize(
    ("shape", "size", "attributes"),
    [
        ((2048, 2500), 256, {}),
        ((2500, 2048), 256, {}),
        ((512, 625), 64, {}),
        ((625, 512), 64, {"PatientOrientation": ["R", "H"]}),
        ((511, 625), 64, {"PatientOrientation": ["F", "L"]}),
    ],
)
def test_a_film_that_is_padded_lies_where_it_lies_when_all_of_it_is_decoded(tmp_path, shape, size, attributes, squash):
    pixels = film(shape)
    if size == 256:
        path = write_jpeg(tmp_path / "a.dcm", as_integers(pixels, 8, False), **attributes)
    else:
        path = write_jpeg2000(tmp_path / "a.dcm", as_integers(pixels, 12, False), 12, **attributes)
    needed, full = (decode(path, size, squash, settings).astype(np.float32) for settings in (NEEDED, ReaderSettings()))
    inner = (slice(size // 4, -size // 4),) * 2
    gradients = np.stack([slope[inner].ravel() for slope in np.gradient(full)], 1)
    shift = np.linalg.lstsq(gradients, (needed - full)[inner].ravel(), rcond=None)[0]
    assert np.abs(shift).max() < 0.08  # of a pixel; 0.24 to 0.41 if an odd pixel of padding went below and right


def test_a_jpeg_picture_is_read_as_needed_whatever_its_exif_says(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(as_integers(radiograph(), 8, False)).save(tmp_path / "a.jpg", quality=95, exif=exif)
    halved, whole = read_radiograph(tmp_path / "a.jpg", NEEDED, 96)[0], read_radiograph(tmp_path / "a.jpg")[0]
    assert (whole.shape, halved.shape) == (SHAPE[::-1], (167, 195))
    small = cv2.resize(whole, halved.shape[::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(halved - small).mean() < 0.004


def test_a_spacing_is_that_of_the_pixels_which_are_given_back(tmp_path):
    path = write_jpeg2000(tmp_path / "a.dcm", as_integers(radiograph(), 12, False), 12, PixelSpacing=[0.2, 0.3])
    image, meta = read_radiograph(path, NEEDED, 96)
    assert image.shape == (195, 167)
    assert meta["spacing"] == pytest.approx((0.2 * 389 / 195, 0.3 * 333 / 167))
    assert meta["crop"] == (0, 0, 195, 167)
    padded, meta = read_radiograph(path, NEEDED, 83, padded=True)
    assert padded.shape == (98, 84)
    assert meta["spacing"] == pytest.approx((0.2 * 389 / 98, 0.3 * 389 / 98))


@pytest.mark.parametrize(
    ("settings", "side", "attributes"),
    [
        (ReaderSettings(), 96, {}),
        (NEEDED, None, {}),
        (NEEDED, 200, {}),
        (NEEDED, 96, {"PixelPaddingValue": 0}),
        (ReaderSettings(decode_at="needed", crop_collimation=True), 96, {}),
    ],
)
def test_everything_is_decoded_in_full_unless_less_is_asked_for_and_enough(tmp_path, settings, side, attributes):
    path = write_jpeg2000(tmp_path / "a.dcm", as_integers(radiograph(), 12, False), 12, **attributes)
    sizes, decode_all = [], dicom_pixels.decode_jpeg2000
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dicom_pixels, "decode_jpeg2000", lambda *args: sizes.append(args[1]) or decode_all(*args))
        read_radiograph(path, settings, side)
    assert sizes == [0]


def test_other_formats_and_uncompressed_dicom_are_the_same_either_way(tmp_path):
    write_dicom(tmp_path / "a.dcm", as_integers(radiograph(), 12, False))
    cv2.imwrite(str(tmp_path / "a.png"), as_integers(radiograph(), 8, False))
    for name in ("a.dcm", "a.png"):
        needed, full = (decode(tmp_path / name, 96, reader=settings) for settings in (NEEDED, ReaderSettings()))
        np.testing.assert_array_equal(needed, full)


def test_a_codestream_is_halved_as_often_as_it_has_levels(tmp_path):
    pixels = as_integers(radiograph(), 12, False)
    for levels in (0, 1, 2, 5):
        encoded = io.BytesIO()
        Image.fromarray(pixels).save(encoded, "JPEG2000", no_jp2=True, num_resolutions=levels + 1, irreversible=False)
        codestream = encoded.getvalue()
        assert jpeg2000_resolutions(codestream) == levels
        assert decode_jpeg2000(codestream, min(levels, 2)).shape == {0: SHAPE, 1: (195, 167)}.get(levels, (98, 84))
        data = make_dicom(pixels)
        data.file_meta.TransferSyntaxUID = uid.JPEG2000Lossless
        data.PixelData = encapsulate([codestream])
        data["PixelData"].is_undefined_length = True
        data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
        expected = {0: SHAPE, 1: (195, 167)}.get(levels, (98, 84))
        assert read_radiograph(tmp_path / "a.dcm", NEEDED, 64)[0].shape == expected


def test_a_codestream_that_does_not_start_at_the_origin_is_not_halved(tmp_path):
    path = write_jpeg2000(tmp_path / "a.dcm", as_integers(radiograph(), 12, False), 12)
    frame = get_frame(pydicom.dcmread(path).PixelData, 0, number_of_frames=1)
    assert jpeg2000_resolutions(frame) >= 2
    for place in (16, 20, 32, 36):  # XOsiz, YOsiz, XTOsiz, YTOsiz
        assert jpeg2000_resolutions(frame[:place] + b"\0\0\0\1" + frame[place + 4 :]) == 0
    marker = frame.index(b"\xff\x52")
    assert jpeg2000_resolutions(frame[:marker] + b"\xff\x53\0\4\0\0" + frame[marker:]) == 0


@pytest.mark.parametrize("cut", [0.3, 0.7])
def test_a_damaged_codestream_is_refused_at_either_resolution(tmp_path, cut):
    path = write_jpeg2000(tmp_path / "a.dcm", as_integers(radiograph(), 12, False), 12)
    data = pydicom.dcmread(path)
    frame = get_frame(data.PixelData, 0, number_of_frames=1)
    data.PixelData = encapsulate([frame[:110] + bytes(int(cut * len(frame))) + b"\xff\xd9"])
    data.save_as(path, enforce_file_format=True)
    for settings in (NEEDED, ReaderSettings()):
        with pytest.raises(RadiographError, match="has damaged pixels"):
            read_radiograph(path, settings, 96)


def test_halvings_are_at_most_three_and_keep_the_shorter_side():
    assert [count_halvings(4096, 4000, side) for side in (64, 500, 501, 2000, 2001)] == [3, 3, 2, 1, 0]
    with pytest.raises(ValueError, match="decode_at must be one of"):
        ReaderSettings(decode_at="half")
