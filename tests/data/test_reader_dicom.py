"""DICOM to gray: a corpus written here, against values by hand and against `pydicom.pixels`."""

from __future__ import annotations

import itertools
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from radiograph_corpus import SYNTAXES, make_dicom, picture, table_item, write_dicom, write_syntax

from monai_simclr.data import RadiographError, ReaderSettings, read_radiograph
from monai_simclr.data.collimation import exposed_field
from monai_simclr.data.formats import dicom_pixels
from monai_simclr.data.phantoms import draw_phantom, phantom_to_dicom

RANGE = ReaderSettings(voi="none")


def shown_by_pydicom(path: Path) -> np.ndarray:
    """The chain of pydicom, scaled by hand to its known output range."""
    data = pydicom.dcmread(path)
    values = apply_modality_lut(data.pixel_array, data)
    shown = apply_voi_lut(values, data).astype(np.float64)
    if data.get("VOILUTSequence"):
        return shown / (2 ** data.VOILUTSequence[0].LUTDescriptor[2] - 1)
    low, high = (-(2 ** (data.BitsStored - 1)), 2 ** (data.BitsStored - 1) - 1)
    if not data.PixelRepresentation:
        low, high = 0, 2**data.BitsStored - 1
    if data.get("ModalityLUTSequence"):
        low, high = 0, 2 ** data.ModalityLUTSequence[0].LUTDescriptor[2] - 1
    else:
        low, high = (v * data.get("RescaleSlope", 1) + data.get("RescaleIntercept", 0) for v in (low, high))
    return np.clip((shown - float(low)) / float(high - low), 0, 1)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
def test_every_transfer_syntax_gives_the_stored_values(tmp_path, syntax):
    stored = write_syntax(tmp_path / "a.dcm", syntax)
    _, bits, loss = SYNTAXES[syntax]
    assert pydicom.dcmread(tmp_path / "a.dcm").file_meta.TransferSyntaxUID == syntax
    image, meta = read_radiograph(tmp_path / "a.dcm", RANGE)
    np.testing.assert_allclose(image, stored / (2**bits - 1), atol=loss + 1e-6)
    assert meta["voi"] == "none"


@pytest.mark.parametrize(
    "syntax", [uid.ExplicitVRBigEndian, uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.JPEGLosslessSV1]
)
def test_signed_values_stay_signed_in_every_codec(tmp_path, syntax):
    stored = write_syntax(tmp_path / "a.dcm", syntax, signed=True)
    np.testing.assert_allclose(read_radiograph(tmp_path / "a.dcm", RANGE)[0], (stored + 2048.0) / 4095, atol=1e-6)


@pytest.mark.parametrize(("bits", "signed"), [*itertools.product((8, 10, 12, 14, 15, 16), (False, True))])
def test_eight_to_sixteen_bits_signed_or_not_fill_their_known_range(tmp_path, bits, signed):
    stored = picture(bits, signed=signed)
    image, _ = read_radiograph(write_dicom(tmp_path / "a.dcm", stored, bits), RANGE)
    np.testing.assert_allclose(
        image, (stored.astype(float) + (2 ** (bits - 1) if signed else 0)) / (2**bits - 1), atol=1e-6
    )


def test_bits_above_the_stored_ones_do_not_count(tmp_path):
    stored = picture(12)
    image, _ = read_radiograph(write_dicom(tmp_path / "a.dcm", stored | 0xF000), RANGE)
    np.testing.assert_allclose(image, stored / 4095, atol=1e-6)


def test_our_run_lengths_are_pydicoms(tmp_path):
    write_syntax(tmp_path / "a.dcm", uid.RLELossless)
    data = pydicom.dcmread(tmp_path / "a.dcm")
    ours = np.rint(read_radiograph(tmp_path / "a.dcm", RANGE)[0] * 4095)
    np.testing.assert_array_equal(ours, data.pixel_array)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", None])
