"""Predictions on new files: a classifier's inference config, the rows of a run, and when not to decide."""

from monai_simclr.inference.calibrated import Calibratedd as Calibratedd
from monai_simclr.inference.calibrated import postprocessing as postprocessing
from monai_simclr.inference.config import InferenceConfig as InferenceConfig
from monai_simclr.inference.config import OperatingPoint as OperatingPoint
from monai_simclr.inference.config import has_inference_config as has_inference_config
from monai_simclr.inference.config import read_inference_config as read_inference_config
from monai_simclr.inference.config import write_inference_config as write_inference_config
from monai_simclr.inference.dataset import InferenceDataset as InferenceDataset
from monai_simclr.inference.dataset import find_radiographs as find_radiographs
from monai_simclr.inference.dataset import list_radiographs as list_radiographs
from monai_simclr.inference.journal import Journal as Journal
from monai_simclr.inference.predict import predict as predict
from monai_simclr.inference.runtimes import Runtime as Runtime
from monai_simclr.inference.runtimes import use_runtime as use_runtime
from monai_simclr.inference.writer import LoadClassifier as LoadClassifier
from monai_simclr.inference.writer import OutputOptions as OutputOptions
from monai_simclr.inference.writer import PredictionWriter as PredictionWriter
from monai_simclr.inference.writer import write_tables as write_tables
