"""What a bundle's config calls that is more than one object: open the archive, finish a run, cluster, evaluate."""

from monai_simclr.workflows.archive import loader as loader
from monai_simclr.workflows.archive import open_archive as open_archive
from monai_simclr.workflows.classifying import evaluate as evaluate
from monai_simclr.workflows.classifying import finish_training as finish_training
from monai_simclr.workflows.classifying import start_classifier as start_classifier
from monai_simclr.workflows.clustering import cluster as cluster
from monai_simclr.workflows.inference import infer as infer
from monai_simclr.workflows.pretraining import finish_pretraining as finish_pretraining
from monai_simclr.workflows.run import Run as Run
from monai_simclr.workflows.run import begin as begin
from monai_simclr.workflows.run import distributed as distributed
from monai_simclr.workflows.run import join_ranks as join_ranks
