"""The encoder as a step of scikit-learn: its contract, its pixels, and what it refuses."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import SkipTestWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

from monai_simclr import recipes
from monai_simclr.data.phantoms import write_dicom_phantoms
from monai_simclr.networks import encoder, load_encoder, save_encoder
from monai_simclr.workflows import EncoderTransformer


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("encoder") / "e.safetensors"
    return save_encoder(file, encoder("resnet10", 0.125), {"name": "resnet10", "width": "0.125", "size": "64"})


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return sorted(write_dicom_phantoms(tmp_path_factory.mktemp("archive"), n_patients=4).rglob("*.dcm"))


# Where rows are not numbers, `check_estimator` runs one check only; of the others, those without `transform` apply.
CHECKS = [
    "estimator_cloneable",
    "estimator_tags_renamed",
    "valid_tag_types",
    "estimator_repr",
    "no_attributes_set_in_init",
    "estimators_overwrite_params",
    "dont_overwrite_parameters",
    "estimators_fit_returns_self",
    "readonly_memmap_input",
    "do_not_raise_errors_in_init_or_set_params",
    "mixin_order",
    "get_params_invariance",
    "set_params",
    "parameters_default_constructible",
]


@pytest.mark.parametrize("name", CHECKS)
def test_scikit_learns_checks_pass(path, name):
    getattr(estimator_checks, f"check_{name}")("EncoderTransformer", EncoderTransformer(path))


def test_scikit_learns_own_choice_of_checks_passes(path):
    with pytest.warns(SkipTestWarning, match="Can't test estimator"):
        results = estimator_checks.check_estimator(EncoderTransformer(path))
    assert {entry["status"] for entry in results} == {"passed"}


def test_files_give_what_the_recipe_and_the_network_give(path, files):
    made = EncoderTransformer(path, batch_size=3).fit_transform([str(file) for file in files])
    images = torch.stack([recipes.preprocessing(64)({"image": str(file)})["image"] for file in files])
    with torch.no_grad():
        np.testing.assert_allclose(made, load_encoder(path)(images).numpy(), rtol=1e-5, atol=1e-6)
    assert made.dtype == np.float32


def test_images_in_memory_give_the_same_as_bytes_and_as_floats(path):
    images = np.random.default_rng(0).integers(0, 256, (3, 80, 70), dtype=np.uint8)
    step = EncoderTransformer(path, size=32).fit(images)
    want = step.transform(images)
    np.testing.assert_array_equal(step.transform(images[:, None]), want)
    np.testing.assert_array_equal(step.transform(list(images)), want)
    np.testing.assert_allclose(step.transform(images / 255), want, rtol=1e-5, atol=1e-6)
    assert list(step.get_feature_names_out()) == [f"encodertransformer{n}" for n in range(want.shape[1])]


def test_it_is_a_step_of_a_pipeline_that_can_be_cloned_and_pickled(path, files):
    labels = [n % 2 for n in range(len(files))]
    model = clone(make_pipeline(EncoderTransformer(path, size=32), LogisticRegression(max_iter=1000))).fit(
        files, labels
    )
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(files), model.predict_proba(files))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "there are no images: X has 0 rows"),
        (np.zeros((2, 9)), r"row 0 is float64 of shape \(9,\), not a path or an image"),
        (np.zeros((2, 9, 9), np.int64), "row 0 is int64"),
        ([np.zeros((9, 9)), np.full((9, 9), 1.5)], "values in"),
        (np.full((1, 9, 9), np.nan), "values in"),
        (["no such file.png"], "no such file"),
    ],
)
def test_what_is_no_radiograph_is_refused(path, given, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        EncoderTransformer(path, size=32).transform(given)


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"size": 8}])
def test_settings_out_of_range_are_refused(path, wrong):
    with pytest.raises(ValueError, match="batch_size must be at least 1 and size at least 32"):
        EncoderTransformer(path, **wrong).fit([])
