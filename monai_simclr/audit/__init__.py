"""The audit of an archive before anyone trains on it: headers, splits, duplicates, confounders, looks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from monai_simclr.audit.run import Audit as Audit
    from monai_simclr.audit.run import run_audit as run_audit
else:
    from monai_simclr.runtime.lazy import lazy_exports

    __getattr__ = lazy_exports(__name__)
