"""No room, a read-only disk and numbers that blow up: the file is named, and the exit code says of which kind it is."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import own_files
import pytest
import torch
from torch import nn

from monai_simclr.data.phantoms import write_nih_phantoms
from monai_simclr.engines import embed
from monai_simclr.evaluation import Embeddings
from monai_simclr.handlers.validation import mean_auroc
from monai_simclr.runtime.exit_codes import exit_code, format_error
from monai_simclr.runtime.files import NoSpaceError, write_atomically, write_text, writing
from monai_simclr.runtime.metrics import write_metrics
from monai_simclr.workflows.bundle import copy_bundle


@contextlib.contextmanager
def almost_full():
    """No file of this process may be larger than 2 kB: a full disk for it (EFBIG).

    Not a fixture: pytest writes its progress before fixtures end, and its log may be larger than that.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _embeddings(path: Path) -> None:
    Embeddings(np.zeros((500, 8)), own_files._index(500), {}).save(path)


WRITERS = {
    "encoder.safetensors": lambda path: own_files.make_encoder(path.parent),
    "model.pt": lambda path: own_files.make_classifier(path.parent),
    "embeddings.npz": _embeddings,
    "metrics.json": lambda path: write_metrics(
        path.parent, {"a": ["x"] * 900}, command="train", split="test", seed=0, n={"images": 1}
    ),
    "report.html": lambda path: write_text(path, "x" * 5000),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_ends_with_6_and_names_the_file_and_what_it_needs(tmp_path, name):
    with pytest.raises(NoSpaceError) as caught, almost_full():
        WRITERS[name](tmp_path / name)
    assert exit_code(caught.value) == 6
    assert f"no space for {tmp_path / name} (File too large): " in format_error(caught.value)
    assert "MB or more are needed, " in format_error(caught.value)
    assert "MB are free on its disk; make room and run the same command again" in format_error(caught.value)
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


class SafetensorError(Exception):
    """As that of safetensors."""


WRAPPED = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    RuntimeError(
        "[enforce fail at inline_container.cc:858] . PytorchStreamWriter failed writing file data/0: file write"
    ),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    OSError("Can't write data (file write failed: errno = 28, error message = 'No space left on device')"),
    ValueError("sqlite3: database or disk is full"),
]


@pytest.mark.parametrize("error", WRAPPED, ids=lambda error: f"{type(error).__name__} {str(error)[:20]}")
def test_a_full_disk_is_recognised_in_the_words_of_every_library(tmp_path, error):
    assert exit_code(error) == 6
    assert "make room and run the same command again" in format_error(error)
    wrapped = RuntimeError("could not save")
    wrapped.__context__ = error
    assert exit_code(wrapped) == 6
    with pytest.raises(NoSpaceError, match=rf"no space for {tmp_path}/a\.pt"), write_atomically(tmp_path / "a.pt"):
        raise error
    assert list(tmp_path.iterdir()) == []


def _save_and_wrap(path: Path) -> None:
    """As MONAI's parser does with what a config raises."""
    try:
        with writing(path):
            raise OSError(errno.ENOSPC, "No space left on device")
    except NoSpaceError as error:
        raise RuntimeError("Failed to evaluate ConfigExpression") from error


def test_the_innermost_file_is_named_through_errors_that_wrap_it(tmp_path):
    with pytest.raises(RuntimeError, match="Failed to evaluate") as caught, writing(tmp_path / "log.txt"):
        _save_and_wrap(tmp_path / "model.pt")
    assert exit_code(caught.value) == 6
    assert f"no space for {tmp_path}/model.pt" in format_error(caught.value)


def test_an_error_that_is_not_about_a_disk_is_raised_as_it_is(tmp_path):
    with pytest.raises(ValueError, match="no rows"), write_atomically(tmp_path / "a"):
        raise ValueError("no rows")
    with pytest.raises(FileNotFoundError, match="b"), writing(tmp_path / "a"):
        raise FileNotFoundError(errno.ENOENT, "No such file", "b")


