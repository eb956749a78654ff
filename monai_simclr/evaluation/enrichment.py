"""Which clusters hold more of a finding than chance puts there, with a bound on false discoveries."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, hypergeom

from monai_simclr.evaluation.predictions import certain_labels


def enrich(clusters: np.ndarray, index: pd.DataFrame, findings: Sequence[str]) -> pd.DataFrame:
    """Lift of every finding in every cluster, with Fisher's exact test over patients and Benjamini-Hochberg q-values.

    A patient counts once a cluster: he is in every cluster that one of his images is in, and has every finding that one
    of his images has. (Images of one patient are no independent tests.)

    Args:
        clusters: of the test images, shape ``(N,)``.
        index: the rows of the same images, with `patient_id` and the findings.
        findings: columns of the index; images with an unknown label are left out of that finding.

    Returns:
        One row a cluster and finding: `cluster, finding, patients, positives, share, overall, lift, p, q`, the lowest q
        first. `p` is one-sided (more than chance); `q` bounds the share of false ones among rows up to there.

    Raises:
        ValueError: if the lengths differ.

    Example:
        >>> index = pd.DataFrame({"patient_id": range(40), "Mass": [1.0] * 10 + [0.0] * 30})
        >>> enrich(np.repeat([0, 1], [10, 30]), index, ["Mass"])[["cluster", "lift"]].iloc[0].tolist()
        [0.0, 4.0]
    """
    if len(clusters) != len(index):
        raise ValueError(f"{len(clusters)} clusters do not go with {len(index)} index rows")
    table = pd.DataFrame({"patient": index["patient_id"].to_numpy(), "cluster": np.asarray(clusters)})
    rows = []
    for finding in findings:
        known = table.assign(label=certain_labels(index[finding].to_numpy(dtype=float))).dropna()
        has = known.groupby("patient")["label"].max()
        for cluster, members in known.groupby("cluster")["patient"].unique().items():
            rows.append({"cluster": cluster, "finding": finding, **_test(has, has.loc[members])})
    found = pd.DataFrame(rows)
    if found.empty:
        return found
    q = false_discovery_control(found["p"].to_numpy())
    return found.assign(q=q).sort_values(["q", "p"], kind="stable", ignore_index=True)


def _test(everyone: pd.Series, members: pd.Series) -> dict:
    total, positive = len(everyone), int(everyone.sum())
    inside, hits = len(members), int(members.sum())
    overall = positive / total
    return {
        "patients": inside,
        "positives": hits,
        "share": hits / inside,
        "overall": overall,
        "lift": hits / inside / overall if positive else float("nan"),
        "p": float(hypergeom.sf(hits - 1, total, positive, inside)),
    }
