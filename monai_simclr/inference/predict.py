"""Predictions from Python: the bundle's own inference config, with paths instead of a folder."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from monai.bundle import create_workflow

from monai_simclr.data.pseudonyms import hash_key, keyed_hash
from monai_simclr.inference.inputs import list_radiographs
from monai_simclr.runtime.exit_codes import root_cause
from monai_simclr.runtime.tables import unescaped_text


def predict(
    paths: str | Path | Iterable[str | Path], bundle: str | Path, output_dir: str | Path | None = None, **overrides: Any
) -> pd.DataFrame:
    """Calibrated probabilities, thresholds and decisions for radiographs, by a trained bundle.

    It runs ``configs/inference.json`` of the bundle, so that Python, command line and hospital get the same numbers.

    Args:
        paths: files, or one folder, which stands for every file in it.
        bundle: folder of the bundle, with ``models/model.pt`` and its card, which ``configs/train.json`` leaves.
        output_dir: folder for the tables; what is in there already is not predicted again; a temporary one when
            left out.
        overrides: of the config: ``num_workers=4``, ``outputs={"overlays": True}``.

    Returns:
        One row a path, in the order of `paths`, whatever else is in `output_dir`: columns as in ``predictions.csv``,
        with `path` as it was given. A path that is given twice has two rows; no paths have none. The files of a folder
        stand in the order of their paths, which are absolute.

    Raises:
        FileNotFoundError: if a path is empty or not there (says which), a folder has no files, or there is no trained
            classifier.
        ValueError: if one of several paths is a folder, a path is neither file nor folder, or the classifier was
            trained with another preprocessing.

    Example:
        predict(["a.dcm", "b.png"], "my_bundle")[["path", "Effusion", "Effusion decision", "flags"]]
    """
    config = Path(bundle) / "configs" / "inference.json"
    if not config.is_file():
        raise FileNotFoundError(f"{bundle} is no bundle: it has no configs/inference.json; see `monai-simclr bundle`")
    given: list[str | Path] = [paths] if isinstance(paths, (str, Path)) else list(paths)
    _check(given)
    folder = Path(given[0]).absolute() if len(given) == 1 and os.path.isdir(given[0]) else None
    if folder is not None:
        given = [record["image"] for record in list_radiographs(folder)]
    with tempfile.TemporaryDirectory() as temporary:
        settings: dict[str, Any] = {
            "bundle_root": str(Path(bundle).absolute()),
            "dataset_dir": str(folder) if folder else [str(Path(path).absolute()) for path in given],
            "output_dir": str(Path(output_dir or temporary).absolute()),
            "num_workers": 0,
            **{f"outputs#{name}": value for name, value in {"paths": True, **overrides.pop("outputs", {})}.items()},
            **overrides,
        }
        _run(config, settings)
        return _rows(Path(settings["output_dir"]), given)


def _check(paths: Sequence[str | Path]) -> None:
    """Raise unless every path is that of a file, or the only one that of a folder."""
    missing = [place for place, path in enumerate(paths) if str(path) == "" or not os.path.exists(path)]
    if missing:
        first, more = missing[0], f"; {len(missing)} of {len(paths)} are missing" if len(missing) > 1 else ""
        raise FileNotFoundError(f"there is no file {str(paths[first])!r} (paths[{first}]{more}); nothing was predicted")
    for place, path in enumerate(paths):
        if os.path.isdir(path) and len(paths) > 1:
            raise ValueError(f"paths[{place}] is a folder, {path}; pass a folder alone, or the paths of its files")
        if not os.path.isdir(path) and not os.path.isfile(path):
            raise ValueError(f"paths[{place}] is neither a file nor a folder: {path}")


def _run(config: Path, settings: dict[str, Any]) -> None:
    """Run the bundle's inference; MONAI wraps every error in a `RuntimeError`, and the error itself comes out."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="parsing config_file")
            workflow = create_workflow(config_file=str(config), workflow_type="infer", logging_file=False, **settings)
            workflow.run()
            workflow.finalize()
    except RuntimeError as error:
        if root_cause(error) is error:
            raise
        raise root_cause(error) from error


def _rows(output_dir: Path, given: Sequence[str | Path]) -> pd.DataFrame:
    """The rows of the given paths in their order, found by the hash of the path."""
    path = output_dir / "predictions.csv"
    words = ("path", "view_position", "flags", "reason")
    text = {name: str for name in map(str, pd.read_csv(path, nrows=0)) if name.endswith("_hash") or name in words}
    table = unescaped_text(pd.read_csv(path, dtype=text).fillna(dict.fromkeys(text, "")))
    key = hash_key(output_dir)
    hashes = [keyed_hash(key, str(Path(one).absolute())) for one in given]
    place = {name: row for row, name in enumerate(table["file_hash"])}
    found = table.iloc[[place[name] for name in hashes]].reset_index(drop=True)
    if "path" not in found:  # a table without rows has no such column
        found.insert(list(found).index("view_position"), "path", "")
    return found.assign(path=[str(one) for one in given])
