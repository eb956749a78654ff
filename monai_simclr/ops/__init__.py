"""Pure, batched image operations on (B, C, H, W): no random state, no files, no MONAI."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from monai_simclr.ops.amounts import check_canonical as check_canonical
    from monai_simclr.ops.chest_check import chest_scores as chest_scores
    from monai_simclr.ops.equalization import clahe as clahe
    from monai_simclr.ops.geometry import to_network_input as to_network_input
    from monai_simclr.ops.geometry import warp as warp
    from monai_simclr.ops.intensity import adjust as adjust
    from monai_simclr.ops.intensity import curves as curves
    from monai_simclr.ops.intensity import gaussian_blur as gaussian_blur
    from monai_simclr.ops.intensity import window as window
    from monai_simclr.ops.lungs import PRIOR_LUNG_BOX as PRIOR_LUNG_BOX
    from monai_simclr.ops.lungs import LocatedLungs as LocatedLungs
    from monai_simclr.ops.lungs import LungLocalizer as LungLocalizer
    from monai_simclr.ops.lungs import boxes_of_masks as boxes_of_masks
    from monai_simclr.ops.lungs import coverage as coverage
    from monai_simclr.ops.lungs import locate_lungs as locate_lungs
    from monai_simclr.ops.lungs import widened as widened
    from monai_simclr.ops.resize import pad_resize as pad_resize
    from monai_simclr.ops.resize import quantize as quantize
    from monai_simclr.ops.views import make_views as make_views
    from monai_simclr.ops.views import view_matrices as view_matrices
else:
    _MODULES = ("resize", "amounts", "chest_check", "equalization", "geometry", "intensity", "lungs", "views")

    def __getattr__(name: str) -> object:
        """Import a part when it is asked for (PEP 562), `resize` first: processes that decode need no torch."""
        from importlib import import_module

        for module in () if name.startswith("_") else _MODULES:
            names = vars(import_module(f"{__name__}.{module}"))
            if name in names:
                globals()[name] = names[name]  # not asked for here the next time
                return names[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
