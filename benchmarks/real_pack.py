"""Indexes of the real radiographs in `shared/cxr`: one without labels for pretraining, one a question with labels.

    python benchmarks/real_pack.py ../shared/cxr OUT

OUT/all holds NIH, NIH at 64 px, Kermany and Hannover without labels; OUT/kermany asks Pneumonia (against normal) and
Bacteria (against virus, among the pneumonias), OUT/kermany_types has its three classes for clustering; OUT/nih asks
Pneumonia against No Finding. A patient is in one split
everywhere, whatever the data set: 55 % train, 15 % val, 30 % test, by a hash of the patient's id, so that nothing was
chosen and no test patient is ever seen in pretraining.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from monai_simclr.data import check_index, write_index


def split_of(patient: str) -> str:
    """A split by a hash of the patient's id."""
    share = int(hashlib.sha256(f"split:{patient}".encode()).hexdigest()[:8], 16) / 16**8
    return "train" if share < 0.55 else "val" if share < 0.70 else "test"


def main(pack: Path, out: Path) -> None:
    """Write the indexes."""
    rows = pd.read_csv(pack / "manifest.csv", dtype=str, keep_default_na=False)
    rows = rows[rows["dataset"].isin(["nih", "nih64", "kermany", "hannover"])].reset_index(drop=True)
    index = pd.DataFrame(
        {
            "image": [str((pack / path).absolute()) for path in rows["path"]],
            "patient_id": rows["patient_id"],
            "study_id": "",
            "view_position": rows["view"],
            "sex": rows["sex"],
            "age": rows["age"],
            "split": [split_of(patient) for patient in rows["patient_id"]],
            "source": rows["source"],
        }
    )
    write(index, out / "all")
    kermany = rows["dataset"] == "kermany"
    bacteria, virus = (rows["labels"].str.contains(kind) for kind in ("bacteria", "virus"))
    asked = index.assign(
        Pneumonia=(bacteria | virus).astype(float), Bacteria=np.where(bacteria | virus, bacteria.astype(float), np.nan)
    )
    write(asked[kermany], out / "kermany")
    types = index.assign(Bacterial=bacteria.astype(float), Viral=virus.astype(float))
    write(types[kermany], out / "kermany_types")
    pneumonia, healthy = (rows["labels"].str.contains(name) for name in ("Pneumonia", "No Finding"))
    asked = index.assign(Pneumonia=pneumonia.astype(float))
    write(asked[(rows["dataset"] == "nih") & (pneumonia | healthy)], out / "nih")


def write(index: pd.DataFrame, folder: Path) -> None:
    """Check and write an index, and say what is in it."""
    folder.mkdir(parents=True, exist_ok=True)
    checked = check_index(index)
    write_index(checked, folder / "index.csv")
    counts = checked.groupby("split").agg(images=("image", "size"), patients=("patient_id", "nunique"))
    print(folder.name, counts.to_dict("index"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
