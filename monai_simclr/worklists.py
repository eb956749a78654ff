"""From a file of embeddings to lists that a person works through: what to label next, what is alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from monai_simclr.artefacts import reading
from monai_simclr.embeddings import Embeddings
from monai_simclr.evaluation import select_images, similar_images
from monai_simclr.files import write_atomically
from monai_simclr.results import print_table

__all__ = ["list_similar", "row_of", "write_worklist"]


def write_worklist(
    embeddings: str | Path, budget: int, output: str | Path, labelled: str | Path | None = None, seed: int = 0
) -> Path:
    """Write the images to label next as CSV, most needed first.

    Args:
        embeddings: file of embeddings.
        budget: images to label.
        output: the CSV.
        labelled: CSV with a column ``image``: what has labels already; None for nothing.
        seed: of the choice.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if the budget is more than there are patients, or the CSV has no column ``image``.
    """
    found = Embeddings.load(embeddings)
    done = None if labelled is None else _labelled(found, Path(labelled))
    table = select_images(found, budget, seed, done)
    with write_atomically(output) as part:
        table.drop(columns="patient_id").to_csv(part, index=False)
    return Path(output)


def list_similar(embeddings: str | Path, image: str, n: int = 10) -> pd.DataFrame:
    """Print the studies most like one image: similarity, image, view position, sex, age, findings.

    Raises:
        ValueError: if no image, or more than one, has that name.
    """
    found = Embeddings.load(embeddings)
    table = similar_images(found, row_of(found, image), n)
    kept = [name for name in ("view_position", "sex", "age", "source") if name in table]
    names = [name for name in table.columns if table[name].dtype == float and name not in ("similarity", "age")]
    rows = [
        {
            "similarity": row["similarity"], "image": Path(row["image"]).name, **{name: row[name] for name in kept},
            "findings": ", ".join(name for name in names if row[name] == 1) or "-",
        }
        for row in table.to_dict("records")
    ]  # fmt: skip
    print_table(rows, title=f"most like {Path(image).name}")
    return table


def row_of(embeddings: Embeddings, image: str) -> int:
    """Position of an image by its path, or by its file name where that is unique.

    Example:
        >>> index = pd.DataFrame({"image": ["a/1.png", "b/2.png"], "patient_id": ["p", "q"]})
        >>> row_of(Embeddings(np.eye(2), index), "2.png")
        1
    """
    names = embeddings.index["image"].astype(str)
    rows = np.flatnonzero(names == image)
    if not len(rows):
        rows = np.flatnonzero(names.map(lambda name: Path(name).name) == Path(image).name)
    if len(rows) != 1:
        raise ValueError(
            f"{len(rows)} of the {len(names)} embedded images are called {image!r}; give the path of one of them, such "
            f"as {names.iloc[0]!r}"
        )
    return int(rows[0])


def _labelled(embeddings: Embeddings, path: Path) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"no list of labelled images at {path}")
    with reading(path, "a table of labelled images", "write it as CSV in UTF-8 with a column image"):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if "image" not in table:
        raise ValueError(f"{path} has no column image; it has {list(table.columns)}")
    done = set(table["image"].map(lambda name: Path(name).name))
    return embeddings.index["image"].astype(str).map(lambda name: Path(name).name).isin(done).to_numpy()
