"""Archives without a publisher's table: MedMNIST files, DICOM trees, class folders, folders of images, foreign CSV."""

from __future__ import annotations

import logging
import re

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian
from resident import forget_peak, peak_kib

from monai_simclr.data import check_index, open_index
from monai_simclr.data.findings import NIH14
from monai_simclr.data.pseudonyms import keyed_hash
from monai_simclr.data.sources.dicom_tree import read_dicom_tree
from monai_simclr.data.sources.folder import read_class_folders
from monai_simclr.data.sources.medmnist import read_medmnist
from monai_simclr.data.sources.table import read_table
from monai_simclr.inference.dataset import describe_file


def _npz(path, findings, counts=(3, 2, 2), size=28, **others):
    generator = np.random.default_rng(0)
    arrays = {}
    for split, count in zip(("train", "val", "test"), counts, strict=True):
        arrays[f"{split}_images"] = generator.integers(0, 256, (count, size, size), dtype=np.uint8)
        arrays[f"{split}_labels"] = generator.integers(0, 2, (count, findings), dtype=np.uint8)
    np.savez_compressed(path, **{**arrays, **others})
    return arrays


def test_chestmnist_keeps_official_splits_nihs_findings_and_every_pixel(tmp_path, caplog):
    arrays = _npz(tmp_path / "chestmnist_28.npz", 14)
    index = open_index(tmp_path / "chestmnist_28.npz")
    assert index["split"].tolist() == ["train"] * 3 + ["val"] * 2 + ["test"] * 2
    np.testing.assert_array_equal(index[list(NIH14)].to_numpy()[3:5], arrays["val_labels"])
    np.testing.assert_array_equal(np.asarray(Image.open(index["image"].iloc[4])), arrays["val_images"][1])
    assert "NO PATIENT IDS: chestmnist_28.npz" in caplog.text


def test_a_folder_with_one_npz_file_is_recognised_and_unpacked_once(tmp_path):
    _npz(tmp_path / "pneumoniamnist.npz", 1)
    index = open_index(tmp_path)
    assert index.attrs["recognised"] == "MedMNIST: pneumoniamnist.npz is pneumoniamnist in MedMNIST's form"
    assert index.columns[-1] == "Pneumonia"
    before = [path.stat().st_mtime_ns for path in sorted((tmp_path / "pneumoniamnist_images").iterdir())]
    open_index(tmp_path)
    assert [p.stat().st_mtime_ns for p in sorted((tmp_path / "pneumoniamnist_images").iterdir())] == before


def test_pictures_unpacked_from_another_file_are_refused(tmp_path):
    _npz(tmp_path / "chestmnist.npz", 14)
    read_medmnist(tmp_path)
    _npz(tmp_path / "chestmnist.npz", 14, counts=(4, 2, 2))
    with pytest.raises(ValueError, match=r"chestmnist_images exists, but was not unpacked from this chestmnist.npz"):
        read_medmnist(tmp_path)


