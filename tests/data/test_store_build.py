"""Building a store: what it holds, what it refuses, and what it does when the archive or the settings have changed."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pandas as pd
import pytest

from monai_simclr.data import ReaderSettings, StoreOptions, build_store, get_store, open_index, open_store, write_index
from monai_simclr.data.decoding import decode
from monai_simclr.data.phantoms import write_nih_phantoms
from monai_simclr.data.store import build
from monai_simclr.ops.resize import pad_resize
from monai_simclr.runtime.files import file_sha256

VERSIONS = build.versions()


@pytest.fixture
def archive(tmp_path):
    return write_nih_phantoms(tmp_path / "nih", n_patients=12, size=64, bad_files=1)


@pytest.fixture
def decoded(monkeypatch):
    """Names of the files that are decoded in this process, as they are."""
    names = []
    before = build.map_chunks

    def counting(work, chunks, *arguments, **options):
        chunks = list(chunks)
        names.extend(os.path.basename(path) for chunk in chunks for _, path in chunk)
        return before(work, chunks, *arguments, **options)

    monkeypatch.setattr(build, "map_chunks", counting)
    return names


def install(monkeypatch, **packages):
    """Let other versions of packages be installed, as `importlib.metadata` has it; None for not installed."""
    real = importlib.metadata.version

    def version(name):
        if name in packages and packages[name] is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return packages.get(name) or real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)


def _build(archive, folder, size=32, most=0.2, **options):
    return build_store(open_index(archive), folder, size, 0, most, StoreOptions(**options))


def _files(folder):
    return {path.name: file_sha256(path) for path in folder.iterdir()}


@pytest.mark.parametrize("workers", [0, 1])
def test_files_with_names_that_are_not_utf8_are_stored_rejected_and_found_again(tmp_path, decoded, caplog, workers):
    folder = os.fsencode(tmp_path / "in")
    os.mkdir(folder)
    for number, name in enumerate((b"M\xfcller.png", b"a\nb.png", b"=1+1.png", b"bad\n\xff.png")):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32), dtype=np.uint8)
        with open(folder + b"/" + name, "wb") as file:
            file.write(b"no image" if number == 3 else cv2.imencode(".png", pixels)[1].tobytes())
    index = open_index(tmp_path / "in")
    store = build_store(index, tmp_path / "store", 8, workers, 0.5)
    assert [os.fsencode(name)[len(folder) + 1 :] for name in store.index["image"]] == [
        b"=1+1.png",
        b"M\xfcller.png",
        b"a\nb.png",
    ]
    assert [os.fsencode(name)[len(folder) + 1 :] for name in store.rejected["image"]] == [b"bad\n\xff.png"]
    assert "the first is bad\\n\\xff.png: is not DICOM" in caplog.text
    for path in (tmp_path / "store").glob("*.csv"):
        assert not any(line.startswith("=") for line in path.read_text("utf-8").splitlines())
    decoded.clear()
    np.testing.assert_array_equal(build_store(index, tmp_path / "store", 8, workers, 0.5).images, store.images)
    os.rename(folder + b"/a\nb.png", folder + b"/c\nd\xff.png")
    again = build_store(open_index(tmp_path / "in"), tmp_path / "store", 8, workers, 0.5)
    assert [os.fsencode(name) for name in decoded] == [b"bad\n\xff.png", b"c\nd\xff.png"]
    assert len(again.images) == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_a_store_holds_the_readable_images_in_order_and_lists_the_others(archive, tmp_path, workers):
    index = open_index(archive)
    store = build_store(index, tmp_path / "store", 32, workers=workers, max_rejected=0.2)
    assert store.images.shape == (len(index) - 1, 32, 32)
    for image, path in zip(store.images, store.index["image"], strict=True):
        np.testing.assert_array_equal(image, decode(path, 32))
    assert len(store.rejected) == 1
    assert "damaged" in store.rejected["reason"].iloc[0] or "decoded" in store.rejected["reason"].iloc[0]
    kept = [path for path in index["image"] if path not in set(store.rejected["image"])]
    assert store.index["image"].tolist() == kept
    assert {path.name for path in (tmp_path / "store").iterdir()} == {
        "images.npy",
        "index.csv",
        "provenance.json",
        "rejected.csv",
        "rows.npz",
        "sources.csv",
    }


def test_a_store_says_what_it_was_made_of_and_with(archive, tmp_path):
    store = _build(archive, tmp_path / "s")
    made = json.loads((tmp_path / "s" / "provenance.json").read_text())
    assert (made["size"], made["squash"], made["images"], made["rejected"]) == (32, False, len(store.images), 1)
    assert {"monai-simclr", "pillow", "pydicom", "numpy"} <= set(made["versions"])
    sources = pd.read_csv(tmp_path / "s" / "sources.csv").set_index("image")
    for place, path in enumerate(store.index["image"]):
        row = sources.loc[path]
        assert row["sha256"] == file_sha256(path)
        assert (row["bytes"], row["modified"]) == (os.stat(path).st_size, os.stat(path).st_mtime_ns)
        assert row["pixels"] == zlib.crc32(store.images[place])


def test_images_are_padded_to_a_square_unless_squashing_is_asked_for(tmp_path):
    pixels = np.random.RandomState(0).randint(0, 256, (40, 100), dtype=np.uint8)
    (tmp_path / "a").mkdir()
    cv2.imwrite(str(tmp_path / "a" / "p1.png"), pixels)
    padded, squashed = (_build(tmp_path / "a", tmp_path / name, 20, squash=name == "y") for name in "xy")
    float_pixels = pixels.astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(padded.images[0], np.rint(pad_resize(float_pixels, 20) * 255))
    assert (padded.images[0][:6] == 0).all()
    assert (padded.images[0][14:] == 0).all()
    oracle = pixels.astype(float).reshape(20, 2, 20, 5).mean((1, 3))
    assert np.abs(squashed.images[0] - oracle).max() <= 0.51


def test_a_building_process_imports_neither_torch_nor_monai_nor_pandas():
    code = (
        "import sys, monai_simclr.data.decoding; light = {'torch', 'monai', 'pandas'} & set(sys.modules); "
        "import monai_simclr.cli.store; print(light, {'torch', 'monai'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["set()", "set()"]


def test_too_many_damaged_images_stop_the_build_and_leave_no_store(archive, tmp_path, decoded):
    with pytest.raises(ValueError, match="more than max_rejected=1% are damaged"):
        _build(archive, tmp_path / "s", most=0.01)
    with pytest.raises(FileNotFoundError, match="is not complete; run the command that began it again"):
        open_store(tmp_path / "s")
    decoded.clear()
    assert len(_build(archive, tmp_path / "s", most=0.5).rejected) == 1
    assert len(decoded) < 12, "what was decoded before the stop is not decoded again"


def test_a_hopeless_archive_is_given_up_at_once_and_not_at_its_end(tmp_path):
    (tmp_path / "a").mkdir()
    for number in range(50):
        (tmp_path / "a" / f"{number:02d}.png").write_text("no image")
    with pytest.raises(ValueError, match=r"^6 of 6 images could not be read, the first is 00\.png: is not DICOM"):
        _build(tmp_path / "a", tmp_path / "s", most=0.1)


def test_a_store_that_fits_is_opened_and_nothing_is_written(archive, tmp_path, decoded):
    write_nih_phantoms(tmp_path / "all", n_patients=12, size=64)
    folder = get_store(tmp_path / "all", tmp_path / "cache", 32, workers=0).folder
    decoded.clear()
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert get_store(tmp_path / "all", tmp_path / "cache", 32, workers=0).folder == folder
    assert not decoded
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_new_labels_change_the_tables_and_decode_nothing(archive, tmp_path, decoded):
    first = _build(archive, tmp_path / "s")
    decoded.clear()
    index = open_index(archive)
    index["age"] = 50.0
    store = build_store(index, tmp_path / "s", 32, 0, 0.2)
    assert set(store.index["age"]) == {50.0}
    assert [name for name in decoded if name != first.rejected["image"][0].rsplit("/")[-1]] == []
    np.testing.assert_array_equal(store.images, first.images)


def test_a_changed_file_is_named_and_only_it_is_decoded_again(archive, tmp_path, decoded, caplog):
    caplog.set_level(logging.INFO, "monai_simclr.data")
    index, bad = open_index(archive), _build(archive, tmp_path / "s").rejected["image"][0]
    decoded.clear()
    changed = index["image"][3]
    cv2.imwrite(changed, 255 - cv2.imread(changed, cv2.IMREAD_UNCHANGED))
    store = _build(archive, tmp_path / "s")
    assert f"1 changed (the first is {os.path.basename(changed)})" in caplog.text
    assert set(decoded) <= {os.path.basename(changed), os.path.basename(bad)}
    assert os.path.basename(changed) in decoded
    np.testing.assert_array_equal(store.images[3], decode(changed, 32))
    assert _files(tmp_path / "s") == _files_of_new_build(archive, tmp_path / "t")


def _files_of_new_build(archive, folder):
    _build(archive, folder)
    return _files(folder)


def test_new_and_missing_files_are_named_and_the_others_kept(archive, tmp_path, decoded, caplog):
    caplog.set_level(logging.INFO, "monai_simclr.data")
    index = open_index(archive)
    build_store(index.iloc[2:].reset_index(drop=True), tmp_path / "s", 32, 0, 0.2)
    decoded.clear()
    build_store(index.iloc[:-3].reset_index(drop=True), tmp_path / "s", 32, 0, 0.2)
    assert "2 new (the first is PHANTOM-00000001_000.png), 3 gone (the first is " in caplog.text
    assert decoded == ["PHANTOM-00000001_000.png", os.path.basename(index["image"][1])]
    build_store(index.iloc[:-3].reset_index(drop=True), tmp_path / "t", 32, 0, 0.2)
    assert _files(tmp_path / "s") == _files(tmp_path / "t")


def test_a_file_that_was_only_touched_is_not_decoded_again(archive, tmp_path, decoded):
    store = _build(archive, tmp_path / "s")
    decoded.clear()
    os.utime(store.index["image"][0], ns=(1, 1))
    again = _build(archive, tmp_path / "s")
    assert os.path.basename(store.index["image"][0]) not in decoded
    decoded.clear()
    _build(archive, tmp_path / "s")
    assert not decoded, "the new time stands in sources.csv"
    np.testing.assert_array_equal(again.images, store.images)


@pytest.mark.parametrize(
    ("size", "options", "said"),
    [
        (16, {}, "size was 32, is 16"),
        (32, {"squash": True}, "squash was False, is True"),
        (32, {"reader": ReaderSettings(voi="percentile")}, r"reader\.voi was 'auto', is 'percentile'"),
        (32, {"reader": ReaderSettings(decode_at="needed")}, r"reader\.decode_at was None, is 'needed'"),
    ],
)
def test_other_settings_are_refused_by_name_and_the_old_store_stays(archive, tmp_path, size, options, said):
    _build(archive, tmp_path / "s")
    before = _files(tmp_path / "s")
    with pytest.raises(FileExistsError, match=f"was built otherwise: {said}; give another folder, or pass --rebuild"):
        _build(archive, tmp_path / "s", size, **options)
    assert _files_only(tmp_path / "s") == before
    assert _build(archive, tmp_path / "s", size, rebuild=True, **options).images.shape[1] == size


def _files_only(folder):
    return {path.name: file_sha256(path) for path in folder.iterdir() if path.is_file()}


def test_images_of_two_versions_of_a_decoder_are_never_mixed(archive, tmp_path, monkeypatch):
    _build(archive, tmp_path / "s")
    install(monkeypatch, pillow="99")
    assert _build(archive, tmp_path / "s").provenance["versions"] == VERSIONS, "nothing is decoded, so nothing is mixed"
    index = open_store(tmp_path / "s").index
    cv2.imwrite(index["image"][0], 255 - cv2.imread(index["image"][0], cv2.IMREAD_UNCHANGED))
    with pytest.raises(FileExistsError, match=r"pillow was '.*', is '99', 1 changed \(the first is P"):
        build_store(index, tmp_path / "s", 32, 0, 0.2)
    assert (
        build_store(index, tmp_path / "s", 32, 0, 0.2, StoreOptions(rebuild=True)).provenance["versions"]["pillow"]
        == "99"
    )


def test_rejected_files_are_tried_again_when_a_decoder_was_installed(archive, tmp_path, monkeypatch, decoded):
    with monkeypatch.context() as before:
        install(before, pyjpegls=None)
        store = _build(archive, tmp_path / "s")
    decoded.clear()
    _build(archive, tmp_path / "s")
    assert decoded == [os.path.basename(store.rejected["image"][0])]


def test_a_folder_of_other_things_is_refused(archive, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("x")
    with pytest.raises(FileExistsError, match="holds other things than a store; give a new folder"):
        _build(archive, tmp_path / "thesis")
    with pytest.raises(FileExistsError, match="is a file; a store is a folder"):
        _build(archive, tmp_path / "thesis" / "chapter1.tex")


def test_a_store_can_be_given_in_the_place_of_its_archive(archive, tmp_path):
    _build(archive, tmp_path / "s")
    assert get_store(tmp_path / "s", tmp_path / "unused", 32).folder == tmp_path / "s"
    assert not (tmp_path / "unused").exists()
    with pytest.raises(ValueError, match=r"holds images of 32 pixels, 73 are needed; run monai-simclr store with --si"):
        get_store(tmp_path / "s", tmp_path / "unused", 73)


def test_an_archive_of_images_that_are_not_there_says_so_in_the_reasons(archive, tmp_path):
    index = open_index(archive)
    os.remove(index["image"][0])
    store = build_store(index, tmp_path / "s", 32, 0, 0.5)
    assert store.rejected["reason"][0] == "cannot be opened (it is not there)"


def test_a_file_that_grows_while_it_is_read_is_rejected(archive, tmp_path, monkeypatch):
    from monai_simclr.data import decoding

    index = open_index(archive)

    def read(path, size, squash, reader):
        with open(path, "ab") as file:
            file.write(b"more")
        return np.zeros((size, size), np.uint8)

    monkeypatch.setattr(decoding, "decode", read)
    with pytest.raises(ValueError, match="was changed while it was read"):
        build_store(index, tmp_path / "s", 32, 0, 0.0)


def test_a_half_built_store_refuses_other_settings_and_other_images(archive, tmp_path):
    with pytest.raises(ValueError, match="max_rejected"):
        _build(archive, tmp_path / "s", most=0.0)
    with pytest.raises(FileExistsError, match=r"building was begun otherwise: size was 32, is 16; give another folder"):
        _build(archive, tmp_path / "s", 16)
    fewer = open_index(archive).iloc[1:].reset_index(drop=True)
    with pytest.raises(FileExistsError, match=r"the list of images was another \(\d+ images, now \d+\)"):
        build_store(fewer, tmp_path / "s", 32, 0, 0.5)
    assert len(build_store(fewer, tmp_path / "s", 32, 0, 0.5, StoreOptions(rebuild=True)).images)


def test_an_index_file_serves_as_an_archive(archive, tmp_path):
    write_index(open_index(archive), tmp_path / "index.csv")
    assert len(get_store(tmp_path / "index.csv", tmp_path / "s", 16, workers=0).images)
