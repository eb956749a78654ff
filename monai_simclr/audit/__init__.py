"""The audit of an archive before anyone trains on it: headers, splits, duplicates, confounders, looks."""

from monai_simclr.audit.run import Audit as Audit
from monai_simclr.audit.run import run_audit as run_audit
