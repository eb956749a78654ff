"""What clusters follow instead of findings (view position, sex, age, source), and what they say of each finding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import adjusted_mutual_info_score

from monai_simclr.evaluation.predictions import certain_labels
from monai_simclr.evaluation.scores import score_findings

_ACQUISITION = ("view_position", "sex", "age_decile", "source", "manufacturer")
_NOTHING = 0.01
"""An AMI below this is called nothing: chance is 0, and the adjustment leaves about this much scatter."""


@dataclass(frozen=True)
class Alignment:
    """What the clusters follow.

    Attributes:
        table: `what, kind ("acquisition", "finding" or "patient"), ami, n`, the highest AMI first.
        sentence: the same in plain English.
    """

    table: pd.DataFrame
    sentence: str


def align_clusters(clusters: np.ndarray, index: pd.DataFrame, findings: Sequence[str]) -> Alignment:
    """Adjusted mutual information of the same clusters with how, of whom and where an image was taken, and findings.

    Args:
        clusters: of the test images, shape ``(N,)``.
        index: the rows of the same images; of `view_position, sex, age, source, manufacturer` those that are there are
            used, age in deciles of ten years (0-9, 10-19, ...). Rows where a column is empty or NaN are left out of it.
        findings: columns of the index.

    Raises:
        ValueError: if the lengths differ, or the index has neither of these columns.

    Example:
        >>> index = pd.DataFrame({"view_position": ["PA", "AP"] * 10, "Mass": [0.0, 0.0, 1.0, 1.0] * 5})
        >>> align_clusters(np.array([0, 1] * 10), index, ["Mass"]).sentence
        'these clusters follow view_position, AMI 1.00, more than any finding, at most 0.00 (Mass)'
    """
    if len(clusters) != len(index):
        raise ValueError(f"{len(clusters)} clusters do not go with {len(index)} index rows")
    columns = _columns(index, findings)
    rows = [_align(np.asarray(clusters), values, what, kind) for what, kind, values in columns]
    rows = [row for row in rows if np.isfinite(row["ami"])]
    if not rows:
        raise ValueError(
            f"the index has no column to align with; needed is one of {[*_ACQUISITION[:2], 'age', *findings]}"
        )
    table = pd.DataFrame(rows).sort_values("ami", ascending=False, kind="stable", ignore_index=True)
    return Alignment(table, _sentence(table))


def prevalence_auroc(
    clusters: np.ndarray, index: pd.DataFrame, findings: Sequence[str], n_bootstrap: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """For archives with many labels an image: score each test image with its cluster's training prevalence.

    Chance is 0.5. More clusters score higher by their number alone: compare at the same k.

    Args:
        clusters: of every row of the index, shape ``(N,)``.
        index: with `patient_id`, `split` and the findings.
        findings: columns of the index.
        n_bootstrap: resamples of test patients.
        seed: of the resampling.

    Returns:
        The table of `score_findings`. A cluster without a known training label scores the prevalence of all.

    Raises:
        ValueError: if there are no train or no test rows.
    """
    train, test = (index["split"] == "train").to_numpy(), (index["split"] == "test").to_numpy()
    if not train.any() or not test.any():
        raise ValueError(f"the index has {train.sum()} train and {test.sum()} test rows; the evaluation needs both")
    labels = certain_labels(index[list(findings)].to_numpy(dtype=float))
    known = np.isfinite(labels)
    scores = np.zeros((int(test.sum()), len(findings)))
    for k in range(len(findings)):
        rows = train & known[:, k]
        images = np.bincount(clusters[rows], minlength=clusters.max() + 1)
        positives = np.bincount(clusters[rows], weights=labels[rows, k], minlength=clusters.max() + 1)
        overall = positives.sum() / max(images.sum(), 1)
        prevalence = np.divide(positives, images, out=np.full(len(images), overall), where=images > 0)
        scores[:, k] = prevalence[clusters[test]]
    patients = index["patient_id"].to_numpy()[test]
    return score_findings(labels[test], scores, patients, findings, n_bootstrap, seed)


def _columns(index: pd.DataFrame, findings: Sequence[str]) -> list[tuple[str, str, np.ndarray]]:
    """Name, kind and values as text ("" unknown) of everything to align with."""
    table = index.copy()
    for name in (name for name in findings if name in table):
        table[name] = certain_labels(table[name].to_numpy(dtype=float))
    if "age" in table:
        decade = np.floor(table["age"].astype(float) / 10)
        table["age_decile"] = [f"{int(value) * 10}" if np.isfinite(value) else "" for value in decade]
    there = [(name, "acquisition") for name in _ACQUISITION if name in table]
    wanted = [*there, ("patient_id", "patient"), *((name, "finding") for name in findings)]
    wanted = [(name, kind) for name, kind in wanted if name in table]
    return [(name, kind, table[name].astype(object).fillna("").astype(str).to_numpy()) for name, kind in wanted]


def _align(clusters: np.ndarray, values: np.ndarray, what: str, kind: str) -> dict:
    known = values != ""
    several = len(np.unique(values[known])) > 1  # one value only tells nothing: no AMI rather than 0 or 1
    ami = float(adjusted_mutual_info_score(values[known], clusters[known])) if several else float("nan")
    return {"what": what, "kind": kind, "ami": ami, "n": int(known.sum())}


def _sentence(table: pd.DataFrame) -> str:
    table = table[table["kind"] != "patient"]  # images of one patient are alike, whatever the clusters follow
    first = table.iloc[0]
    rest = table[table["kind"] != first["kind"]]
    if first["ami"] < _NOTHING:
        most = f"AMI at most {max(first['ami'], 0):.2f} ({first['what']})"
        return f"these clusters follow nothing that the index names: {most}"
    other = "finding" if first["kind"] == "acquisition" else "fact of the acquisition"
    start = f"these clusters follow {first['what']}, AMI {first['ami']:.2f}"
    if rest.empty:
        return f"{start}; there was no {other} to compare with"
    second = rest.iloc[0]
    return f"{start}, more than any {other}, at most {max(second['ami'], 0):.2f} ({second['what']})"
