"""Predictions from Python: the bundle's own inference config, with paths instead of a folder."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from monai.bundle import create_workflow

from monai_simclr.tables import unescaped_text

__all__ = ["predict"]


def predict(
    paths: str | Path | Sequence[str | Path], bundle: str | Path, output_dir: str | Path | None = None, **overrides: Any
) -> pd.DataFrame:
    """Calibrated probabilities, thresholds and decisions for radiographs, by a trained bundle.

    It runs ``configs/inference.json`` of the bundle, so that Python, command line and hospital get the same numbers.

    Args:
        paths: files, or a folder.
        bundle: folder of the bundle, with ``models/model.pt`` and its card, which ``configs/train.json`` leaves.
        output_dir: folder for the tables; what is in there already is not predicted again; a temporary one when
            left out.
        overrides: of the config: ``num_workers=4``, ``keep={"overlays": True}``.

    Returns:
        One row a file, in the order of `paths`: columns as in ``predictions.csv``, and `path`.

    Raises:
        FileNotFoundError: without a trained classifier, or without files.
        ValueError: if the classifier was trained with another preprocessing.

    Example:
        predict(["a.dcm", "b.png"], "my_bundle")[["path", "Effusion", "Effusion decision", "flags"]]
    """
    if output_dir is None:
        with tempfile.TemporaryDirectory() as folder:
            return predict(paths, bundle, folder, **overrides)
    config = Path(bundle) / "configs" / "inference.json"
    if not config.is_file():
        raise FileNotFoundError(f"{bundle} is no bundle: it has no configs/inference.json; see `monai-simclr bundle`")
    files = str(paths) if isinstance(paths, (str, Path)) else [str(Path(path).absolute()) for path in paths]
    settings: dict[str, Any] = {
        "bundle_root": str(Path(bundle).absolute()),
        "dataset_dir": files,
        "output_dir": str(output_dir),
        "num_workers": 0,
        **{f"keep#{name}": value for name, value in {"paths": True, **overrides.pop("keep", {})}.items()},
        **overrides,
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="parsing config_file")
        workflow = create_workflow(config_file=str(config), workflow_type="infer", logging_file=False, **settings)
        workflow.run()
        workflow.finalize()
    path = Path(output_dir) / "predictions.csv"
    words = ("path", "view_position", "flags", "reason")
    text = {name: str for name in map(str, pd.read_csv(path, nrows=0)) if name.endswith("_hash") or name in words}
    return unescaped_text(pd.read_csv(path, dtype=text).fillna(dict.fromkeys(text, "")))
