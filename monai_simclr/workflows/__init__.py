"""What a bundle's configs call beyond single objects: open the archive, finish a run, cluster, evaluate."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from monai_simclr.workflows.archive import check_store as check_store
    from monai_simclr.workflows.archive import find_store as find_store
    from monai_simclr.workflows.archive import labelled_rows as labelled_rows
    from monai_simclr.workflows.classifying import LoadEncoder as LoadEncoder
    from monai_simclr.workflows.classifying import Scoring as Scoring
    from monai_simclr.workflows.classifying import evaluate as evaluate
    from monai_simclr.workflows.classifying import finish_training as finish_training
    from monai_simclr.workflows.clustering import Clustering as Clustering
    from monai_simclr.workflows.clustering import cluster as cluster
    from monai_simclr.workflows.finetuning import FewLabelStart as FewLabelStart
    from monai_simclr.workflows.identity import config_identity as config_identity
    from monai_simclr.workflows.identity import run_identity as run_identity
    from monai_simclr.workflows.inference import infer as infer
    from monai_simclr.workflows.pretraining import StartFrom as StartFrom
    from monai_simclr.workflows.pretraining import contrastive_trainer as contrastive_trainer
    from monai_simclr.workflows.pretraining import finish_pretraining as finish_pretraining
    from monai_simclr.workflows.pretraining import probe as probe
    from monai_simclr.workflows.run import RecordConfig as RecordConfig
    from monai_simclr.workflows.run import Run as Run
    from monai_simclr.workflows.run import initialize as initialize
    from monai_simclr.workflows.run import start_run as start_run
    from monai_simclr.workflows.settings import check_settings as check_settings
    from monai_simclr.workflows.transformer import EncoderTransformer as EncoderTransformer
else:
    from monai_simclr.runtime.lazy import lazy_exports

    __getattr__ = lazy_exports(__name__)
