"""NIH ChestX-ray14: both years' tables, the lists, the boxes, and the whole archive's table within its limits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from monai_simclr.data import open_index
from monai_simclr.data.sources.nih import read_nih, read_nih_boxes

HEADER_2017 = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"
)


def _nih(folder, *rows, name="Data_Entry_2017.csv", header=HEADER_2017):
    (folder / name).write_text(header + "".join(row + "\n" for row in rows))


def test_the_2017_table_with_its_trailing_comma_and_odd_ages_is_read(tmp_path):
    _nih(
        tmp_path,
        "00000001_000.png,Cardiomegaly|Pleural_Thickening,0,1,060Y,M,PA,2682,2749,0.143,0.143,",
        "00000002_000.png,No Finding,0,2,412,F,AP,2500,2048,0.168,0.168,",
    )
    index = read_nih(tmp_path)
    assert index["age"].iloc[0] == 60
    assert np.isnan(index["age"].iloc[1])
    assert index[["Cardiomegaly", "Pleural_Thickening", "Mass"]].to_numpy().tolist() == [[1, 1, 0], [0, 0, 0]]
    assert index["patient_id"].tolist() == ["NIH-00001", "NIH-00002"]


def test_a_table_without_a_column_is_named(tmp_path):
    _nih(tmp_path, "a.png,Mass", header="Image Index,Finding Labels\n")
    with pytest.raises(ValueError, match=r"Data_Entry_2017.csv lacks the columns \['Patient ID', 'Patient Age'"):
        read_nih(tmp_path)


def test_an_unknown_finding_is_named_with_its_row(tmp_path):
    _nih(tmp_path, "00000001_000.png,Covid,0,1,60,M,PA,1,1,1,1,")
    with pytest.raises(ValueError, match=r"Data_Entry_2017.csv, row 2: .*\['Covid'\]"):
        read_nih(tmp_path)


def test_missing_images_are_counted_and_the_first_is_named(tmp_path):
    _nih(tmp_path, "00000001_000.png,Mass,0,1,60,M,PA,1,1,1,1,")
    with pytest.raises(
        FileNotFoundError, match=r"1 of 1 images .* the first is 00000001_000.png; NIH ships 12 archives"
    ):
        open_index(tmp_path)


def test_twelve_folders_are_found(tmp_path):
    (tmp_path / "images_007" / "images").mkdir(parents=True)
    (tmp_path / "images_007" / "images" / "00000001_000.png").write_bytes(b"")
    _nih(tmp_path, "00000001_000.png,Mass,0,1,60,M,PA,1,1,1,1,")
    assert "images_007" in read_nih(tmp_path)["image"].iloc[0]


def test_boxes_have_the_labels_spelling_and_the_publishers_odd_header(tmp_path):
    (tmp_path / "BBox_List_2017.csv").write_text(
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\n00000001_000.png,Infiltrate,1.5,2,30,40\n", encoding="utf-8"
    )
    boxes = read_nih_boxes(tmp_path)
    assert boxes.columns.tolist() == ["image", "finding", "left", "top", "width", "height"]
    assert boxes.to_numpy().tolist() == [["00000001_000.png", "Infiltration", 1.5, 2.0, 30.0, 40.0]]


def test_a_box_without_a_number_is_named_with_its_row(tmp_path):
    (tmp_path / "BBox_List_2017.csv").write_text("Image Index,Finding Label,Bbox [x,y,w,h],,,\na.png,Mass,1,2,x,4\n")
    with pytest.raises(ValueError, match=r"BBox_List_2017.csv, row 2: a box needs four numbers, got .*'x'"):
        read_nih_boxes(tmp_path)


def test_all_boxes_are_of_test_images(nih_metadata, tmp_path):
    for path in nih_metadata.iterdir():
        (tmp_path / path.name).symlink_to(path)
    boxes, index = read_nih_boxes(tmp_path), read_nih(tmp_path)
    splits = index.set_index(index["image"].str.rsplit("/", n=1).str[1])["split"]
    assert (len(boxes), boxes["image"].nunique()) == (984, 880)
    assert set(splits[boxes["image"]]) == {"test"}


FULL = f"""
import json, sys, time
sys.path.append({str(Path(__file__).parent)!r})
from resident import peak_kib
from monai_simclr.data.index import check_index
from monai_simclr.data.sources.nih import read_nih
start = time.perf_counter()
index = check_index(read_nih(sys.argv[1]))
seconds = time.perf_counter() - start
test = index[index["split"] == "test"]
peak = peak_kib() * 1024
print(json.dumps({{"rows": len(index), "patients": index["patient_id"].nunique(), "test": len(test),
                  "test_patients": test["patient_id"].nunique(), "hernia": int(index["Hernia"].sum()),
                  "seconds": seconds, "peak": peak}}))
"""


def test_the_full_nih_table_is_built_and_checked_in_15_seconds_and_1_gib_with_the_published_splits(
    nih_metadata, tmp_path
):
    for path in nih_metadata.iterdir():
        (tmp_path / path.name).symlink_to(path)
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(found)
    assert (found["rows"], found["patients"]) == (112_120, 30_805)
    assert (found["test"], found["test_patients"]) == (25_596, 2_797)
    assert found["hernia"] == 227
    assert found["seconds"] < 15
    assert found["peak"] < 2**30  # 171 MB, most of it pandas


def test_the_nih_pack_is_recognised(cxr, caplog):
    caplog.set_level("INFO", logger="monai_simclr.data")
    index = open_index(cxr / "nih")
    assert (len(index), index["patient_id"].nunique()) == (1134, 898)
    assert "read as NIH ChestX-ray14: 1134 images of 898 patients" in caplog.text
