"""One way to a header: the index, the audit, inference and the reader agree about a file."""

from __future__ import annotations

import os
import socket
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pydicom.sr._cid_dict import cid_concepts
from pydicom.sr._concepts_dict import concepts
from radiograph_corpus import code_item, make_dicom, picture, write_described, write_dicom, write_syntax

from monai_simclr.audit.duplicates import same_bytes
from monai_simclr.audit.flags import flag_rows
from monai_simclr.audit.scan import header_facts, pixel_facts, scan
from monai_simclr.data import RadiographError, ReaderSettings, open_index, read_radiograph
from monai_simclr.data.formats.dicom_header import NotDicomError, read_header, record_headers
from monai_simclr.data.formats.exam import read_exam
from monai_simclr.data.sources.dicom_tree import DICOM_TREE, read_dicom_tree
from monai_simclr.inference.dataset import InferenceDataset, describe_file
from monai_simclr.runtime.files import open_regular


def view_and_flags(folder, **attributes):
    """Write a file; return its view and flags, on which index, audit, inference and reader must agree."""
    path = write_dicom(folder / "a.dcm", picture(12), **{"ViewPosition": None, **attributes})
    index, facts, about = read_dicom_tree(folder), header_facts(path), describe_file(path, "key")
    view = index["view_position"].iloc[0]
    by_audit = facts["header_view"] or ("LL" if facts["lateral_words"] == "yes" else view)
    assert view == by_audit == about["view_position"] == read_radiograph(path)[1]["view_position"]
    flags = about["flags"].split(";") if about["flags"] else []
    assert ("not a chest" in flags) == (facts["chest"] == "no")
    assert ("lateral" in flags) == (view == "LL")
    return view, flags


def orientation(first, second):
    return {"PatientOrientation": [first, second]}


@pytest.mark.parametrize(
    ("attributes", "view"),
    [
        *(
            ({"ViewPosition": text}, "LL")
            for text in ("LL", "RL", "LAT", "LATERAL", "XTABLE LATERAL", "LEFT LATERAL", "SWIMMERS", "PROFIL", "Lat.")
        ),
        *(({"ViewPosition": text}, "PA") for text in ("PA", "P.A.", "POSTEROANTERIOR", "PA ERECT", "PA LLD")),
        *(({"ViewPosition": text}, "AP") for text in ("AP", "AP SUPINE", "A-P", "AP RLD", "W033 TORAX AP")),
        *(
            ({"ViewPosition": text}, "")
            for text in ("LLD", "RLD", "LLDECUB", "LAT DECUBITUS", "RLO", "LLO", "LAO", "OBLIQUE", "AXIAL", "AP\\LAT")
        ),
        ({"ViewCodeSequence": [code_item("399067008", "SCT", "lateral")]}, "LL"),
        ({"ViewCodeSequence": [code_item("R-10236", "SRT", "left lateral")]}, "LL"),
        ({"ViewCodeSequence": [code_item("272479007", "SCT", "")]}, "PA"),
        ({"ViewCodeSequence": [code_item("L1", "99LOCAL", "Thorax seitlich")]}, "LL"),
        ({"ViewCodeSequence": [code_item("L2", "99LOCAL", "Antéro-postérieure")]}, "AP"),
        (orientation("A", "F"), "LL"),
        (orientation("PL", "FA"), "LL"),
        (orientation("F", "P"), "LL"),
        (orientation("L", "F"), ""),
        (orientation("L", "P"), ""),
        ({"SeriesDescription": "CHEST LATERAL"}, "LL"),
        ({"ProtocolName": "Torax perfil"}, "LL"),
        ({"SeriesDescription": "W Chest P.A."}, "PA"),
        ({"StudyDescription": "CHEST (PA AND LAT)"}, ""),
        ({"StudyDescription": "Thorax face et profil"}, ""),
        ({"StudyDescription": "CHEST (PA AND LAT)", "SeriesDescription": "LATERAL"}, "LL"),
        ({"StudyDescription": "CHEST (PA AND LAT)", "ViewPosition": "PA"}, "PA"),
        ({"StudyDescription": "CHEST LATERAL", "ViewPosition": "AP"}, "AP"),
        ({"SeriesDescription": "LATERAL", **orientation("L", "F")}, ""),
        ({"SeriesDescription": "LATERAL", "ViewPosition": "RLD"}, ""),
        ({"SeriesDescription": "Left lateral decubitus"}, ""),
        ({"SeriesDescription": "bilateral ribs"}, ""),
        ({"ViewPosition": "UNKNOWN", "SeriesDescription": "AP"}, "AP"),
    ],
    ids=str,
)
def test_index_audit_inference_and_reader_agree_on_the_view(tmp_path, attributes, view):
    assert view_and_flags(tmp_path, **attributes)[0] == view


