"""The chest phantom: same seed, same picture; what the label says is in the pixels; the written folders are true."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.pixels import apply_voi_lut
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from monai_simclr.data.findings import NO_FINDING
from monai_simclr.data.phantoms import (
    FINDINGS,
    Phantom,
    draw_phantom,
    n_films_of_patient,
    phantom_to_dicom,
    write_dicom_phantoms,
    write_nih_phantoms,
)

CLASSES = (*FINDINGS, NO_FINDING)


@pytest.fixture(scope="module")
def gallery() -> dict[str, list[Phantom]]:
    """Eight patients of every class, at 128 pixels."""
    drawn = [draw_phantom(patient, 0, 128) for patient in range(1, 49)]
    return {name: [phantom for phantom in drawn if phantom.finding == name] for name in CLASSES}


@pytest.fixture(scope="module")
def nih(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nih_phantoms(tmp_path_factory.mktemp("nih"), 24, size=64, bad_files=3, lung_masks=True)


@pytest.mark.parametrize("size", [64, 100, 256])
def test_the_same_numbers_draw_the_same_phantom_and_pixels_are_in_range(size: int) -> None:
    one, two = (draw_phantom(5, 1, size, seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.pixels, two.pixels)
    np.testing.assert_array_equal(one.lung_mask, two.lung_mask)
    assert one.pixels.dtype == np.float32
    assert one.pixels.shape == one.lung_mask.shape == (size, size)
    assert one.lung_mask.dtype == bool
    assert one.pixels.min() >= 0
    assert one.pixels.max() <= 1
    assert 0.1 < one.lung_mask.mean() < 0.6


def test_patients_follow_ups_and_seeds_differ_and_a_patient_keeps_sex_and_age() -> None:
    base = draw_phantom(5, 0, 64)
    for other in (draw_phantom(6, 0, 64), draw_phantom(5, 1, 64), draw_phantom(5, 0, 64, seed=1)):
        assert np.abs(other.pixels - base.pixels).mean() > 0.01
    later = draw_phantom(5, 2, 64)
    assert (later.sex, later.age) == (base.sex, base.age + 2)


def test_six_patients_in_a_row_have_each_class_once_and_most_keep_it() -> None:
    for first in (1, 7, 61):
        assert {draw_phantom(patient, 0, 64).finding for patient in range(first, first + 6)} == set(CLASSES)
    kept = [draw_phantom(p, 1, 64).finding in (draw_phantom(p, 0, 64).finding, NO_FINDING) for p in range(1, 25)]
    same = [draw_phantom(p, 1, 64).finding == draw_phantom(p, 0, 64).finding for p in range(1, 25)]
    assert all(kept)
    assert np.mean(same) > 0.75


def test_a_larger_phantom_shows_the_same_anatomy() -> None:
    small, large = draw_phantom(2, 0, 128), draw_phantom(2, 0, 512)
    again = cv2.resize(large.lung_mask.astype(np.float32), (128, 128), interpolation=cv2.INTER_AREA) > 0.5
    overlap = (again & small.lung_mask).sum() / (again | small.lung_mask).sum()
    assert overlap > 0.95


def _cardiothoracic_ratio(phantom: Phantom) -> float:
    """Widest gap between the lungs in their lower half over the widest extent, measured on the mask alone."""
    rows = np.flatnonzero(phantom.lung_mask.sum(1) > 12)
    gaps, extents = [], []
    for row in phantom.lung_mask[(rows[0] + rows[-1]) // 2 : rows[0] + int(0.75 * (rows[-1] - rows[0]))]:
        columns = np.flatnonzero(row)
        gaps.append(np.diff(columns).max())
        extents.append(columns[-1] - columns[0])
    return max(gaps) / max(extents)


def test_the_heart_is_wider_in_every_cardiomegaly_than_in_any_healthy_chest(gallery: dict[str, list[Phantom]]) -> None:
    ill = [_cardiothoracic_ratio(phantom) for phantom in gallery["Cardiomegaly"]]
    well = [_cardiothoracic_ratio(phantom) for phantom in gallery[NO_FINDING]]
    assert np.median(ill) > 0.55
    assert min(ill) > max(well)


def _sides(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two largest connected parts of the lung mask, the right lung (image left) first."""
    _, labels, stats, centers = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    two = 1 + np.argsort(stats[1:, cv2.CC_STAT_AREA])[-2:]
    right, left = sorted(two.tolist(), key=lambda label: centers[label][0])
    return labels == right, labels == left


