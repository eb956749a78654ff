"""The parts of the audit against slow loops, scikit-learn, and values by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from sklearn.metrics import roc_auc_score

from monai_simclr.audit.confounders import confounders
from monai_simclr.audit.duplicates import near_duplicates, same_bytes
from monai_simclr.audit.flags import FLAGS, flag_rows
from monai_simclr.audit.scan import HEADER_FIELDS, frontal_score, header_facts, perceptual_bits, pixel_facts, scan
from monai_simclr.audit.splits import duplicate_facts, leaking_patients, prevalence
from monai_simclr.data.phantoms import write_dicom_phantoms
from monai_simclr.runtime import spread


def _differing(one, other):
    return sum(int(a ^ b).bit_count() for a, b in zip(one.tolist(), other.tolist(), strict=True))


def _slow_groups(hashes, radius):
    """Every pair, and groups by spreading."""
    group = list(range(len(hashes)))
    for i in range(len(hashes)):
        for j in range(i):
            if _differing(hashes[i], hashes[j]) <= radius:
                group = [group[j] if name == group[i] else name for name in group]
    return group


@pytest.mark.parametrize("radius", [0, 3, 15])
def test_near_duplicates_are_those_of_comparing_every_pair(radius):
    generator = np.random.default_rng(radius)
    hashes = generator.integers(1, 2**63, (60, 4), dtype=np.uint64)
    for copy in range(20, 60):  # copies with 0 to 20 bits turned, wherever they fall
        bits = np.unpackbits(hashes[copy % 20].view(np.uint8))
        bits[generator.choice(256, generator.integers(0, 21), replace=False)] ^= 1
        hashes[copy] = np.packbits(bits).view(np.uint64)
    found = near_duplicates(hashes, np.tile(np.arange(64, dtype=np.uint8).reshape(1, 8, 8), (60, 1, 1)), radius)
    slow = _slow_groups(hashes, radius)
    for i in range(60):
        for j in range(i):
            assert (found[i] == found[j] and found[i] >= 0) == (slow[i] == slow[j])


def test_the_hash_is_that_of_the_package_imagehash():
    imagehash = pytest.importorskip("imagehash", reason="the oracle is not installed")
    generator = np.random.default_rng(0)
    for image in (
        generator.integers(0, 256, (128, 128), dtype=np.uint8),
        np.tile(np.arange(128, dtype=np.uint8), (128, 1)),
    ):
        expected = imagehash.phash(Image.fromarray(image), hash_size=16).hash.ravel()
        np.testing.assert_array_equal(perceptual_bits(image), expected)


def test_a_radius_without_an_exact_search_is_refused():
    with pytest.raises(ValueError, match=r"radius must be from 0 to 15 of 256 bits for an exact search, got 16"):
        near_duplicates(np.ones((2, 4), np.uint64), np.ones((2, 8, 8), np.uint8), radius=16)


def test_images_with_different_thumbnails_are_not_duplicates_whatever_their_hashes():
    thumbs = np.stack([np.arange(64), np.arange(64)[::-1]]).reshape(2, 8, 8).astype(np.uint8)
    assert near_duplicates(np.ones((2, 4), np.uint64), thumbs).tolist() == [-1, -1]
    assert near_duplicates(np.ones((2, 4), np.uint64), thumbs[[0, 0]]).tolist() == [0, 0]


def test_images_that_could_not_be_read_are_not_duplicates():
    assert near_duplicates(np.zeros((3, 4), np.uint64), np.zeros((3, 8, 8), np.uint8)).tolist() == [-1] * 3


def test_112120_hashes_with_200_planted_copies_are_searched_in_a_minute():
    generator = np.random.default_rng(0)
    hashes = generator.integers(1, 2**63, (112_120, 4), dtype=np.uint64)
    hashes[1000:1200] = hashes[:200]
    hashes[1000:1200, 1] ^= np.uint64(0b1011)
    thumbs = np.broadcast_to(np.arange(64, dtype=np.uint8).reshape(1, 8, 8), (112_120, 8, 8))
    group = near_duplicates(hashes, thumbs)
    assert (group >= 0).sum() == 400
    np.testing.assert_array_equal(group[:200], group[1000:1200])


def test_only_files_with_the_same_bytes_are_grouped(tmp_path):
    for name, content in {"a": b"123", "b": b"123", "c": b"124", "d": b"99", "e": b"124"}.items():
        (tmp_path / name).write_bytes(content)
    paths = [str(tmp_path / name) for name in "abcdef"]
    assert same_bytes(paths, np.array([3, 3, 3, 2, 3, -1])).tolist() == [0, 0, 1, -1, 1, -1]


def _index(n=80, **columns):
    return pd.DataFrame(
        {
            "image": [f"{i}.png" for i in range(n)],
            "patient_id": [f"p{i}" for i in range(n)],
            "study_id": "",
            "view_position": "PA",
            "sex": "F",
            "age": 50.0,
            "split": "",
            **columns,
        }
    )


def _facts(n=80, **columns):
    return pd.DataFrame(
        {**dict.fromkeys(HEADER_FIELDS, ""), "bytes": 100, "rows": 10, "columns": 10, **columns}, index=range(n)
    )


def test_the_auroc_of_a_number_is_the_share_of_pairs_in_the_right_order_ties_counted_half():
    generator = np.random.default_rng(0)
    ages, labels = generator.integers(0, 9, 200).astype(float), (generator.random(200) < 0.3).astype(float)
    differences = ages[labels == 1][:, None] - ages[labels == 0]
    share = float(((differences > 0) + 0.5 * (differences == 0)).mean())
    [row] = confounders(_index(200, age=ages, Mass=labels), _facts(200))
    assert (row["nuisance"], row["auroc"]) == ("age", pytest.approx(max(share, 1 - share), abs=1e-12))


def test_a_file_size_that_predicts_the_finding_comes_first_and_in_its_own_source():
    generator = np.random.default_rng(1)
    positive = np.arange(400) % 2 == 0
    source = np.where(np.arange(400) < 200, "north", "south")
    size = generator.normal(1000, 100, 400) + np.where(positive & (source == "north"), 300, 0)
    index = _index(400, Mass=positive.astype(float), source=source)
    rows = confounders(index, _facts(400, bytes=size.astype(int)))
    first = rows[0]
    assert (first["nuisance"], first["within"], first["strong"]) == ("bytes", "north", True)
    north = source == "north"
    assert first["auroc"] == pytest.approx(roc_auc_score(positive[north], size.astype(int)[north]), abs=1e-9)
    south = next(row for row in rows if row["within"] == "south" and row["nuisance"] == "bytes")
    assert south["auroc"] < 0.65


def test_an_unrelated_category_scores_about_a_half_however_many_values_it_has():
    generator = np.random.default_rng(2)
    index = _index(600, Mass=(np.arange(600) % 2).astype(float))
    rows = confounders(index, _facts(600, model=[f"m{k}" for k in generator.integers(0, 200, 600)]))
    assert abs(next(row["auroc"] for row in rows if row["nuisance"] == "model") - 0.5) < 0.07


def test_a_view_that_equals_the_finding_scores_1_and_unknown_views_are_excluded():
    positive = np.arange(120) % 2 == 0
    view = np.where(positive, "AP", "PA").astype(object)
    index = _index(120, view_position=view, Edema=positive.astype(float))
    assert confounders(index, _facts(120))[0]["auroc"] == 1.0
    blank = index.assign(view_position=np.where(positive, "", "PA"))
    assert [row for row in confounders(blank, _facts(120)) if row["nuisance"] == "view_position"] == []


def test_a_finding_with_few_positives_is_not_scored():
    assert confounders(_index(sex=["M", "F"] * 40, Mass=[1.0] * 19 + [0.0] * 61), _facts()) == []


def test_a_leaking_patient_is_listed_by_rows_and_never_by_id():
    index = _index(4, patient_id=["a", "b", "a", "b"], split=["train", "train", "test", "train"])
    assert leaking_patients(index) == [{"rows": [0, 2], "splits": ["test", "train"]}]


def test_an_image_without_a_split_leaks_into_test_and_not_into_train():
    index = _index(4, patient_id=["a", "b", "a", "b"], split=["", "", "test", "train"], Mass=0.0)
    assert leaking_patients(index) == [{"rows": [0, 2], "splits": ["(none)", "test"]}]
    facts = duplicate_facts(index, np.array([0, 1, 0, 1]))
    assert facts["across_splits"] == 1
    assert [(one["rows"], one["across_splits"]) for one in facts["first"]] == [([0, 2], True), ([1, 3], False)]
    without = duplicate_facts(index.assign(split=""), np.array([0, 1, 0, 1]))
    assert (without["across_splits"], without["first"][0]["splits"]) == (0, [])
    assert leaking_patients(index.assign(split="")) == []


def test_prevalence_is_by_split_and_by_patients():
    index = _index(4, patient_id=["a", "a", "b", "c"], split=["train"] * 3 + ["test"], Mass=[1, 1, np.nan, 0])
    train, test = prevalence(index)
    assert (train["positive images"], train["positive patients"], train["known"], train["prevalence"]) == (2, 1, 2, 1.0)
    assert (test["known"], test["prevalence"]) == (1, 0.0)


def test_duplicates_across_patients_come_first_then_across_splits_and_other_labels_are_counted():
    index = _index(5, split=["train", "train", "train", "test", ""], Mass=[1.0, 0, 1, 1, 0])
    facts = duplicate_facts(index, np.array([0, 0, 1, 1, -1]))
    assert [group["rows"] for group in facts["first"]] == [[2, 3], [0, 1]]
    assert (facts["across_splits"], facts["across_patients"], facts["labels_differ"]) == (1, 2, 1)


def test_a_copy_between_patients_is_listed_before_one_patient_s_copy_in_another_split():
    index = _index(4, split=["train", "test", "train", "train"], patient_id=["a", "a", "b", "c"])
    facts = duplicate_facts(index, np.array([0, 0, 1, 1]))
    assert [group["rows"] for group in facts["first"]] == [[2, 3], [0, 1]]


@pytest.mark.parametrize("key", FLAGS)
def test_every_flag_can_be_raised_and_is_not_raised_by_a_valid_file(key):
    valid = {
        "format": "DICOM",
        "window": "window",
        "spacing": "PixelSpacing",
        "burned_in": "NO",
        "frames": 1,
        "samples": 1,
        "chest": "yes",
        "photometric": "MONOCHROME2",
        "damage": "",
        "frontal": 0.7,
        "border": 0.0,
        "saturated": 0.1,
        "contrast": 0.2,
    }
    invalid = {
        "unreadable": {"problem": "the file is missing"},
        "damaged": {"damage": "is truncated"},
        "not_a_chest": {"chest": "no"},
        "polarity": {"frontal": -0.6},
        "unlike_a_chest": {"frontal": 0.0},
        "lateral_among_frontals": {"lateral_words": "yes"},
        "view_conflict": {"header_view": "AP"},
        "monochrome1": {"photometric": "MONOCHROME1"},
        "inverse": {"presentation_lut": "INVERSE"},
        "for_processing": {"intent": "FOR PROCESSING"},
        "no_radiograph": {"frames": 2},
        "no_window": {"window": "none"},
        "no_spacing": {"spacing": "PixelSpacing is zero"},
        "burned_in": {"burned_in": "YES"},
        "burned_in_unknown": {"burned_in": ""},
        "border": {"border": 0.5},
        "flat": {"contrast": 0.01},
        "saturated": {"saturated": 0.9},
        "lateral": {},
    }
    index = _index(2, view_position=["PA", "LL" if key == "lateral" else "PA"])
    table = pd.concat([_facts(1, **valid), _facts(1, **{**valid, **invalid[key]})], ignore_index=True)
    flags = flag_rows(index, table)
    assert flags[key]["rows"] == [1]
    assert {name for name, flag in flags.items() if flag["count"]} == {key}


def test_a_dicom_header_gives_facts_and_no_identity(tmp_path):
    folder = write_dicom_phantoms(tmp_path / "archive", n_patients=2, size=64, seed=0)
    path = next(path for path in sorted(folder.rglob("*")) if header_facts(path)["format"] == "DICOM")
    data = pydicom.dcmread(path)
    data.PatientName, data.StudyDescription, data.BodyPartExamined = "Doe^Jane", "LEFT TIBIA of Jane", ""
    del data.AnatomicRegionSequence  # a code of the chest would count for more than a word
    data.save_as(path)
    facts = header_facts(path)
    assert set(facts) == set(HEADER_FIELDS)
    assert (facts["format"], facts["chest"], facts["problem"]) == ("DICOM", "no", "")
    assert "Jane" not in str(facts)
    assert str(data.PatientID) not in facts.values()


@pytest.mark.parametrize(
    ("part", "description", "chest"),
    [
        ("CHEST", "", "yes"),
        ("TIBIA", "CHEST", "no"),
        ("", "THORAX PA", "yes"),
        ("", "LEFT KNEE", "no"),
        ("", "", ""),
        ("", "Routine", ""),
        ("XYZ", "", "no"),
        ("RIBS", "", "yes"),
    ],
)
def test_a_chest_is_known_by_the_body_part_and_then_by_the_words(tmp_path, part, description, chest):
    path = next(write_dicom_phantoms(tmp_path / "archive", n_patients=1, size=64).rglob("*.dcm"))
    data = pydicom.dcmread(path)
    del data.AnatomicRegionSequence
    data.BodyPartExamined, data.SeriesDescription, data.StudyDescription = part, description, ""
    data.save_as(path)
    assert header_facts(path)["chest"] == chest


def test_a_file_that_is_not_an_image_is_a_problem(tmp_path):
    (tmp_path / "notes.png").write_text("hello")
    assert header_facts(tmp_path / "notes.png")["problem"] == (
        "is not DICOM, PNG, JPEG, TIFF or NIfTI; its content decides, not its name"
    )
    assert header_facts(tmp_path / "gone.png")["problem"] == "the file is missing"


@pytest.mark.parametrize("name", ["rtplan_truncated.dcm", "MR_truncated.dcm", "badVR.dcm", "no_meta.dcm", "DICOMDIR"])
def test_pydicoms_odd_files_never_end_the_audit(name):
    facts = header_facts(get_testdata_file(name))
    assert facts["problem"] or facts["format"] == "DICOM"


def _picture(path, image):
    Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(path)
    return path


def test_a_copy_at_another_size_and_quality_has_nearly_the_same_hash(tmp_path):
    generator = np.random.default_rng(0)
    image = np.kron(generator.random((16, 16)), np.ones((16, 16)))
    one = pixel_facts(_picture(tmp_path / "one.png", image))
    small = Image.fromarray(np.rint(image * 255).astype(np.uint8)).resize((100, 100), Image.Resampling.BICUBIC)
    small.save(tmp_path / "copy.jpg", quality=60)
    copy = pixel_facts(tmp_path / "copy.jpg")
    other = pixel_facts(_picture(tmp_path / "other.png", np.kron(generator.random((16, 16)), np.ones((16, 16)))))
    assert set(one) == {"damage", "frontal", "border", "saturated", "contrast", "hash", "thumb"}
    assert _differing(one["hash"], copy["hash"]) <= 15 < 40 < _differing(one["hash"], other["hash"])


def test_a_uniform_border_is_measured(tmp_path):
    image = np.zeros((200, 200))
    image[50:150] = np.random.default_rng(0).random((100, 200))
    assert pixel_facts(_picture(tmp_path / "a.png", image))["border"] == pytest.approx(0.5, abs=0.01)


def test_a_damaged_image_has_its_reason_and_no_facts_of_pixels(tmp_path):
    facts = pixel_facts(_picture(tmp_path / "a.png", np.full((50, 50), 0.5)))
    assert "has the value 128 in every pixel" in facts["damage"]
    assert not facts["hash"].any()
    assert np.isnan(facts["frontal"])


def test_the_frontal_score_changes_sign_with_the_polarity_and_ignores_the_exposure():
    image = np.random.default_rng(0).random((64, 64))
    score = frontal_score(image)
    assert frontal_score(1 - image) == pytest.approx(-score, abs=1e-6)
    assert frontal_score(0.3 * image + 0.5) == pytest.approx(score, abs=1e-6)
    assert frontal_score(np.ones((64, 64))) == 0


@pytest.mark.parametrize("engine", ["processes", "dask://local"])
def test_any_engine_and_one_process_return_the_same(tmp_path, engine):
    if engine != "processes":
        pytest.importorskip("distributed")
    folder = write_dicom_phantoms(tmp_path / "archive", n_patients=10, size=64, seed=0)
    paths = sorted(str(path) for path in folder.rglob("*") if path.is_file())
    alone, spread = scan(paths, True, workers=0), scan(paths, True, workers=2, engine=engine)
    pd.testing.assert_frame_equal(alone[0], spread[0])
    np.testing.assert_array_equal(alone[1], spread[1])
    np.testing.assert_array_equal(alone[2], spread[2])


def test_a_file_that_crashes_its_process_has_that_as_its_reason_and_the_others_are_read(tmp_path, monkeypatch):
    folder = write_dicom_phantoms(tmp_path / "archive", n_patients=10, size=64, seed=0)
    paths = sorted(str(path) for path in folder.rglob("*") if path.is_file())
    code = f"""
import os
from monai_simclr.audit import scan
from monai_simclr.runtime import spread
real = scan.pixel_facts
scan.pixel_facts = lambda path: os.abort() if path == {paths[3]!r} else real(path)
spread.serve()
"""
    monkeypatch.setattr(spread, "_SERVE", f"exec({code!r})")
    seen = []
    facts, hashes, _ = scan(paths, True, workers=2, on_progress=seen.append)
    alone = scan(paths, True, workers=0)
    assert facts["damage"][3] == facts["problem"][3] == "ended the decoder by SIGABRT"
    pd.testing.assert_frame_equal(facts.drop(index=3), alone[0].drop(index=3))
    np.testing.assert_array_equal(np.delete(hashes, 3, 0), np.delete(alone[1], 3, 0))
    assert seen[-1] == len(paths)
