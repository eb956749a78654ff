"""Evaluation of embeddings and classifiers: clusters, probes, neighbours, scores, with intervals and baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from monai_simclr.evaluation.alignment import Alignment as Alignment
    from monai_simclr.evaluation.alignment import align_clusters as align_clusters
    from monai_simclr.evaluation.alignment import enrich as enrich
    from monai_simclr.evaluation.alignment import prevalence_auroc as prevalence_auroc
    from monai_simclr.evaluation.alignment import remove_directions as remove_directions
    from monai_simclr.evaluation.alignment import score_alignment as score_alignment
    from monai_simclr.evaluation.classes import format_score as format_score
    from monai_simclr.evaluation.clusterers import choose_clusters as choose_clusters
    from monai_simclr.evaluation.clusterers import fit_clusters as fit_clusters
    from monai_simclr.evaluation.clusters import ClusterReport as ClusterReport
    from monai_simclr.evaluation.clusters import evaluate_clusters as evaluate_clusters
    from monai_simclr.evaluation.embeddings import Embeddings as Embeddings
    from monai_simclr.evaluation.few_label import Curve as Curve
    from monai_simclr.evaluation.few_label import ResampledRuns as ResampledRuns
    from monai_simclr.evaluation.few_label import arm_curves as arm_curves
    from monai_simclr.evaluation.few_label import compare_arms as compare_arms
    from monai_simclr.evaluation.few_label import curve_laws as curve_laws
    from monai_simclr.evaluation.few_label import few_label_gain as few_label_gain
    from monai_simclr.evaluation.few_label import fit_power_law as fit_power_law
    from monai_simclr.evaluation.few_label import label_saving as label_saving
    from monai_simclr.evaluation.few_label import labels_needed as labels_needed
    from monai_simclr.evaluation.few_label import unstated_saving as unstated_saving
    from monai_simclr.evaluation.intervals import Interval as Interval
    from monai_simclr.evaluation.intervals import holm as holm
    from monai_simclr.evaluation.neighbors import knn as knn
    from monai_simclr.evaluation.neighbors import knn_findings as knn_findings
    from monai_simclr.evaluation.neighbors import knn_predict as knn_predict
    from monai_simclr.evaluation.novelty import Novelty as Novelty
    from monai_simclr.evaluation.novelty import fit_novelty as fit_novelty
    from monai_simclr.evaluation.predictions import Predictions as Predictions
    from monai_simclr.evaluation.predictions import certain_labels as certain_labels
    from monai_simclr.evaluation.probe import Probe as Probe
    from monai_simclr.evaluation.probe import fit_probe as fit_probe
    from monai_simclr.evaluation.probe import probe_classes as probe_classes
    from monai_simclr.evaluation.probe import probe_findings as probe_findings
    from monai_simclr.evaluation.probe import probe_layer as probe_layer
    from monai_simclr.evaluation.probe import probe_scores as probe_scores
    from monai_simclr.evaluation.scores import MACRO as MACRO
    from monai_simclr.evaluation.scores import score_findings as score_findings
    from monai_simclr.evaluation.scores import score_table as score_table
    from monai_simclr.evaluation.subgroups import baseline_scores as baseline_scores
    from monai_simclr.evaluation.subgroups import compare_to_baseline as compare_to_baseline
    from monai_simclr.evaluation.subgroups import score_subgroups as score_subgroups
    from monai_simclr.evaluation.worklists import find_copies as find_copies
    from monai_simclr.evaluation.worklists import find_label_errors as find_label_errors
    from monai_simclr.evaluation.worklists import find_outliers as find_outliers
    from monai_simclr.evaluation.worklists import select_images as select_images
    from monai_simclr.evaluation.worklists import similar_images as similar_images
else:
    from monai_simclr.runtime.lazy import lazy_exports

    __getattr__ = lazy_exports(__name__)
