"""Transforms for radiographs that drop into any MONAI pipeline."""

from monai_simclr.transforms.base import Operation as Operation
from monai_simclr.transforms.base import RandOperation as RandOperation
from monai_simclr.transforms.views import RandRadiographView as RandRadiographView