@pytest.mark.parametrize(
    ("attributes", "is_chest"),
    [
        *(
            ({"BodyPartExamined": text}, True)
            for text in (
                "CHEST",
                "THORAX",
                "TORAX",
                "TORACE",
                "TORAKS",
                "POUMONS",
                "LUNGE",
                "BRUSTKORB",
                "PULMAO",
                "BORSTKAS",
                "CHESTABDOMEN",
                "RIBS",
                "HEART",
                "PECHO",
                "CHEST_PORT",
            )
        ),
        *(
            ({"SpecificCharacterSet": "ISO_IR 192", "SeriesDescription": text}, True)
            for text in (
                "Tórax",
                "tórax PA",
                "Cassa toracica",
                "ngực thẳng",
                "胸部正面",
                "Klatka piersiowa",
                "Грудная клетка",
            )
        ),
        *(
            ({"BodyPartExamined": text}, False)
            for text in ("TIBIA", "ABDOMEN", "TSPINE", "THORACIC SPINE", "BWS", "SKULL", "XYZ", "WHOLEBODY", "RODILLA")
        ),
        *(({"SeriesDescription": text}, False) for text in ("LEFT KNEE", "Thoracic spine", "Columna dorsal", "mano")),
        *(({"BodyPartExamined": text}, True) for text in ("", "UNKNOWN", "N/A")),  # not stated
        ({"BodyPartExamined": "TIBIA", "SeriesDescription": "CHEST"}, False),
        ({"StudyDescription": "KNEE; CHEST PA", "SeriesDescription": "CHEST"}, True),
        ({"AnatomicRegionSequence": [code_item("T-D3000", "SRT", "")], "StudyDescription": "KNEE"}, True),
        ({"AnatomicRegionSequence": [code_item("72696002", "SCT", "Knee")]}, False),
        ({"SeriesDescription": "Routine"}, True),
    ],
    ids=str,
)
def test_inference_and_audit_agree_on_the_body_part(tmp_path, attributes, is_chest):
    assert ("not a chest" not in view_and_flags(tmp_path, **attributes)[1]) == is_chest


def test_every_view_code_of_the_standard_has_the_beam_of_its_meaning():
    words = {"lateral": "lateral", "frontal": "frontal", "antero-posterior": "frontal", "postero-anterior": "frontal"}
    for scheme, names in cid_concepts[4010].items():
        for name in names:
            (code, (meaning, _)), *_ = concepts[scheme][name].items()
            data = Dataset()
            data.ViewCodeSequence = [code_item(code, scheme, "")]
            beam = read_exam(data).view.beam
            if "oblique" in meaning:
                assert beam in ("oblique", ""), meaning
            elif meaning.split()[-1] in words:
                assert beam == words[meaning.split()[-1]], meaning


def vindr(path):
    """As VinDr-CXR publishes: neither Modality nor SOP Class nor identity, the class in the file meta information."""
    keep = ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel")
    data = make_dicom(picture(12))
    for element in list(data):
        if element.keyword not in (*keep, "PhotometricInterpretation", "PixelData"):
            del data[element.tag]
    data.save_as(path, enforce_file_format=False)
    return path