def test_a_damaged_npz_leaves_no_folder_behind(tmp_path):
    _npz(tmp_path / "chestmnist.npz", 14, val_images=np.zeros((2, 28, 28), np.float32))
    with pytest.raises(ValueError, match=r"chestmnist.npz: val_images has float32 \(2, 28, 28\); uint8 \(N, H, W\)"):
        read_medmnist(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["chestmnist.npz"]


def test_another_medmnist_set_is_refused(tmp_path):
    _npz(tmp_path / "retinamnist.npz", 1)
    with pytest.raises(ValueError, match=r"retinamnist.npz is not chestmnist or pneumoniamnist"):
        read_medmnist(tmp_path)


def test_unpacking_holds_a_block_and_not_the_archive_in_memory(tmp_path):
    _npz(tmp_path / "chestmnist_224.npz", 14, counts=(1200, 1, 1), size=224)  # 60 MB of pixels
    forget_peak()
    before = peak_kib()
    read_medmnist(tmp_path)
    grown = peak_kib() - before
    assert grown < 30_000, f"{grown} KiB"


def _dicom(path, **tags):
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = ComputedRadiographyImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = pydicom.uid.generate_uid()
    data.Modality, data.PatientID, data.PatientSex, data.PatientAge = "CR", "7", "F", "061Y"
    data.PatientName = "Doe^Jane"
    for name, value in tags.items():
        setattr(data, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def _view_code(meaning, value="399348003"):
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "SCT", meaning
    return Sequence([code])


def test_a_dicom_tree_is_read_from_headers_and_counts_what_it_excludes(tmp_path, caplog):
    _dicom(tmp_path / "a/b/IM_1", ViewPosition="PA", Manufacturer="Acme", IssuerOfPatientID="north")
    _dicom(tmp_path / "a/IM_2.dcm", ViewCodeSequence=_view_code("antero-posterior projection"), PatientAge="006M")
    _dicom(tmp_path / "ct", Modality="CT")
    _dicom(tmp_path / "sr", Modality="SR")
    (tmp_path / "README.txt").write_text("no DICOM")
    (tmp_path / "bare.dcm").write_bytes(b"\x08\x00\x05\x00" + bytes(200))
    index = open_index(tmp_path)
    assert index["patient_id"].tolist() == ["north:7", "north:7"]
    assert index["view_position"].tolist() == ["AP", "PA"]
    assert index["age"].tolist() == [0.5, 61.0]
    assert index["manufacturer"].tolist() == ["", "Acme"]
    assert index.attrs["excluded"] == {
        "not DICOM": 1,
        "DICOM without the Part 10 header": 1,
        "Modality CT": 1,
        "Modality SR": 1,
    }
    assert "4 files below" in caplog.text
    assert "Doe" not in index.to_csv() + caplog.text


@pytest.mark.parametrize("cut", [140, 200, 260])
def test_a_damaged_header_is_counted_and_never_an_error(tmp_path, cut):
    _dicom(tmp_path / "good")
    whole = _dicom(tmp_path / "bad").read_bytes()
    (tmp_path / "bad").write_bytes(whole[:cut] + b"\xff" * 40)
    index = read_dicom_tree(tmp_path)
    assert [path.rsplit("/", 1)[1] for path in index["image"]] == ["good"]
    assert sum(index.attrs["excluded"].values()) == 1


def test_dicom_files_without_patient_ids_are_a_warning_or_get_one_by_a_pattern(tmp_path, caplog):
    for name in ("p1/IM1", "p1/IM2", "p2/IM1"):
        _dicom(tmp_path / name, PatientID="")
    alone = check_index(read_dicom_tree(tmp_path))
    assert alone["patient_id"].tolist() == ["file:p1/IM1", "file:p1/IM2", "file:p2/IM1"]
    assert "NO PATIENT IDS: 3 files below" in caplog.text
    assert open_index(tmp_path, patient_pattern=r"^(p\d+)/")["patient_id"].tolist() == ["p1", "p1", "p2"]


def test_a_patient_is_one_with_and_without_an_issuer_and_two_issuers_number_alike(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    for name, patient, issuer in (
        *(("1", "7", "north"), ("2", "7", ""), ("3", "7", "north"), ("4", "8", "")),
        *(("5", "9", "north"), ("6", "9", "south"), ("7", "9", ""), ("8", "9", "")),
    ):
        _dicom(tmp_path / name, PatientID=patient, IssuerOfPatientID=issuer)
    index = open_index(tmp_path)
    assert index["patient_id"].tolist() == [
        *("north:7", "north:7", "north:7", "8"),
        *("north:9", "south:9", "9", "9"),
    ]
    assert "1 files below" in caplog.text
    assert "get the only one that other files give for their Patient ID" in caplog.text
    assert re.search(
        r"2 files below .* give several for their Patient ID, so that 1 patients may have two", caplog.text
    )
    caplog.clear()
    assert open_index(tmp_path, patient_pattern=r"(\d)$")["patient_id"].tolist() == list("12345678")
    assert "Issuer" not in caplog.text


@pytest.mark.parametrize("issuer", ["", "north"])
def test_a_patient_has_one_hash_in_an_index_and_in_inference(tmp_path, issuer):
    path = _dicom(tmp_path / "1", PatientID="7", IssuerOfPatientID=issuer)
    (patient,) = open_index(tmp_path)["patient_id"]
    assert describe_file(path, "key")["patient_hash"] == keyed_hash("key", patient)


def test_one_patient_id_for_a_whole_archive_is_a_warning(tmp_path, caplog):
    for number in range(20):
        _dicom(tmp_path / str(number), PatientID="ANONYMOUS")
    read_dicom_tree(tmp_path)
    assert "20 of 20 files have the same (0010,0020) Patient ID: was the archive anonymised" in caplog.text


def test_the_number_of_threads_or_processes_changes_nothing(tmp_path):
    for number in range(30):
        _dicom(tmp_path / f"{number:02d}", PatientID=str(number // 2))
    for options in ({"workers": 8}, {"engine": "processes", "workers": 2}):
        assert read_dicom_tree(tmp_path, workers=1).equals(read_dicom_tree(tmp_path, **options))
    assert open_index(tmp_path, engine="processes").equals(open_index(tmp_path))


def _pictures(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(folder / name)
    return folder


def test_class_folders_are_findings_and_splits(tmp_path):
    _pictures(
        tmp_path,
        "train/NORMAL/IM-1.jpeg",
        "train/PNEUMONIA/person1_bacteria_1.jpeg",
        "test/PNEUMONIA/person2_virus_3.jpeg",
        "val/NORMAL/IM-9.jpeg",
    )
    index = open_index(tmp_path)
    assert index.attrs["recognised"] == "class folders: its images are in folders that are classes: NORMAL, PNEUMONIA"
    assert index["split"].tolist() == ["test", "train", "train", "val"]
    assert index["Pneumonia"].tolist() == [1, 0, 1, 0]
    assert "Normal" not in index


def test_a_patient_pattern_finds_who_is_in_two_splits_of_class_folders(tmp_path):
    _pictures(tmp_path, "train/PNEUMONIA/person1_a.png", "test/PNEUMONIA/person1_b.png", "test/NORMAL/person3_a.png")
    with pytest.raises(ValueError, match=r"1 patients are in more than one split, the first is 'person1'"):
        open_index(tmp_path, patient_pattern=r"(person\d+)_")
    assert len(open_index(tmp_path, patient_pattern=r"(person\d+)_", check=False)) == 3


def test_an_image_in_no_class_is_named(tmp_path):
    _pictures(tmp_path, "A/1.png", "0.png")
    with pytest.raises(ValueError, match="in no class; put it into the folder of its class"):
        read_class_folders(tmp_path)


def test_folders_that_are_patients_are_not_taken_for_classes(tmp_path):
    index = open_index(_pictures(tmp_path, "p1/0.png", "p2/0.png"), patient_pattern=r"^(\d)")
    assert index.attrs["recognised"].startswith("a folder of images")
    assert len(index.columns) == 7


def test_a_folder_of_images_warns_that_patients_are_unknown(tmp_path, caplog):
    index = open_index(_pictures(tmp_path, "x/0.png", "y/0.png"))
    assert index["patient_id"].tolist() == ["x/0.png", "y/0.png"]
    assert "NO PATIENT IDS" in caplog.text


@pytest.mark.parametrize(
    ("pattern", "message"),
    [(r"^(p\d+)", r"finds no patient in the file name '0.png'"), (r"p\d", "has no group"), ("(", "is not a regular")],
)
def test_a_pattern_that_does_not_work_is_explained(tmp_path, pattern, message):
    with pytest.raises(ValueError, match=message):
        open_index(_pictures(tmp_path, "0.png"), patient_pattern=pattern)


def test_any_csv_is_read_by_a_map_of_its_columns(tmp_path):
    _pictures(tmp_path, "img/1.png", "img/2.png")
    (tmp_path / "cases.csv").write_text(
        "file,pid,view,gender,years,part,effusion,note\nimg/1.png,007,postero-anterior,Male,61,validation,yes,x\n"
        "img/2.png,7,lateral,F,,TRAIN,,y\n"
    )
    columns = {
        "image": "file",
        "patient_id": "pid",
        "view_position": "view",
        "sex": "gender",
        "age": "years",
        "split": "part",
    }
    index = open_index(tmp_path / "cases.csv", columns=columns, findings=["effusion"])
    assert [[str(cell) for cell in row] for row in index.iloc[:, 1:].to_numpy()] == [
        ["007", "", "PA", "M", "61.0", "val", "1.0"],
        ["7", "", "LL", "F", "nan", "train", "nan"],
    ]
    assert index.columns[-1] == "Effusion"


def test_a_csv_with_joined_labels_is_read(tmp_path):
    (tmp_path / "t.csv").write_text("f,l\n1.png,Effusion|infiltrate\n2.png,No Finding\n3.png,\n")
    index = read_table(tmp_path / "t.csv", {"image": "f", "labels": "l"})
    np.testing.assert_equal(index[["Effusion", "Infiltration"]].to_numpy(), [[1, 1], [0, 0], [np.nan, np.nan]])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": "f", "label": "l"}, r"unknown: \['label'\]"),
        ({"image": "g"}, r"t.csv lacks the columns \['g'\]; it has \['f', 'l', 's'\]"),
        ({"image": "f", "split": "s"}, r"t.csv, row 2: 'split' must be one of .*, got 'holdout'"),
    ],
)
def test_a_map_of_columns_that_does_not_fit_is_refused_with_the_place(tmp_path, columns, message):
    (tmp_path / "t.csv").write_text("f,l,s\n1.png,-1,holdout\n")
    with pytest.raises(ValueError, match=message):
        read_table(tmp_path / "t.csv", columns)


def test_an_uncertain_label_of_a_foreign_csv_is_refused_with_its_row(tmp_path):
    (tmp_path / "t.csv").write_text("f,l,s\n1.png,-1,\n")
    with pytest.raises(ValueError, match=r"t.csv, row 2: 'l' must be 1, 0, .*map uncertain labels first\), got '-1'"):
        read_table(tmp_path / "t.csv", {"image": "f"}, ["l"])


def test_the_error_about_a_foreign_csv_shows_how_to_map_its_columns(tmp_path):
    (tmp_path / "t.csv").write_text("file,pid\n1.png,1\n")
    with pytest.raises(ValueError, match=r"t.csv: the index lacks .* give columns=\{'image': ..., 'patient_id': ...\}"):
        open_index(tmp_path / "t.csv")


def test_the_error_about_an_unknown_folder_lists_what_is_known(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(FileNotFoundError, match=r"no table of NIH ChestX-ray14, CheXpert, MIMIC-CXR-JPG, PadChest"):
        open_index(tmp_path)
