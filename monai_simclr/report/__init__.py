"""The HTML report."""

from __future__ import annotations

from monai_simclr.report.page import write_report as write_report
