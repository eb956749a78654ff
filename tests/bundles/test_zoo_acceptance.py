"""The zoo's checks on the bundle, in an environment with what metadata.json lists, with our package and with a copy."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from bare_environment import bare_environment, clean_variables
from monai_simclr.bundles import CHEST_XRAY_SIMCLR
from zoo_checks import verify_min
from zoo_rules import METADATA

from monai_simclr.workflows.bundle import copy_bundle, read_metadata
from monai_simclr.workflows.verify import verify_bundle

CHECKS = Path(__file__).with_name("zoo_checks.py")
UNIT_TEST = Path(__file__).resolve().parents[2] / "docs/how-to/zoo/test_chest_xray_simclr.py"
CHECK_WORKFLOW = """
def check_workflow(workflow, check_properties):
    workflow.initialize()
    assert not check_properties or workflow.check_properties() == []
    workflow.run()
    workflow.finalize()
"""  # what the zoo's utils.py does


@pytest.fixture(scope="module", params=["installed", "with code"])
def submission(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A clone of the zoo with our bundle, as a pull request has it, and the Python of the zoo's environment."""
    zoo = tmp_path_factory.mktemp("zoo")
    bundle = copy_bundle(zoo / "models/chest_xray_simclr", with_code=request.param == "with code")
    metadata = read_metadata(bundle)
    (bundle / "eval").mkdir()
    (bundle / "eval/schema.json").write_text(json.dumps(METADATA))  # the zoo downloads the published one
    listed = ["monai", "torch", "numpy", *metadata["required_packages_version"]]
    return zoo, bare_environment(zoo / "model_zoo_venv", [*listed, "jsonschema"])


