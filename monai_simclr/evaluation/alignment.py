"""What clusters follow instead of findings (view position, sex, age, source), and their relation to each finding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, hypergeom
from sklearn.preprocessing import normalize

from monai_simclr.evaluation.classes import ENCODER
from monai_simclr.evaluation.clusterers import fit_clusters
from monai_simclr.evaluation.clusters import adjusted_information, contingency
from monai_simclr.evaluation.embeddings import Embeddings
from monai_simclr.evaluation.intervals import bootstrap_interval, compare_to_null, patient_counts, permute_over_patients
from monai_simclr.evaluation.predictions import certain_labels, train_and_test
from monai_simclr.evaluation.scores import score_findings

_ACQUISITION = ("view_position", "sex", "age_decade", "source", "manufacturer")
_MEAN = "mean of the findings"
_NULLS = 200
_NEGLIGIBLE = 0.01
"""A lower AMI counts as none, even where it is above chance."""
_MOST_VALUES = 0.1
"""Values of a column whose directions are removed, as a share of the train rows: more would remove all there is."""
_FEW_VALUES = 10
"""As many can be removed whatever the number of train rows."""


class Alignment(NamedTuple):
    """What clusters follow: `what, kind ("acquisition", "finding" or "patient"), ami, null_high, n`, and in English."""

    table: pd.DataFrame
    sentence: str


def align_clusters(clusters: np.ndarray, index: pd.DataFrame, findings: Sequence[str], seed: int = 0) -> Alignment:
    """Adjusted mutual information of clusters with findings, and with how, of whom and where an image was taken.

    `null_high` is the 97.5th percentile of the values permuted over patients: clusters follow nothing that is below.

    Args:
        clusters: of the test images, shape ``(N,)``.
        index: the rows of the same images; `view_position, sex, age` (in decades), `source, manufacturer, patient_id`
            and the findings are used where present, and rows where one is unknown are ignored for it.
        findings: columns of the index.
        seed: of the permutations.

    Raises:
        ValueError: if the lengths differ, or the index has none of these columns.

    Example:
        >>> index = pd.DataFrame({"view_position": ["PA", "AP"] * 10, "Mass": [0.0, 0.0, 1.0, 1.0] * 5})
        >>> align_clusters(np.array([0, 1] * 10), index, ["Mass"]).sentence
        'these clusters follow view_position, AMI 1.00, more than any finding, at most 0.00 (Mass)'
    """
    if len(clusters) != len(index):
        raise ValueError(f"{len(clusters)} clusters do not go with {len(index)} index rows")
    kinds = dict.fromkeys(_ACQUISITION, "acquisition") | {"patient_id": "patient"} | dict.fromkeys(findings, "finding")
    rows, own = [], np.unique(clusters, return_inverse=True)[1]
    patients = np.unique(index["patient_id"], return_inverse=True)[1] if "patient_id" in index else np.arange(len(own))
    for what, values in _facts(index, list(kinds), findings).items():
        no_resample = np.empty((0, len(own)))  # a patient's own name has no null: it belongs to nobody else
        ami, _, null = _ami_draws(own, values, patients, no_resample, seed, 0 if what == "patient_id" else _NULLS)
        null_high = float(np.quantile(null, 0.975)) if len(null) else float("nan")
        known = int((values != "").sum())
        rows.append({"what": what, "kind": kinds[what], "ami": ami, "null_high": null_high, "n": known})
    if not rows:
        raise ValueError(
            f"the index has no column to align with; needed is one of {[*_ACQUISITION[:2], 'age', *findings]}"
        )
    table = pd.DataFrame(rows).sort_values("ami", ascending=False, kind="stable", ignore_index=True)
    return Alignment(table, _describe(table))


def _facts(index: pd.DataFrame, names: Sequence[str], findings: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns of an index as text, "" where unknown; those with a single value, which has no AMI, are left out."""
    columns = index.copy()
    for name in set(findings) & set(columns):
        columns[name] = certain_labels(columns[name].to_numpy(dtype=float))
    if "age" in columns:
        decade = np.floor(columns["age"].astype(float) / 10)
        columns["age_decade"] = [f"{int(value) * 10}" if np.isfinite(value) else "" for value in decade]
    text = {name: columns[name].astype(object).fillna("").astype(str).to_numpy() for name in names if name in columns}
    return {name: values for name, values in text.items() if len(np.unique(values[values != ""])) > 1}


