"""The contact sheet: what it shows, that it names nobody, and how it ends."""

from __future__ import annotations

import re
import zlib

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from monai_simclr import ops, recipes
from monai_simclr.cli.app import app
from monai_simclr.cli.preview import draw_preview, write_preview
from monai_simclr.data.phantoms import draw_phantom, write_dicom_phantoms, write_nih_phantoms

TILE, GAP, HEADER = 64, 4, 22


@pytest.fixture(scope="module")
def stored() -> list[np.ndarray]:
    return [ops.quantize(draw_phantom(patient, 0, 73).pixels, 73) for patient in range(2)]


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return write_nih_phantoms(tmp_path_factory.mktemp("preview") / "archive", n_patients=6, size=64)


def tile(sheet: np.ndarray, row: int, column: int) -> np.ndarray:
    top, left = HEADER + GAP + row * (TILE + GAP), column * (TILE + GAP)
    return sheet[top : top + TILE, left : left + TILE]


def is_gray(pixels: np.ndarray) -> bool:
    return bool((pixels == pixels[..., :1]).all())


def test_a_row_shows_the_image_with_its_box_the_crop_and_the_views(stored):
    sheet, guessed = draw_preview(stored, recipes.views("mild", TILE), n_views=3)
    assert sheet.shape == (HEADER + 2 * (GAP + TILE), 5 * TILE + 4 * GAP, 3)
    assert guessed == 0
    for row, pixels in enumerate(stored):
        box = ops.locate_lungs(torch.from_numpy(pixels)[None, None]).boxes[0]
        left, top, right, bottom = (box * (TILE - 1)).round().astype(int)
        shown = tile(sheet, row, 0)
        assert not is_gray(shown[top, left:right])
        assert is_gray(shown[:top])
        assert is_gray(shown[bottom + 1 :])
        others = [tile(sheet, row, column) for column in range(1, 5)]
        assert all(is_gray(other) for other in others)
        assert all((one != two).any() for i, one in enumerate(others) for two in others[:i])


def test_the_same_seed_draws_the_same_sheet(stored):
    sheets = [draw_preview(stored, recipes.views("default", TILE), seed=seed)[0] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(sheets[0], sheets[1])
    assert (sheets[0] != sheets[2]).any()


def test_lungs_that_are_not_found_are_counted_and_drawn_in_another_color(stored):
    blank = np.zeros((73, 73), np.uint8)
    sheet, guessed = draw_preview([stored[0], blank], recipes.views("mild", TILE), n_views=1)
    assert guessed == 1
    first, second = (set(map(tuple, tile(sheet, row, 0).reshape(-1, 3).tolist())) for row in (0, 1))
    assert (60, 200, 60) in first - second
    assert (230, 130, 20) in second - first


@pytest.mark.parametrize("write", [write_nih_phantoms, write_dicom_phantoms])
def test_a_sheet_of_an_archive_is_a_png_that_names_nobody(write, tmp_path):
    archive = write(tmp_path / "archive", n_patients=4, size=64)
    made = write_preview(archive, tmp_path / "new" / "sheet.png", "phantom", size=64, images=3)
    assert (made.shown, made.path) == (3, tmp_path / "new" / "sheet.png")
    png = made.path.read_bytes()
    assert cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR).shape[0] == HEADER + 3 * (GAP + 64)
    kinds = re.findall(rb"(IHDR|PLTE|IDAT|IEND|tEXt|zTXt|iTXt|eXIf|tIME)", png)
    assert set(kinds) <= {b"IHDR", b"IDAT", b"IEND"}


def test_damaged_files_are_counted_and_others_shown(tmp_path):
    archive = write_nih_phantoms(tmp_path / "archive", n_patients=3, size=64, bad_files=2)
    total = len(list(archive.rglob("*.png")))
    made = write_preview(archive, tmp_path / "sheet.png", "mild", size=64, images=64)
    assert (made.rejected, made.shown) == (2, total - 2)


def test_an_archive_without_a_readable_image_says_so(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "broken.png").write_bytes(b"no picture" + zlib.compress(b"x"))
    with pytest.raises(ValueError, match="none of 1 radiographs can be read; one of them: "):
        write_preview(tmp_path / "folder", tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()


def test_no_images_are_refused(archive, tmp_path):
    with pytest.raises(ValueError, match="images must be at least 1, got 0"):
        write_preview(archive, tmp_path / "sheet.png", images=0)


def test_the_command_says_what_it_made(archive, tmp_path):
    output = tmp_path / "sheet.png"
    result = CliRunner().invoke(app, ["preview", str(archive), "-o", str(output), "--size", "64", "--images", "2"])
    assert result.exit_code == 0, result.output
    assert "sheet.png: 2 radiographs, lungs of 0 not found" in result.output.replace("\n", "")
    assert output.is_file()


def test_an_unknown_preset_is_a_usage_error(archive):
    result = CliRunner().invoke(app, ["preview", str(archive), "--strength", "strong"])
    assert result.exit_code == 2
    assert "'strong' is not one of mild, default" in result.output
