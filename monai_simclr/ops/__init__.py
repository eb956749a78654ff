"""Pure, batched image operations on (B, C, H, W): no random state, no files, nothing of MONAI."""

from monai_simclr.fitting import fit as fit
from monai_simclr.fitting import quantize as quantize
from monai_simclr.ops.chest_check import chest_scores as chest_scores
from monai_simclr.ops.clahe import clahe as clahe
from monai_simclr.ops.filters import gaussian_blur as gaussian_blur
from monai_simclr.ops.geometry import warp as warp
from monai_simclr.ops.intensity import adjust as adjust
from monai_simclr.ops.intensity import curves as curves
from monai_simclr.ops.intensity import window as window
from monai_simclr.ops.lungs import PRIOR_LUNG_BOX as PRIOR_LUNG_BOX
from monai_simclr.ops.lungs import LocatedLungs as LocatedLungs
from monai_simclr.ops.lungs import LungLocalizer as LungLocalizer
from monai_simclr.ops.lungs import boxes_of_masks as boxes_of_masks
from monai_simclr.ops.lungs import coverage as coverage
from monai_simclr.ops.lungs import locate_lungs as locate_lungs
from monai_simclr.ops.lungs import widened as widened
from monai_simclr.ops.stored import finish as finish
from monai_simclr.ops.views import make_views as make_views
from monai_simclr.ops.views import view_matrices as view_matrices
