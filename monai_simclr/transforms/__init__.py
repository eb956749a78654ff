"""Transforms for radiographs that drop into any MONAI pipeline."""

from monai_simclr.transforms.array import FinishedImage as FinishedImage
from monai_simclr.transforms.array import StoredImage as StoredImage
from monai_simclr.transforms.base import Operation as Operation
from monai_simclr.transforms.base import RandOperation as RandOperation
from monai_simclr.transforms.dictionary import FinishedImaged as FinishedImaged
from monai_simclr.transforms.dictionary import StoredImaged as StoredImaged
from monai_simclr.transforms.dictionary import over_keys as over_keys
from monai_simclr.transforms.multiview import MultiView as MultiView
from monai_simclr.transforms.multiview import MultiViewD as MultiViewD
from monai_simclr.transforms.multiview import MultiViewd as MultiViewd
from monai_simclr.transforms.multiview import MultiViewDict as MultiViewDict
from monai_simclr.transforms.views import RandRadiographView as RandRadiographView
