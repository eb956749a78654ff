"""What is refused, with which message, and before it costs memory."""

from __future__ import annotations

import gzip
import struct
import zlib
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate, get_frame
from radiograph_corpus import SECONDARY_CAPTURE, make_dicom, picture, write_dicom, write_syntax

from monai_simclr.data import RadiographError, ReaderSettings, read_radiograph
from monai_simclr.data.formats import dicom_pixels
from monai_simclr.data.formats.dicom_pixels import parse_jpeg, parse_jpeg2000

CT_CLASS = str(uid.CTImageStorage)


def describe_problem(path, **settings):
    with pytest.raises(RadiographError) as error:
        read_radiograph(path, ReaderSettings(**settings))
    assert str(error.value) == f"{path.name}: {error.value.problem}"
    return error.value.problem


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"Modality": "CT"}, "(0008,0060) Modality is 'CT'; a radiograph (CR, DX, RG, PX, or a Secondary Capture"),
        ({"Modality": "OT", "SOPClassUID": CT_CLASS}, "(0008,0060) Modality is 'OT'"),
        ({"Modality": None, "SOPClassUID": CT_CLASS}, "(0008,0060) Modality is ''"),
        ({"Modality": "MR", "SOPClassUID": SECONDARY_CAPTURE}, "(0008,0060) Modality is 'MR'"),
        ({"NumberOfFrames": 3}, "(0028,0008) Number of Frames is 3; a radiograph has one"),
        ({"SamplesPerPixel": 3}, "(0028,0002) Samples per Pixel is 3: a color picture"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "(0028,0004) Photometric Interpretation is 'PALETTE COLOR'"),
        ({"PhotometricInterpretation": None}, "(0028,0004) Photometric Interpretation is ''"),
        ({"PresentationIntentType": "FOR PROCESSING"}, "(0008,0068) Presentation Intent Type is FOR PROCESSING"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1.1"}, "FOR PROCESSING"),
        ({"Rows": 160}, "is truncated: its pixel data can hold 3840 bytes, the header states 12800"),
        ({"Columns": 0}, "has no pixels: (0028,0010) Rows is 48 and (0028,0011) Columns is 0"),
        ({"Rows": None}, "has no pixels: (0028,0010) Rows is 0"),
        ({"PixelData": None}, "has no pixels ((0008,0060) Modality is 'DX')"),
        ({"BitsAllocated": 32}, "(0028,0100) Bits Allocated is 32 and (0028,0101) Bits Stored is 12; 8 to 16 bits"),
        ({"BitsStored": 17}, "(0028,0101) Bits Stored is 17"),
        ({"BitsStored": None}, "(0028,0101) Bits Stored is missing"),
        ({"HighBit": 15}, "(0028,0102) High Bit is 15, not one less than (0028,0101) Bits Stored=12"),
        ({"PixelRepresentation": 7}, "(0028,0103) Pixel Representation is 7; 0 or 1 is needed"),
        ({"RescaleSlope": 0, "RescaleIntercept": 5}, "(0028,1053) Rescale Slope is 0"),
        ({"RescaleSlope": 1e308, "RescaleIntercept": 0}, "lead to values that are not finite"),
        ({"VOILUTFunction": "CUBIC", "WindowCenter": 1, "WindowWidth": 9}, "(0028,1056) VOI LUT Function is none of"),
        ({"WindowCenter": -9000, "WindowWidth": 100}, "is one gray all over (1) with voi='window'; voi='percentile'"),
    ],
)
def test_what_is_not_a_radiograph_is_refused_by_its_tag(tmp_path, attributes, words):
    assert words in describe_problem(write_dicom(tmp_path / "a.dcm", picture(12), **attributes))


@pytest.mark.parametrize("modality", ["OT", "", None])
def test_a_secondary_capture_of_no_other_modality_is_read(tmp_path, modality):
    read_radiograph(write_dicom(tmp_path / "a.dcm", picture(12), Modality=modality, SOPClassUID=SECONDARY_CAPTURE))


