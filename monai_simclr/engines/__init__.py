"""The trainer, and what runs a network over data; nothing here names a transform, a loss or a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from monai_simclr.engines.contrastive import ContrastiveTrainer as ContrastiveTrainer
    from monai_simclr.engines.contrastive import OneItemOutput as OneItemOutput
    from monai_simclr.engines.contrastive import PrepareLabelled as PrepareLabelled
    from monai_simclr.engines.contrastive import PrepareTwoViews as PrepareTwoViews
    from monai_simclr.engines.embedding import embed as embed
    from monai_simclr.engines.embedding import embed_spread as embed_spread
    from monai_simclr.engines.precision import AutocastInferer as AutocastInferer
else:
    from monai_simclr.runtime.lazy import lazy_exports

    __getattr__ = lazy_exports(__name__)
