"""The contrastive loss over all views of a batch, and binary cross-entropy that ignores unknown labels."""

from monai_simclr.losses.contrastive import CosineTemperature as CosineTemperature
from monai_simclr.losses.contrastive import NTXentLoss as NTXentLoss
from monai_simclr.losses.contrastive import SameGroup as SameGroup
from monai_simclr.losses.contrastive import nt_xent as nt_xent
from monai_simclr.losses.labels import MaskedBCEWithLogits as MaskedBCEWithLogits
from monai_simclr.losses.labels import masked_bce as masked_bce
from monai_simclr.losses.labels import pos_weight as pos_weight

__all__ = ["CosineTemperature", "MaskedBCEWithLogits", "NTXentLoss", "SameGroup", "masked_bce", "nt_xent", "pos_weight"]
