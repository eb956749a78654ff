"""Predictions on new files: what a classifier must be used with, rows as they are made, and when to decide nothing."""

from monai_simclr.inference.calibrated import Calibratedd as Calibratedd
from monai_simclr.inference.calibrated import postprocessing as postprocessing
from monai_simclr.inference.card import InferenceConfig as InferenceConfig
from monai_simclr.inference.card import OperatingPoint as OperatingPoint
from monai_simclr.inference.card import read_inference_config as read_inference_config
from monai_simclr.inference.card import write_inference_config as write_inference_config
from monai_simclr.inference.inputs import InferenceDataset as InferenceDataset
from monai_simclr.inference.inputs import list_radiographs as list_radiographs
from monai_simclr.inference.journal import Journal as Journal
from monai_simclr.inference.predict import predict as predict
from monai_simclr.inference.tables import write_tables as write_tables
from monai_simclr.inference.writer import OutputOptions as OutputOptions
from monai_simclr.inference.writer import PredictionWriter as PredictionWriter
