"""Archives in: the image index, the reader of radiographs, splits by patient, the image store."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from monai_simclr.data.index import check_index as check_index
    from monai_simclr.data.index import combine_indexes as combine_indexes
    from monai_simclr.data.index import finding_columns as finding_columns
    from monai_simclr.data.index import image_classes as image_classes
    from monai_simclr.data.index import read_index as read_index
    from monai_simclr.data.index import records as records
    from monai_simclr.data.index import unnamed_images as unnamed_images
    from monai_simclr.data.index import write_index as write_index
    from monai_simclr.data.loading import BalancedSampler as BalancedSampler
    from monai_simclr.data.loading import KeyedSampler as KeyedSampler
    from monai_simclr.data.loading import StoreDataset as StoreDataset
    from monai_simclr.data.loading import finetuning_sampler as finetuning_sampler
    from monai_simclr.data.loading import loader as loader
    from monai_simclr.data.loading import ordered_batches as ordered_batches
    from monai_simclr.data.loading import store_records as store_records
    from monai_simclr.data.open import SourceOptions as SourceOptions
    from monai_simclr.data.open import open_index as open_index
    from monai_simclr.data.radiograph import RadiographError as RadiographError
    from monai_simclr.data.radiograph import ReaderSettings as ReaderSettings
    from monai_simclr.data.reader import RadiographReader as RadiographReader
    from monai_simclr.data.reading import read_radiograph as read_radiograph
    from monai_simclr.data.split import label_fraction as label_fraction
    from monai_simclr.data.split import split_by_patient as split_by_patient
    from monai_simclr.data.store import Store as Store
    from monai_simclr.data.store import StoreOptions as StoreOptions
    from monai_simclr.data.store import build_store as build_store
    from monai_simclr.data.store import get_store as get_store
    from monai_simclr.data.store import open_store as open_store
else:
    from monai_simclr.runtime.lazy import lazy_exports

    __getattr__ = lazy_exports(__name__)
