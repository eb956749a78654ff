"""What the embeddings know, said honestly: every number with its interval, its baselines and its split."""

from __future__ import annotations

from monai_simclr.evaluation.alignment import Alignment as Alignment
from monai_simclr.evaluation.alignment import align_clusters as align_clusters
from monai_simclr.evaluation.alignment import prevalence_auroc as prevalence_auroc
from monai_simclr.evaluation.bootstrap import Interval as Interval
from monai_simclr.evaluation.bootstrap import auroc_with_interval as auroc_with_interval
from monai_simclr.evaluation.bootstrap import patient_bootstrap as patient_bootstrap
from monai_simclr.evaluation.clusterers import choose_k as choose_k
from monai_simclr.evaluation.clusterers import fit_clusters as fit_clusters
from monai_simclr.evaluation.clustering import ClusterReport as ClusterReport
from monai_simclr.evaluation.clustering import evaluate_clusters as evaluate_clusters
from monai_simclr.evaluation.confounders import beside_floor as beside_floor
from monai_simclr.evaluation.confounders import confounder_floor as confounder_floor
from monai_simclr.evaluation.confounders import floor_scores as floor_scores
from monai_simclr.evaluation.delong import delong_interval as delong_interval
from monai_simclr.evaluation.delong import delong_test as delong_test
from monai_simclr.evaluation.enrichment import enrich as enrich
from monai_simclr.evaluation.few_label import compare_arms as compare_arms
from monai_simclr.evaluation.formatting import format_score as format_score
from monai_simclr.evaluation.label_curve import arm_curves as arm_curves
from monai_simclr.evaluation.label_curve import curve_laws as curve_laws
from monai_simclr.evaluation.label_curve import fit_power_law as fit_power_law
from monai_simclr.evaluation.label_curve import label_saving as label_saving
from monai_simclr.evaluation.label_curve import labels_needed as labels_needed
from monai_simclr.evaluation.label_errors import find_label_errors as find_label_errors
from monai_simclr.evaluation.label_errors import find_outliers as find_outliers
from monai_simclr.evaluation.leaks import check_unseen as check_unseen
from monai_simclr.evaluation.leaks import find_copies as find_copies
from monai_simclr.evaluation.leaks import refuse_shared_patients as refuse_shared_patients
from monai_simclr.evaluation.neighbors import knn as knn
from monai_simclr.evaluation.neighbors import knn_accuracy as knn_accuracy
from monai_simclr.evaluation.neighbors import knn_findings as knn_findings
from monai_simclr.evaluation.neighbors import knn_predict as knn_predict
from monai_simclr.evaluation.neighbors import similar_images as similar_images
from monai_simclr.evaluation.novelty import Novelty as Novelty
from monai_simclr.evaluation.novelty import fit_novelty as fit_novelty
from monai_simclr.evaluation.predictions import Predictions as Predictions
from monai_simclr.evaluation.probe import Probe as Probe
from monai_simclr.evaluation.probe import probe_classes as probe_classes
from monai_simclr.evaluation.probe import probe_findings as probe_findings
from monai_simclr.evaluation.probe import probe_scores as probe_scores
from monai_simclr.evaluation.scorecard import score_card as score_card
from monai_simclr.evaluation.scores import score_findings as score_findings
from monai_simclr.evaluation.selection import select_images as select_images
from monai_simclr.evaluation.subgroups import score_subgroups as score_subgroups
