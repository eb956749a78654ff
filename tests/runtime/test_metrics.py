from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from monai_simclr.evaluation import Interval
from monai_simclr.runtime.metrics import closing_line, print_table, read_metrics, write_metrics


def test_numpy_becomes_python_and_nan_becomes_null(tmp_path):
    values = {"auroc": Interval(np.float32(0.5), float("nan"), 1.0), "counts": np.arange(2)}
    write_metrics(tmp_path, values, command="evaluate", split="test", seed=3, n={"images": np.int64(4)})
    read = read_metrics(tmp_path)
    assert read["values"] == {"auroc": {"value": 0.5, "low": None, "high": 1.0}, "counts": [0, 1]}
    assert read["n"] == {"images": 4}
    assert set(read["versions"]) == {"monai_simclr", "monai", "torch", "numpy", "scikit-learn"}


def test_results_import_neither_torch_nor_monai():
    code = "import sys, monai_simclr.runtime.metrics; sys.exit(bool({'torch', 'monai'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_foreign_file_is_refused(tmp_path):
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(
        ValueError,
        match=r"metrics\.json cannot be read as a metrics file of ours: it lacks command, values, split; run",
    ):
        read_metrics(tmp_path)
    with pytest.raises(FileNotFoundError, match="no metrics at"):
        read_metrics(tmp_path / "absent")


def test_a_value_that_json_does_not_know_is_refused(tmp_path):
    with pytest.raises(TypeError, match="is a object"):
        write_metrics(tmp_path, {"a": object()}, command="c", split="test", seed=0, n={})


def test_a_table_shows_names_as_they_are(capsys):
    print_table([{"name": "[bold]x", "auroc": 0.12345}], title="t")
    out = capsys.readouterr().out
    assert "[bold]x" in out
    assert "0.123" in out


def test_a_run_that_made_nothing_has_no_closing_line():
    with pytest.raises(ValueError, match="made nothing"):
        closing_line([], "next")
