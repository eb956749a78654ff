"""What clustering refuses before it embeds an archive."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from monai_simclr.data import Store
from monai_simclr.workflows import Clustering, Run, cluster


class _Unused(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise AssertionError("nothing is embedded")


@pytest.mark.parametrize(
    ("splits", "absent"),
    [([""] * 6, "no train and no test images"), (["train"] * 6, "no test images"), (["test"] * 6, "no train images")],
)
def test_an_archive_without_train_or_test_images_is_refused_before_the_embedding_with_the_remedy(
    tmp_path, splits, absent
):
    names = [f"p{row}" for row in range(6)]
    index = pd.DataFrame({"image": names, "patient_id": names, "split": splits, "Mass": np.nan})
    store = Store(np.zeros((6, 40, 40), np.uint8), index, pd.DataFrame(), {})
    run = Run(str(tmp_path), 32, 0, torch.device("cpu"))
    with pytest.raises(ValueError, match=rf"the index has {absent}, and .*monai-simclr index FOLDER --split"):
        cluster(run, store, _Unused(), _Unused(), tmp_path / "absent.safetensors", Clustering(["Mass"]))
    assert list(tmp_path.iterdir()) == []


def test_an_archive_without_labels_is_refused_before_the_embedding_with_the_remedy(tmp_path):
    names = [f"p{row}" for row in range(6)]
    index = pd.DataFrame({"image": names, "patient_id": names, "split": ["train", "test"] * 3, "Mass": np.nan})
    store = Store(np.zeros((6, 40, 40), np.uint8), index, pd.DataFrame(), {})
    run = Run(str(tmp_path), 32, 0, torch.device("cpu"))
    with pytest.raises(ValueError, match=r"0 train and 0 test rows have a class .* give labels to images of both"):
        cluster(run, store, _Unused(), _Unused(), tmp_path / "absent.safetensors", Clustering(["Mass"]))
    assert list(tmp_path.iterdir()) == []
