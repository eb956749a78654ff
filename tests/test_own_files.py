"""Damage to any of our files ends in what was written, or in a sentence with the file's name and exit code 3."""

from __future__ import annotations

import logging
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import own_files
import pytest
from own_files import KINDS, Damage, Kind

from monai_simclr.runtime.exit_codes import exit_code, format_error


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Hundreds of warnings of what is made again."""
    caplog.set_level(logging.ERROR, logger="monai_simclr")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path, Any]]:
    """Of every kind: a folder, the file in it, and what is read from it."""
    found = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp("sound") / "folder"
        folder.mkdir()
        path = kind.make(folder)
        found[kind.name] = (folder, path.relative_to(folder), kind.read(folder))
    return found


def _problem(kind: Kind, folder: Path, path: Path, damage: Damage, whole: Any) -> str:
    """What is wrong with how the damage ended; "" when it ended as it should."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = kind.read(folder)
    except Exception as error:
        said = format_error(error)
        if damage.sealed and "holds another run" in said:  # another identity, in a checkpoint that is whole
            return ""
        if exit_code(error) != 3:
            return f"exit code {exit_code(error)}: {said}"
        if path.name not in said:
            return f"the file is not named: {said}"
        if "weights_only" in said or "pickle" in said or "\n" in said:
            return f"a foreign sentence: {said}"
        return ""
    if kind.made_again:
        return "" if all(row in whole for row in found) else f"gave rows that were never written: {found}"
    if kind.checked and not damage.sealed and found != whole:
        return "gave other values than were written"
    return ""


def _fuzz(sound: dict[str, tuple[Path, Path, Any]], kind: Kind, tmp_path: Path, seed: int, n: int) -> list[str]:
    folder, name, whole = sound[kind.name]
    others = {other: (place / file).read_bytes() for other, (place, file, _) in sound.items() if other != kind.name}
    others = dict(list(others.items())[:: max(1, 60 // n)])
    rng, problems, done = np.random.default_rng(seed), [], 0
    for damage in own_files.damages(kind.name, (folder / name).read_bytes(), others, rng, n):
        here = tmp_path / "here"
        shutil.copytree(folder, here)
        path = own_files.put(here / name, damage)
        problem = _problem(kind, here, path, damage, whole)
        problems += [f"{damage.what}: {problem}"] if problem else []
        shutil.rmtree(here)
        done += 1
    assert done >= n
    (tmp_path / "problems.txt").write_text("\n".join(problems))
    return problems


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_a_damaged_file_gives_what_was_written_or_a_sentence_that_names_it(
    sound: dict[str, tuple[Path, Path, Any]], kind: Kind, tmp_path: Path
) -> None:
    assert _fuzz(sound, kind, tmp_path, 0, 4) == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_a_thousand_damaged_files_give_what_was_written_or_a_sentence_that_names_them(
    sound: dict[str, tuple[Path, Path, Any]], kind: Kind, tmp_path: Path
) -> None:
    assert _fuzz(sound, kind, tmp_path, 1, 40) == []