def test_full_shared_memory_is_not_called_a_full_disk():
    error = RuntimeError("unable to write to file </torch_77_1>: No space left on device (28)")
    assert exit_code(error) == 6
    assert "shared memory (/dev/shm) is full; lower num_workers" in format_error(error)


def test_a_read_only_mount_ends_with_4_and_names_the_file(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    with pytest.raises(
        PermissionError, match=rf"{tmp_path}/a\.json cannot be written \(Read-only file system\)"
    ) as caught:
        write_text(tmp_path / "a.json", "x")
    assert exit_code(caught.value) == 4
    assert exit_code(OSError(errno.EROFS, "Read-only file system", "output")) == 4, "where nothing named the file, too"


def test_a_folder_where_a_file_should_go_is_an_error_of_the_output_folder_and_named(tmp_path):
    (tmp_path / "a.json").mkdir()
    with pytest.raises(
        FileExistsError, match=r"a\.json is a folder, and a file of that name is to be written"
    ) as caught:
        write_text(tmp_path / "a.json", "x")
    assert exit_code(caught.value) == 4


def test_scores_of_validation_that_are_not_finite_are_a_numerical_error():
    labels = torch.tensor([[0.0], [1.0], [0.0]])
    with pytest.raises(FloatingPointError, match=r"2 of 3 scores of validation images are not finite") as caught:
        mean_auroc(torch.tensor([[float("nan")], [1.0], [float("inf")]]), labels)
    assert exit_code(caught.value) == 5


def test_embeddings_that_are_not_finite_are_a_numerical_error():
    class Blown(nn.Module):
        def forward(self, images):
            return images.mean((2, 3)) / (images.amax((2, 3)) > 0.5)

    images = np.zeros((3, 4, 4), np.uint8)
    images[:2] = 255
    with pytest.raises(FloatingPointError, match=r"for 1 of 3 images are not finite, the first is image 2") as caught:
        embed(Blown(), images, lambda pixels: pixels / 255)
    assert exit_code(caught.value) == 5


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full")
    write_nih_phantoms(folder / "phantoms", n_patients=40, size=64)
    copy_bundle(folder / "bundle", ["Cardiomegaly"], size=32, encoder="resnet10", width=0.125)
    own_files.make_encoder(folder / "bundle" / "models")
    return folder


TRAIN = [
    "-m",
    "monai.bundle",
    "run",
    "--config_file",
    "bundle/configs/train.json",
    "--bundle_root",
    "bundle",
    "--dataset_dir",
    "phantoms",
    "--pretrained",
    "False",
    "--label_fraction",
    "1.0",
    "--max_epochs",
    "1",
    "--batch_size",
    "8",
    "--num_workers",
    "0",
    "--n_bootstrap",
    "20",
]
STUDY = [
    "-m",
    "monai_simclr",
    "study",
    "bundle",
    "--dataset-dir",
    "phantoms",
    "-o",
    "study",
    "--fractions",
    "100",
    "--draws",
    "1",
    "--arms",
    "scratch",
    "--iterations",
    "2",
]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("command", "name"), [(TRAIN, "model.pt"), (STUDY, "model.pt")], ids=["train", "study"])
def test_a_disk_that_fills_up_ends_training_and_a_study_with_6(workspace, command, name):
    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))  # the store's pixels fit, the model does not

    done = subprocess.run(
        [sys.executable, *command], cwd=workspace, capture_output=True, text=True, preexec_fn=fill, timeout=800
    )
    assert done.returncode == 6, done.stderr
    assert f"{name} (File too large): " in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_training_that_blows_up_before_validation_ends_with_5(workspace):
    """A huge rate: the weights are finite after the only step, what they make of validation images is not."""
    command = [*TRAIN, "--learning_rate", "1e36", "--val_interval", "1", "--batch_size", "20", "--ckpt_path", "m.pt"]
    done = subprocess.run([sys.executable, *command], cwd=workspace, capture_output=True, text=True, timeout=800)
    assert done.returncode == 5, done.stderr
    assert "FloatingPointError: " in done.stderr.strip().splitlines()[-1]
    assert not (workspace / "m.pt").exists()