def test_a_width_of_zero_that_was_asked_for_is_refused(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", picture(12), WindowCenter=5, WindowWidth=0)
    assert describe_problem(path, voi="index") == "(0028,1051) Window Width is 0, which shows nothing"


def test_padding_everywhere_and_one_gray_everywhere_are_refused(tmp_path):
    flat = write_dicom(tmp_path / "a.dcm", np.full((48, 40), 7, np.uint16))
    assert describe_problem(flat) == "has the value 7 in every pixel; a radiograph has contrast"
    data = make_dicom(picture(12), PixelPaddingValue=0)
    data.add_new(0x00280121, "US", 4095)
    data.save_as(tmp_path / "b.dcm", enforce_file_format=True)
    assert describe_problem(tmp_path / "b.dcm") == "(0028,0120) Pixel Padding Value is everywhere; there is no picture"
    Image.new("L", (32, 32), 7).save(tmp_path / "flat.png")
    assert describe_problem(tmp_path / "flat.png") == "has the value 7 in every pixel; a radiograph has contrast"


def test_float_pixels_are_refused(tmp_path):
    data = make_dicom(picture(12), PixelData=None)
    data.add_new(0x7FE00008, "OF", picture(12).astype("<f4").tobytes())
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert "has pixels of fractions" in describe_problem(tmp_path / "a.dcm")


def test_the_content_decides_and_not_the_name(tmp_path):
    Image.fromarray(picture(8)).save(tmp_path / "a.png")
    (tmp_path / "png.dcm").write_bytes((tmp_path / "a.png").read_bytes())
    assert read_radiograph(tmp_path / "png.dcm")[1]["format"] == "PNG"
    assert read_radiograph(write_dicom(tmp_path / "dicom.png", picture(12)))[1]["format"] == "DICOM"
    (tmp_path / "text.png").write_text("hello")
    assert describe_problem(tmp_path / "text.png") == (
        "is not DICOM, PNG, JPEG, TIFF or NIfTI; its content decides, not its name"
    )
    (tmp_path / "empty.dcm").touch()
    assert describe_problem(tmp_path / "empty.dcm") == "is empty"
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"hello" * 200))
    assert "is a gzip file, and what is in it is not NIfTI" in describe_problem(tmp_path / "a.gz")


