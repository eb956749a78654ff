"""The table of images: what it refuses, what it keeps, and that patients are never divided."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_simclr.data import (
    check_index,
    classes_of,
    findings_of,
    label_fraction,
    open_index,
    read_index,
    records,
    split_by_patient,
    write_index,
)
from monai_simclr.data.sources.nih import read_nih


def _index(patients=("a", "a", "b"), split="train", **findings):
    n = len(patients)
    return pd.DataFrame({
        "image": [f"/x/{i}.png" for i in range(n)], "patient_id": list(patients), "study_id": "", "view_position": "PA",
        "sex": "F", "age": 60.0, "split": split, **findings,
    })  # fmt: skip


def test_a_missing_column_is_named_with_what_is_there():
    with pytest.raises(ValueError, match=r"lacks the columns \['view_position'\]; it has \['image'"):
        check_index(_index().drop(columns="view_position"))


def test_a_patient_in_two_splits_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"1 patients are in more than one split, the first is 'a'; split by patient"):
        check_index(_index(split=["train", "test", "train"]))


def test_an_uncertain_label_is_refused_with_its_row():
    with pytest.raises(ValueError, match=r"labels must be 1, 0 or NaN, got -1 for 'Mass' in row 1"):
        check_index(_index(Mass=[1, -1, 0]))


def test_an_image_twice_is_refused():
    with pytest.raises(ValueError, match=r"1 images stand in the index twice, the first is /x/0\.png"):
        check_index(_index().assign(image=["/x/0.png", "/x/0.png", "/x/1.png"]))


def test_an_empty_index_is_refused():
    with pytest.raises(ValueError, match="the index has no rows"):
        check_index(_index().iloc[:0])


def test_a_class_is_the_only_finding_or_none_or_unknown():
    index = check_index(_index(("a", "b", "c", "d"), Mass=[1, 0, 1, np.nan], Edema=[0, 0, 1, 0]))
    assert classes_of(index).tolist() == ["Mass", "No Finding", "", ""]
    assert findings_of(index) == ("Mass", "Edema")


def test_an_index_comes_back_as_it_went_with_leading_zeros_and_the_class_none(tmp_path):
    index = check_index(_index(("00123", "123", "None"), Mass=[1.0, np.nan, 0.0]))
    index["image"] = [str(tmp_path / f"{i}.png") for i in range(3)]
    write_index(index, tmp_path / "index.csv")
    assert str(tmp_path) not in (tmp_path / "index.csv").read_text()
    pd.testing.assert_frame_equal(read_index(tmp_path / "index.csv"), index)


def test_records_number_patients_and_carry_labels():
    rows = records(check_index(_index(Mass=[1, 0, np.nan])), ["Mass"])
    assert [row["patient"] for row in rows] == [0, 0, 1]
    assert rows[0]["label"] == [1.0]
    with pytest.raises(ValueError, match=r"no labels for \['Edema'\]; it has \['Mass'\]"):
        records(_index(Mass=1), ["Edema"])


tables = st.integers(30, 80).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 25), min_size=n, max_size=n), st.lists(st.booleans(), min_size=n, max_size=n)
    )
)


@settings(max_examples=40, deadline=None)
@given(tables, st.integers(0, 5))
def test_no_patient_is_in_two_splits_whatever_the_table(table, seed):
    patients, _ = table
    index = split_by_patient(_index([f"p{i}" for i in patients]), {"train": 0.5, "val": 0.25, "test": 0.25}, seed)
    assert (index.groupby("patient_id")["split"].nunique() == 1).all()


@settings(max_examples=40, deadline=None)
@given(tables, st.integers(0, 5))
def test_label_fractions_are_nested_whole_patients_with_a_positive_each(table, seed):
    patients, positive = table
    index = _index([f"p{i}" for i in patients], Mass=np.array(positive, dtype=float))
    if not any(positive):
        return
    small, large = label_fraction(index, 0.2, seed), label_fraction(index, 0.6, seed)
    assert set(small) <= set(large)
    for rows in (small, large):
        chosen = set(index["patient_id"].iloc[rows])
        assert set(np.flatnonzero(index["patient_id"].isin(chosen))) == set(rows)
        assert index["Mass"].iloc[rows].max() == 1


def test_a_fraction_too_small_for_its_findings_names_them():
    index = _index([f"p{i}" for i in range(20)], Mass=[1.0] + [0.0] * 19, Edema=[0.0, 1.0] + [0.0] * 18)
    with pytest.raises(ValueError, match=r"0.05 is 1 of 20 train patients and leaves \['Edema'\] without a positive"):
        label_fraction(index, 0.05)


def test_a_finding_without_any_positive_is_named():
    with pytest.raises(ValueError, match=r"no train patient has \['Mass'\]; leave them out"):
        label_fraction(_index(Mass=0.0), 0.5)


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
    index = read_nih(tmp_path, check_files=False)
    assert index["age"].iloc[0] == 60
    assert np.isnan(index["age"].iloc[1])
    assert index[["Cardiomegaly", "Pleural_Thickening", "Mass"]].to_numpy().tolist() == [[1, 1, 0], [0, 0, 0]]
    assert index["patient_id"].tolist() == ["1", "2"]


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
        read_nih(tmp_path)


def test_twelve_folders_are_found(tmp_path):
    (tmp_path / "images_007" / "images").mkdir(parents=True)
    (tmp_path / "images_007" / "images" / "00000001_000.png").write_bytes(b"")
    _nih(tmp_path, "00000001_000.png,Mass,0,1,60,M,PA,1,1,1,1,")
    assert "images_007" in read_nih(tmp_path)["image"].iloc[0]


def test_an_empty_folder_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="is empty; pass --dataset_dir"):
        open_index(tmp_path)


def test_the_full_nih_tables_have_the_published_splits(nih_metadata, tmp_path):
    for path in nih_metadata.iterdir():
        (tmp_path / path.name).symlink_to(path)
    index = read_nih(tmp_path, check_files=False)
    assert len(index) == 112_120
    assert index["patient_id"].nunique() == 30_805
    assert (index["split"] == "test").sum() == 25_596
    assert index.loc[index["split"] == "test", "patient_id"].nunique() == 2_797
    assert index["Hernia"].mean() == pytest.approx(227 / 112_120, abs=5e-5)


def test_the_nih_pack_is_recognised(cxr, caplog):
    caplog.set_level("INFO", logger="monai_simclr.data")
    index = open_index(cxr / "nih")
    assert (len(index), index["patient_id"].nunique()) == (1134, 898)
    assert "so it is an NIH ChestX-ray14 folder" in caplog.text
