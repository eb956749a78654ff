"""DICOM results of files in use: sparse, odd, damaged; checked with dciodvfy (David Clunie's dicom3tools)."""

from __future__ import annotations

import copy
import csv
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch

from monai_simclr.data.phantoms import write_dicom_phantoms
from monai_simclr.evaluation import fit_novelty
from monai_simclr.inference import InferenceConfig, OperatingPoint
from monai_simclr.inference.dataset import identify_file
from monai_simclr.inference.dicom_results import HeaderError, lookup_code, source_dataset
from monai_simclr.inference.pictures import RowPictures
from monai_simclr.networks import FindingClassifier, encoder

pytest.importorskip("highdicom", reason="DICOM results need highdicom, from the extra [dicom]")

LONG = ["Enlarged Cardiomediastinum, left", "Enlarged Cardiomediastinum, right", "N" * 64, "Größe des Herzens"]
NAMES = ["Effusion", "Pleural_Thickening", "Lung Opacity", *LONG]
PICTURE = np.random.default_rng(0).integers(0, 256, (33, 35, 3), dtype=np.uint8)
JAPANESE = "Yamada^Tarou=山田^太郎=やまだ^たろう"


@pytest.fixture(scope="module")
def config():
    rng = np.random.default_rng(0)
    novelty = fit_novelty(rng.normal(size=(60, 6)), rng.normal(size=(30, 6)))
    return InferenceConfig(NAMES, {}, {name: OperatingPoint(1.0, 0.0, 0.9) for name in NAMES}, novelty, "abc")


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    folder = write_dicom_phantoms(tmp_path_factory.mktemp("dicom"), n_patients=1, size=64)
    return pydicom.dcmread(next(folder.rglob("*.dcm")))


@pytest.fixture
def row():
    n = len(NAMES)
    return {
        "reason": "",
        "logits": [1.0] * n,
        "probabilities": [0.7] * n,
        "decisions": [1, 0, *[None] * (n - 2)],
        "file_hash": "f",
    }


def made_of(radiograph, row, config):
    from monai_simclr.inference.dicom_results import capture, report

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {"sr": report(radiograph, row, config), "sc": capture(radiograph, PICTURE)}


def errors_of(dataset, path):
    """What dciodvfy calls an error."""
    from monai_simclr.inference.dicom_results import encode

    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not there; on Debian: apt-get install dicom3tools")
    path.write_bytes(encode(dataset))
    done = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, timeout=120)
    said = (done.stdout + done.stderr).decode(errors="replace").splitlines()
    assert any("SR" in line or "SC" in line or "Secondary" in line for line in said), said
    return [line for line in said if line.startswith("Error")]


def _bare(header):
    for element in list(header):
        if element.keyword not in ("SOPClassUID", "SOPInstanceUID", "Rows", "Columns"):
            del header[element.tag]


def _uids_in_file_meta_only(header):
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        delattr(header, keyword)


def _values(**values):
    def change(header):
        for keyword, value in values.items():
            setattr(header, keyword, value)

    return change


HEADERS = {
    "as it is": lambda header: None,
    "bare": _bare,
    "uids in file meta only": _uids_in_file_meta_only,
    "empty uids of study and series": _values(StudyInstanceUID="", SeriesInstanceUID=""),
    "dates with dots": _values(StudyDate="1995.07.20", PatientBirthDate="1940.01.31", StudyTime="11:22:07"),
    "dates that are none": _values(StudyDate="20231341", PatientBirthDate="060Y", StudyTime="noon"),
    "sex and age in words": _values(PatientSex="Male", PatientAge="61"),
    "several ids": _values(PatientID=["1", "2"], AccessionNumber=["a", "b"]),
    "too long": _values(AccessionNumber="A" * 40, StudyID="S" * 17, PatientID="P" * 65, StudyDescription="D" * 99),
    "a name of 300 letters": _values(PatientName="N" * 300, ReferringPhysicianName="A^B^C^D^E^F^G"),
    "japanese": _values(SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName=JAPANESE),
    "chinese": _values(SpecificCharacterSet="GB18030", PatientName="Wang^XiaoDong=王^小东"),
    "unknown character set": _values(SpecificCharacterSet="ISO_IR 999", PatientName="M\xfcller^J"),
    "control characters": _values(PatientID="12\n34", StudyDescription="a\tb"),
    "monochrome1": _values(PhotometricInterpretation="MONOCHROME1", PixelSpacing=[0, 0], PatientOrientation=""),
    "one orientation": _values(PatientOrientation="L", ImagerPixelSpacing=None),
    "lossy and burned in": _values(LossyImageCompression="01", BurnedInAnnotation="YES", ImageComments="x"),
}


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.filterwarnings("ignore")
def test_results_of_any_header_are_valid(name, phantom, row, config, tmp_path):
    header = copy.deepcopy(phantom)
    HEADERS[name](header)
    header.save_as(tmp_path / "in.dcm", enforce_file_format=False)
    header = pydicom.dcmread(tmp_path / "in.dcm", stop_before_pixels=True)
    for kind, made in made_of(header, row, config).items():
        assert errors_of(made, tmp_path / f"{kind}.dcm") == [], kind


