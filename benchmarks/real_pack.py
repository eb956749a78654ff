"""Indexes of the real radiographs in `shared`: one without labels for pretraining, one per question with labels.

    python benchmarks/real_pack.py ../shared OUT

- OUT/pretraining: every film of every pack once (an NIH film that several packs hold is taken by its name from the
  first of nih128, nih224, cxr, unlabelled, the 64 px parts last), no labels. Pretraining uses all splits but `test`.
- OUT/nih128: the 128 px part of nih128, fourteen findings, each against all other films.
- OUT/nih128_normal: the same films, each finding against the films without any finding; others unknown (NaN).
- OUT/nih224: the second look, 1,299 films at 224 px from one source, each finding against No Finding.
- OUT/kermany, OUT/kermany_types, OUT/nih: the questions of the first studies (docs/results.md).
- OUT/all: the archive of the first tries: NIH, NIH at 64 px, Kermany and Hannover of `cxr`.

A patient is in one split in every pack: 55 % train, 15 % val, 30 % test, by a hash of the patient's id, so that nothing
was chosen and no patient known to be a test patient is seen in pretraining. Films without a patient's id (7,647 of
rsna_normal) get one each and are train; some of them may be other films of test patients.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from monai_simclr.data import check_index, write_index
from monai_simclr.data.findings import NIH14

MAIN_FINDINGS = ("Effusion", "Cardiomegaly", "Atelectasis", "Infiltration", "Mass", "Pneumothorax")
"""The findings whose macro mean is the primary endpoint."""


def split_of(patient: str) -> str:
    """A split by a hash of the patient's id."""
    share = int(hashlib.sha256(f"split:{patient}".encode()).hexdigest()[:8], 16) / 16**8
    return "train" if share < 0.55 else "val" if share < 0.70 else "test"


def read_pack(folder: Path) -> pd.DataFrame:
    """The manifest of a pack as index columns, with `dataset`, `name` (the film's, within its archive) and `labels`."""
    rows = pd.read_csv(folder / "manifest.csv", dtype=str, keep_default_na=False)
    path = rows["path"] if "path" in rows else rows["file"]
    name = rows["name"] if "name" in rows else path.str.split("/").str[-1]
    known = rows["patient_id"] != ""
    return pd.DataFrame(
        {
            "image": [str((folder / part).absolute()) for part in path],
            "patient_id": rows["patient_id"].where(known, path.str.split("/").str[-1]),
            "study_id": "",
            "view_position": rows["view"],
            "sex": rows["sex"],
            "age": rows["age"],
            "split": [split_of(patient) if patient else "train" for patient in rows["patient_id"]],
            "source": rows["source"],
            "dataset": rows["dataset"],
            "folder": path.str.split("/").str[0],
            "name": name,
            "labels": rows["labels"],
        }
    )


def with_findings(rows: pd.DataFrame, against_normal: bool) -> pd.DataFrame:
    """The index with the fourteen NIH findings as 1 and 0; against normal films, other films are unknown."""
    labels = [set(text.split("|")) for text in rows["labels"]]
    index = plain(rows)
    for finding in NIH14:
        values = np.array([float(finding in names) for names in labels])
        if against_normal:
            values = np.where([finding in names or "No Finding" in names for names in labels], values, np.nan)
        index[finding] = values
    return index


def plain(rows: pd.DataFrame) -> pd.DataFrame:
    """The columns of an image index."""
    return rows.drop(columns=["dataset", "folder", "name", "labels"]).reset_index(drop=True)


def pretraining(packs: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Every film of every pack once, without labels."""
    cxr, nih128 = packs["cxr"], packs["nih128"]
    large = nih128["folder"] == "128px"
    parts = [
        nih128[large],
        packs["nih224"],
        cxr[cxr["dataset"].isin(["nih", "kermany", "hannover"])],
        packs["unlabelled"],
        nih128[~large],
        cxr[cxr["dataset"] == "nih64"],
    ]
    films = pd.concat(parts, ignore_index=True)
    archive = films["dataset"].replace({"nih64": "nih", "rsna_normal": "nih"})
    return plain(films[~(archive + " " + films["name"]).duplicated()])


def main(shared: Path, out: Path) -> None:
    """Write the indexes."""
    packs = {name: read_pack(shared / name) for name in ("cxr", "nih128", "nih224", "unlabelled")}
    write(pretraining(packs), out / "pretraining")
    films = packs["nih128"][packs["nih128"]["folder"] == "128px"]
    write(with_findings(films, against_normal=False), out / "nih128")
    write(with_findings(films, against_normal=True), out / "nih128_normal")
    write(with_findings(packs["nih224"], against_normal=True), out / "nih224")
    first_studies(packs["cxr"], out)


def first_studies(rows: pd.DataFrame, out: Path) -> None:
    """The archive and the questions of the first studies."""
    rows = rows[rows["dataset"].isin(["nih", "nih64", "kermany", "hannover"])].reset_index(drop=True)
    index = plain(rows)
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
    """Check and write an index, and print what is in it."""
    folder.mkdir(parents=True, exist_ok=True)
    checked = check_index(index)
    write_index(checked, folder / "index.csv")
    counts = checked.groupby("split").agg(images=("image", "size"), patients=("patient_id", "nunique"))
    print(folder.name, counts.to_dict("index"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