@pytest.mark.parametrize("rescale", [(1, 0), (2.5, -100), (-1, 4095)])
def test_a_window_after_a_rescale_is_pydicoms(tmp_path, function, rescale):
    attributes = {"RescaleSlope": rescale[0], "RescaleIntercept": rescale[1], "WindowCenter": 1800, "WindowWidth": 1500}
    if function:
        attributes["VOILUTFunction"] = function
    path = write_dicom(tmp_path / "a.dcm", picture(12), **attributes)
    image, meta = read_radiograph(path)
    np.testing.assert_allclose(image, shown_by_pydicom(path), atol=1e-6)
    assert (meta["voi"], meta["window"]) == ("window", (1800.0, 1500.0))


SMALL = ReaderSettings(min_side=1)


def test_the_linear_window_has_the_values_of_the_standard(tmp_path):
    stored = np.array([[0, 1000, 2047, 2048], [2049, 3000, 4095, 5]], np.uint16)
    path = write_dicom(tmp_path / "a.dcm", stored, WindowCenter=2048, WindowWidth=2049)
    expected = np.clip((stored - 2047.5) / 2048 + 0.5, 0, 1)  # PS3.3 C.11.2.1.2.1 with c - 0.5 and w - 1
    np.testing.assert_allclose(read_radiograph(path, SMALL)[0], expected, atol=1e-6)


def test_a_linear_window_of_width_one_is_a_threshold(tmp_path):
    stored = np.array([[9, 10, 11, 12]], np.uint16)
    path = write_dicom(tmp_path / "a.dcm", stored, WindowCenter=11, WindowWidth=1)
    np.testing.assert_array_equal(read_radiograph(path, SMALL)[0], [[0, 0, 1, 1]])
    np.testing.assert_array_equal(read_radiograph(path, SMALL)[0], shown_by_pydicom(path))


@pytest.mark.parametrize("vr", ["US", "OW"])
def test_a_voi_table_and_a_modality_table_are_pydicoms(tmp_path, vr):
    rng = np.random.default_rng(0)
    modality = table_item(0, np.sort(rng.integers(0, 65535, 4096)), 16, vr)
    voi = table_item(500, np.sort(rng.integers(0, 4095, 30000)), 12, vr)
    both = write_dicom(tmp_path / "b.dcm", picture(12), ModalityLUTSequence=[modality], VOILUTSequence=[voi])
    one = write_dicom(
        tmp_path / "m.dcm", picture(12), ModalityLUTSequence=[modality], WindowCenter=3e4, WindowWidth=2e4
    )
    for path, chosen in ((both, "lut"), (one, "window")):
        image, meta = read_radiograph(path)
        np.testing.assert_allclose(image, shown_by_pydicom(path), atol=1e-6)
        assert meta["voi"] == chosen


