"""An index of another program: its words are converted, or the message names the file, row and column."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from monai_simclr.data import check_index, open_index, read_index, write_index
from monai_simclr.data.columns import sexes
from monai_simclr.data.sources.table import read_table as read_foreign_table

HEADER = "image,patient_id,study_id,view_position,sex,age,split"


def _write(path, *rows, header=HEADER, end="\n", encoding="utf-8"):
    path.write_bytes(("\n".join([header, *rows]) + end).encode(encoding))
    return path


def test_words_of_other_programs_are_converted_in_a_csv_and_in_a_frame(tmp_path):
    rows = [
        "1.png,a,,lateral,male,060Y,valid",
        "2.png,b,,Antero-Posterior,F,006M,Test",
        "3.png,c,,PA,Woman,,TRAINING",
        "4.png,d,,,unknown,412, val ",
    ]
    index = read_index(_write(tmp_path / "index.csv", *rows))
    assert index["split"].tolist() == ["val", "test", "train", "val"]
    assert index["view_position"].tolist() == ["LL", "AP", "PA", ""]
    assert index["sex"].tolist() == ["M", "F", "F", ""]
    np.testing.assert_equal(index["age"].tolist(), [60.0, 0.5, np.nan, np.nan])
    frame = pd.read_csv(tmp_path / "index.csv", dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(check_index(frame).drop(columns="image"), index.drop(columns="image"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("2.png,b,,PA,F,60,holdout", r"own.csv, row 3: 'split' must be one of .*, got 'holdout'"),
        ("2.png,b,,PA,F,60,tr", r"own.csv, row 3: 'split' must be one of .*, got 'tr'"),
        ("2.png,b,,PA,F,sixty,train", r"own.csv, row 3: 'age' must be years .*, got 'sixty'"),
        ("2.png,b,,PA,F,-3,train", r"own.csv, row 3: 'age' must be years .*, got '-3'"),
        (",b,,PA,F,60,train", r"own.csv, row 3: the column 'image' is blank"),
        ("2.png,b,,PA,F,60", r"own.csv, line 3: 6 cells, but the header has 7; the line was cut"),
        ("2.png,b,,PA,F,60,train,1", r"own.csv, line 3: 8 cells, but the header has 7; quote the cells"),
        ('2.png,b,,PA,F,60,"train', r"own.csv"),
    ],
)
def test_unknown_words_are_refused_with_their_row_and_column(tmp_path, row, message):
    with pytest.raises(ValueError, match=message):
        open_index(_write(tmp_path / "own.csv", "1.png,a,,PA,F,60,train", row), check=False)


def test_an_invalid_label_is_refused_with_its_line_and_na_is_unknown(tmp_path):
    header = f"{HEADER},Mass"
    index = read_index(_write(tmp_path / "i.csv", "1.png,a,,,,,,NA", "2.png,b,,,,,,1", header=header))
    np.testing.assert_equal(index["Mass"].tolist(), [np.nan, 1.0])
    with pytest.raises(ValueError, match=r"i.csv, row 3: labels of 'Mass' must be 1, 0 or NaN .*, got '-1'"):
        read_index(_write(tmp_path / "i.csv", "1.png,a,,,,,,NA", "2.png,b,,,,,,-1", header=header))


def test_unknown_words_for_views_and_sexes_are_logged_and_unknown(tmp_path, caplog):
    index = read_index(_write(tmp_path / "i.csv", "1.png,a,,COSTAL,Mujer,,", "2.png,b,,COSTAL,F,,"))
    assert index["view_position"].tolist() == ["", ""]
    assert index["sex"].tolist() == ["", "F"]
    assert "i.csv: 2 view positions are not known words and count as unknown: 'COSTAL' (2)" in caplog.text
    assert "1 sexes are not known words and count as unknown: 'Mujer' (1)" in caplog.text


def test_sex_words_are_whole_words():
    words = ["M", "male ", "Mujer", "Mixed", "Missing", "Fetus", "Failed", "FEMALE", "f", "", "Femenino"]
    assert sexes(pd.Series(words)).tolist() == ["M", "M", "", "", "", "", "", "F", "F", "", ""]


def test_no_cut_of_the_last_line_gives_another_table(tmp_path):
    rows = [f"{i}.png,{i},s,PA,F,{50 + i}.0,{split},1.0,0.0" for i, split in enumerate(["train"] * 3 + ["val", "test"])]
    whole = _write(tmp_path / "index.csv", *rows, header=f"{HEADER},Mass,Edema").read_bytes()
    right = read_index(tmp_path / "index.csv")
    for length in range(len(whole) - len(rows[-1]), len(whole)):
        (tmp_path / "index.csv").write_bytes(whole[:length])
        if length == len(whole) - 1:  # only the line end is missing
            pd.testing.assert_frame_equal(read_index(tmp_path / "index.csv"), right)
        else:
            with pytest.raises(ValueError, match=r"index\.csv"):
                read_index(tmp_path / "index.csv")


def test_a_split_that_was_cut_off_in_the_last_line_is_refused(tmp_path):
    rows = ["1.png,a,,PA,F,60,train", "2.png,b,,PA,F,61,val", "3.png,c,,PA,F,62,"]
    with pytest.raises(
        ValueError, match=r"i.csv, line 4: the file ends within the line, after '' in the column 'split'"
    ):
        read_index(_write(tmp_path / "i.csv", *rows, end=""))
    assert read_index(_write(tmp_path / "i.csv", *rows[:2], end=""))["split"].tolist() == ["train", "val"]
    assert read_index(_write(tmp_path / "i.csv", *rows))["split"].tolist() == ["train", "val", ""]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_marked_encodings_are_read(tmp_path, encoding):
    index = read_index(_write(tmp_path / "i.csv", "ü.png,Müller,,PA,F,60,train", encoding=encoding))
    assert index["patient_id"].tolist() == ["Müller"]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16-le"])
def test_an_encoding_without_a_mark_is_refused_with_the_files_name(tmp_path, encoding):
    path = _write(tmp_path / "i.csv", "1.png,Müller,,PA,F,60,train", encoding=encoding)
    with pytest.raises(ValueError, match=r"^i.csv .*save .* UTF-8"):
        read_index(path)
    with pytest.raises(ValueError, match=r"^i.csv .*save .* UTF-8"):
        read_foreign_table(path, {"image": "image"})


def test_a_repeated_column_is_refused(tmp_path):
    path = _write(tmp_path / "i.csv", "1.png,a,,,,,,1,0", header=f"{HEADER},Mass,Mass")
    with pytest.raises(ValueError, match=r"i.csv: the index has the columns \['Mass'\] more than once"):
        read_index(path)
    with pytest.raises(ValueError, match=r"i.csv has the columns \['Mass'\] more than once"):
        read_foreign_table(path, {"image": "image"}, ["Mass"])
    frame = pd.read_csv(path, dtype=str, keep_default_na=False).rename(columns={"Mass.1": "Mass"})
    with pytest.raises(ValueError, match=r"columns \['Mass'\] more than once"):
        check_index(frame)


def test_two_spellings_of_one_finding_are_refused(tmp_path):
    (tmp_path / "t.csv").write_text("f,Pleural Effusion,effusion\n1.png,1,0\n")
    with pytest.raises(ValueError, match=r"t.csv: the index has the columns \['Effusion'\] more than once"):
        read_foreign_table(tmp_path / "t.csv", {"image": "f"}, ["Pleural Effusion", "effusion"])


@pytest.mark.parametrize("name", [b"M\xfcller.png", b"=1+1.png", b"-1.png", b"a\nb.png", b"'x.png", b"+a;=b.png"])
def test_an_index_keeps_every_file_name(tmp_path, name):
    folder = os.fsencode(tmp_path) + b"/in"
    os.mkdir(folder)
    with open(folder + b"/" + name, "wb") as file:
        Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(file, "PNG")
    index = open_index(tmp_path / "in")
    for place in (tmp_path / "index.csv", tmp_path / "in" / "index.csv"):
        back = open_index(write_index(index, place))
        assert back["image"].tolist() == index["image"].tolist() == [os.fsdecode(folder + b"/" + name)]
        assert back["patient_id"].tolist() == index["patient_id"].tolist()
        assert not any(line.startswith(("=", "+", "-", "@")) for line in place.read_text("utf-8").splitlines())
        assert len(place.read_text("utf-8").splitlines()) == 2


def test_a_table_from_windows_finds_its_images(tmp_path):
    (tmp_path / "images").mkdir()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "images" / "1.png")
    index = open_index(_write(tmp_path / "index.csv", "images\\1.png,a,,PA,F,60,train", end="\r\n"))
    assert index["image"].tolist() == [str(tmp_path / "images" / "1.png")]


def test_a_folder_with_an_index_csv_of_another_program_opens(tmp_path, caplog):
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "1.png")
    (tmp_path / "index.csv").write_text("StudyDate,Accession\n2020,1\n")
    assert open_index(tmp_path).attrs["recognised"].startswith("a folder of images")
    assert "its index.csv has no column of ours, so it is ignored" in caplog.text
    (tmp_path / "index.csv").write_text("image,patient\n1.png,1\n")
    with pytest.raises(ValueError, match=r"index.csv: the index lacks the columns"):
        open_index(tmp_path)
    (tmp_path / "index.csv").write_text("")
    with pytest.raises(ValueError, match=r"index.csv is empty: it has no header"):
        open_index(tmp_path)
