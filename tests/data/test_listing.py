"""Folders as they are on disks: links, loops, copies, masks, odd suffixes; each recognised, or counted and named."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from monai_simclr.data import open_index
from monai_simclr.data.listing import list_files
from monai_simclr.data.phantoms import write_dicom_phantoms
from monai_simclr.inference import list_radiographs


def _pictures(folder, *names, **kind):
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        seed = sum(map(ord, path.name)) + number
        pixels = np.random.default_rng(seed).integers(0, 256, (16, 16), dtype=np.uint8)
        Image.fromarray(pixels).save(path, **kind)
    return folder


def _names(index, folder):
    return [Path(path).relative_to(folder).as_posix() for path in index["image"]]


def test_links_to_folders_are_followed_once_and_loops_and_doubles_are_counted(tmp_path, caplog):
    disk, data = _pictures(tmp_path / "disk", "a/1.png", "a/2.png"), _pictures(tmp_path / "data", "z/3.png")
    os.symlink(disk, data / "disk")
    os.symlink(disk / "a", data / "again")  # listed below data/disk or here, not twice
    os.symlink(data, data / "z" / "loop")
    os.symlink(tmp_path, data / "above")
    os.symlink("self", data / "self")
    os.symlink(data / "z" / "3.png", data / "0.png")
    os.symlink(disk / "gone.png", data / "gone.png")
    index = open_index(data)
    assert _names(index, data) == ["again/1.png", "again/2.png", "z/3.png"]
    assert index.attrs["excluded"] == {
        "links to nothing": 2,
        "links to folders above (loops)": 2,
        "folders that are listed already": 1,
        "links to files that are listed already": 1,
    }
    assert "links to folders above (loops) (2, the first is above)" in caplog.text
    assert [Path(one["image"]).name for one in list_radiographs(data)] == ["1.png", "2.png", "3.png"]


def test_a_data_set_of_links_to_files_is_whole(tmp_path):
    disk, data = _pictures(tmp_path / "disk", "1.png", "2.png"), tmp_path / "data"
    for name, place in (("1.png", "train/NORMAL"), ("2.png", "test/PNEUMONIA")):
        (data / place).mkdir(parents=True)
        os.symlink(disk / name, data / place / name)
    index = open_index(data)
    assert index["split"].tolist() == ["test", "train"]
    assert index["Pneumonia"].tolist() == [1, 0]


def test_links_in_a_dicom_tree_are_followed(tmp_path, caplog):
    disk = write_dicom_phantoms(tmp_path / "disk", n_patients=2, size=64)
    (tmp_path / "data").mkdir()
    os.symlink(disk, tmp_path / "data" / "disk")
    assert len(open_index(tmp_path / "data")) == len(open_index(disk))
    os.symlink(disk / "PHANTOM-00000001", tmp_path / "data" / "one")
    index = open_index(tmp_path / "data")
    assert len(index) == len(open_index(disk))
    assert index.attrs["excluded"] == {"folders that are listed already": 1}


@pytest.mark.skipif(os.geteuid() == 0, reason="root opens every folder")
def test_a_folder_that_cannot_be_opened_is_counted(tmp_path):
    _pictures(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "b").chmod(0)
    try:
        assert open_index(tmp_path).attrs["excluded"] == {"folders that cannot be opened": 1}
    finally:
        (tmp_path / "b").chmod(0o755)


def test_pipes_are_not_listed(tmp_path):
    _pictures(tmp_path, "1.png")
    os.mkfifo(tmp_path / "2.png")
    assert list_files(tmp_path).counts() == {"pipes, sockets or devices": 1}
    assert len(open_index(tmp_path)) == 1


def test_images_are_recognised_by_their_content_and_other_files_are_named(tmp_path, caplog):
    _pictures(tmp_path, "1.jfif", "2", "3.jpe", "4.JPG", format="JPEG")
    _pictures(tmp_path, "5.bmp")
    _pictures(tmp_path, "6.webp")
    _pictures(tmp_path, "7.gif")
    (tmp_path / "labels.txt").write_text("no image")
    index = open_index(tmp_path)
    assert _names(index, tmp_path) == ["1.jfif", "2", "3.jpe", "4.JPG"]
    assert index.attrs["excluded"] == {
        "BMP images, which are not read": 1,
        "WebP images, which are not read": 1,
        "GIF images, which are not read": 1,
        "not PNG, JPEG or TIFF": 1,
    }
    assert "BMP images, which are not read (1, the first is 5.bmp)" in caplog.text


def test_the_error_about_an_unreadable_folder_lists_its_contents(tmp_path):
    _pictures(tmp_path, "1.bmp", "2.bmp")
    os.symlink("nowhere", tmp_path / "x.png")
    with pytest.raises(FileNotFoundError, match=r"no image; it contains 2 files with .bmp, 1 links to nothing"):
        open_index(tmp_path)


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (["CXR_png/1.png", "CXR_png/2.png"], ["ManualMask/leftMask/1.png", "ManualMask/rightMask/1.png"]),
        (["images/1.png", "images/2.png"], ["lung masks/1.png"]),
        (["1.png", "2.png"], ["1_mask.png", "2-seg.png"]),
        (["1.png", "mask_of_oxygen.png", "unmasked/3.png", "wears_mask.png"], []),
    ],
)
def test_masks_next_to_images_are_excluded_and_named(tmp_path, caplog, images, masks):
    index = open_index(_pictures(tmp_path, *images, *masks))
    assert sorted(_names(index, tmp_path)) == sorted(images)
    assert index.attrs["excluded"] == ({"masks next to images": len(masks)} if masks else {})
    assert not masks or f"masks next to images ({len(masks)}, the first is {min(masks)})" in caplog.text


def test_a_folder_of_masks_alone_is_a_folder_of_images(tmp_path):
    assert len(open_index(_pictures(tmp_path, "masks/1.png", "masks/2.png"))) == 2


KERMANY = ("train/NORMAL/1.jpeg", "train/PNEUMONIA/person1_2.jpeg", "test/NORMAL/3.jpeg", "test/PNEUMONIA/4.jpeg")


@pytest.mark.parametrize("place", ["chest_xray", "chest_xray/chest_xray", "copy of it"])
def test_class_folders_that_were_unpacked_twice_are_read_once(tmp_path, caplog, place):
    root = tmp_path / "kermany"
    _pictures(root / "chest_xray", *KERMANY)
    right = open_index(root)
    if place == "chest_xray":  # the data set lies in root as well
        shutil.copytree(root / "chest_xray", root, dirs_exist_ok=True)
    else:
        shutil.copytree(root / "chest_xray", tmp_path / "copy")
        shutil.copytree(tmp_path / "copy", root / place)
    index = open_index(root)
    assert index.attrs["excluded"] == {"second copies": 4}
    assert "second copies (4, the first is" in caplog.text
    names = ["split", "Pneumonia"]
    pd.testing.assert_frame_equal(index[names], right[names])
    assert right["split"].tolist() == ["test", "test", "train", "train"]


def test_a_dicom_tree_that_was_unpacked_twice_is_read_once(tmp_path):
    tree = write_dicom_phantoms(tmp_path / "tree", n_patients=2, size=64)
    right = open_index(tree)
    shutil.copytree(tree, tmp_path / "copy")
    shutil.copytree(tmp_path / "copy", tree / "tree")
    index = open_index(tree)
    assert index["image"].tolist() == right["image"].tolist()
    assert index.attrs["excluded"] == {"second copies": len(right)}


def test_different_files_of_one_name_are_not_copies(tmp_path):
    index = open_index(_pictures(tmp_path, "p1/s/1.png", "p2/s/1.png", "1.png"))
    assert len(index) == 3


def test_a_split_with_the_same_images_as_another_is_never_taken_for_a_copy(tmp_path):
    _pictures(tmp_path, "train/NORMAL/1.png", "train/PNEUMONIA/2.png")
    shutil.copytree(tmp_path / "train", tmp_path / "test")
    assert open_index(tmp_path)["split"].tolist() == ["test", "test", "train", "train"]


def test_images_in_a_folder_of_their_class_are_of_that_class(tmp_path):
    names = ["COVID/images/1.png", "COVID/masks/1.png", "Normal/images/2.png", "Normal/masks/2.png"]
    index = open_index(_pictures(tmp_path, *names))
    assert index["COVID"].tolist() == [1, 0]
    assert index.attrs["excluded"] == {"masks next to images": 2}


@pytest.mark.parametrize("content", [b"", b"a;b\n\xff\xfe\xfc\n", b"\x00\x01\x02", b"id,label\n1,2,3,4\n", b'"open\n'])
@pytest.mark.parametrize("name", ["train.csv", "train.csv.gz", "chestmnist.npz"])
def test_dicom_files_open_next_to_a_table_of_another_kind(tmp_path, name, content):
    tree = write_dicom_phantoms(tmp_path / "tree", n_patients=1, size=64)
    right = len(open_index(tree))
    (tree / name).write_bytes(content)
    assert len(open_index(tree)) == right


def test_a_folder_called_train_csv_is_not_a_table(tmp_path):
    tree = write_dicom_phantoms(tmp_path / "tree", n_patients=1, size=64)
    (tree / "train.csv").mkdir()
    assert len(open_index(tree)) > 0


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("prefix", ["", "images/", "images\\", "./"])
def test_nihs_lists_and_table_with_prefixes_and_marked_encodings_are_read(tmp_path, encoding, prefix):
    names = ["00000001_000.png", "00000002_000.png", "00000003_000.png"]
    _pictures(tmp_path / "images", *names)
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"
    rows = [f"{prefix}{name},No Finding,0,{int(name[:8])},050Y,M,PA" for name in names]
    (tmp_path / "Data_Entry_2017.csv").write_text("\n".join([header, *rows, ""]), encoding=encoding)
    (tmp_path / "test_list.txt").write_text(f"{prefix}{names[0]}\n", encoding=encoding)
    (tmp_path / "train_val_list.txt").write_text(
        "".join(f"{prefix}{name}\r\n" for name in names[1:]), encoding=encoding
    )
    index = open_index(tmp_path)
    assert index["split"].iloc[0] == "test"
    assert set(index["split"].iloc[1:]) <= {"train", "val"}


def test_a_list_that_names_no_image_or_is_in_no_known_encoding_is_refused(tmp_path):
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"
    _pictures(tmp_path / "images", "1.png")
    (tmp_path / "Data_Entry_2017.csv").write_text(f"{header}\n1.png,No Finding,0,1,050Y,M,PA\n")
    (tmp_path / "test_list.txt").write_text("2.png\n")
    with pytest.raises(ValueError, match=r"name none of the 1 images of the table \(the first is 1.png\)"):
        open_index(tmp_path)
    (tmp_path / "test_list.txt").write_text("Müller.png\n", encoding="latin-1")
    with pytest.raises(ValueError, match=r"test_list.txt is not UTF-8: line 1 has bytes"):
        open_index(tmp_path)


def test_a_publishers_table_that_was_cut_is_refused_with_its_name(tmp_path):
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"
    _pictures(tmp_path / "images", "1.png", "2.png")
    rows = "1.png,No Finding,0,1,050Y,M,PA\n2.png,No Find"
    (tmp_path / "Data_Entry_2017.csv").write_text(f"{header}\n{rows}")
    with pytest.raises(
        ValueError, match=r"Data_Entry_2017.csv, line 3: 2 cells, but the header has 7; the line was cut"
    ):
        open_index(tmp_path)