def _asymmetry(phantom: Phantom) -> float:
    """How much the lungs' mean brightness differs, in units of the contrast of lung and rest of the chest."""
    right, left = (float(phantom.pixels[side].mean()) for side in _sides(phantom.lung_mask))
    dense = np.quantile(phantom.pixels, 0.9) - np.quantile(phantom.pixels[phantom.lung_mask], 0.1)
    return abs(right - left) / float(dense)


@pytest.mark.parametrize("finding", ["Consolidation", "Effusion"])
def test_an_opacity_makes_one_lung_brighter_than_the_other(gallery: dict[str, list[Phantom]], finding: str) -> None:
    ill = [_asymmetry(phantom) for phantom in gallery[finding]]
    well = [_asymmetry(phantom) for phantom in gallery[NO_FINDING]]
    assert np.median(ill) > 2 * np.median(well)
    assert min(ill) > max(well)


def test_atelectasis_makes_one_lung_much_smaller(gallery: dict[str, list[Phantom]]) -> None:
    def ratio(phantom: Phantom) -> float:
        areas = [side.sum() for side in _sides(phantom.lung_mask)]
        return min(areas) / max(areas)

    assert max(map(ratio, gallery["Atelectasis"])) < min(map(ratio, gallery[NO_FINDING]))


def _rim_ratio(phantom: Phantom) -> float:
    """Brightness along the chest wall in the upper lung: the darker side's over the other's."""
    values = []
    for side, sign in zip(_sides(phantom.lung_mask), (1, -1), strict=True):
        distance = np.where(side, np.cumsum(side[:, ::sign], 1)[:, ::sign], 0)
        upper = np.arange(side.shape[0])[:, None] < np.quantile(np.nonzero(side)[0], 0.6)
        rim = (distance > 1) & (distance <= 6) & upper
        values.append(float(phantom.pixels[rim].mean()))
    return min(values) / max(values)


def test_the_free_air_of_a_pneumothorax_is_darker_than_the_other_lungs_rim(
    gallery: dict[str, list[Phantom]],
) -> None:
    ill = [_rim_ratio(phantom) for phantom in gallery["Pneumothorax"]]
    well = [_rim_ratio(phantom) for phantom in gallery[NO_FINDING]]
    assert max(ill) < np.median(well)
    assert np.median(ill) < 0.8 * np.median(well)


def test_pixels_alone_do_not_cluster_into_the_findings() -> None:
    """The guard: what a network learns on phantoms cannot be had from k-means on raw pixels."""
    drawn = [draw_phantom(patient, k, 64) for patient in range(1, 253) for k in range(2)]
    pixels = np.stack([phantom.pixels.ravel() for phantom in drawn])
    truth = np.array([CLASSES.index(phantom.finding) for phantom in drawn])
    train = np.array([phantom.patient <= 168 for phantom in drawn])
    space = PCA(50, random_state=0).fit(pixels[train])
    clusters = KMeans(6, n_init=5, random_state=0).fit(space.transform(pixels[train]))
    counts = np.zeros((6, 6))
    np.add.at(counts, (clusters.labels_, truth[train]), 1)
    name_of = linear_sum_assignment(-counts)[1]
    accuracy = (name_of[clusters.predict(space.transform(pixels[~train]))] == truth[~train]).mean()
    assert accuracy < 0.45


def test_the_nih_table_has_the_publishers_columns_and_describes_every_image(nih: Path, nih_metadata: Path) -> None:
    table = pd.read_csv(nih / "Data_Entry_2017_v2020.csv")
    published = pd.read_csv(nih_metadata / "Data_Entry_2017_v2020.csv.gz", nrows=5)
    assert list(table.columns) == list(published.columns)
    assert sorted(table["Image Index"]) == sorted(path.name for path in (nih / "images").iterdir())
    assert len(table) == 3 + sum(n_films_of_patient(patient) for patient in range(1, 25))
    for row in table.itertuples(index=False):
        phantom = draw_phantom(row[3], row[2], 64)
        expected = (phantom.finding, phantom.age, phantom.sex, phantom.view_position)
        assert expected == (row[1], row[4], row[5], row[6])


def test_the_nih_lists_share_no_patient_and_hold_a_quarter_of_every_class_for_the_test(nih: Path) -> None:
    names = {part: (nih / f"{part}_list.txt").read_text().split() for part in ("train_val", "test")}
    patients = {part: {name[:16] for name in listed} for part, listed in names.items()}
    assert not patients["train_val"] & patients["test"]
    assert {*names["train_val"], *names["test"]} == {path.name for path in (nih / "images").iterdir()}
    tested = Counter(draw_phantom(int(patient[8:]), 0, 64).finding for patient in patients["test"])
    assert tested == Counter(dict.fromkeys(CLASSES, 1))