def test_a_dicom_whose_preamble_is_a_tiff_header_is_a_dicom(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", picture(12))
    path.write_bytes(b"II*\0" + path.read_bytes()[4:])
    assert read_radiograph(path)[1]["format"] == "DICOM"


def test_a_missing_file_and_a_folder_are_reported(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_radiograph(tmp_path / "none.dcm")
    with pytest.raises(FileNotFoundError, match="it is a folder"):
        read_radiograph(tmp_path)


def _chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_absurd_sizes_are_refused_before_anything_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    monkeypatch.setattr(dicom_pixels, "get_decoder", lambda syntax: pytest.fail("decoded"))
    bomb = write_dicom(tmp_path / "a.dcm", picture(12), Rows=65535, Columns=65535)
    assert describe_problem(bomb) == "has 65535 x 65535 pixels by its header, more than max_pixels=64000000"
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", 9000, 8000, 8, 0, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + _chunk(b"IDAT", zlib.compress(b"\0" * 99)))
    assert describe_problem(tmp_path / "a.png") == "has 8000 x 9000 pixels by its header, more than max_pixels=64000000"
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", 30000, 30000, 8, 0, 0, 0, 0))
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + _chunk(b"IDAT", zlib.compress(b"\0" * 99)))
    assert describe_problem(tmp_path / "b.png") == "is larger than any radiograph"


def test_the_limits_can_be_set(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", picture(12))
    assert "more than max_pixels=1919" in describe_problem(path, max_pixels=1919)
    assert describe_problem(path, max_bytes=1000) == f"has {path.stat().st_size} bytes, more than max_bytes=1000"
    read_radiograph(path, ReaderSettings(max_pixels=1920))


def test_what_inflates_beyond_the_limit_is_refused_while_it_is_small(tmp_path):
    write_syntax(tmp_path / "a.dcm", uid.DeflatedExplicitVRLittleEndian)
    content = (tmp_path / "a.dcm").read_bytes()
    start = 132 + 12 + pydicom.dcmread(tmp_path / "a.dcm").file_meta.FileMetaInformationGroupLength
    bomb = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    head = zlib.decompress(content[start:], -zlib.MAX_WBITS).partition(struct.pack("<HH", 0x7FE0, 0x10))[0]
    private = struct.pack("<HH2sHL", 0x6001, 0x1000, b"OB", 0, 50_000_000)  # a vendor's picture
    deflated = bomb.compress(head + private + bytes(50_000_000)) + bomb.flush()
    (tmp_path / "b.dcm").write_bytes(content[:start] + deflated)
    assert (tmp_path / "b.dcm").stat().st_size < 60_000
    assert describe_problem(tmp_path / "b.dcm", max_bytes=2**20) == "inflates to more than max_bytes=1048576"
    (tmp_path / "c.dcm").write_bytes(content[:-20])
    assert describe_problem(tmp_path / "c.dcm") == "is truncated: the deflated data have no end"
    nifti = struct.pack("<i", 348) + bytes(340) + b"n+1\0" + bytes(50_000_000)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(nifti))
    assert describe_problem(tmp_path / "a.nii.gz", max_bytes=2**20) == "inflates to more than max_bytes=1048576"


def _with_frame(path, change):
    """Write a compressed file again with another frame."""
    data = pydicom.dcmread(path)
    frame = change(get_frame(data.PixelData, 0, number_of_frames=1))
    data.PixelData = encapsulate([frame + b"\0" * (len(frame) % 2)])
    data["PixelData"].is_undefined_length = True
    data.save_as(path, enforce_file_format=True)
    return path


COMPRESSED = [uid.JPEGBaseline8Bit, uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless]


@pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda syntax: syntax.keyword)
def test_a_codestream_that_contradicts_the_header_never_reaches_a_decoder(tmp_path, monkeypatch, syntax):
    write_syntax(tmp_path / "a.dcm", syntax)
    data = pydicom.dcmread(tmp_path / "a.dcm")
    data.Rows = 47
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    decoder = dicom_pixels.get_decoder(syntax)
    monkeypatch.setattr(type(decoder), "as_array", lambda *args, **options: pytest.fail("decoded"))
    monkeypatch.setattr(dicom_pixels, "decode_jpeg2000", lambda *args: pytest.fail("decoded"))
    assert describe_problem(tmp_path / "a.dcm") == (
        "has damaged pixels: the codestream is 48 x 40 with 1 samples per pixel, the header states 47 x 40 with 1"
    )


@pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda syntax: syntax.keyword)
def test_a_codestream_without_its_end_is_truncated(tmp_path, syntax):
    write_syntax(tmp_path / "a.dcm", syntax)
    path = _with_frame(tmp_path / "a.dcm", lambda frame: frame[: len(frame) // 2])
    assert describe_problem(path).endswith("is truncated: it has no end marker FFD9")


@pytest.mark.parametrize("syntax", [*COMPRESSED, uid.RLELossless], ids=lambda syntax: syntax.keyword)
def test_a_cut_compressed_file_is_truncated(tmp_path, syntax):
    write_syntax(tmp_path / "a.dcm", syntax)
    path = tmp_path / "a.dcm"
    path.write_bytes(path.read_bytes()[:-300])
    assert describe_problem(path) == "is truncated: its pixel data have no end"


def test_run_lengths_that_end_early_are_refused_and_long_ones_never_expand(tmp_path):
    write_syntax(tmp_path / "a.dcm", uid.RLELossless)
    path = _with_frame(tmp_path / "a.dcm", lambda frame: frame[:-200])
    assert "the RLE frame is truncated" in describe_problem(path)
    path = _with_frame(path, lambda frame: frame[:64] + b"\x81\x00" * 10_000_000)  # 1.3 GB in pydicom's decoder
    assert describe_problem(path) == "has the value 0 in every pixel; a radiograph has contrast"
    few = write_dicom(tmp_path / "b.dcm", picture(12))
    data = pydicom.dcmread(few)
    data.compress(uid.RLELossless, generate_instance_uid=False)
    data.Rows, data.Columns = 8000, 8000
    data.save_as(few, enforce_file_format=True)
    assert describe_problem(few).startswith("is truncated: its pixel data can hold")


def test_a_box_of_length_zero_does_not_hang():
    with pytest.raises(ValueError, match="has no codestream box jp2c"):
        parse_jpeg2000(b"\x00\x00\x00\x0cjP  \r\n\x87\n" + b"\0" * 64 + b"\xff\xd9")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("0000ffd9", "has no start-of-image marker FFD8"),
        ("ffd8ffd9", "has no frame header"),
        ("ffd8 ffe0 0001 00000000000000 ffd9", "has no frame header"),
        ("ffd8 00e0 0001 00000000000000 ffd9", "has no marker at byte 2"),
        ("ffd8 ffe0 ffff 00000000000000 ffd9", "has no frame header"),
    ],
)
def test_a_damaged_jpeg_header_is_refused_by_what_is_missing(content, words):
    with pytest.raises(ValueError, match=words):
        parse_jpeg(bytes.fromhex(content))


def test_more_tiles_than_there_can_be_are_refused(tmp_path):
    write_syntax(tmp_path / "a.dcm", uid.JPEG2000Lossless)
    frame = get_frame(pydicom.dcmread(tmp_path / "a.dcm").PixelData, 0, number_of_frames=1)
    huge = struct.pack(">IIIIIIII", 60000, 1000, 0, 0, 1, 1, 0, 0)
    with pytest.raises(ValueError, match="has 60000000 tiles; 65535 are possible"):
        parse_jpeg2000(frame[:8] + huge + frame[40:])


def test_twelve_bit_jpeg_is_refused_since_no_free_decoder_reads_it(tmp_path):
    write_syntax(tmp_path / "a.dcm", uid.JPEGExtended12Bit)
    path = _with_frame(tmp_path / "a.dcm", lambda frame: frame.replace(b"\xff\xc0\0\x0b\x08", b"\xff\xc1\0\x0b\x0c"))
    assert "JPEG Extended (Process 2 and 4) (1.2.840.10008.1.2.4.51) with 12 bits" in describe_problem(path)


@pytest.mark.parametrize(
    "syntax", [uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000, uid.HTJ2K], ids=lambda syntax: syntax.keyword
)
def test_a_missing_decoder_is_named_with_the_line_that_installs_it(tmp_path, monkeypatch, syntax):
    monkeypatch.setattr(dicom_pixels, "get_decoder", lambda syntax: SimpleNamespace(available_plugins=()))
    data = make_dicom(picture(12))
    data.file_meta.TransferSyntaxUID = syntax
    data.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
    data["PixelData"].is_undefined_length = True
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert describe_problem(tmp_path / "a.dcm") == (
        f"(0002,0010) Transfer Syntax UID is {syntax.name} ({syntax}), whose decoder is not installed; "
        'pip install "monai-simclr[dicom]"'
    )


def test_uncompressed_run_length_and_deflated_files_need_no_decoder_but_ours(tmp_path, monkeypatch):
    for syntax in (uid.ExplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian, uid.RLELossless):
        write_syntax(tmp_path / "a.dcm", syntax)
        monkeypatch.setattr(dicom_pixels, "DECODERS", {})
        read_radiograph(tmp_path / "a.dcm")


