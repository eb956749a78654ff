"""What the embeddings know, said honestly: every number with its interval, its baselines and its split."""

from __future__ import annotations

from monai_simclr.evaluation.alignment import Alignment as Alignment
from monai_simclr.evaluation.alignment import align_clusters as align_clusters
from monai_simclr.evaluation.alignment import prevalence_auroc as prevalence_auroc
from monai_simclr.evaluation.bootstrap import Interval as Interval
from monai_simclr.evaluation.bootstrap import auroc_with_interval as auroc_with_interval
from monai_simclr.evaluation.bootstrap import patient_bootstrap as patient_bootstrap
from monai_simclr.evaluation.clustering import ClusterReport as ClusterReport
from monai_simclr.evaluation.clustering import evaluate_clusters as evaluate_clusters
from monai_simclr.evaluation.clustering import fit_clusters as fit_clusters
from monai_simclr.evaluation.few_label import compare_arms as compare_arms
from monai_simclr.evaluation.formatting import format_score as format_score
from monai_simclr.evaluation.neighbors import knn as knn
from monai_simclr.evaluation.neighbors import knn_accuracy as knn_accuracy
from monai_simclr.evaluation.neighbors import knn_predict as knn_predict
from monai_simclr.evaluation.novelty import Novelty as Novelty
from monai_simclr.evaluation.novelty import fit_novelty as fit_novelty
from monai_simclr.evaluation.probe import Probe as Probe
from monai_simclr.evaluation.probe import probe_classes as probe_classes
from monai_simclr.evaluation.probe import probe_findings as probe_findings
from monai_simclr.evaluation.scores import confounder_floor as confounder_floor
from monai_simclr.evaluation.scores import score_findings as score_findings
