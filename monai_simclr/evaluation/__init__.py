"""What the embeddings know, said honestly: every number with its interval, its baselines and its split."""

from __future__ import annotations

from monai_simclr.evaluation.bootstrap import Interval as Interval
from monai_simclr.evaluation.bootstrap import auroc_with_interval as auroc_with_interval
from monai_simclr.evaluation.bootstrap import patient_bootstrap as patient_bootstrap
from monai_simclr.evaluation.clustering import ClusterReport as ClusterReport
from monai_simclr.evaluation.clustering import evaluate_clusters as evaluate_clusters
from monai_simclr.evaluation.clustering import fit_clusters as fit_clusters
from monai_simclr.evaluation.formatting import format_score as format_score
from monai_simclr.evaluation.scores import confounder_floor as confounder_floor
from monai_simclr.evaluation.scores import score_findings as score_findings