def _run(python: Path, *words: str | Path, cwd: Path, **variables: str) -> str:
    done = subprocess.run(
        [str(python), "-W", "ignore", *map(str, words)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=clean_variables(**variables),
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def test_the_environment_has_what_is_listed_and_nothing_else(submission: tuple[Path, Path]) -> None:
    zoo, python = submission
    code = "import importlib.util as u; print([bool(u.find_spec(n)) for n in ('torch', 'cv2', 'pytest', 'matplotlib')])"
    assert _run(python, "-c", code, cwd=zoo).split() == ["[True,", "True,", "False,", "False]"]
    spec = "import importlib.util as u; print(bool(u.find_spec('monai_simclr')))"
    has_code = (zoo / "models/chest_xray_simclr/monai_simclr").is_dir()
    assert _run(python, "-c", spec, cwd=zoo).strip() == str(not has_code)


def test_the_zoos_checks_pass_with_what_metadata_lists(submission: tuple[Path, Path]) -> None:
    zoo, python = submission
    said = _run(python, CHECKS, "models/chest_xray_simclr", cwd=zoo)
    assert "min: verified" in said
    assert "full: verified" in said


def test_the_checks_find_what_is_missing(tmp_path: Path) -> None:
    bundle = copy_bundle(tmp_path / "b")
    (bundle / "eval").mkdir()
    (bundle / "eval/schema.json").write_text(json.dumps(METADATA))
    verify_min(bundle)
    (bundle / "models/model.pt").rename(tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"necessary files \['models/model.pt'\] are not existing"):
        verify_min(bundle)
    (tmp_path / "model.pt").rename(bundle / "models/model.pt")
    path = bundle / "configs/metadata.json"
    metadata = json.loads(path.read_text())
    path.write_text(json.dumps(metadata | {"version": "9.9.9"}))
    with pytest.raises(ValueError, match=r"version 9\.9\.9 is missing in the changelog"):
        verify_min(bundle)
    path.write_text(json.dumps({key: value for key, value in metadata.items() if key != "task"}))
    with pytest.raises(ValueError, match="'task' is a required property"):
        verify_min(bundle)


def test_a_copy_with_code_is_known_to_verify_until_a_file_of_it_differs(tmp_path: Path) -> None:
    bundle = copy_bundle(tmp_path / "b", with_code=True)
    assert "monai-simclr" not in read_metadata(bundle)["required_packages_version"]
    entries = verify_bundle(bundle)
    assert sum(entry.text == "code (.py)" for entry in entries) > 100
    assert all(entry.known for entry in entries)
    changed = bundle / "monai_simclr/ops/views.py"
    changed.write_text(changed.read_text() + "print('hello')\n")
    (bundle / "scripts").mkdir()
    shutil.copy(bundle / "monai_simclr/optimizers.py", bundle / "scripts")
    unknown = [entry.file for entry in verify_bundle(bundle) if not entry.known]
    assert unknown == ["monai_simclr/ops/views.py", "scripts/optimizers.py"]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_unit_test_of_a_pull_request_passes(submission: tuple[Path, Path]) -> None:
    zoo, python = submission
    tests = zoo / "ci/unit_tests"
    tests.mkdir(parents=True)
    shutil.copy(UNIT_TEST, tests)
    (tests / "utils.py").write_text(CHECK_WORKFLOW)
    before = torch.load(zoo / "models/chest_xray_simclr/models/model.pt", weights_only=True)
    said = _run(python, tests / UNIT_TEST.name, cwd=zoo, PYTHONPATH=str(zoo))
    assert "Ran 4 tests" in said
    assert "OK" in said
    after = torch.load(zoo / "models/chest_xray_simclr/models/model.pt", weights_only=True)
    assert list(before) == list(after)
    assert torch.equal(before["classifier.weight"], after["classifier.weight"]), (
        "the submitted weights are as they were"
    )
    assert not (zoo / "models/chest_xray_simclr/output").exists()


def test_the_figures_of_shipped_weights_are_in_the_metadata() -> None:
    """The lead ships weights with docs/model_card.py; a bundle without weights claims no figure."""
    shipped = (CHEST_XRAY_SIMCLR / "models" / "model.pt").is_file()
    assert ("eval_metrics" in read_metadata(CHEST_XRAY_SIMCLR)) == shipped
    assert ("no weights" not in (CHEST_XRAY_SIMCLR / "docs/README.md").read_text(encoding="utf-8")) == shipped


def test_the_model_card_is_filled_from_a_runs_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(UNIT_TEST.parents[2]))
    model_card = importlib.import_module("model_card")
    rows = {
        "Mass": {"auroc": 0.71234, "low": 0.6, "high": 0.8, "positives": 9},
        "Edema": {"auroc": None, "low": None, "high": None, "positives": 0},
        "macro mean": {"auroc": 0.71234, "low": 0.6, "high": 0.8, "positives": None},
    }
    baseline = {"finding": "Mass", "baseline": 0.55, "difference": 0.16234, "low": 0.01, "high": 0.3}
    metrics = {
        "split": "test",
        "n": {"images": 30, "patients": 20},
        "values": {"findings": rows},
        "baselines": {"confounder_baseline": [baseline]},
    }
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    bundle = copy_bundle(tmp_path / "b")
    for _ in range(2):  # the second time replaces the first
        model_card.write(tmp_path, bundle)
        assert read_metadata(bundle)["eval_metrics"] == {"Mass AUROC": 0.712, "macro mean AUROC": 0.712}
        page = (bundle / "docs/README.md").read_text(encoding="utf-8")
        assert page.count("| Mass | 9 | 0.712 [0.600, 0.800] | 0.550 | +0.162 [0.010, 0.300] |") == 1
        assert "no weights" not in page


def test_the_model_card_names_findings_that_are_not_above_chance_or_not_above_view_age_and_sex(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(UNIT_TEST.parents[2]))
    model_card = importlib.import_module("model_card")
    ends = {"Mass": (0.6, 0.01), "Edema": (0.6, -0.02), "Pleural_Thickening": (0.45, 0.1), "Hernia": (None, None)}
    ends["Fibrosis"] = (0.55, None)
    rows = {name: {"auroc": 0.7, "low": low, "high": 0.9} for name, (low, _) in ends.items()}
    baselines = {
        name: {"baseline": 0.6 if low is not None else None, "difference": 0.1, "low": low, "high": 0.3}
        for name, (_, low) in ends.items()
    }
    said = [" ".join(text.split()) for text in model_card.warnings(rows | {"macro mean": rows["Mass"]}, baselines)]
    assert said[0] == "**Not shown to be above chance here: Pleural Thickening, Hernia.** Do not use them."
    assert said[1].startswith("**Above chance, but not shown to be above view, age and sex: Edema, Fibrosis.** ")
    assert said[2] == "The macro means leave out, for want of patients: Hernia, Fibrosis."
    assert not list(model_card.warnings({"Mass": rows["Mass"]}, baselines)), "a finding above both needs no warning"