def score_alignment(
    embeddings: Embeddings,
    references: Mapping[str, np.ndarray],
    findings: Sequence[str],
    n_clusters: int,
    remove: Sequence[str] = (),
    method: str = "kmeans",
    seed: int = 0,
    n_bootstrap: int = 200,
    n_permutations: int = 200,
    mirrored: Mapping[str, np.ndarray] | None = None,
) -> pd.DataFrame:
    """What clusters of test images follow, with intervals, nulls and references, before and after a removal.

    The second half has clusters of the same features without the directions of `remove` (`remove_directions`).

    Args:
        embeddings: index with `patient_id`, `split`, the findings, and whatever is known of view, sex, age and source.
        references: name -> features of the same rows, ``(N, D)``: raw pixels, a random encoder.
        findings: columns of the index.
        n_clusters, method, mirrored: as for `evaluate_clusters`.
        remove: columns of the index, such as `view_position` or `age` (in decades); without any there is no second
            half.
        seed: of everything random.
        n_bootstrap, n_permutations: resamples of test patients, and permutations of the null over patients.

    Returns:
        One row per removal, features and column, and one for the mean of the findings: `removed` ("nothing" or the
        columns), `features, what, value, low, high, null_low, null_high, p, n, lead, lead_low, lead_high`. The value is
        the AMI; the lead, what the embeddings' AMI is above that of a reference, patients resampled for both at once.

    Raises:
        ValueError: if train or test is empty, or a column to remove is not there.
    """
    index = embeddings.index
    train, test = train_and_test(index)
    facts = _facts(index[test], [*_ACQUISITION, *findings], findings)
    patients = index["patient_id"].to_numpy()[test]
    codes, counts = patient_counts(patients, n_bootstrap, seed)
    resamples = counts[:, codes]
    table = []
    for removed in [(), tuple(remove)][: 2 if remove else 1]:
        encoders: dict[str, tuple[float, np.ndarray]] = {}
        for name, features in {ENCODER: embeddings.features, **references}.items():
            own, copies = np.asarray(features).reshape(len(index), -1), (mirrored or {}).get(name)
            if removed:
                own, *others = remove_directions(index, train, removed, own, *([] if copies is None else [copies]))
                copies = others[0] if others else None
            clusters = fit_clusters(own, train, n_clusters, seed, method=method, mirrored=copies)[test]
            scores = {
                what: _ami_draws(clusters, values, patients, resamples, seed, n_permutations)
                for what, values in facts.items()
            }
            if present := [scores[finding] for finding in findings if finding in scores]:
                value, drawn, null = (np.mean(parts, axis=0) for parts in zip(*present, strict=True))
                scores[_MEAN] = float(value), drawn, null
            for what, (value, drawn, null) in scores.items():
                interval = bootstrap_interval(float(value), drawn, recenter=True, units=counts.shape[1])
                first, first_drawn = encoders.setdefault(what, (float(value), drawn))
                ahead = bootstrap_interval(
                    first - float(value), first_drawn - drawn, recenter=True, units=len(counts[0])
                )
                about = {"removed": ", ".join(removed) or "nothing", "features": name, "what": what}
                lead = {"lead": ahead.value, "lead_low": ahead.low, "lead_high": ahead.high} if name != ENCODER else {}
                n = int((facts[what] != "").sum()) if what in facts else int(test.sum())
                table.append({**about, **interval.as_dict(), **compare_to_null(float(value), null), "n": n, **lead})
    return pd.DataFrame(table)


def _ami_draws(
    clusters: np.ndarray, values: np.ndarray, patients: np.ndarray, resamples: np.ndarray, seed: int, n_null: int
) -> tuple[float, np.ndarray, np.ndarray]:
    """AMI of clusters with values, of resamples (how often each image counts), and with values permuted."""
    known = values != ""
    names, classes = np.unique(values[known], return_inverse=True)
    own, shape = clusters[known], (int(clusters.max()) + 1, len(names))

    def ami(classes: np.ndarray, weights: np.ndarray | None = None) -> float:
        return adjusted_information(contingency(own, classes, shape, weights))[0]

    generator = np.random.default_rng(seed)
    null = [ami(permute_over_patients(classes, patients[known], generator)) for _ in range(n_null)]
    return ami(classes), np.array([ami(classes, weights[known]) for weights in resamples]), np.array(null)


def remove_directions(
    index: pd.DataFrame, train: np.ndarray, columns: Sequence[str], *features: np.ndarray
) -> list[np.ndarray]:
    """L2-normalised features without the directions in which train images of different values differ on average.

    After that no linear rule with these features knows the values better than their frequencies (Belrose et al. 2023);
    a clustering that is not linear may. Directions come from train rows of the first features alone.

    Args:
        index: N rows.
        train: the rows to fit on, a mask of shape ``(N,)``.
        columns: of the index, `age` in decades; a train row whose value is unknown is ignored.
        features: ``(N, D)`` each, of the images, and of their mirrored copies.

    Raises:
        ValueError: if the index has no such column, or it has more values than a tenth of the train rows.

    Example:
        >>> index = pd.DataFrame({"view_position": ["PA", "AP"] * 3})
        >>> view = np.array([[1.0, 0.0, 0.1], [0.9, 0.4, 0.1]] * 3)
        >>> [without] = remove_directions(index, np.ones(6, dtype=bool), ["view_position"], view)
        >>> bool(np.allclose(without[0], without[1]))
        True
    """
    if missing := [name for name in columns if name not in index and (name != "age_decade" or "age" not in index)]:
        raise ValueError(f"the index has no column {missing[0]!r} to remove; it has {', '.join(map(str, index))}")
    names = list(dict.fromkeys("age_decade" if name == "age" else name for name in columns))
    unit = [normalize(np.asarray(part, dtype=np.float64)) for part in features]
    differences = [np.zeros((1, unit[0].shape[1]))]
    for name, values in _facts(index[train], names, []).items():
        known = values != ""
        if (count := len(np.unique(values[known]))) > max(_FEW_VALUES, _MOST_VALUES * known.sum()):
            raise ValueError(
                f"{name} has {count} values on {known.sum()} train rows: to remove the direction of each would remove "
                "everything; remove a column with fewer, or write its values in groups"
            )
        means = pd.DataFrame(unit[0][train][known]).groupby(values[known]).mean().to_numpy()
        differences.append(means - means[0])
    _, sizes, directions = np.linalg.svd(np.concatenate(differences), full_matrices=False)
    directions = directions[sizes > 1e-9 * max(sizes.max(), 1e-300)]
    return [part - (part @ directions.T) @ directions for part in unit]


