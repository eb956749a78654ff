"""The floor that a reviewer asks for: 32 x 32 pixels, PCA and logistic regression, on the splits of `real_pack.py`.

python benchmarks/real_floor.py OUT/kermany OUT/nih
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from monai_simclr.data import findings_of, open_index, read_radiograph
from monai_simclr.evaluation import auroc_with_interval
from monai_simclr.fitting import fit


def main(folders: list[str]) -> None:
    """Print the AUROC of every finding on test patients, fitted on all train patients."""
    for folder in folders:
        index = open_index(folder)
        pixels = np.stack([fit(read_radiograph(path)[0], 32).ravel() for path in index["image"]])
        train, test = ((index["split"] == name).to_numpy() for name in ("train", "test"))
        for finding in findings_of(index):
            labels = index[finding].to_numpy(dtype=float)
            known = np.isfinite(labels)
            model = make_pipeline(StandardScaler(), PCA(50, random_state=0), LogisticRegression(C=0.1, max_iter=2000))
            model.fit(pixels[train & known], labels[train & known])
            scored = test & known
            scores = model.decision_function(pixels[scored])
            patients = index["patient_id"].to_numpy(dtype=str)[scored]
            print(Path(folder).name, finding, int(scored.sum()), auroc_with_interval(labels[scored], scores, patients))


if __name__ == "__main__":
    main(sys.argv[1:])
