"""Whoever runs a bundle's evaluator gets the trained weights or an error, and `infer` leaves it as it was."""

from __future__ import annotations

import shutil

import pytest
import torch
from monai.bundle import ConfigParser
from monai.handlers import CheckpointLoader
from small_bundle import FINDINGS, SIZE, csv_rows, run_inference, small_bundle, small_network

from monai_simclr import recipes
from monai_simclr.data.phantoms import write_dicom_phantoms
from monai_simclr.inference import LoadClassifier, OutputOptions, list_radiographs
from monai_simclr.networks import load_classifier
from monai_simclr.workflows import Run, infer

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return small_bundle(tmp_path_factory.mktemp("evaluator"), 40, scale=20)


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory):
    return write_dicom_phantoms(tmp_path_factory.mktemp("radiographs"), n_patients=3, size=64)


def _parser(bundle, *names, **overrides):
    parser = ConfigParser()
    parser.read_meta(str(bundle / "configs" / "metadata.json"))
    for name in names:
        for key, value in ConfigParser.load_config_file(str(bundle / "configs" / f"{name}.json")).items():
            parser[key] = value
    for key, value in {"bundle_root": str(bundle), "num_workers": 0, "device": "cpu", **overrides}.items():
        parser[key] = value
    parser["device"] = "$torch.device('cpu')"
    parser["imports"] = ["$import torch"]
    parser.parse()
    return parser


def _evaluator(bundle, folder, **overrides):
    return _parser(bundle, "inference", dataset_dir=str(folder), **overrides).get_parsed_content("evaluator")


def test_an_evaluator_of_the_config_alone_predicts_with_the_trained_weights(bundle, radiographs):
    evaluator = _evaluator(bundle, radiographs)
    evaluator.run()
    paths = [record["image"] for record in list_radiographs(radiographs)]
    images = torch.stack([recipes.preprocessing(SIZE)({"image": path})["image"] for path in paths])
    network = load_classifier(small_network(), bundle / "models" / "model.pt")
    with torch.no_grad():
        torch.testing.assert_close(evaluator.state.output["pred"], network(images), rtol=1e-4, atol=1e-4)


def test_the_configs_evaluators_load_by_a_checkpoint_loader_of_monai(bundle, radiographs):
    handlers = _parser(bundle, "inference", dataset_dir=str(radiographs)).get_parsed_content("handlers")
    assert [isinstance(handler, CheckpointLoader) for handler in handlers] == [True]
    evaluated = _parser(bundle, "train", "evaluate", dataset_dir=str(radiographs))
    (loader,) = evaluated.get_parsed_content("validate#handlers")
    network = evaluated.get_parsed_content("network_def")
    before = network.classifier.weight.clone()
    loader(None)
    assert not torch.equal(network.classifier.weight, before)
    assert evaluated["validate#dataset#data#splits"] == ["@evaluation_split"]


def test_without_a_classifier_the_evaluator_raises_and_says_what_makes_one(bundle, radiographs, tmp_path):
    evaluator = _evaluator(bundle, radiographs, ckpt_path=str(tmp_path / "none.pt"))
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*none\.pt.*run configs/train\.json first"):
        evaluator.run()


def test_without_radiographs_the_evaluator_raises_and_says_which_folder(bundle, tmp_path):
    (tmp_path / "empty").mkdir()
    for name, message in (("nowhere", "there is no folder"), ("empty", "has no files")):
        evaluator = _evaluator(bundle, tmp_path / name)
        with pytest.raises(FileNotFoundError, match=message):
            evaluator.run()


def test_a_classifier_of_other_findings_is_refused_by_the_evaluator(bundle):
    loader = LoadClassifier(str(bundle / "models" / "model.pt"), {"model": small_network(["Mass", "Edema"])})
    with pytest.raises(ValueError, match=r"was trained for the findings \['Cardiomegaly', 'Effusion'\]"):
        loader(None)


def test_weights_that_change_while_the_evaluator_lives_do_not_change_its_rows(bundle, radiographs, tmp_path):
    shutil.copytree(bundle, tmp_path / "bundle")
    evaluator = _evaluator(tmp_path / "bundle", radiographs)
    evaluator.run()
    first = evaluator.state.output["pred"]
    (tmp_path / "bundle" / "models" / "model.pt").write_bytes(b"being written")
    evaluator.run()
    assert torch.equal(evaluator.state.output["pred"], first)


def test_infer_leaves_the_evaluator_as_it_was_and_runs_again_on_it(bundle, radiographs, tmp_path):
    path = bundle / "models" / "model.pt"
    evaluator = _evaluator(bundle, radiographs)
    loader, dataset, length = evaluator.data_loader, evaluator.data_loader.dataset, evaluator.state.epoch_length
    files = list(dataset.data)
    for name in ("first", "second"):
        run = Run(str(tmp_path / name), SIZE, 0, torch.device("cpu"))
        infer(run, path, evaluator, str(radiographs), OutputOptions())
        assert len(csv_rows(tmp_path / name)) == len(files)
    assert evaluator.data_loader is loader
    assert loader.dataset is dataset
    assert (dataset.data, dataset.key) == (files, "")
    assert evaluator.state.epoch_length == length
    evaluator.run()  # a writer that was left would write to a journal that is closed
    assert len(evaluator.state.output["pred"]) == len(files)


def test_another_network_than_a_classifier_is_refused_before_anything_is_written(bundle, radiographs, tmp_path):
    wrapped = torch.nn.Sequential(small_network(FINDINGS))
    with pytest.raises(ValueError, match=r"must be a FindingClassifier, got Sequential; .*pass @network_def"):
        run_inference(bundle / "models" / "model.pt", radiographs, tmp_path / "out", network=wrapped)
    assert not (tmp_path / "out").exists()
