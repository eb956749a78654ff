"""What a bundle's config calls that is more than one object: open the archive, finish a run, cluster, evaluate."""

from monai_simclr.workflows.archive import find_archive as find_archive
from monai_simclr.workflows.archive import labelled_rows as labelled_rows
from monai_simclr.workflows.archive import loader as loader
from monai_simclr.workflows.archive import need_archive as need_archive
from monai_simclr.workflows.archive import open_archive as open_archive
from monai_simclr.workflows.classifying import Scoring as Scoring
from monai_simclr.workflows.classifying import StartFromEncoder as StartFromEncoder
from monai_simclr.workflows.classifying import evaluate as evaluate
from monai_simclr.workflows.classifying import finish_training as finish_training
from monai_simclr.workflows.clustering import Clustering as Clustering
from monai_simclr.workflows.clustering import cluster as cluster
from monai_simclr.workflows.finetuning import fewest_images as fewest_images
from monai_simclr.workflows.finetuning import finetuning_sampler as finetuning_sampler
from monai_simclr.workflows.finetuning import freeze_stages as freeze_stages
from monai_simclr.workflows.finetuning import layerwise_optimizer as layerwise_optimizer
from monai_simclr.workflows.finetuning import pos_weight as pos_weight
from monai_simclr.workflows.inference import infer as infer
from monai_simclr.workflows.pretraining import finish_pretraining as finish_pretraining
from monai_simclr.workflows.pretraining import probe as probe
from monai_simclr.workflows.ranks import distributed as distributed
from monai_simclr.workflows.ranks import join_ranks as join_ranks
from monai_simclr.workflows.ranks import part_ranks as part_ranks
from monai_simclr.workflows.run import Run as Run
from monai_simclr.workflows.run import begin as begin
from monai_simclr.workflows.run import end_with_sentences as end_with_sentences
