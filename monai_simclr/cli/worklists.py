"""Lists that a person works through, from a file of embeddings: what to label next, and similar images."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from monai_simclr.data.index import finding_columns
from monai_simclr.evaluation import Embeddings, select_images, similar_images
from monai_simclr.runtime.artefacts import reading
from monai_simclr.runtime.names import shown
from monai_simclr.runtime.tables import read_table, write_table


def write_worklist(
    embeddings: str | Path, budget: int, output: str | Path, labelled: str | Path | None = None, seed: int = 0
) -> Path:
    """Write the images to label next as CSV, most useful first.

    Args:
        embeddings: file of embeddings.
        budget: number of images to label.
        output: the CSV.
        labelled: CSV with a column ``image``: images that have labels already; None for none.
        seed: of the selection.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if the budget is more than there are patients, or the CSV has no column ``image``, or lists none of
            the embedded images.
    """
    archive, path = Embeddings.load(embeddings), Path(labelled) if labelled is not None else None
    known = None
    if path is not None:
        if not path.is_file():
            raise FileNotFoundError(f"no list of labelled images at {shown(path)}")
        with reading(path, "a table of labelled images", "write it as CSV in UTF-8 with a column image"):
            table = read_table(path)
        if "image" not in table:
            raise ValueError(f"{shown(path)} has no column image; it has {list(table.columns)}")
        known = archive.index["image"].map(_file_name).isin(set(table["image"].map(_file_name))).to_numpy()
        if len(table) and not known.any():
            raise ValueError(
                f"{shown(path)}: none of its {len(table)} images is among the {len(known)} embedded ones (the first is "
                f"{shown(table['image'].iloc[0])}); images are compared by their file names"
            )
    return write_table(select_images(archive, budget, seed, known).drop(columns="patient_id"), output)


def list_similar(embeddings: str | Path, image: str, n: int = 10) -> list[dict[str, Any]]:
    """The studies most similar to an image: similarity, image, view position, sex, age, source, findings.

    Raises:
        ValueError: if no image, or more than one, has that name.
    """
    archive = Embeddings.load(embeddings)
    table = similar_images(archive, find_row(archive, image), n)
    findings = finding_columns(archive.index)
    return [
        {
            "similarity": row["similarity"],
            "image": shown(Path(row["image"]).name),
            **{name: row[name] for name in ("view_position", "sex", "age", "source") if name in table},
            "findings": ", ".join(name for name in findings if row[name] == 1) or "-",
        }
        for row in table.to_dict("records")
    ]


def find_row(embeddings: Embeddings, image: str) -> int:
    """Position of an image by its path, or by its file name where that is unique.

    Example:
        >>> import pandas as pd
        >>> index = pd.DataFrame({"image": ["a/1.png", "b/2.png"], "patient_id": ["p", "q"]})
        >>> find_row(Embeddings(np.eye(2), index), "2.png")
        1
    """
    names = embeddings.index["image"].astype(str)
    rows = np.flatnonzero(names == image)
    if not len(rows):
        rows = np.flatnonzero(names.map(lambda name: Path(name).name) == Path(image).name)
    if len(rows) != 1:
        raise ValueError(
            f"{len(rows)} of the {len(names)} embedded images are called {shown(image)!r}; pass the path of one of "
            f"them, such as {shown(names.iloc[0])!r}"
        )
    return int(rows[0])


def _file_name(name: object) -> str:
    return PureWindowsPath(str(name).strip()).name
