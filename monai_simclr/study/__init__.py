"""The label-efficiency study: fractions of labelled patients x draws x ways of training, in one resumable command."""

from __future__ import annotations

from monai_simclr.study.plan import ARMS as ARMS
from monai_simclr.study.plan import Study as Study
from monai_simclr.study.runs import run_study as run_study
from monai_simclr.study.summary import summarize as summarize