def test_vindrs_files_are_read_by_reader_index_audit_and_inference(tmp_path):
    path = vindr(tmp_path / "a.dicom")
    assert read_radiograph(path)[0].shape == (48, 40)
    index = read_dicom_tree(tmp_path)
    assert index["image"].tolist() == [str(path)]
    facts = header_facts(path)
    assert (facts["problem"], facts["sop_class"]) == ("", "Digital X-Ray Image Storage - For Presentation")
    about = describe_file(path, "key")
    assert about["sop_instance_hash"]
    assert about["flags"] == ""


@pytest.mark.parametrize("modality", [None, "", "OT", "SC"])
@pytest.mark.parametrize("sop_class", [uid.DigitalXRayImageStorageForPresentation, uid.ComputedRadiographyImageStorage])
@pytest.mark.parametrize("where", ["data set", "file meta"])
def test_the_sop_class_decides_where_the_modality_does_not(tmp_path, modality, sop_class, where):
    data = make_dicom(picture(12), Modality=modality, SOPClassUID=sop_class if where == "data set" else None)
    data.file_meta.MediaStorageSOPClassUID = sop_class
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    read_radiograph(tmp_path / "a.dcm")
    assert len(read_dicom_tree(tmp_path)) == 1


@pytest.mark.parametrize(
    "attributes",
    [
        {"Modality": "CT"},
        {"Modality": None, "SOPClassUID": uid.CTImageStorage},
        {"Modality": "MG"},
        {"Modality": "OT", "SOPClassUID": uid.DigitalMammographyXRayImageStorageForPresentation},
    ],
    ids=str,
)
def test_the_index_excludes_what_the_reader_refuses(tmp_path, attributes):
    path = write_dicom(tmp_path / "a.dcm", picture(12), **attributes)
    with pytest.raises(RadiographError, match="Modality is"):
        read_radiograph(path)
    with pytest.raises(FileNotFoundError, match="there is no radiograph among the 1 files"):
        read_dicom_tree(tmp_path)


def test_no_frames_are_one_frame(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", picture(12), NumberOfFrames=0)
    np.testing.assert_array_equal(
        read_radiograph(path)[0], read_radiograph(write_dicom(tmp_path / "b.dcm", picture(12)))[0]
    )
    assert header_facts(path)["frames"] == 1


@pytest.mark.parametrize("keyword", ["PixelSpacing", "ImagerPixelSpacing"])
def test_a_spacing_with_a_decimal_comma_is_read_and_the_audit_knows_it(tmp_path, keyword):
    path = write_dicom(tmp_path / "a.dcm", picture(12), **{keyword: [0.125, 0.143]})
    path.write_bytes(path.read_bytes().replace(b"0.125\\0.143", b"0,125\\0,143"))
    meta = read_radiograph(path)[1]
    assert (meta["spacing"], meta["spacing_source"]) == ((0.125, 0.143), keyword)
    facts = header_facts(path)
    assert (facts["problem"], facts["spacing"]) == ("", keyword)


@pytest.mark.parametrize(("spacing", "reported"), [("0\\0", "PixelSpacing is zero"), ("abc", "none"), ("", "none")])
def test_an_unusable_spacing_is_not_a_problem_of_the_file(tmp_path, spacing, reported):
    path = write_dicom(tmp_path / "a.dcm", picture(12), PixelSpacing=[8.25, 8.25])
    written = spacing.encode().ljust(9)
    path.write_bytes(path.read_bytes().replace(b"8.25\\8.25", written))
    read_radiograph(path)
    facts = header_facts(path)
    assert (facts["problem"], facts["spacing"]) == ("", reported)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_the_audit_knows_nifti(tmp_path, name):
    nib.save(nib.Nifti1Image(picture(16).T[..., None], np.eye(4)), tmp_path / name)
    facts = header_facts(tmp_path / name)
    reported = [facts[key] for key in ("problem", "format", "rows", "columns", "bits", "frames")]
    assert reported == ["", "NIfTI", 48, 40, 16, 1]
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:60])
    assert header_facts(tmp_path / name)["problem"]


