"""What tests of stores share: many small files."""

from __future__ import annotations

import cv2
import numpy as np
import pandas as pd
import pytest

from monai_simclr.data import write_index
from monai_simclr.data.phantoms import draw_phantom


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory):
    """20,000 files of 300 pictures: each has its own bytes, so that no two are mistaken for each other."""
    folder = tmp_path_factory.mktemp("many")
    pictures = [np.rint(draw_phantom(1 + n, 0, 64).pixels * 255).astype(np.uint8) for n in range(300)]
    rows = []
    for number in range(20_000):
        picture = pictures[number % 300].copy()
        picture[0, :3] = [number % 256, number // 256 % 256, 99]
        path = folder / f"{number:05d}.png"
        cv2.imwrite(str(path), picture)
        rows.append({"image": str(path), "patient_id": str(number)})
    columns = ["study_id", "view_position", "sex", "age", "split"]
    index = pd.DataFrame(rows).assign(**dict.fromkeys(columns, ""))
    write_index(index, folder / "index.csv")
    write_index(index.iloc[:2000], folder / "few.csv")
    return folder
