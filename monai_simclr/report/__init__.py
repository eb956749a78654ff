"""The HTML report."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from monai_simclr.report.collect import ReportData as ReportData
    from monai_simclr.report.collect import collect_runs as collect_runs
    from monai_simclr.report.figures import write_label_curve as write_label_curve
    from monai_simclr.report.page import write_report as write_report
else:
    from monai_simclr.runtime.lazy import lazy_exports

    __getattr__ = lazy_exports(__name__)