def _cut_deflated(path):
    write_syntax(path, uid.DeflatedExplicitVRLittleEndian)
    start = 132 + 12 + read_file_meta_info(path).FileMetaInformationGroupLength
    path.write_bytes(path.read_bytes()[: start + 40])
    with pytest.raises(zlib.error):
        zlib.decompress(path.read_bytes()[start:], -zlib.MAX_WBITS)


def test_a_truncated_deflated_file_is_reported_and_the_others_are_read(tmp_path):
    write_described(tmp_path / "a.dcm")
    _cut_deflated(tmp_path / "cut.dcm")
    index = read_dicom_tree(tmp_path)
    assert [name.rsplit("/", 1)[1] for name in index["image"]] == ["a.dcm"]
    assert index.attrs["excluded"] == {"DICOM with a damaged header": 1}
    paths = [str(tmp_path / "a.dcm"), str(tmp_path / "cut.dcm")]
    facts, _, _ = scan(paths, pixels=True, workers=0)
    assert facts["problem"].tolist() == ["", "is truncated: the deflated data have no end"]
    assert flag_rows(index.assign(view_position="").reindex([0, 0], method=None).reset_index(), facts)
    dataset = InferenceDataset([{"image": path} for path in paths], _image_of, 8)
    assert [item["reason"] for item in dataset] == ["", "is truncated: the deflated data have no end"]


def _image_of(item):
    return {"image": read_radiograph(item["image"])[0][None]}


def _special_files(folder):
    os.mkfifo(folder / "pipe.dcm")
    server = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(folder)  # the name of a socket may have 108 bytes
    server.bind("socket.dcm")
    os.chdir(here)
    (folder / "link.dcm").symlink_to(folder / "pipe.dcm")
    (folder / "zero.dcm").symlink_to("/dev/zero")
    (folder / "tty.dcm").symlink_to("/dev/tty")
    (folder / "folder.dcm").mkdir()
    (folder / "loop.dcm").symlink_to(folder / "loop.dcm")
    (folder / "nowhere.dcm").symlink_to(folder / "none")
    return server


@pytest.mark.timeout(60)
def test_pipes_sockets_devices_and_links_to_them_are_reported_and_do_not_hang(tmp_path):
    write_described(tmp_path / "a.dcm")
    with _special_files(tmp_path):
        assert DICOM_TREE.recognise(tmp_path)
        index = open_index(tmp_path, check=False)
        assert len(index) == 1
        paths = sorted(str(path) for path in tmp_path.iterdir())
        facts, _, _ = scan(paths, pixels=True, workers=0)
        assert (facts["problem"] == "").sum() == 1
        assert (facts["damage"] == "").sum() == 1
        problems = dict(zip((path.rsplit("/", 1)[1] for path in paths), facts["problem"], strict=True))
        assert problems["pipe.dcm"] == problems["link.dcm"] == "is a named pipe, not a regular file"
        assert problems["socket.dcm"] == "is a socket, not a regular file"
        assert problems["zero.dcm"] == "is a device, not a regular file"
        assert same_bytes(paths, np.full(len(paths), 7)).tolist() == [-1] * len(paths)
        for path in paths:
            describe_file(path, "key")
        items = InferenceDataset([{"image": path} for path in paths], _image_of, 8)
        assert sum(item["reason"] == "" for item in items) == 1
        with pytest.raises(RadiographError, match=r"^pipe.dcm: is a named pipe, not a regular file$"):
            read_radiograph(tmp_path / "pipe.dcm")


def test_a_file_that_becomes_a_pipe_after_the_check_does_not_hang(tmp_path, monkeypatch):
    regular = os.stat(write_described(tmp_path / "a.dcm"))
    os.mkfifo(tmp_path / "b.dcm")
    monkeypatch.setattr("monai_simclr.runtime.files.os.stat", lambda path: regular)  # the first look saw a file
    with pytest.raises(OSError, match="is a named pipe, not a regular file"):
        open_regular(tmp_path / "b.dcm")