def test_a_voi_table_of_eight_bits_with_many_entries_does_not_wrap_around(tmp_path):
    item = table_item(0, np.arange(4096) // 16, 8)  # pydicom 3.0.2 indexes with 8 bits here
    image, _ = read_radiograph(write_dicom(tmp_path / "a.dcm", picture(12), VOILUTSequence=[item]))
    np.testing.assert_allclose(image, (picture(12) // 16) / 255, atol=1e-6)


def test_a_table_of_signed_input_starts_below_zero(tmp_path):
    stored = picture(12, signed=True)
    item = table_item(-2048, np.arange(4096), 12)
    path = write_dicom(tmp_path / "a.dcm", stored, VOILUTSequence=[item])
    np.testing.assert_allclose(read_radiograph(path)[0], (stored + 2048.0) / 4095, atol=1e-6)


def test_a_table_length_of_zero_means_65536_and_packed_bytes_are_read(tmp_path):
    whole = table_item(0, np.arange(65536), 16, "OW")
    path = write_dicom(tmp_path / "a.dcm", picture(16), 16, VOILUTSequence=[whole])
    np.testing.assert_allclose(read_radiograph(path)[0], picture(16) / 65535, atol=1e-6)
    packed = table_item(0, np.arange(256), 8)
    packed.add_new(0x00283006, "OW", bytes(range(255, -1, -1)))
    path = write_dicom(tmp_path / "b.dcm", picture(8), VOILUTSequence=[packed])
    np.testing.assert_allclose(read_radiograph(path)[0], 1 - picture(8) / 255, atol=1e-6)


def test_the_policy_chooses_among_windows(tmp_path):
    path = write_dicom(
        tmp_path / "a.dcm",
        picture(12),
        WindowCenter=[2000, 1000, 3000],
        WindowWidth=[4000, 500, 900],
        WindowCenterWidthExplanation=["Normal", "HARDER", "SOFTER"],
    )

    def window(**settings):
        return read_radiograph(path, ReaderSettings(**settings))[1]["window"]

    assert window() == (2000, 4000)
    assert window(voi="index", window_index=2) == (3000, 900)
    assert window(voi="explanation", window_explanation="normal") == (2000, 4000)
    assert window(voi="explanation", window_explanation="Harder") == (1000, 500)
    assert np.isnan(window(voi="percentile")).all()
    with pytest.raises(RadiographError, match="has 3 windows and 0 VOI LUTs, so none is number 3, counted from 0"):
        window(voi="index", window_index=3)
    with pytest.raises(RadiographError, match="none explained as 'SHARP'"):
        window(voi="explanation", window_explanation="sharp")


def test_the_policy_chooses_among_tables(tmp_path):
    plain, inverse = table_item(0, np.arange(4096), 12), table_item(0, np.arange(4095, -1, -1), 12)
    inverse.LUTExplanation = "INVERSE"
    path = write_dicom(tmp_path / "a.dcm", picture(12), VOILUTSequence=[plain, inverse], WindowCenter=9, WindowWidth=9)
    first = read_radiograph(path)[0]
    explained = read_radiograph(path, ReaderSettings(voi="explanation", window_explanation="inverse"))[0]
    np.testing.assert_allclose(first, picture(12) / 4095, atol=1e-6)
    np.testing.assert_allclose(explained, 1 - first, atol=1e-6)
    assert read_radiograph(path, ReaderSettings(voi="index"))[1]["voi"] == "window"


def test_without_a_usable_window_percentiles_are_shown_and_reported(tmp_path):
    stored = picture(12)
    low, high = np.percentile(stored, (0.5, 99.5))
    for name, attributes in {"none": {}, "zero": {"WindowCenter": 5, "WindowWidth": 0}}.items():
        image, meta = read_radiograph(write_dicom(tmp_path / f"{name}.dcm", stored, **attributes))
        np.testing.assert_allclose(image, np.clip((stored - low) / (high - low), 0, 1), atol=1e-6)
        assert meta["voi"] == "percentile"


def test_the_first_window_that_can_be_used_is_used(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", picture(12), WindowCenter=[1, 2000], WindowWidth=[0, 3000])
    assert read_radiograph(path)[1]["window"] == (2000, 3000)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("shape", ["IDENTITY", "INVERSE", None])
def test_there_is_exactly_one_inversion(tmp_path, photometric, shape):
    attributes = {"PhotometricInterpretation": photometric, **({"PresentationLUTShape": shape} if shape else {})}
    image, meta = read_radiograph(write_dicom(tmp_path / "a.dcm", picture(12), **attributes), RANGE)
    inverted = photometric == "MONOCHROME1" or shape == "INVERSE"
    expected = picture(12) / 4095
    np.testing.assert_allclose(image, 1 - expected if inverted else expected, atol=1e-6)
    assert (meta["inverted"], meta["photometric_interpretation"]) == (inverted, photometric)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_in_either_polarity_and_excluded_from_the_percentiles(tmp_path, photometric):
    stored = picture(12) // 2 + 100
    padded = stored.copy()
    padded[:6] = 4095
    path = write_dicom(tmp_path / "a.dcm", padded, PixelPaddingValue=4095, PhotometricInterpretation=photometric)
    image, _ = read_radiograph(path)
    low, high = np.percentile(stored[6:], (0.5, 99.5))
    expected = np.clip((stored[6:] - low) / (high - low), 0, 1)
    assert (image[:6] == 0).all()
    np.testing.assert_allclose(image[6:], 1 - expected if photometric == "MONOCHROME1" else expected, atol=1e-6)


def test_padding_may_be_a_range_and_negative(tmp_path):
    stored = np.clip(picture(12, signed=True), -1000, 2047)
    stored[0, :3], stored[0, 3:6] = -2000, -1990
    data = make_dicom(stored)
    data.add_new(0x00280120, "SS", -2000)
    data.add_new(0x00280121, "SS", -1990)
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    image, _ = read_radiograph(tmp_path / "a.dcm", RANGE)
    assert (image[0, :6] == 0).all()
    np.testing.assert_allclose(image[1:], (stored[1:] + 2048.0) / 4095, atol=1e-6)
    data.add_new(0x00280120, "US", 63536)  # how some write -2000
    data.save_as(tmp_path / "b.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_radiograph(tmp_path / "b.dcm", RANGE)[0], image)


@pytest.mark.parametrize(
    ("directions", "steps"),
    [
        (("L", "F"), []),
        (("R", "F"), [np.fliplr]),
        (("L", "H"), [np.flipud]),
        (("R", "H"), [np.flipud, np.fliplr]),
        (("F", "L"), [np.transpose]),
        (("H", "L"), [np.transpose, np.flipud]),
        (("F", "R"), [np.transpose, np.fliplr]),
        (("A", "F"), []),
        (("LF", "FR"), []),
        (("P", "H"), [np.flipud]),
        (("X", "?"), []),
        (("L", "R"), []),
    ],
)
def test_patient_orientation_makes_the_display_canonical(tmp_path, directions, steps):
    path = write_dicom(tmp_path / "a.dcm", picture(12), PatientOrientation=list(directions), PixelSpacing=[0.3, 0.2])
    expected = picture(12) / 4095
    for step in steps:
        expected = step(expected)
    image, meta = read_radiograph(path, RANGE)
    np.testing.assert_allclose(image, expected, atol=1e-6)
    assert meta["spacing"] == ((0.2, 0.3) if np.transpose in steps else (0.3, 0.2))
    stored, meta = read_radiograph(path, ReaderSettings(voi="none", patient_orientation=False))
    np.testing.assert_allclose(stored, picture(12) / 4095, atol=1e-6)
    assert meta["orientation"] == ""


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"PixelSpacing": [0.2, 0.1], "ImagerPixelSpacing": [9, 9]}, ((0.2, 0.1), "PixelSpacing")),
        ({"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.2, 0.1]}, ((0.2, 0.1), "ImagerPixelSpacing")),
        ({"PixelSpacing": [0.2], "NominalScannedPixelSpacing": [0.3, 0.4]}, ((0.3, 0.4), "NominalScannedPixelSpacing")),
        ({"ImagerPixelSpacing": [-1, 0.1]}, None),
        ({}, None),
    ],
)
def test_spacing_is_the_first_that_means_anything(tmp_path, attributes, expected):
    _, meta = read_radiograph(write_dicom(tmp_path / "a.dcm", picture(12), **attributes))
    if expected is None:
        assert np.isnan(meta["spacing"]).all()
        assert meta["spacing_source"] == ""
    else:
        assert (meta["spacing"], meta["spacing_source"]) == expected


@pytest.mark.parametrize(("sign", "photometric"), [(1, "MONOCHROME1"), (1, "MONOCHROME2"), (-1, "MONOCHROME2")])
def test_raw_detector_values_are_refused_or_rendered_with_dense_bright(tmp_path, sign, photometric):
    dense = np.clip(picture(12) / 4095.0, 0.02, 0.98)
    exposure = np.rint(4000 * np.exp(-3 * dense)).astype(np.uint16)  # Beer and Lambert: less passes what is dense
    path = write_dicom(
        tmp_path / "raw.dcm",
        exposure if sign == 1 else 4095 - exposure,
        PresentationIntentType="FOR PROCESSING",
        PixelIntensityRelationship="LIN",
        PixelIntensityRelationshipSign=sign,
        PhotometricInterpretation=photometric,
    )
    with pytest.raises(RadiographError, match=r"\(0008,0068\) Presentation Intent Type is FOR PROCESSING"):
        read_radiograph(path)
    image, _ = read_radiograph(path, ReaderSettings(render_for_processing=True))
    assert np.corrcoef(image.ravel(), dense.ravel())[0, 1] > 0.999  # the logarithm makes it linear in density


def test_collimation_is_cut_off_on_request_only(tmp_path):
    stored = np.pad(picture(12), ((7, 3), (0, 11)), constant_values=4095)
    path = write_dicom(tmp_path / "a.dcm", stored)
    assert read_radiograph(path, RANGE)[1]["crop"] == (0, 0, 58, 51)
    image, meta = read_radiograph(path, ReaderSettings(voi="none", crop_collimation=True))
    assert meta["crop"] == (7, 0, 48, 40)
    np.testing.assert_allclose(image, picture(12) / 4095, atol=1e-6)


def test_a_collimated_field_between_black_and_white_borders_with_a_marker_is_found(tmp_path):
    image = np.pad(picture(12) / 4095, ((6, 0), (0, 0)), constant_values=1)
    image = np.pad(image, ((0, 0), (9, 0)), constant_values=0)
    image[20, 3] = 1  # a speck
    assert exposed_field(image) == (6, 9, 48, 40)
    assert exposed_field(np.pad(np.ones((4, 4)) * np.eye(4), 50)) == (0, 0, 104, 104)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_the_same_radiograph_as_dicom_and_as_png_is_the_same_within_a_gray_level(tmp_path, photometric):
    phantom = draw_phantom(1, 0, 256)
    phantom_to_dicom(phantom, photometric).save_as(tmp_path / "a.dcm", enforce_file_format=True)
    cv2.imwrite(str(tmp_path / "a.png"), np.rint(phantom.pixels * 255).astype(np.uint8))
    one, other = (read_radiograph(tmp_path / name)[0] for name in ("a.dcm", "a.png"))
    assert np.abs(one - other).max() <= 1 / 255


def test_the_real_dicoms_are_read_or_refused_by_name(cxr):
    read, refused = {}, {}
    for path in sorted((cxr / "dicom").glob("*.dcm")):
        try:
            read[path.name] = read_radiograph(path)[1]["inverted"]
        except RadiographError as error:
            refused[path.name] = error.problem
    assert read["RG1_J2KI.dcm"]
    assert not read["nih_dx_secondary_capture.dcm"]
    assert "RG3_J2KI.dcm" in read  # its codestream ends with FFD9 FF
    assert list(refused) == ["CR-MONO1-10-chest.dcm"]
    assert "without the Part 10 header" in refused["CR-MONO1-10-chest.dcm"]


def test_a_real_radiograph_is_the_same_as_dicom_and_as_png_within_a_gray_level(cxr, tmp_path):
    image, _ = read_radiograph(cxr / "dicom" / "derived_RG1_half_uncompressed.dcm")
    Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(tmp_path / "a.png")
    assert np.abs(read_radiograph(tmp_path / "a.png")[0] - image).max() <= 1 / 255
    data = pydicom.dcmread(cxr / "dicom" / "derived_RG1_half_uncompressed.dcm")
    np.testing.assert_allclose(image, 1 - shown_by_pydicom(Path(data.filename)), atol=1e-6)


READ = {
    "6154",
    "6247",
    "6278",
    "JPEGLSNearLossless_08.dcm",
    "JPEGLSNearLossless_16.dcm",
    "image_dfl.dcm",
}


def test_all_of_pydicoms_own_test_files_are_read_right_or_refused_with_a_message():
    root = Path(pydicom.__file__).parent / "data" / "test_files"
    read, refused = {}, {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        try:
            read[path.name] = read_radiograph(path, ReaderSettings(min_side=1, max_aspect=9))[0]  # some have 10 x 45
        except RadiographError as error:
            refused[path.name] = error.problem
    assert set(read) >= READ
    for path in (path for path in root.rglob("*") if path.name in READ):
        data = pydicom.dcmread(path)
        if "WindowCenter" in data:
            shown = shown_by_pydicom(path)
        else:
            values = apply_modality_lut(data.pixel_array, data)
            low, high = np.percentile(values, (0.5, 99.5))
            shown = np.clip((values - low) / (high - low), 0, 1)
        expected = 1 - shown if data.PhotometricInterpretation == "MONOCHROME1" else shown
        np.testing.assert_allclose(read[path.name], expected, atol=1e-6, err_msg=path.name)
    assert len(refused) > 100
    for name, words in {
        "CT_small.dcm": "Modality is 'CT'",
        "MR_small_RLE.dcm": "Modality is 'MR'",
        "reportsi.dcm": "Modality is 'SR'",
        "SC_rgb_rle.dcm": "Samples per Pixel is 3",
        "SC_rgb_rle_2frame.dcm": "Number of Frames is 2",
        "DICOMDIR": "is a DICOMDIR",
        "README.txt": "is not DICOM",
        "rtstruct.dcm": "without the Part 10 header",
        "meta_missing_tsyntax.dcm": "has no (0002,0010) Transfer Syntax UID",
        "zipMR.gz": "is a gzip file",
        "waveform_ecg.dcm": "Modality is 'ECG'",
        "liver_1frame.dcm": "Modality is 'SEG'",
    }.items():
        assert words in refused[name]


def _decoded_by(path, plugin, monkeypatch):
    with monkeypatch.context() as patch:
        for syntax in (uid.JPEG2000Lossless, uid.JPEG2000):
            patch.setitem(dicom_pixels.DECODERS, syntax, (plugin,))
        return read_radiograph(path, ReaderSettings(voi="none"))[0]


@pytest.mark.parametrize("syntax", [uid.JPEG2000Lossless, uid.JPEG2000], ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("header_signed", [False, True])
@pytest.mark.parametrize("stream_signed", [False, True])
@pytest.mark.parametrize("precision", [6, 8, 10, 12, 15, 16])
def test_pillow_gives_what_pylibjpeg_gives_of_jpeg_2000(
    tmp_path, monkeypatch, syntax, header_signed, stream_signed, precision
):
    openjpeg = pytest.importorskip("openjpeg.utils", reason="the other decoder, from the extra [dicom]")
    kind = np.dtype(f"{'i' if stream_signed else 'u'}{1 if precision <= 8 else 2}")
    least = -(2 ** (precision - 1)) if stream_signed else 0
    values = np.random.default_rng(precision).integers(least, least + 2**precision, (48, 40)).astype(kind)
    ratio = {} if syntax == uid.JPEG2000Lossless else {"compression_ratios": [2]}
    frame = bytes(openjpeg.encode_array(values, bits_stored=precision, photometric_interpretation=2, **ratio))
    data = make_dicom(picture(16), 16, PixelRepresentation=int(header_signed))
    data.file_meta.TransferSyntaxUID = syntax
    data.PixelData = encapsulate([frame])
    data["PixelData"].is_undefined_length = True
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    ours = _decoded_by(tmp_path / "a.dcm", "pillow", monkeypatch)
    np.testing.assert_array_equal(ours, _decoded_by(tmp_path / "a.dcm", "pylibjpeg", monkeypatch))


def test_jpeg_2000_is_decoded_by_pillow_whose_openjpeg_is_newer():
    for syntax in (uid.JPEG2000Lossless, uid.JPEG2000):
        assert dicom_pixels.choose_decoder(syntax) == "pillow"


@pytest.mark.parametrize("syntax", [uid.JPEG2000Lossless, uid.HTJ2KLossless], ids=lambda syntax: syntax.keyword)
def test_a_codestream_in_a_jp2_file_is_given_to_a_decoder_without_its_boxes(tmp_path, monkeypatch, syntax):
    write_syntax(tmp_path / "a.dcm", syntax)
    expected = read_radiograph(tmp_path / "a.dcm")[0]
    data = pydicom.dcmread(tmp_path / "a.dcm")
    frame = pydicom.encaps.get_frame(data.PixelData, 0, number_of_frames=1)
    boxes = b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0\0\0\x0a????\0\0" + (len(frame) + 8).to_bytes(4, "big") + b"jp2c"
    data.PixelData = encapsulate([boxes + frame])
    data.save_as(tmp_path / "b.dcm", enforce_file_format=True)
    given, decode = [], dicom_pixels.decode_jpeg2000
    monkeypatch.setattr(dicom_pixels, "encapsulate", lambda frames: given.append(frames[0]) or encapsulate(frames))
    monkeypatch.setattr(dicom_pixels, "decode_jpeg2000", lambda *args: given.append(args[0]) or decode(*args))
    np.testing.assert_array_equal(read_radiograph(tmp_path / "b.dcm")[0], expected)
    assert given[0].startswith(b"\xff\x4f\xff\x51")
