"""A MONAI Deploy application for one radiograph: monai-deploy-app-sdk 4.0.0, an exported bundle, a DICOM study.

    python app.py MODEL FOLDER [--sdk-reader]

MODEL is what `monai-simclr export` wrote (model.ts, or a folder); FOLDER holds a study with one image. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from monai.deploy.conditions import CountCondition
from monai.deploy.core import AppContext, Application, Image, IOType, Operator
from monai.deploy.operators import (
    DICOMDataLoaderOperator,
    DICOMSeriesSelectorOperator,
    DICOMSeriesToVolumeOperator,
    IOMapping,
    MonaiBundleInferenceOperator,
)

from monai_simclr.data import read_radiograph

SERIES, IMAGE, PRED = "study_selected_series_list", "image", "pred"


class RadiographOperator(Operator):
    """Read the radiograph as training did: window or VOI LUT, polarity, orientation. The recommended way."""

    def setup(self, spec: Any) -> None:
        spec.input(SERIES)
        spec.output(IMAGE)

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        series = op_input.receive(SERIES)[0].selected_series[0].series
        (instance,) = series.get_sop_instances()
        pixels, meta = read_radiograph(instance.get_native_sop_instance().filename)
        op_output.emit(Image(pixels[None], dict(meta)), IMAGE)


class SingleImageOperator(DICOMSeriesToVolumeOperator):
    """The SDK's own reading, which knows no window; a single image gets the position that the SDK needs."""

    def create_metadata(self, series: Any) -> dict[str, Any]:
        identity = [[float(row == column) for column in range(4)] for row in range(4)]
        return {**super().create_metadata(series), "nifti_affine_transform": identity}


class Answer(Operator):
    """Keep what the model says."""

    said: dict[str, Any]

    def setup(self, spec: Any) -> None:
        spec.input(PRED)

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        self.said = op_input.receive(PRED)


class RadiographApplication(Application):
    """Folder of DICOM -> series -> image -> the bundle -> probabilities."""

    def __init__(self, model: Path, folder: Path, sdk_reader: bool) -> None:
        self.model, self.folder, self.sdk_reader = model, folder, sdk_reader
        super().__init__([])

    def compose(self) -> None:
        loader = DICOMDataLoaderOperator(self, CountCondition(self, 1), input_folder=self.folder, name="loader")
        selector = DICOMSeriesSelectorOperator(self, rules="", name="selector")
        reader = (SingleImageOperator if self.sdk_reader else RadiographOperator)(self, name="reader")
        # the context loads a file; it would take a folder for a model that it cannot run, so the operator loads that
        context = AppContext({"model": str(self.model if self.model.is_file() else self.model / "no model of its own")})
        model = MonaiBundleInferenceOperator(
            self,
            app_context=context,
            bundle_path=self.model,
            name="model",
            input_mapping=[IOMapping(IMAGE, Image, IOType.IN_MEMORY)],
            output_mapping=[IOMapping(PRED, dict, IOType.IN_MEMORY)],
        )
        self.answer = Answer(self, name="answer")
        self.add_flow(loader, selector, {("dicom_study_list", "dicom_study_list")})
        self.add_flow(selector, reader, {(SERIES, SERIES)})
        self.add_flow(reader, model, {(IMAGE, IMAGE)})
        self.add_flow(model, self.answer, {(PRED, PRED)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sdk-reader", action="store_true", help="read with the SDK, which applies no window")
    options = parser.parse_args()
    application = RadiographApplication(options.model.absolute(), options.folder.absolute(), options.sdk_reader)
    application.run()
    # "result", which the SDK adds, takes each probability for the number of a class; only these are meant
    print(json.dumps({"probabilities": application.answer.said["probabilities"].tolist()}))


if __name__ == "__main__":
    main()