def _describe(table: pd.DataFrame) -> str:
    table = table[table["kind"] != "patient"]  # images of one patient are alike, whatever the clusters follow
    first = table.iloc[0]
    beyond = table[table["ami"] > np.maximum(table["null_high"], _NEGLIGIBLE)]
    if beyond.empty:
        highest = f"AMI at most {max(first['ami'], 0):.2f} ({first['what']}; chance up to {first['null_high']:.2f})"
        return f"these clusters follow nothing that the index has: {highest}"
    first = beyond.iloc[0]
    others = table[table["kind"] != first["kind"]]
    other = "finding" if first["kind"] == "acquisition" else "fact of the acquisition"
    start = f"these clusters follow {first['what']}, AMI {first['ami']:.2f}"
    if others.empty:
        return f"{start}; there was no {other} to compare with"
    second = others.iloc[0]
    return f"{start}, more than any {other}, at most {max(second['ami'], 0):.2f} ({second['what']})"


def prevalence_auroc(
    clusters: np.ndarray, index: pd.DataFrame, findings: Sequence[str], n_bootstrap: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Score each test image with its cluster's training prevalence, for archives with many labels per image.

    Chance is 0.5. More clusters score higher by their number alone: compare equal numbers.

    Args:
        clusters: of every row of the index, shape ``(N,)``.
        index, findings: with `patient_id`, `split` and the findings, and their names.
        n_bootstrap, seed: of the resampling of test patients.

    Returns:
        The table of `score_findings`. A cluster without a known training label scores the prevalence of all.

    Raises:
        ValueError: if there are no train or no test rows.
    """
    train, test = train_and_test(index)
    labels = certain_labels(index[list(findings)].to_numpy(dtype=float))
    scores = np.zeros((int(test.sum()), len(findings)))
    for k in range(len(findings)):
        rows = train & np.isfinite(labels[:, k])
        images = np.bincount(clusters[rows], minlength=clusters.max() + 1)
        positives = np.bincount(clusters[rows], weights=labels[rows, k], minlength=clusters.max() + 1)
        overall = positives.sum() / max(images.sum(), 1)
        prevalence = np.divide(positives, images, out=np.full(len(images), overall), where=images > 0)
        scores[:, k] = prevalence[clusters[test]]
    patients = index["patient_id"].to_numpy()[test]
    return score_findings(labels[test], scores, patients, findings, n_bootstrap, seed)


def enrich(clusters: np.ndarray, index: pd.DataFrame, findings: Sequence[str]) -> pd.DataFrame:
    """Lift of every finding in every cluster, with Fisher's exact test over patients and Benjamini-Hochberg q-values.

    A patient counts once per cluster: he is in every cluster of his images, and has every finding of his images.
    (Images of one patient are not independent tests.)

    Args:
        clusters: of the test images, shape ``(N,)``.
        index: the rows of the same images, with `patient_id` and the findings.
        findings: columns of the index; images with an unknown label are ignored for that finding.

    Returns:
        One row per cluster and finding: `cluster, finding, patients, positives, share, overall, lift, p, q`, the lowest
        q first. `p` is one-sided (more than chance); `q` bounds the share of false discoveries up to that row.

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
        positive = known.groupby("patient")["label"].max()
        for cluster, members in known.groupby("cluster")["patient"].unique().items():
            n, hits = len(members), int(positive.loc[members].sum())
            overall = int(positive.sum()) / len(positive)
            lift = hits / n / overall if overall else float("nan")
            p = float(hypergeom.sf(hits - 1, len(positive), int(positive.sum()), n))
            row = {"cluster": cluster, "finding": finding, "patients": n, "positives": hits, "share": hits / n}
            rows.append({**row, "overall": overall, "lift": lift, "p": p})
    if not rows:
        return pd.DataFrame()
    enriched = pd.DataFrame(rows)
    q = false_discovery_control(enriched["p"].to_numpy())
    return enriched.assign(q=q).sort_values(["q", "p"], kind="stable", ignore_index=True)