def test_nih_images_and_masks_read_back_as_drawn_in_8_and_16_bits(nih: Path) -> None:
    for patient, dtype, top in ((1, np.uint8, 255), (7, np.uint16, 65535)):
        phantom = draw_phantom(patient, 0, 64)
        stored = cv2.imread(str(nih / "images" / f"PHANTOM-{patient:08d}_000.png"), cv2.IMREAD_UNCHANGED)
        assert stored.dtype == dtype
        np.testing.assert_allclose(stored / top, phantom.pixels, atol=0.51 / top)
        mask = cv2.imread(str(nih / "lung_masks" / f"PHANTOM-{patient:08d}_000.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(mask == 255, phantom.lung_mask)


def test_three_bad_files_are_bad_in_three_ways_and_are_listed(nih: Path) -> None:
    cut, text, black = (nih / "images" / f"PHANTOM-{number:08d}_000.png" for number in (25, 26, 27))
    listed = (nih / "train_val_list.txt").read_text()
    assert all(path.name in listed for path in (cut, text, black))
    assert cut.read_bytes().startswith(b"\x89PNG")
    assert not cut.read_bytes().endswith(b"IEND\xaeB`\x82")
    assert text.read_text().startswith("This is no image")
    assert cv2.imread(str(text)) is None
    assert not cv2.imread(str(black), cv2.IMREAD_UNCHANGED).any()


def test_progress_counts_every_valid_image(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_nih_phantoms(tmp_path / "new", 2, size=64, progress=lambda done, total: seen.append((done, total)))
    total = n_films_of_patient(1) + n_films_of_patient(2)
    assert seen == [(done, total) for done in range(1, total + 1)]


def _shown(dataset: pydicom.Dataset) -> np.ndarray:
    """The picture as a DICOM viewer shows it: windowed to 0..1, bright = dense, by pydicom."""
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    read = pydicom.dcmread(buffer)
    shown = apply_voi_lut(read.pixel_array, read) / 4095
    return 1 - shown if read.PhotometricInterpretation == "MONOCHROME1" else shown


def test_both_photometric_interpretations_show_the_same_picture() -> None:
    phantom = draw_phantom(4, 0, 64)
    one, two = (_shown(phantom_to_dicom(phantom, f"MONOCHROME{k}")) for k in (1, 2))
    np.testing.assert_allclose(one, two, atol=1e-9)
    np.testing.assert_allclose(two, phantom.pixels, atol=1 / 4095)


def test_dicom_folder_alternates_and_its_headers_describe_the_phantoms(tmp_path: Path) -> None:
    folder = write_dicom_phantoms(tmp_path, 3, size=64)
    paths = sorted(folder.rglob("*.dcm"))
    read = [pydicom.dcmread(path) for path in paths]
    assert len(read) == sum(n_films_of_patient(patient) for patient in (1, 2, 3))
    assert [d.PhotometricInterpretation[-1] for d in read] == [str(1 + k % 2) for k in range(len(read))]
    assert len({d.SOPInstanceUID for d in read}) == len({d.StudyInstanceUID for d in read}) == len(read)
    for path, dataset in zip(paths, read, strict=True):
        phantom = draw_phantom(int(path.parent.name[-8:]), int(path.stem), 64)
        assert dataset.SOPClassUID.name == "Digital X-Ray Image Storage - For Presentation"
        assert (dataset.PatientID, dataset.ViewPosition) == (path.parent.name, phantom.view_position)
        assert (dataset.PatientSex, dataset.PatientAge) == (phantom.sex, f"{phantom.age:03d}Y")
        assert (dataset.BitsStored, dataset.HighBit, dataset.pixel_array.max() <= 4095) == (12, 11, True)
        assert list(dataset.ImagerPixelSpacing) == [6.25, 6.25]


def test_wrong_requests_are_refused_with_what_came(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="size must be from 64 to 1024 pixels; got 32"):
        draw_phantom(1, 0, 32)
    with pytest.raises(ValueError, match="must not be negative; got -1, 0, 0"):
        draw_phantom(-1, 0)
    with pytest.raises(ValueError, match="got 0 and 0"):
        write_nih_phantoms(tmp_path, 0)
    with pytest.raises(ValueError, match="n_patients must be at least 1; got 0"):
        write_dicom_phantoms(tmp_path, 0)
    with pytest.raises(ValueError, match="got 'RGB'"):
        phantom_to_dicom(draw_phantom(1, 0, 64), "RGB")
    (tmp_path / "images").mkdir()
    with pytest.raises(FileExistsError, match="images exists already"):
        write_nih_phantoms(tmp_path, 1, size=64)
