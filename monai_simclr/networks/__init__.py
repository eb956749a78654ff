"""The networks: encoders by name, the projection head, SimCLR, and the classifier of findings.

The architecture is defined here and nowhere else; the metadata.json of a bundle names the one that it uses.
"""

from monai_simclr.networks.encoders import ENCODERS as ENCODERS
from monai_simclr.networks.encoders import encoder as encoder
from monai_simclr.networks.encoders import feature_dim as feature_dim
from monai_simclr.networks.heads import FindingClassifier as FindingClassifier
from monai_simclr.networks.heads import ProjectionHead as ProjectionHead
from monai_simclr.networks.heads import SimCLR as SimCLR
from monai_simclr.networks.hub import fetch_encoder as fetch_encoder
from monai_simclr.networks.hub import from_pretrained as from_pretrained
from monai_simclr.networks.hub import push_to_hub as push_to_hub
from monai_simclr.networks.hub import save_pretrained as save_pretrained
from monai_simclr.networks.pretrained import load_pretrained as load_pretrained
from monai_simclr.networks.stages import fewest_images as fewest_images
from monai_simclr.networks.stages import freeze_stages as freeze_stages
from monai_simclr.networks.stages import stages as stages
from monai_simclr.networks.weights import PRETRAINED as PRETRAINED
from monai_simclr.networks.weights import SeenPatients as SeenPatients
from monai_simclr.networks.weights import encoder_file as encoder_file
from monai_simclr.networks.weights import encoder_header as encoder_header
from monai_simclr.networks.weights import load_classifier as load_classifier
from monai_simclr.networks.weights import load_encoder as load_encoder
from monai_simclr.networks.weights import patients_records as patients_records
from monai_simclr.networks.weights import read_weights as read_weights
from monai_simclr.networks.weights import save_classifier as save_classifier
from monai_simclr.networks.weights import save_encoder as save_encoder
