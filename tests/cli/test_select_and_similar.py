"""Work lists from a file of embeddings: what to label next, and what is similar."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from monai_simclr.cli.app import app
from monai_simclr.evaluation import Embeddings


def test_select_and_similar_work_from_a_file_of_embeddings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    index = pd.DataFrame(
        {
            "image": [f"a/{i}.png" for i in range(40)],
            "patient_id": [f"secret{i}" for i in range(40)],
            "split": "train",
            "sex": "F",
            "Mass": 1.0,
        }
    )
    Embeddings(rng.normal(size=(40, 4)), index).save("e.npz")
    result = CliRunner().invoke(app, ["select", "e.npz", "--budget", "5", "-o", "list.csv"], catch_exceptions=False)
    assert result.exit_code == 0
    listed = pd.read_csv("list.csv")
    assert len(listed) == 5
    listed[["image"]].to_csv("done.csv", index=False)
    CliRunner().invoke(
        app, ["select", "e.npz", "--budget", "5", "-o", "next.csv", "--labelled", "done.csv"], catch_exceptions=False
    )
    assert not set(pd.read_csv("next.csv")["image"]) & set(listed["image"])
    shown = CliRunner().invoke(app, ["similar", "e.npz", "7.png", "-n", "3"], catch_exceptions=False)
    assert shown.exit_code == 0
    assert shown.output.count(".png") == 4
    assert "secret" not in shown.output + (tmp_path / "list.csv").read_text()
    with pytest.raises(ValueError, match=r"0 of the 40 embedded images are called 'x.png'"):
        CliRunner().invoke(app, ["similar", "e.npz", "x.png"], catch_exceptions=False)
