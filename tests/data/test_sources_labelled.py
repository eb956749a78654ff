"""CheXpert, MIMIC-CXR-JPG, PadChest, VinDr-CXR and RSNA, each on a small tree in the publisher's exact format."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from monai_simclr.data import open_index
from monai_simclr.data.findings import CHEXPERT14
from monai_simclr.data.index import check_index
from monai_simclr.data.sources.base import is_val_patient
from monai_simclr.data.sources.chexpert import read_chexpert
from monai_simclr.data.sources.mimic import read_mimic
from monai_simclr.data.sources.padchest import read_padchest
from monai_simclr.data.sources.rsna import read_rsna
from monai_simclr.data.sources.vindr import read_vindr

CHEXPERT = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices\n"
)
TRAIN = "train" if not is_val_patient("patient00001") else "val"


def _chexpert(folder, test=False):
    for name in (
        "train/patient00001/study1/view1_frontal.jpg",
        "train/patient00001/study1/view2_lateral.jpg",
        "train/patient00002/study1/view1_frontal.jpg",
        "valid/patient64541/study1/view1_frontal.jpg",
        "test/patient64741/study1/view1_frontal.jpg",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    small = "CheXpert-v1.0-small/"
    (folder / "train.csv").write_text(
        CHEXPERT
        + f"{small}train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,,,-1.0,1.0,,,,,,0.0,1.0,,,1.0\n"
        + f"{small}train/patient00001/study1/view2_lateral.jpg,Female,68,Lateral,,,,-1.0,1.0,,,,,,0.0,1.0,,,1.0\n"
        + f"{small}train/patient00002/study1/view1_frontal.jpg,Unknown,0,Frontal,PA,1.0,,,,,,,,,,,,,\n"
    )
    (folder / "valid.csv").write_text(
        CHEXPERT + f"{small}valid/patient64541/study1/view1_frontal.jpg,Male,73,Frontal,AP,0.0,1.0,1.0,1.0,0.0,0.0,0.0,"
        "0.0,0.0,0.0,0.0,0.0,0.0,0.0\n"
    )
    if test:
        columns = CHEXPERT.strip().split(",")
        labels = ",".join([columns[0], *columns[5:]])
        (folder / "test_labels.csv").write_text(f"{labels}\ntest/patient64741/study1/view1_frontal.jpg{',0.0' * 14}\n")
    return folder


def test_chexpert_is_recognised_with_its_views_sexes_ages_and_splits(tmp_path, caplog):
    caplog.set_level("INFO", logger="monai_simclr.data")
    index = open_index(_chexpert(tmp_path))
    assert index.attrs["recognised"] == "CheXpert: its train.csv has the columns of CheXpert"
    assert index["view_position"].tolist() == ["AP", "LL", "PA", "AP"]
    assert index["sex"].tolist() == ["F", "F", "", "M"]
    assert index["age"].iloc[0] == 68
    assert np.isnan(index["age"].iloc[2])
    assert index["patient_id"].tolist() == ["patient00001"] * 2 + ["patient00002", "patient64541"]
    assert index["study_id"].iloc[0] == "patient00001_study1"
    assert index["split"].tolist()[::3] == [TRAIN, "test"]
    assert "valid.csv is the test split" in caplog.text
    assert "uncertain labels are read as 'ignore', blanks (not mentioned) as 'zeros'" in caplog.text
    assert "1 of 4 images are laterals" in caplog.text
    assert set(index.columns[7:]) == {*CHEXPERT14} - {"No Finding"}


@pytest.mark.parametrize(("uncertain", "value"), [("ignore", np.nan), ("zeros", 0.0), ("ones", 1.0), ("smoothed", 0.7)])
def test_chexpert_reads_uncertain_labels_by_the_policy(tmp_path, uncertain, value):
    index = check_index(read_chexpert(_chexpert(tmp_path, test=True), uncertain=uncertain))
    np.testing.assert_equal(index["Cardiomegaly"].iloc[0], value)
    assert index["Effusion"].tolist() == [1, 1, 0, 0, 0]


def test_chexpert_blanks_are_negative_or_unknown_and_negative_with_no_finding(tmp_path):
    zeros, ignore = read_chexpert(_chexpert(tmp_path)), read_chexpert(tmp_path, blank="ignore")
    assert zeros["Edema"].tolist() == [0, 0, 0, 0]
    np.testing.assert_equal(ignore["Edema"].to_numpy(), [np.nan, np.nan, 0.0, 0.0])
    np.testing.assert_equal(ignore["Support Devices"].to_numpy(), [1.0, 1.0, np.nan, 0.0])


def test_smoothed_labels_never_reach_chexperts_held_out_rows(tmp_path):
    held = next(f"patient{n:05d}" for n in range(1, 1000) if is_val_patient(f"patient{n:05d}"))
    (tmp_path / "train.csv").write_text(
        CHEXPERT + f"x/train/{held}/study1/view1_frontal.jpg,Male,50,Frontal,AP,,,-1.0,,,,,,,,,,,\n"
    )
    index = check_index(read_chexpert(tmp_path, uncertain="smoothed"))
    assert index["split"].tolist() == ["val"]
    assert np.isnan(index["Cardiomegaly"].iloc[0])


def test_chexpert_with_its_test_table_keeps_the_publishers_splits(tmp_path):
    index = open_index(_chexpert(tmp_path, test=True))
    assert index["split"].tolist() == ["train", "train", "train", "val", "test"]
    assert index["view_position"].iloc[-1] == ""


def test_views_are_kept_by_an_option_of_every_source_and_counted(tmp_path):
    index = open_index(_chexpert(tmp_path), views=["PA", "AP"])
    assert index["view_position"].tolist() == ["AP", "PA", "AP"]
    assert index.attrs["excluded"] == {"views other than PA, AP": 1}


def test_an_unknown_policy_is_named_with_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match=r"uncertain must be one of \['ignore', 'zeros', 'ones', 'smoothed'\], got 'u"):
        open_index(_chexpert(tmp_path), uncertain="u-ones")


def test_an_odd_label_of_chexpert_is_named_with_its_column(tmp_path):
    (tmp_path / "train.csv").write_text(
        CHEXPERT + f"train/patient00001/study1/view1_frontal.jpg,M,1,Frontal,PA,2.0{',' * 13}\n"
    )
    with pytest.raises(ValueError, match=r"labels must be 1, 0, -1 or blank, got '2\.0' for 'No Finding' in row 0"):
        read_chexpert(tmp_path)


MIMIC_LABELS = (
    "subject_id,study_id,Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,Lung Lesion,"
    "Lung Opacity,No Finding,Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices\n"
)


def _mimic(folder, split="validate"):
    def write(kind, text):
        with gzip.open(folder / f"mimic-cxr-2.0.0-{kind}.csv.gz", "wt") as file:
            file.write(text)

    write(
        "metadata",
        "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime,"
        "ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning\n"
        "aaa,10000032,50414267,CHEST (PA AND LAT),PA,3056,2544,21800506,213014.5,CHEST,postero-anterior,Erect\n"
        "bbb,10000032,50414267,CHEST (PA AND LAT),LATERAL,3056,2544,21800506,213014.5,CHEST,lateral,Erect\n"
        "ccc,19999987,55368167,CHEST (PORTABLE AP),AP,3056,2544,21451104,51448.2,CHEST,antero-posterior,\n"
        "ddd,19999987,58621812,CHEST (PORTABLE AP),,3056,2544,21451104,51448.2,CHEST,,\n",
    )
    write(
        "split",
        "dicom_id,study_id,subject_id,split\naaa,50414267,10000032,train\nbbb,50414267,10000032,train\n"
        f"ccc,55368167,19999987,{split}\nddd,58621812,19999987,{split}\n",
    )
    labels = MIMIC_LABELS + "10000032,50414267,,-1.0,,,,,,,,1.0,,,,\n19999987,55368167,1.0,,,,,,,,,,,,0.0,\n"
    write("chexpert", labels)
    write("negbio", labels.replace("-1.0", "1.0"))
    return folder


def test_mimic_gives_a_studys_labels_to_all_of_its_images_and_joins_on_three_keys(tmp_path, caplog):
    index = check_index(read_mimic(_mimic(tmp_path)))
    assert index["Effusion"].iloc[:3].tolist() == [1, 1, 0]
    assert index["split"].tolist() == ["train", "train", "val", "val"]
    assert index["view_position"].tolist() == ["PA", "LL", "AP", ""]
    assert index["image"].iloc[0] == str(tmp_path / "files/p10/p10000032/s50414267/aaa.jpg")
    assert "histogram-equalised" in caplog.text


def test_a_study_of_mimic_without_labels_is_unknown_and_not_negative(tmp_path):
    assert read_mimic(_mimic(tmp_path)).iloc[3, 7:].isna().all()


def test_mimic_takes_either_labeler(tmp_path):
    assert np.isnan(read_mimic(_mimic(tmp_path))["Cardiomegaly"].iloc[0])
    assert read_mimic(tmp_path, labeler="negbio")["Cardiomegaly"].iloc[0] == 1


def test_mimic_with_an_unknown_split_or_a_missing_table_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"split.csv.gz, row 4: 'split' must be one of .*, got 'holdout'"):
        read_mimic(_mimic(tmp_path, split="holdout"))
    (_mimic(tmp_path) / "mimic-cxr-2.0.0-chexpert.csv.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"no mimic-cxr-2\.\*-chexpert\.csv in"):
        read_mimic(tmp_path)


PADCHEST = (
    ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,ViewPosition_DICOM,Projection,"
    "MethodProjection,Pediatric,Modality_DICOM,Manufacturer_DICOM,PhotometricInterpretation_DICOM,ReportID,Report,"
    "MethodLabel,Labels,Localizations,LabelsLocalizationsBySentence,labelCUIS,LocalizationsCUIS\n"
)


def _padchest(folder):
    rows = [
        ("a.png", "PA", "MONOCHROME2", "Physician", "\"['cardiomegaly', ' pleural effusion', '']\""),
        ("b.png", "L", "MONOCHROME1", "RNN_model", "\"['subcutaneous emphysema', 'calcified granuloma']\""),
        ("c.png", "AP_horizontal", "MONOCHROME2", "RNN_model", "['normal']"),
        ("d.png", "PA", "MONOCHROME2", "RNN_model", "\"['exclude', 'pneumonia']\""),
        ("e.png", "PA", "MONOCHROME2", "RNN_model", ""),
        ("f.png", "COSTAL", "MONOCHROME2", "RNN_model", "['normal']"),
    ]
    (folder / "0").mkdir()
    text = PADCHEST
    for number, (name, view, photometric, method, labels) in enumerate(rows):
        (folder / "0" / name).write_bytes(b"")
        text += (
            f"{number},{name},0,20140915,s{number},p{number},1930.0,F,POSTEROANTERIOR,{view},Manual,No,DX,Acme,"
            f"{photometric},4765777,sin hallazgos,{method},{labels},[],[],[],[]\n"
        )
    (folder / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv").write_text(text)
    return folder


def test_padchest_compares_whole_labels_and_excludes_rib_views(tmp_path, caplog):
    index = open_index(_padchest(tmp_path))
    assert index["view_position"].tolist() == ["PA", "LL", "AP", "PA", "PA"]
    assert index["age"].iloc[0] == 84
    assert index[["Cardiomegaly", "Effusion", "Emphysema"]].iloc[:3].to_numpy().tolist() == [
        [1, 1, 0],
        [0] * 3,
        [0] * 3,
    ]
    assert index.attrs["excluded"] == {"rib views (COSTAL)": 1}
    assert "1 of 5 rows are MONOCHROME1, which a PNG cannot record" in caplog.text


def test_padchests_excluded_and_empty_labels_are_unknown(tmp_path):
    assert read_padchest(_padchest(tmp_path)).iloc[3:, 8:].isna().all(axis=None)


def test_padchest_takes_its_own_labels_and_physicians_only(tmp_path):
    index = read_padchest(_padchest(tmp_path), findings=["calcified granuloma", "Hernia"], labeler="physician")
    np.testing.assert_equal(index["calcified granuloma"].to_numpy(), [0.0, np.nan, np.nan, np.nan, np.nan])
    everyone = read_padchest(tmp_path, findings=["calcified granuloma"])
    assert everyone["calcified granuloma"].iloc[:3].tolist() == [0, 1, 0]


def test_a_cell_of_padchest_that_is_not_a_list_is_named_with_its_row(tmp_path):
    path = _padchest(tmp_path) / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
    path.write_text(path.read_text().replace("['normal']", "__import__('os')", 1))
    with pytest.raises(ValueError, match=r"row 4: Labels \"__import__\('os'\)\" is not a list of names"):
        read_padchest(tmp_path)


VOTES = (("R1", 1, 1, 0), ("R2", 0, 1, 0), ("R3", 0, 0, 0))


def _vindr(folder, name="0a1b"):
    notes = folder / "annotations"
    notes.mkdir()
    header = "image_id,rad_ID,Aortic enlargement,Pleural effusion,Nodule/Mass,No finding\n"
    lines = [f"{name},{reader},{a},{b},{c},{int(not (a or b or c))}\n" for reader, a, b, c in VOTES]
    (notes / "image_labels_train.csv").write_text(header + "".join(lines))
    (notes / "image_labels_test.csv").write_text(header.replace("rad_ID,", "") + "ff00,1,0,0,0\n")
    for part, image in {"train": name, "test": "ff00"}.items():
        (folder / part).mkdir()
        (folder / part / f"{image}.dicom").write_bytes(b"")
    return folder


def test_vindr_counts_votes_and_warns_that_it_names_no_patient(tmp_path, caplog):
    index = open_index(_vindr(tmp_path))
    assert "NO PATIENT IDS: VinDr-CXR (train) does not say who is on an image" in caplog.text
    assert index[["Aortic enlargement", "Effusion", "Nodule/Mass"]].to_numpy().tolist() == [[0, 1, 0], [1, 0, 0]]
    assert index["split"].iloc[1] == "test"
    assert index["view_position"].tolist() == ["PA", "PA"]


@pytest.mark.parametrize(
    ("uncertain", "value"), [("ignore", np.nan), ("zeros", 0.0), ("ones", 1.0), ("smoothed", 1 / 3)]
)
def test_a_finding_that_too_few_readers_saw_follows_the_policy(tmp_path, uncertain, value):
    name = next(f"{n:04x}" for n in range(100) if not is_val_patient(f"{n:04x}"))
    index = check_index(read_vindr(_vindr(tmp_path, name), uncertain=uncertain))
    assert index["split"].iloc[0] == "train"
    np.testing.assert_equal(index["Aortic enlargement"].iloc[0], value)


def test_one_vote_is_enough_with_min_votes_1(tmp_path):
    assert read_vindr(_vindr(tmp_path), min_votes=1).iloc[0, 7:].tolist() == [1, 1, 0]
    assert read_vindr(tmp_path, min_votes=3).iloc[0, 7:].tolist() == [0, 0, 0]


def test_kaggles_vindr_counts_a_reader_once_however_many_boxes(tmp_path):
    rows = [
        "x,Cardiomegaly,3,R1,1,2,3,4",
        "x,Cardiomegaly,3,R1,5,6,7,8",
        "x,No finding,14,R2,,,,",
        "x,Cardiomegaly,3,R3,1,1,2,2",
        "y,No finding,14,R1,,,,",
        "y,Pulmonary fibrosis,13,R2,1,2,3,4",
    ]
    (tmp_path / "train.csv").write_text(
        "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\n" + "\n".join(rows) + "\n"
    )
    (tmp_path / "train").mkdir()
    for name in "xy":
        (tmp_path / "train" / f"{name}.dicom").write_bytes(b"")
    index = open_index(tmp_path)
    assert "Kaggle" in index.attrs["recognised"]
    assert index[["Cardiomegaly", "Fibrosis"]].to_numpy().tolist() == [[1, 0], [0, 0]]
    assert read_vindr(tmp_path, min_votes=3)["Cardiomegaly"].tolist() == [0, 0]


def _rsna(folder):
    (folder / "stage_2_train_labels.csv").write_text(
        "patientId,x,y,width,height,Target\n"
        "0004cfab,,,,,0\n00436515,264.0,152.0,213.0,379.0,1\n00436515,562.0,152.0,256.0,453.0,1\n"
    )
    (folder / "stage_2_train_images").mkdir()
    for name in ("0004cfab", "00436515"):
        (folder / "stage_2_train_images" / f"{name}.dcm").write_bytes(b"")
    return folder


def test_rsna_is_one_row_per_image_and_warns_that_it_is_nih(tmp_path, caplog):
    index = open_index(_rsna(tmp_path))
    assert index["Pneumonia"].tolist() == [0, 1]
    assert "ARE NIH ChestX-ray14 images" in caplog.text
    assert "NO PATIENT IDS: RSNA pneumonia" in caplog.text


def test_rsnas_mapping_gives_patients_their_names_of_nih(tmp_path, caplog):
    rows = [
        {"subset_img_id": "0004cfab", "img_id": "00016606_000.png"},
        {"subset_img_id": "00436515", "img_id": "00000001_002"},
    ]
    (_rsna(tmp_path) / "pneumonia-challenge-dataset-mappings_2018.json").write_text(json.dumps(rows))
    assert read_rsna(tmp_path)["patient_id"].tolist() == ["NIH-16606", "NIH-00001"]
    assert "NO PATIENT IDS" not in caplog.text
    (tmp_path / "pneumonia-challenge-dataset-mappings_2018.json").write_text(json.dumps(rows[:1]))
    with pytest.raises(ValueError, match="does not have 1 of the images, the first is 00436515"):
        read_rsna(tmp_path)


def test_an_option_that_the_source_does_not_know_is_refused_with_what_it_takes(tmp_path):
    with pytest.raises(
        ValueError, match=r"read as RSNA pneumonia, which has no option \['uncertain'\]; it takes \['engine', 'pat"
    ):
        open_index(_rsna(tmp_path), uncertain="ones")
    with pytest.raises(
        ValueError, match=r"there is no option \['unsure'\] of a source; known are \['blank', 'columns'"
    ):
        open_index(tmp_path, unsure="ones")


def test_a_publishers_missing_images_are_named_with_where_they_belong(tmp_path):
    (_rsna(tmp_path) / "stage_2_train_images" / "0004cfab.dcm").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 2 images .* the first is 0004cfab\.dcm; the folder stage_2"):
        open_index(tmp_path)
    assert len(open_index(tmp_path, check=False)) == 2