def test_a_video_syntax_is_refused_by_name(tmp_path):
    data = make_dicom(picture(12))
    data.file_meta.TransferSyntaxUID = uid.MPEG2MPML
    data.PixelData = encapsulate([b"1234"])
    data["PixelData"].is_undefined_length = True
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert "which is not read; decompress it first" in describe_problem(tmp_path / "a.dcm")


@pytest.mark.parametrize(
    ("tag", "vr", "value", "words"),
    [
        (0x00280008, "IS", b"1A", "(0028,0008) Number of Frames is not a number"),
        (0x00281053, "DS", b"nan ", "(0028,1053) Rescale Slope is not a finite number"),
        (0x00281050, "DS", b"Doe^Jane", "(0028,1050) Window Center is not a number"),
        (0x00080060, "CS", b"Doe^Jane", "(0008,0060) Modality is '?'"),
        (0x00283010, "SQ", b"", None),
    ],
)
def test_a_damaged_value_is_refused_by_its_tag_and_never_repeated(tmp_path, tag, vr, value, words):
    data = make_dicom(picture(12))
    raw = pydicom.dataelem.RawDataElement(pydicom.tag.Tag(tag), vr, len(value), value, 0, False, True)
    data._dict[raw.tag] = raw
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    if words is None:
        read_radiograph(tmp_path / "a.dcm")
    else:
        assert words in describe_problem(tmp_path / "a.dcm")
        assert "Jane" not in describe_problem(tmp_path / "a.dcm")


def test_a_damaged_class_is_refused_and_not_raised_in_pydicoms_words(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", picture(12))  # found by fuzzing: a VR that pydicom does not know
    content = path.read_bytes()
    at = content.index(b"\x08\0\x16\0UI")
    path.write_bytes(content[: at + 4] + b"QQ" + content[at + 6 :])
    read_radiograph(path)  # what the Modality says is enough
    path = write_dicom(tmp_path / "b.dcm", picture(12), Modality="OT")
    path.write_bytes(path.read_bytes().replace(b"\x08\0\x16\0UI", b"\x08\0\x16\0QQ"))
    read_radiograph(path)  # the class is in the file meta information, too
    path.write_bytes(path.read_bytes().replace(b"\x02\0\x02\0UI", b"\x02\0\x02\0QQ"))
    assert "(0008,0060) Modality is 'OT'" in describe_problem(path)


def test_damaged_files_cause_no_warnings_or_logs_of_libraries(tmp_path, caplog, recwarn):
    write_syntax(tmp_path / "a.dcm", uid.JPEG2000)
    path = _with_frame(tmp_path / "a.dcm", lambda frame: frame[:200] + bytes(len(frame) - 202) + frame[-2:])
    assert "has damaged pixels" in describe_problem(path)
    data = make_dicom(picture(12))
    data.add_new(0x00185101, "CS", "lower case and far too long for a code string")
    data.save_as(tmp_path / "b.dcm", enforce_file_format=True)
    caplog.clear()
    recwarn.clear()
    read_radiograph(tmp_path / "b.dcm")
    assert describe_problem(path)
    assert not caplog.records
    assert not list(recwarn)


@pytest.mark.parametrize(
    ("entries", "bits", "words"),
    [(100, 12, "too few for the 4096 entries"), (4096, 3, "states 3 bits")],
)
def test_a_damaged_table_is_refused(tmp_path, entries, bits, words):
    item = pydicom.Dataset()
    item.add_new(0x00283002, "US", [4096, 0, bits])
    item.add_new(0x00283006, "US", list(range(entries)))
    assert words in describe_problem(write_dicom(tmp_path / "a.dcm", picture(12), VOILUTSequence=[item]))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"voi": "window"}, "voi must be one of"),
        ({"window_index": -1}, "window_index counts from 0, got -1"),
        ({"voi": "explanation"}, "needs window_explanation"),
        ({"max_pixels": 0}, "must be 1 or more, got 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        ReaderSettings(**settings)