def test_results_of_all_real_files_are_valid(cxr, row, config, tmp_path):
    files = sorted((cxr / "dicom").glob("*.dcm"))
    assert len(files) >= 5
    for file in files:
        header = pydicom.dcmread(file, stop_before_pixels=True, force=True)
        for kind, made in made_of(header, row, config).items():
            assert errors_of(made, tmp_path / f"{kind}.dcm") == [], (file.name, kind)


def test_what_is_valid_is_kept_and_what_is_not_is_empty(phantom):
    header = copy.deepcopy(phantom)
    header.PatientBirthDate, header.StudyDate, header.PatientSex = "1940.01.31", "19951301", "F"
    header.PatientID, header.AccessionNumber = "A-7", "x" * 17
    found = source_dataset(header)
    assert (found.PatientBirthDate, found.StudyDate, found.PatientSex) == ("19400131", "", "F")
    assert (found.PatientID, found.AccessionNumber) == ("A-7", "")
    assert found.StudyInstanceUID == phantom.StudyInstanceUID
    assert found.SeriesInstanceUID == phantom.SeriesInstanceUID


def test_a_name_in_another_character_set_is_the_same_name(phantom, row, config, tmp_path):
    header = copy.deepcopy(phantom)
    header.SpecificCharacterSet, header.PatientName = ["", "ISO 2022 IR 87"], JAPANESE
    header.save_as(tmp_path / "in.dcm")
    header = pydicom.dcmread(tmp_path / "in.dcm", stop_before_pixels=True)
    for made in made_of(header, row, config).values():
        from monai_simclr.inference.dicom_results import encode

        (tmp_path / "out.dcm").write_bytes(encode(made))
        again = pydicom.dcmread(tmp_path / "out.dcm")
        assert str(again.PatientName) == JAPANESE


def test_both_results_of_an_image_without_a_study_share_one(phantom, row, config):
    header = copy.deepcopy(phantom)
    del header.StudyInstanceUID
    made = made_of(header, row, config)
    assert made["sr"].StudyInstanceUID == made["sc"].StudyInstanceUID != ""


def test_an_image_that_nothing_can_refer_to_is_refused_by_its_tag():
    with pytest.raises(HeaderError, match=r"\(0008,0018\) SOP Instance UID is missing, so that nothing could refer"):
        source_dataset(_dataset(SOPClassUID="1.2.840.10008.5.1.4.1.1.1"))


def test_the_capture_says_what_the_source_says_of_orientation_loss_and_burned_in_text(phantom, row, config):
    known, unknown = copy.deepcopy(phantom), copy.deepcopy(phantom)
    known.PatientOrientation, known.BurnedInAnnotation, known.LossyImageCompression = ["L", "F"], "YES", "01"
    for keyword in ("PatientOrientation", "BurnedInAnnotation", "LossyImageCompression"):
        if keyword in unknown:
            delattr(unknown, keyword)
    one, two = (made_of(header, row, config)["sc"] for header in (known, unknown))
    assert (list(one.PatientOrientation), one.BurnedInAnnotation, one.LossyImageCompression) == (
        ["L", "F"],
        "YES",
        "01",
    )
    assert not two.PatientOrientation
    assert "BurnedInAnnotation" not in two
    assert "Laterality" in two


@pytest.mark.parametrize(
    ("orientation", "stated"),
    [
        (["R", "H"], ["L", "F"]),
        (["F", "L"], ["L", "F"]),
        (["LF", "FR"], ["L", "F"]),
        (["P", "F"], []),  # a lateral is not mirrored to one side
        (["L", "R"], []),
        ("L", []),
        (["X", "Y"], []),
        ("", []),
    ],
)
def test_the_capture_states_an_orientation_only_where_the_reader_has_turned_the_image_to_it(
    phantom, row, config, orientation, stated
):
    header = copy.deepcopy(phantom)
    header.PatientOrientation = orientation
    assert list(made_of(header, row, config)["sc"].PatientOrientation or []) == stated


def _dataset(**values):
    made = pydicom.Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def _findings(report):
    """Code and meaning of every measurement group's finding."""
    groups = next(item for item in report.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == "126010")
    found = [
        item.ConceptCodeSequence[0]
        for group in groups.ContentSequence
        for item in group.ContentSequence
        if item.ValueType == "CODE" and item.ConceptNameCodeSequence[0].CodeValue == "121071"
    ]
    return [(one.get("CodeValue", one.get("LongCodeValue")), one.CodeMeaning, "LongCodeValue" in one) for one in found]