def _write(path, pixels):
    if path.suffix == ".dcm":
        return write_dicom(path, pixels.astype(np.uint16) * 16)
    if path.suffix == ".nii":
        nib.save(nib.Nifti1Image(pixels.T, np.eye(4)), path)
    else:
        Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.dcm", "a.nii"])
@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((31, 31), "has 31 x 31 pixels, a side under min_side=32"),
        ((8, 2000), "has 8 x 2000 pixels, a side under"),
        ((2000, 31), "a side under min_side=32"),
        ((32, 129), "has 32 x 129 pixels, one side more than max_aspect=4"),
        ((32, 32), ""),
        ((32, 128), ""),
    ],
)
def test_thumbnails_and_strips_are_refused_in_every_format(tmp_path, name, shape, words):
    path = _write(tmp_path / name, np.resize(picture(8), shape))
    problem = pixel_facts(path)["damage"]
    assert words in problem if words else problem == ""
    loose = ReaderSettings(min_side=8, max_aspect=250)
    assert read_radiograph(path, loose)[0].shape == shape


def test_settings_of_the_shape_must_be_possible():
    with pytest.raises(ValueError, match="min_side and max_aspect must be 1 or more, got 0 and 4"):
        ReaderSettings(min_side=0)


def test_the_whole_header_omits_long_values_and_keeps_the_rest(tmp_path):
    data = make_dicom(picture(12), StudyDescription="as it is")
    data.add_new(0x00110010, "LO", "VENDOR")
    data.add_new(0x00111010, "OB", bytes(2**20 + 2))
    data.add_new(0x00111011, "OB", b"1234")
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    whole, syntax = read_header(tmp_path / "a.dcm", whole=True)
    assert syntax == uid.ExplicitVRLittleEndian
    assert whole[0x00111011].value == b"1234"
    assert 0x00111010 not in whole
    assert (str(whole.PatientName), whole.StudyDescription) == ("Secret^Jane", "as it is")
    few, _ = read_header(tmp_path / "a.dcm")
    assert "PatientName" not in few
    assert few.StudyDescription == "as it is"


def test_a_recorded_header_is_the_header_that_was_read_even_of_a_file_that_is_refused(tmp_path):
    path = write_described(tmp_path / "a.dcm")
    with record_headers() as headers:
        read_radiograph(path)
        with pytest.raises(RadiographError, match="Modality is 'CT'"):
            read_radiograph(write_dicom(tmp_path / "b.dcm", picture(12), Modality="CT"))
        Image.fromarray(picture(8)).save(tmp_path / "c.png")
        read_radiograph(tmp_path / "c.png")
    read_radiograph(path)
    assert [data.Modality for data in headers] == ["DX", "CT"]
    assert headers[0] == read_header(path)[0]


def test_a_file_that_is_not_dicom_has_an_error_of_its_own_and_a_damaged_one_has_not(tmp_path):
    Image.fromarray(picture(8)).save(tmp_path / "a.png")
    with pytest.raises(NotDicomError, match=r"^a\.png: is not DICOM \(PS3\.10 section 7\.1\)$"):
        read_header(tmp_path / "a.png")
    (tmp_path / "a.dcm").write_bytes(bytes(128) + b"DICM")
    with pytest.raises(RadiographError, match=r"^a\.dcm: has no \(0002,0010\)") as error:
        read_header(tmp_path / "a.dcm")
    assert not isinstance(error.value, NotDicomError)


def test_the_package_opens_headers_and_pictures_in_one_place():
    package = Path(__file__).resolve().parents[2] / "monai_simclr"
    results = {"inference/dicomweb.py"}  # reads what we wrote ourselves
    allowed = {
        "dcmread(": results,
        "read_file_meta_info(": set(),
        "Image.open(": {"data/formats/pictures.py", "data/formats/dicom_pixels.py"},
    }
    for path in package.rglob("*.py"):
        content, name = path.read_text(encoding="utf-8"), path.relative_to(package).as_posix()
        for call, places in allowed.items():
            lines = [line for line in content.splitlines() if call in line and ">>>" not in line]
            assert not lines or name in places, f"{name}: {lines}"
