"""What inference leaves behind."""

from __future__ import annotations

import logging

from monai_simclr.handlers import PredictionWriter
from monai_simclr.results import closing_line, write_metrics
from monai_simclr.workflows.run import Run

__all__ = ["finish_inference"]

logger = logging.getLogger("monai_simclr")


def finish_inference(run: Run, writer: PredictionWriter) -> None:
    """Count what was predicted and what was refused, and say where it is."""
    counts = {"files": len(writer.rows), "predicted": writer.predicted, "refused": len(writer.rows) - writer.predicted}
    made = write_metrics(run.output_dir, counts, command="inference", split="", seed=run.seed, n=counts)
    logger.info(
        f"{counts['predicted']} of {counts['files']} files have predictions, {counts['refused']} a reason instead"
    )
    logger.info(closing_line([writer.path, made], "read the model card's limits: not for diagnosis"))
