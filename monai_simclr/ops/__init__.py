"""Pure, batched image operations on (B, C, H, W): no random state, no files, nothing of MONAI."""

from monai_simclr.ops.geometry import fit as fit
from monai_simclr.ops.geometry import warp as warp
