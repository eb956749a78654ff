"""Overlays on the original pixels, and DICOM results that other people's tools can read."""

from __future__ import annotations

import shutil
import subprocess

import cv2
import numpy as np
import pydicom
import pytest
import torch
from torch import nn

from monai_simclr.data.phantoms import write_dicom_phantoms
from monai_simclr.evaluation import fit_novelty
from monai_simclr.inference import InferenceConfig, OperatingPoint
from monai_simclr.inference.grad_cam import encode_overlay, last_map, overlay
from monai_simclr.inference.pictures import leading_finding
from monai_simclr.networks import FindingClassifier, encoder
from monai_simclr.ops.resize import pad_resize, undo_pad_resize

highdicom = pytest.importorskip("highdicom", reason="DICOM results need highdicom, from the extra [dicom]")


@pytest.fixture(scope="module")
def config():
    rng = np.random.default_rng(0)
    operating = {"Effusion": OperatingPoint(1.0, 0.0, 0.9), "Pneumonia": OperatingPoint(1.0, None, 0.9)}
    novelty = fit_novelty(rng.normal(size=(60, 6)), rng.normal(size=(30, 6)))
    return InferenceConfig(["Effusion", "Pneumonia"], {}, operating, novelty, "abc")


@pytest.fixture(scope="module")
def radiograph(tmp_path_factory):
    folder = write_dicom_phantoms(tmp_path_factory.mktemp("dicom"), n_patients=1, size=64)
    return pydicom.dcmread(next(folder.rglob("*.dcm")))


ROW = {"reason": "", "logits": [0.85, -1.4], "probabilities": [0.7, 0.2], "decisions": [1, None]}


def _dcmtk(program, path):
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not there; on Debian: apt-get install dcmtk")
    done = subprocess.run([program, str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("shape", [(40, 64), (64, 40), (51, 64), (64, 64)])
def test_a_map_comes_back_to_where_it_was(shape):
    pixels = np.zeros(shape, np.float32)
    pixels[shape[0] // 4 : shape[0] // 4 + 8, shape[1] // 2 : shape[1] // 2 + 8] = 1
    back = undo_pad_resize(pad_resize(pixels, 64), shape)
    assert back.shape == shape
    np.testing.assert_allclose(back, pixels, atol=1e-6)


class _Quadrant(nn.Module):
    """A classifier whose second logit is the mean of the lower left quarter: Grad-CAM must look there."""

    def __init__(self):
        super().__init__()
        self.maps = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.ones_(self.maps.weight)

    def forward(self, images):
        maps = torch.nn.functional.avg_pool2d(self.maps(images), 8)
        half = maps.shape[-1] // 2
        return torch.stack([maps[:, 0, :half].mean((1, 2)), maps[:, 0, half:, :half].mean((1, 2))], 1)


def test_grad_cam_looks_where_the_decision_came_from():
    image = torch.zeros(1, 64, 64)
    image[:, 44:56, 4:16] = 1.0
    picture = overlay(_Quadrant(), image, 1, np.full((64, 64), 0.5, np.float32)).astype(int)
    colored = np.abs(picture - 128).sum(2)
    assert colored[44:56, 4:16].min() > 60
    assert colored[:30].max() < 10


def test_the_last_map_is_the_last_stage_of_every_encoder():
    for name, stage in (("resnet10", "encoder.layer4"), ("densenet121", "encoder.features")):
        network = FindingClassifier(encoder(name, width=0.125), ["Mass"]).eval()
        assert last_map(network, torch.zeros(1, 1, 64, 64)) == stage


def test_an_overlay_is_a_color_picture_of_the_radiographs_own_shape():
    torch.manual_seed(0)
    network = FindingClassifier(encoder("resnet10", width=0.125), ["Mass", "Edema"]).eval()
    picture = overlay(network, torch.rand(1, 64, 64), 1, np.random.default_rng(0).random((90, 1200), np.float32))
    assert picture.shape == (90, 1200, 3)
    assert picture.dtype == np.uint8
    assert cv2.imdecode(np.frombuffer(encode_overlay(picture), np.uint8), cv2.IMREAD_COLOR).shape == (77, 1024, 3)


def test_the_report_keeps_patient_study_and_source_and_opens_in_dcmtk(config, radiograph, tmp_path):
    from monai_simclr.inference.dicom_results import encode, report

    made = report(radiograph, ROW, config)
    for name in ("PatientID", "PatientName", "StudyInstanceUID"):
        assert made[name].value == radiograph[name].value
    source = made.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert source.ReferencedSOPInstanceUID == radiograph.SOPInstanceUID
    (tmp_path / "sr.dcm").write_bytes(encode(made))
    shown = _dcmtk("dsrdump", tmp_path / "sr.dcm")
    assert '(60046008,SCT,"Pleural effusion")' in shown
    assert '"Probability")="0.7"' in shown
    assert shown.count('"Decision at 90% specificity")=(52101004,SCT,"Present")') == 1
    assert '(PNEUMONIA,99MSIMCLR,"Pneumonia")' in shown


def test_the_capture_belongs_to_the_study_and_is_a_color_picture(config, radiograph, tmp_path):
    from monai_simclr.inference.dicom_results import capture, encode

    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / "sc.dcm"
    path.write_bytes(encode(capture(radiograph, picture)))
    found = pydicom.dcmread(path)
    np.testing.assert_array_equal(found.pixel_array, picture)
    assert found.StudyInstanceUID == radiograph.StudyInstanceUID
    assert found.SeriesInstanceUID != radiograph.SeriesInstanceUID
    assert found.SourceImageSequence[0].ReferencedSOPInstanceUID == radiograph.SOPInstanceUID
    assert "SecondaryCaptureImageStorage" in _dcmtk("dcmdump", path)


def test_a_refused_file_has_no_report(config, radiograph):
    from monai_simclr.inference.dicom_results import report

    with pytest.raises(ValueError, match=r"there is nothing to report: the file was refused \(is truncated\)"):
        report(radiograph, {**ROW, "reason": "is truncated"}, config)


def test_the_leading_finding_is_the_furthest_above_its_threshold(config):
    assert leading_finding(ROW, config) == 0
    assert leading_finding({**ROW, "decisions": [0, None]}, config) is None
