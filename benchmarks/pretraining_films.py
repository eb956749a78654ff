"""What the 16,260 films of pretraining are, and whether one without a patient's name is a copy of a test film.

    python benchmarks/pretraining_films.py ../shared [RESULT.json]

7,647 films of rsna_normal have no patient's name. RSNA took its films from NIH ChestX-ray14, and nih128 has the films
of its patients: an unnamed film of a test patient would be a copy of one of them. Two measures tell copies: in how many
of 256 bits two films differ (dHash: shrunk to 16 x 17 pixels, is each brighter than the one to its left), and the
correlation of their pixels (shrunk to 48 x 48, without a border of 6). How alike copies are is known from the films of
rsna_normal that have a name, each against the films of its patient in nih128. Ten seconds of one core.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from real_pack import pretraining, read_pack
from record import RESULTS, save

PACKS = ("cxr", "nih128", "nih224", "unlabelled")


def features(paths: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """dHash ``(N, 256)`` of 0 and 1, and standardized pixels ``(N, 1296)`` of length 1; float32."""
    bits, pixels = [], []
    for path in paths:
        film = cv2.imread(path, cv2.IMREAD_GRAYSCALE)
        small = cv2.resize(film, (17, 16), interpolation=cv2.INTER_AREA)
        bits.append((small[:, 1:] > small[:, :-1]).ravel())
        inner = cv2.resize(film, (48, 48), interpolation=cv2.INTER_AREA)[6:-6, 6:-6].astype(np.float32).ravel()
        pixels.append((inner - inner.mean()) / (inner.std() * np.sqrt(inner.size)))
    return np.array(bits, dtype=np.float32), np.array(pixels)


def compare(films: pd.Series, others: pd.Series, comparable: np.ndarray | None = None) -> dict[str, float]:
    """How alike a film and the one most like it are: the range of differing bits, and of correlations.

    `comparable`, bool ``(N, M)``, says which of the others each film is compared with.
    """
    (one, own), (other, foreign) = features(films), features(others)
    apart, alike = one.sum(axis=1)[:, None] + other.sum(axis=1) - 2 * one @ other.T, own @ foreign.T
    if comparable is not None:
        apart, alike = np.where(comparable, apart, np.inf), np.where(comparable, alike, -np.inf)
    nearest, highest = apart.min(axis=1), alike.max(axis=1)
    return {
        "films": len(films),
        "fewest_bits": float(nearest.min()),
        "most_bits": float(nearest.max()),
        "lowest_correlation": float(highest.min()),
        "highest_correlation": float(highest.max()),
    }


def main(shared: Path, path: Path) -> None:
    """Count and compare the films, and store what was found."""
    packs = {name: read_pack(shared / name) for name in PACKS}
    every = pd.concat(packs.values(), ignore_index=True)
    every["unnamed"] = every["patient_id"] == every["image"].map(lambda image: Path(image).name)
    seen = pretraining(packs)
    seen = every[every["image"].isin(seen.loc[seen["split"] != "test", "image"])]

    labelled = packs["nih128"][packs["nih128"]["folder"] == "128px"]
    test = labelled[labelled["split"] == "test"]
    named = every[(every["dataset"] == "rsna_normal") & every["patient_id"].isin(labelled["patient_id"])]
    same_patient = named["patient_id"].to_numpy()[:, None] == labelled["patient_id"].to_numpy()

    publisher = pd.read_csv(shared / "nih_metadata" / "Data_Entry_2017_v2020.csv.gz")
    publisher["patient_id"] = "NIH-" + publisher["Patient ID"].astype(str).str.zfill(5)
    manifest = pd.read_csv(shared / "nih128" / "manifest.csv", dtype=str).drop_duplicates("patient_id")
    save(
        path,
        ("numpy", "opencv-python-headless"),
        pretraining={"films": len(seen), "unnamed": int(seen["unnamed"].sum()), **counts(seen["dataset"])},
        test={
            "patients": test["patient_id"].nunique(),
            "films": len(test),
            "films of these patients in NIH's table": int(publisher["patient_id"].isin(test["patient_id"]).sum()),
            "patients by NIH's list": counts(
                manifest.loc[manifest["patient_id"].isin(test["patient_id"]), "official_split"]
            ),
        },
        test_films_and_the_most_alike_unnamed_film=compare(test["image"], seen.loc[seen["unnamed"], "image"]),
        known_copies=compare(named["image"], labelled["image"], same_patient),
    )


def counts(values: pd.Series) -> dict[str, int]:
    """How often each value occurs, the commonest first."""
    return {str(value): int(number) for value, number in values.value_counts().items()}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else RESULTS / "pretraining_films.json")