def test_one_code_has_one_meaning_and_long_ones_are_long_code_values(phantom, row, config):
    found = _findings(made_of(phantom, row, config)["sr"])
    assert len({code for code, _, _ in found}) == len(found) == len(NAMES)
    assert [meaning for _, meaning, _ in found] == ["Pleural effusion", "Pleural Thickening", "Lung Opacity", *LONG]
    assert all(is_long == (len(code) > 16) for code, _, is_long in found)
    assert sum(is_long for *_, is_long in found) >= 5


@pytest.mark.parametrize(
    "names",
    [
        ("Enlarged Cardiomediastinum A", "Enlarged Cardiomediastinum B"),
        ("Nodule", "nodule", "NODULE"),
        ("A-B", "A B", "A.B", "A+B"),
        ("Groesse", "Größe"),
        ("COVID-19", "COVID 19", "COVID_19"),
    ],
)
def test_no_two_names_share_a_code(names):
    assert len({lookup_code(name) for name in names}) == len(names)


def test_decisions_at_two_specificities_have_two_codes(phantom, row, config):
    codes = set()
    for specificity in (0.9, 0.95):
        operating = {name: OperatingPoint(1.0, 0.0, specificity) for name in NAMES}
        text = str(made_of(phantom, row, InferenceConfig(NAMES, {}, operating, config.novelty, "a"))["sr"])
        (code,) = {line.split("'")[1] for line in text.splitlines() if "'DECISION" in line}
        codes.add(code)
        assert f"Decision at {100 * specificity:g}% specificity" in text
    assert codes == {"DECISION_90", "DECISION_95"}


@pytest.fixture
def pictures(config, tmp_path):
    torch.manual_seed(0)
    network = FindingClassifier(encoder("resnet10", width=0.125), NAMES).eval()
    return RowPictures(config, network, tmp_path / "out", overlays=False, dicom=True)


def _stamped(row, path):
    """The row of a file as it is now."""
    return {**row, "stamp": identify_file(path, "")["stamp"]}


def test_a_header_that_nothing_can_refer_to_is_a_sentence_and_ends_nothing(phantom, row, pictures, tmp_path):
    header = copy.deepcopy(phantom)
    del header.SOPInstanceUID
    header.file_meta.MediaStorageSOPInstanceUID = ""
    header.save_as(tmp_path / "in.dcm", enforce_file_format=False)
    changes = pictures(_stamped(row, tmp_path / "in.dcm"), torch.rand(1, 64, 64), str(tmp_path / "in.dcm"))
    assert changes == {
        "reason": "no DICOM results: (0008,0018) SOP Instance UID is missing, so that nothing could refer to the image"
    }
    assert not list((tmp_path / "out").rglob("*.dcm"))


def test_a_full_disk_ends_the_run(phantom, row, pictures, tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    phantom.save_as(tmp_path / "in.dcm")
    monkeypatch.setattr("monai_simclr.inference.pictures.write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        pictures(_stamped(row, tmp_path / "in.dcm"), torch.rand(1, 64, 64), str(tmp_path / "in.dcm"))


def test_no_name_gets_into_a_log_or_warning(phantom, row, pictures, tmp_path, caplog, recwarn):
    for number, name in enumerate(("ZAPHOD", "Zaphod^" * 9, "Z" * 99)):
        header = copy.deepcopy(phantom)
        header.PatientName = name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header.save_as(tmp_path / f"{number}.dcm")
        path = tmp_path / f"{number}.dcm"
        assert pictures(_stamped(row, path), torch.rand(1, 64, 64), str(path)) == {}
        assert (tmp_path / "out" / "dicom" / "f.sc.dcm").is_file()
    said = caplog.text + " ".join(str(one.message) for one in recwarn)
    assert "zaphod" not in said.lower()


def test_without_highdicom_nothing_is_begun(config, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    network = FindingClassifier(encoder("resnet10", width=0.125), NAMES)
    with pytest.raises(ImportError, match=r"pip install 'monai-simclr\[dicom\]'"):
        RowPictures(config, network, Path(), overlays=False, dicom=True)


def test_one_file_without_results_has_predictions_and_a_reason_in_its_row(config, tmp_path):
    from monai_simclr.inference.writer import write_tables

    n = len(NAMES)
    about = {
        "file_hash": "f",
        "patient_hash": "",
        "study_hash": "",
        "sop_instance_hash": "",
        "view_position": "PA",
        "flags": "",
        "novelty": 0.5,
    }
    predicted = {"logits": [1.0] * n, "probabilities": [0.7] * n, "decisions": [1] * n}
    write_tables([{**about, **predicted, "reason": "no DICOM results: x"}], config, tmp_path)
    (row,) = csv.DictReader((tmp_path / "predictions.csv").open(encoding="utf-8"))
    assert (row["Effusion"], row["Effusion decision"], row["reason"]) == ("0.700000", "1", "no DICOM results: x")
