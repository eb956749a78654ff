"""The image index: what it refuses and keeps; splits and label fractions never divide a patient."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_simclr.data import (
    check_index,
    combine_indexes,
    finding_columns,
    image_classes,
    label_fraction,
    open_index,
    read_index,
    records,
    split_by_patient,
    write_index,
)


def _index(patients=("a", "a", "b"), split="train", **findings):
    n = len(patients)
    return pd.DataFrame(
        {
            "image": [f"/x/{i}.png" for i in range(n)],
            "patient_id": list(patients),
            "study_id": "",
            "view_position": "PA",
            "sex": "F",
            "age": 60.0,
            "split": split,
            **findings,
        }
    )


def test_a_missing_column_is_named_with_what_is_there():
    with pytest.raises(ValueError, match=r"lacks the columns \['view_position'\]; it has \['image'"):
        check_index(_index().drop(columns="view_position"))


def test_a_patient_in_two_splits_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"1 patients are in more than one split, the first is 'a'; split by patient"):
        check_index(_index(split=["train", "test", "train"]))


PADDED = ("P1", "P1 ", " P1", "P1\t", "P2")


def test_blanks_around_an_id_make_no_other_patient(tmp_path):
    padded = _index(PADDED).assign(study_id=["s", "s ", "", "", ""])
    padded["image"] = [str(tmp_path / f"{i}.png") for i in range(5)]
    write_index(padded, tmp_path / "index.csv")
    for index in (check_index(padded), read_index(tmp_path / "index.csv")):
        assert index["patient_id"].tolist() == ["P1"] * 4 + ["P2"]
        assert index["study_id"].tolist() == ["s", "s", "", "", ""]
    assert combine_indexes({"own": padded})["patient_id"].tolist() == ["own:P1"] * 4 + ["own:P2"]
    assert split_by_patient(padded)["split"][:4].nunique() == 1
    with pytest.raises(ValueError, match=r"1 patients are in more than one split, the first is 'P1'"):
        check_index(_index(PADDED, split=["train", "test", "train", "train", "test"]))
    with pytest.raises(ValueError, match=r"1 rows have no patient_id, the first is row 1"):
        check_index(_index(("a", " ", "b")))


def test_an_uncertain_label_is_refused_with_its_row():
    with pytest.raises(ValueError, match=r"row 1: labels of 'Mass' must be 1, 0 or NaN .*, got -1"):
        check_index(_index(Mass=[1, -1, 0]))


def test_a_smoothed_label_is_for_train_rows_only():
    soft = check_index(_index(Mass=[0.7, np.nan, 0.0]))
    assert soft["Mass"].iloc[0] == 0.7
    assert check_index(_index(split="", Mass=[0.7, 0.0, 1.0]))["Mass"].iloc[0] == 0.7
    with pytest.raises(ValueError, match=r"'Mass' has the smoothed label 0\.7 in row 0 of the test split; smoothed"):
        check_index(_index(split="test", Mass=[0.7, 0, 0]))


def test_an_image_with_a_smoothed_label_has_no_class():
    index = check_index(_index(("a", "b", "c"), Mass=[0.7, 1, 0], Edema=[0.3, 0, 0]))
    assert image_classes(index).tolist() == ["", "Mass", "No Finding"]


def test_a_row_without_a_patient_is_refused_with_its_row():
    with pytest.raises(ValueError, match=r"1 rows have no patient_id, the first is row 1; give each patient an id"):
        check_index(_index(("a", "", "b")))


def test_combined_archives_prefix_their_patients_and_have_unknown_labels():
    one, two = check_index(_index(Mass=1)), check_index(_index(Edema=[0, 1, 0]))
    two["image"] = "/y" + two["image"]
    whole = combine_indexes({"one": one, "two": two})
    assert whole["patient_id"].tolist() == ["one:a", "one:a", "one:b", "two:a", "two:a", "two:b"]
    assert whole["source"].tolist() == ["one"] * 3 + ["two"] * 3
    assert whole["Mass"].isna().tolist() == [False] * 3 + [True] * 3
    assert finding_columns(whole) == ("Mass", "Edema")


def test_archives_of_the_same_patients_show_who_is_in_two_splits():
    test = _index(split="test").assign(image=["/y/0.png", "/y/1.png", "/y/2.png"])
    with pytest.raises(ValueError, match=r"2 patients are in more than one split, the first is 'a'"):
        combine_indexes({"one": _index(), "two": test}, prefix=False)


@pytest.mark.parametrize("held_out", ["val", "test"])
def test_a_patient_without_a_split_in_one_row_and_held_out_in_another_is_refused(held_out):
    """Pretraining takes rows without a split."""
    with pytest.raises(
        ValueError, match=r"the first is 'a'; .*images without a split count as train.*give these a split, or remove"
    ):
        check_index(_index(split=["", held_out, "train"]))
    test = check_index(_index(split=held_out)).assign(image=["/y/0.png", "/y/1.png", "/y/2.png"])
    with pytest.raises(ValueError, match=r"2 patients are in more than one split, the first is 'a'"):
        combine_indexes({"one": _index(split=""), "two": test}, prefix=False)


@pytest.mark.parametrize("splits", [["", "", ""], ["", "train", "test"], ["", "", "test"]])
def test_rows_without_a_split_are_allowed_of_patients_who_are_not_held_out(splits):
    assert check_index(_index(split=splits))["split"].tolist() == splits


def test_a_repeated_image_is_refused():
    with pytest.raises(ValueError, match=r"1 images are in the index twice, the first is /x/0\.png"):
        check_index(_index().assign(image=["/x/0.png", "/x/0.png", "/x/1.png"]))


def test_an_empty_index_is_refused():
    with pytest.raises(ValueError, match="the index has no rows"):
        check_index(_index().iloc[:0])


def test_a_class_is_the_only_finding_or_no_finding_or_unknown():
    index = check_index(_index(("a", "b", "c", "d"), Mass=[1, 0, 1, np.nan], Edema=[0, 0, 1, 0]))
    assert image_classes(index).tolist() == ["Mass", "No Finding", "", ""]
    assert finding_columns(index) == ("Mass", "Edema")


def test_an_index_is_read_as_it_was_written_with_leading_zeros_and_the_patient_none(tmp_path):
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


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="is empty; pass --dataset_dir"):
        open_index(tmp_path)
