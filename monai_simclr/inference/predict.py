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
from monai_simclr.inference.dataset import list_radiographs
from monai_simclr.runtime.exit_codes import root_cause
from monai_simclr.runtime.tables import unescaped_text


def predict(
    paths: str | Path | Iterable[str | Path], bundle: str | Path, output_dir: str | Path | None = None, **overrides: Any
) -> pd.DataFrame:
    """Predict radiographs with a trained bundle: calibrated probabilities, thresholds and decisions.

    It runs ``configs/inference.json`` of the bundle, so that Python, command line and hospital get the same numbers.

    Args:
        paths: files, or one folder, which stands for every file in it.
        bundle: folder of the bundle, with the ``models/model.pt`` and ``models/classifier.json`` that
            ``configs/train.json`` writes.
        output_dir: folder for the tables; files that already have a row there are not predicted again; a temporary
            folder if left out.
        overrides: of the config: ``num_workers=4``, ``runtime="onnx"``, ``outputs={"overlays": True}``.

    Returns:
        One row per path, in the order of `paths`, whatever else is in `output_dir`: columns as in ``predictions.csv``,
        with `path` as it was passed. A path that is passed twice has two rows; no paths give no rows. The files of a
        folder are in the order of their paths, which are absolute.

    Raises:
        FileNotFoundError: if a path is empty or does not exist (says which), a folder has no files, or there is no
            trained classifier.
        ValueError: if one of several paths is a folder, a path is neither file nor folder, or the classifier was
            trained with another preprocessing.

    Example:
        predict(["a.dcm", "b.png"], "my_bundle")[["path", "Effusion", "Effusion decision", "flags"]]
    """
    config = Path(bundle) / "configs" / "inference.json"
    if not config.is_file():
        raise FileNotFoundError(
            f"{bundle} is not a bundle: it has no configs/inference.json; see `monai-simclr bundle`"
        )
    files: list[str | Path] = [paths] if isinstance(paths, (str, Path)) else list(paths)
    _check_paths(files)
    folder = Path(files[0]).absolute() if len(files) == 1 and os.path.isdir(files[0]) else None
    if folder is not None:
        files = [record["image"] for record in list_radiographs(folder)]
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        settings: dict[str, Any] = {
            "bundle_root": str(Path(bundle).absolute()),
            "dataset_dir": str(folder) if folder else [str(Path(path).absolute()) for path in files],
            "output_dir": str(Path(output_dir or temporary).absolute()),
            "num_workers": 0,
            **{f"outputs#{name}": value for name, value in {"paths": True, **overrides.pop("outputs", {})}.items()},
            **overrides,
        }
        warnings.filterwarnings("ignore", message="parsing config_file")
        try:
            workflow = create_workflow(config_file=str(config), workflow_type="infer", logging_file=False, **settings)
            workflow.run()
            workflow.finalize()
        except RuntimeError as error:  # MONAI wraps every error in one
            if root_cause(error) is error:
                raise
            raise root_cause(error) from error
        return _rows(Path(settings["output_dir"]), files)


def _check_paths(paths: Sequence[str | Path]) -> None:
    """Raise unless every path is that of a file, or the only one that of a folder."""
    missing = [n for n, path in enumerate(paths) if str(path) == "" or not os.path.exists(path)]
    if missing:
        first, more = missing[0], f"; {len(missing)} of {len(paths)} are missing" if len(missing) > 1 else ""
        raise FileNotFoundError(f"there is no file {str(paths[first])!r} (paths[{first}]{more}); nothing was predicted")
    for n, path in enumerate(paths):
        if os.path.isdir(path) and len(paths) > 1:
            raise ValueError(f"paths[{n}] is a folder, {path}; pass a folder alone, or the paths of its files")
        if not os.path.isdir(path) and not os.path.isfile(path):
            raise ValueError(f"paths[{n}] is neither a file nor a folder: {path}")


def _rows(output_dir: Path, paths: Sequence[str | Path]) -> pd.DataFrame:
    """The rows of some paths in their order, found by the hash of the path."""
    file, key = output_dir / "predictions.csv", hash_key(output_dir)
    words = ("path", "view_position", "flags", "reason")
    text = {name: str for name in map(str, pd.read_csv(file, nrows=0)) if name.endswith("_hash") or name in words}
    table = unescaped_text(pd.read_csv(file, dtype=text).fillna(dict.fromkeys(text, "")))
    place = {name: row for row, name in enumerate(table["file_hash"])}
    rows = table.iloc[[place[keyed_hash(key, str(Path(path).absolute()))] for path in paths]].reset_index(drop=True)
    if "path" not in rows:  # a table without rows has no such column
        rows.insert(list(rows).index("view_position"), "path", "")
    return rows.assign(path=[str(path) for path in paths])
