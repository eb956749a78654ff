"""A watched folder: look after look gives what one look gives, while files come, change, are renamed and go."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from small_bundle import run_inference, small_bundle

from monai_simclr.data.phantoms import write_dicom_phantoms
from monai_simclr.data.pseudonyms import KEY_VARIABLE
from monai_simclr.inference import InferenceDataset, list_radiographs
from monai_simclr.inference.writer import unpack_features, write_tables
from monai_simclr.workflows.arrivals import Arrivals


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return small_bundle(tmp_path_factory.mktemp("watching"), 40, scale=20) / "models" / "model.pt"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """DICOM files to copy into a watched folder, as they come in; one of them is inverted and gets a flag."""
    folder = write_dicom_phantoms(tmp_path_factory.mktemp("files"), n_patients=8, size=64, seed=5)
    return [Path(record["image"]) for record in list_radiographs(folder)][:11]


@pytest.fixture(autouse=True)
def _one_key(monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "one key for all folders")


def _watch(model, folder, output, monkeypatch, *between, **keep):
    """Watch while something happens between the looks, and stop with Ctrl-C after the last."""
    left = iter([*between, None])

    def sleep(seconds):
        happens = next(left)
        if happens is None:
            raise KeyboardInterrupt
        happens()

    with monkeypatch.context() as patched:
        patched.setattr("monai_simclr.workflows.inference.time.sleep", sleep)
        with pytest.raises(KeyboardInterrupt):
            run_inference(model, folder, output, watch=1.0, **keep)


def _arrive(source, target):
    """A file that came a minute ago."""
    target.parent.mkdir(exist_ok=True)
    shutil.copy(source, target)
    os.utime(target, (time.time() - 60, time.time() - 60))
    return target


def _rows(output):
    path = output / "predictions.json"
    rows = json.loads(path.read_text())["rows"]
    return {row["file_hash"]: {key: value for key, value in row.items() if key != "stamp"} for row in rows}


def _same(found, expected):
    """Rows are the same; numbers to what the composition of a batch changes in them."""
    assert found.keys() == expected.keys()
    for name, row in expected.items():
        other = found[name]
        for key in row:
            if key in ("novelty", "logits", "probabilities"):
                np.testing.assert_allclose(other[key], row[key], rtol=1e-3, atol=2e-4, err_msg=key)
            else:
                assert other[key] == row[key], key


@pytest.mark.parametrize("looks", [(3, 8), (4, 5, 6, 11), (9, 10, 11)])
def test_several_looks_give_what_one_look_gives(model, files, tmp_path, monkeypatch, looks):
    folder, placed = tmp_path / "in", iter(enumerate(files[: looks[-1]]))

    def bring(n):
        for number, file in placed:
            _arrive(file, folder / f"{number}.dcm")
            if number + 1 == n:
                return

    bring(looks[0])
    more = [lambda n=n: bring(n) for n in looks[1:]]
    _watch(model, folder, tmp_path / "watched", monkeypatch, *more, embeddings=True)
    run_inference(model, folder, tmp_path / "once", embeddings=True)
    _same(_rows(tmp_path / "watched"), _rows(tmp_path / "once"))
    journals = [
        [json.loads(line) for line in (tmp_path / name / "predictions.jsonl").read_text().splitlines()[1:]]
        for name in ("watched", "once")
    ]
    features = [{row["file_hash"]: row["features"] for row in rows} for rows in journals]
    assert features[0].keys() == features[1].keys()
    assert len({row["novelty"] for row in journals[0]}) == looks[-1]
    for name, text in features[0].items():
        np.testing.assert_allclose(unpack_features(text), unpack_features(features[1][name]), rtol=1e-2, atol=1e-3)


def test_a_folder_that_takes_long_to_list_is_looked_at_less_often(model, files, tmp_path, monkeypatch):
    _arrive(files[0], tmp_path / "in" / "0.dcm")
    listed, pauses, seconds = list_radiographs, [], iter([0.0, 0.3])

    def slow(*arguments, **options):
        time.sleep(next(seconds))
        return listed(*arguments, **options)

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 2:
            raise KeyboardInterrupt

    clock = SimpleNamespace(sleep=pause, monotonic=time.monotonic)
    monkeypatch.setattr("monai_simclr.workflows.inference.time", clock)
    monkeypatch.setattr("monai_simclr.workflows.arrivals.list_radiographs", slow)
    with pytest.raises(KeyboardInterrupt):
        run_inference(model, tmp_path / "in", tmp_path / "out", watch=1.0)
    assert pauses[0] == 1.0
    assert pauses[1] >= 3.0


def test_tables_that_take_long_are_written_less_often_and_are_whole_at_the_end(model, files, tmp_path, monkeypatch):
    written = []

    def slow(rows, *rest):
        written.append(len(rows))
        threading.Event().wait(1.0)  # time.sleep is what `_watch` replaces
        return write_tables(rows, *rest)

    monkeypatch.setattr("monai_simclr.workflows.inference.write_tables", slow)
    _arrive(files[0], tmp_path / "in" / "0.dcm")
    more = [lambda n=n: _arrive(files[n], tmp_path / "in" / f"{n}.dcm") for n in (1, 2, 3)]
    _watch(model, tmp_path / "in", tmp_path / "out", monkeypatch, *more)
    assert written == [1, 4]
    assert len(_rows(tmp_path / "out")) == 4


def test_a_run_with_overlays_leaves_no_hook_and_no_gradient_on_the_network(model, files, tmp_path, monkeypatch):
    _arrive(files[0], tmp_path / "in" / "0.dcm")
    monkeypatch.setattr("monai_simclr.inference.pictures.leading_finding", lambda row, config: 0)  # draw every one
    evaluator = run_inference(model, tmp_path / "in", tmp_path / "out", overlays=True)
    hooks = [len(module._forward_hooks) + len(module._backward_hooks) for module in evaluator.network.modules()]
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 1
    assert sum(hooks) == 0
    assert all(parameter.grad is None for parameter in evaluator.network.parameters())


def test_a_half_written_file_is_predicted_again_when_it_is_whole(model, files, tmp_path, monkeypatch):
    target = tmp_path / "in" / "a.dcm"
    _arrive(files[0], target)
    target.write_bytes(files[0].read_bytes()[:-900])
    os.utime(target, (time.time() - 60, time.time() - 60))  # the network stood still for a minute
    _watch(model, tmp_path / "in", tmp_path / "out", monkeypatch, lambda: _arrive(files[0], target))
    (row,) = _rows(tmp_path / "out").values()
    assert row["reason"] == ""
    assert row["logits"] is not None


def test_renamed_and_deleted_files_leave_the_rows_of_what_was_read(model, files, tmp_path, monkeypatch):
    folder = tmp_path / "in"
    first, second = _arrive(files[0], folder / "a.dcm"), _arrive(files[1], folder / "b.dcm")
    _watch(
        model,
        folder,
        tmp_path / "out",
        monkeypatch,
        lambda: (first.rename(folder / "c.dcm"), second.unlink()),
        lambda: _arrive(files[2], folder / "d.dcm"),
        paths=True,
    )
    rows = {Path(row["path"]).name: row for row in _rows(tmp_path / "out").values()}
    assert sorted(rows) == ["a.dcm", "b.dcm", "c.dcm", "d.dcm"]
    assert {row["reason"] for row in rows.values()} == {""}
    np.testing.assert_allclose(rows["a.dcm"]["logits"], rows["c.dcm"]["logits"], rtol=1e-3, atol=1e-4)


def test_a_file_that_goes_before_it_is_read_has_no_row_while_watching_and_a_reason_otherwise(
    model, files, tmp_path, monkeypatch
):
    folder = tmp_path / "in"
    for name in ("a", "b"):
        _arrive(files[0], folder / f"{name}.dcm")
    whole = InferenceDataset.__getitem__

    def late(self, row):
        if self.data[row]["image"].endswith("a.dcm"):
            os.unlink(self.data[row]["image"])
        return whole(self, row)

    for watch in (True, False):
        _arrive(files[0], folder / "a.dcm")
        output = tmp_path / f"out{watch}"
        with monkeypatch.context() as patched:
            patched.setattr(InferenceDataset, "__getitem__", late)
            if watch:
                _watch(model, folder, output, monkeypatch)
            else:
                run_inference(model, folder, output)
        assert sorted(bool(row["reason"]) for row in _rows(output).values()) == ([False] if watch else [False, True])


def test_a_file_that_is_replaced_after_it_was_read_gets_the_overlay_of_what_it_is_now(
    model, files, tmp_path, monkeypatch
):
    target, output, drawn = tmp_path / "in" / "a.dcm", tmp_path / "out", []
    _arrive(files[0], target)
    monkeypatch.setattr("monai_simclr.inference.pictures.leading_finding", lambda row, config: 0)  # draw every one
    whole, journal = InferenceDataset.__getitem__, output / "predictions.jsonl"

    def replaced(self, row):
        item = whole(self, row)
        if not drawn:
            drawn.append(_arrive(files[1], target))
            os.utime(target, (time.time() - 30, time.time() - 30))
        return item

    def rests():
        (row,) = [json.loads(line) for line in journal.read_text().splitlines()[1:]]
        assert row["reason"] == "no overlay: the file was changed or removed after it was predicted"
        assert not list(output.glob("overlays/*"))

    monkeypatch.setattr(InferenceDataset, "__getitem__", replaced)
    _watch(model, tmp_path / "in", output, monkeypatch, rests, overlays=True)
    run_inference(model, [_arrive(files[1], tmp_path / "other" / "b.dcm")], tmp_path / "once", overlays=True)
    (row,), (expected,) = _rows(output).values(), _rows(tmp_path / "once").values()
    assert (row["reason"], row["sop_instance_hash"]) == ("", expected["sop_instance_hash"])
    (overlay,), (other,) = (list((folder / "overlays").iterdir()) for folder in (output, tmp_path / "once"))
    assert overlay.read_bytes() == other.read_bytes()


def test_an_empty_a_missing_and_an_emptied_folder_do_not_end_the_watch(model, files, tmp_path, monkeypatch, caplog):
    folder = tmp_path / "in"
    folder.mkdir()

    def away():
        folder.rename(tmp_path / "away")

    def back():
        (tmp_path / "away").rename(folder)
        _arrive(files[1], folder / "b.dcm")

    def emptied():
        for path in folder.iterdir():
            path.unlink()

    steps = [
        lambda: _arrive(files[0], folder / "a.dcm"),
        away,
        lambda: None,
        back,
        emptied,
        lambda: _arrive(files[2], folder / "c.dcm"),
    ]
    _watch(model, folder, tmp_path / "out", monkeypatch, *steps)
    assert len(_rows(tmp_path / "out")) == 3
    assert caplog.text.count("the watched folder cannot be listed") == 1


def test_a_folder_that_was_never_there_is_refused_while_watching_too(model, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere; pass --dataset_dir"):
        run_inference(model, tmp_path / "nowhere", tmp_path / "out", watch=1.0)


def _arrivals(folder, watch):
    return Arrivals(folder, dict, "key", watch)


def test_a_watched_folder_leaves_files_alone_that_are_still_being_written(files, tmp_path):
    target = _arrive(files[0], tmp_path / "in" / "a.dcm")
    arrivals = _arrivals(tmp_path / "in", watch=60.0)
    os.utime(target)
    assert arrivals.look() == []
    os.utime(target, (time.time() - 6, time.time() - 6))
    assert arrivals.look() == [{"image": str(target)}]


def test_a_file_whose_time_is_in_the_future_is_read_when_it_rests(files, tmp_path, monkeypatch):
    target = _arrive(files[0], tmp_path / "in" / "a.dcm")
    os.utime(target, (time.time() + 7200, time.time() + 7200))
    arrivals = _arrivals(tmp_path / "in", watch=60.0)
    assert arrivals.look() == []
    later = time.monotonic() + 6
    monkeypatch.setattr("monai_simclr.workflows.arrivals.time.monotonic", lambda: later)
    assert arrivals.look() == [{"image": str(target)}]


def test_a_file_that_is_named_twice_is_predicted_once(files, tmp_path):
    target = _arrive(files[0], tmp_path / "in" / "a.dcm")
    assert _arrivals([target, str(target)], watch=0.0).look() == [{"image": str(target)}]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="memory is read from /proc")
def test_memory_is_level_over_500_files_that_come_one_by_one(model, tmp_path, monkeypatch):
    folder, rng = tmp_path / "in", np.random.default_rng(0)
    folder.mkdir()
    used: list[int] = []

    def bring():
        path = folder / f"{len(used)}.png"
        Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8)).save(path)
        os.utime(path, (time.time() - 60, time.time() - 60))
        used.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))

    monkeypatch.setattr("monai_simclr.inference.pictures.leading_finding", lambda row, config: 0)  # draw every one
    _watch(model, folder, tmp_path / "out", monkeypatch, *[bring] * 501, overlays=True)
    assert len(_rows(tmp_path / "out")) == 501
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 501
    print([round(used[n] / 2**20, 1) for n in (50, 100, 200, 300, 400, 500)])
    assert (used[500] - used[200]) / 2**20 < 15
