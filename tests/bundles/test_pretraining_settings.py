"""Settings of pretraining through the bundle: cached gradients, normalization, the rate, where views are made."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow

from monai_simclr.data.phantoms import FINDINGS, write_nih_phantoms
from monai_simclr.networks import PRETRAINED, FindingClassifier, encoder, encoder_header, load_encoder, save_classifier
from monai_simclr.runtime.exit_codes import exit_code, format_error
from monai_simclr.runtime.files import file_sha256
from monai_simclr.workflows.bundle import copy_bundle
from monai_simclr.workflows.seen import check_encoder, encoder_records, record_patients

pytestmark = pytest.mark.filterwarnings("ignore")  # MONAI warns that configs are code


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("settings")
    write_nih_phantoms(folder / "phantoms", n_patients=80, size=64)
    return copy_bundle(folder / "bundle", FINDINGS, size=32, width=0.125)


def _workflow(bundle: Path, name: str, output: str, **overrides: object) -> ConfigWorkflow:
    settings: dict[str, object] = {
        "dataset_dir": str(bundle.parent / "phantoms"),
        "bundle_root": str(bundle),
        "num_workers": 0,
        "max_epochs": 1,
        "batch_size": 32,
        "precision": "float32",
        "output_dir": str(bundle / "output" / output),
        "encoder_path": str(bundle / "models" / f"{output}.safetensors"),
    }
    known = json.loads((bundle / "configs" / f"{name}.json").read_text(encoding="utf-8"))
    settings = {key: value for key, value in settings.items() if key in known}  # any other one is refused
    workflow = ConfigWorkflow(str(bundle / f"configs/{name}.json"), logging_file=False, **{**settings, **overrides})
    workflow.initialize()
    return workflow


def _pretrained(bundle: Path, output: str, **overrides: object) -> dict[str, torch.Tensor]:
    workflow = _workflow(bundle, "pretrain", output, **overrides)
    workflow.run()
    return workflow.trainer.network.state_dict()


def _farthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert list(one) == list(other)
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


def test_views_on_the_device_leave_the_weights_of_views_in_the_workers(bundle: Path) -> None:
    """Bit for bit, on a CPU.

    They differed as long as workers handed over MetaTensors: those took another path through autograd, whose sums have
    another order. The trainer hands plain tensors to the network since.
    """
    assert _farthest(_pretrained(bundle, "workers"), _pretrained(bundle, "device", views_on="device")) == 0


def test_equal_runs_write_encoders_of_equal_checksums(bundle: Path) -> None:
    """The key of the hashed patients was random, and safetensors shuffles what stands in a header."""
    sums = set()
    for output in ("equal", "equal_again"):
        _pretrained(bundle, output)
        sums.add(file_sha256(bundle / "models" / f"{output}.safetensors"))
    assert len(sums) == 1
    _pretrained(bundle, "other", seed=1)
    keys = {encoder_header(bundle / "models" / f"{name}.safetensors")["patients_key"] for name in ("equal", "other")}
    assert len(keys) == 2, "hashes of two checkpoints must not be comparable"


def test_equal_classifiers_are_equal_files_with_equal_records_of_their_patients(tmp_path: Path) -> None:
    contents = set()
    for seed, name in enumerate(("one", "two", "three")):
        torch.manual_seed(seed // 2)
        path = save_classifier(tmp_path / f"{name}.pt", FindingClassifier(encoder("resnet10", 0.125), ["Mass"]))
        record = record_patients(path, np.array(["p1", "p2"]))
        contents.add((file_sha256(path), record.read_text()))
    assert len(contents) == 2
    assert len({record for _, record in contents}) == 2


@pytest.mark.parametrize(
    ("name", "norm", "fits"),
    [("train", "batch", False), ("train", "group", True), ("pretrain", "batch", False), ("pretrain", "group", False)],
)
def test_a_batch_of_one_image_is_refused_before_any_work_with_a_remedy(bundle: Path, name, norm, fits) -> None:
    settings = {"batch_size": 1, "norm": norm, **({"label_fraction": 1.0} if name == "train" else {})}
    if fits:
        assert _workflow(bundle, name, "alone", **settings).trainer.data_loader.batch_size == 1
        return
    with pytest.raises(RuntimeError) as failure:
        _ = _workflow(bundle, name, "alone", **settings).trainer
    assert exit_code(failure.value) == 2
    assert "pass --batch_size 2 or more, or fine-tune with --norm group" in format_error(failure.value)


def test_cached_gradients_leave_the_weights_of_the_whole_batch(bundle: Path) -> None:
    """With group normalization, which knows no batch, up to the order of float32 sums; SGD, which does not divide.

    After one step, and against how far it goes: at 32 pixels the last feature map is one pixel, the groups there have
    two values, and normalizing these makes much of a rounding from step to step, on some CPUs more than on others.
    """
    how = {"norm": "group", "optimizer_name": "sgd", "batch_size": 100}
    start = _workflow(bundle, "pretrain", "start", **how).trainer.network.state_dict()
    whole, chunked = (_pretrained(bundle, f"chunks{size}", chunk_size=size, **how) for size in (0, 64))
    assert 0 < _farthest(whole, chunked) < 1e-3 * _farthest(start, whole)


def test_the_rate_is_scaled_and_logged(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "monai_simclr"):
        rate = _workflow(
            bundle, "pretrain", "scaled", scaling="linear", optimizer_name="lars", learning_rate=0.3
        ).trainer.optimizer.param_groups[0]["initial_lr"]
    assert rate == pytest.approx(0.3 * 32 / 256)
    assert "lars: learning rate 0.0375 = 0.3 * 32 / 256" in caplog.text


@pytest.mark.parametrize(
    ("name", "then", "now"), [("chunk_size", 0, 16), ("scaling", "none", "sqrt"), ("optimizer_name", "adamw", "sgd")]
)
def test_a_run_with_another_setting_is_another_run(bundle: Path, name: str, then: object, now: object) -> None:
    if not (bundle / "output/identity/checkpoints").exists():
        _pretrained(bundle, "identity")
    with pytest.raises(Exception, match="Failed") as caught, warnings.catch_warnings():
        _pretrained(bundle, "identity", **{name: now})
    cause: BaseException | None = caught.value
    while cause is not None and not isinstance(cause, FileExistsError):
        cause = cause.__cause__
    assert f"holds another run: {name} was {then}, is {now}" in str(cause)


def test_later_commands_check_the_norm_of_the_encoder(bundle: Path) -> None:
    _pretrained(bundle, "grouped", norm="group")
    path = bundle / "models" / "grouped.safetensors"
    assert encoder_header(path)["norm"] == "group"
    assert isinstance(load_encoder(path).bn1, torch.nn.GroupNorm)
    small = {"n_bootstrap": 10, "label_fraction": 1.0, "ckpt_path": str(bundle / "models" / "grouped.pt")}
    with pytest.raises(Exception, match=r"grouped\.safetensors is another encoder .* or pass --norm"):
        _workflow(bundle, "train", "grouped", **small).trainer.run()
    _workflow(bundle, "train", "grouped", norm="group", **small).run()
    inference = _workflow(bundle, "inference", "grouped", norm="group")
    weights = torch.load(bundle / "models" / "grouped.pt", weights_only=True)
    assert inference.network_def.load_state_dict(weights).missing_keys == []


def test_clustering_refuses_an_encoder_of_another_norm(bundle: Path) -> None:
    if not (bundle / "models" / "grouped.safetensors").exists():
        _pretrained(bundle, "grouped", norm="group")
    workflow = _workflow(bundle, "cluster", "grouped")
    with pytest.raises(RuntimeError) as caught:
        workflow.parser.get_parsed_content("encoder")
    assert "with group normalization, but metadata.json asks for resnet18 of width 0.125 with batch" in str(
        caught.value.__cause__
    )


def test_the_second_view_and_the_strata_are_settings(bundle: Path) -> None:
    kinds: dict[str, dict[str, object]] = {
        "same film": {},
        "film of the patient": {"second_view": "patient"},
        "batches of a view": {"strata": ["view_position"]},
        "on the device": {"second_view": "patient", "views_on": "device"},
    }
    weights = {name: _pretrained(bundle, f"kind{i}", **kinds[name]) for i, name in enumerate(kinds)}
    assert _farthest(weights["film of the patient"], weights["on the device"]) == 0
    del weights["on the device"]
    values = list(weights.values())
    assert all(_farthest(one, other) > 0 for i, one in enumerate(values) for other in values[:i])


def test_an_unknown_second_view_or_stratum_is_refused(bundle: Path) -> None:
    for settings, message in (
        ({"second_view": "laterality"}, "second_view must be one of image, patient, study, view_position"),
        ({"strata": ["age"]}, "strata must be a list of source, manufacturer, view_position, sex, each once"),
    ):
        with pytest.raises(Exception) as caught:  # noqa: PT011 (MONAI wraps it)
            _workflow(bundle, "pretrain", "refused", **settings)
        assert message in format_error(caught.value)
        assert exit_code(caught.value) == 2


def test_an_encoder_continues_from_another_and_has_seen_its_patients(bundle: Path, caplog) -> None:
    _pretrained(bundle, "first", splits=["train"])
    start = bundle / "models" / "first.safetensors"
    _pretrained(bundle, "second", splits=["val"], start_from=str(start), learning_rate=1e-9, batch_size=8)
    path = bundle / "models" / "second.safetensors"
    weights, before = load_encoder(path).state_dict(), load_encoder(start).state_dict()
    kept = {name for name in weights if not name.endswith(("mean", "var", "tracked"))}
    assert all(torch.allclose(weights[name], before[name], atol=1e-6) for name in kept)
    assert encoder_header(path)["start_from"] == "first.safetensors"
    index = pd.read_csv(bundle.parent / "phantoms" / "Data_Entry_2017_v2020.csv", dtype=str)
    patients = index["Patient ID"].unique()
    seen = {
        name: check_encoder(bundle / "models" / f"{name}.safetensors", patients, True) for name in ("first", "second")
    }
    assert seen["first"] == seen["second"] > 0
    record = record_patients(path, patients[:1], encoder_records(path))
    assert {"pretraining", "pretraining 1", "fine-tuning"} <= set(json.loads(record.read_text("utf-8")))


def test_whom_the_weights_to_start_from_had_seen_is_known_whatever_becomes_of_their_file(bundle: Path) -> None:
    """It is replaced while the run works, which then is stopped, and removed before the run resumes."""
    _pretrained(bundle, "origin", splits=["train"])
    _pretrained(bundle, "replacement", splits=["test"])
    start, other = (bundle / "models" / f"{name}.safetensors" for name in ("origin", "replacement"))
    records = encoder_records(start)
    settings = {"splits": ["val"], "start_from": str(start), "batch_size": 8, "max_epochs": 2}
    stopped = _workflow(bundle, "pretrain", "continued", **settings).trainer
    stopped.add_event_handler(Events.EPOCH_STARTED(once=1), lambda engine: other.replace(start))
    stopped.add_event_handler(Events.EPOCH_COMPLETED(once=1), lambda engine: engine.terminate())
    stopped.run()
    assert encoder_records(start) != records, "nothing was replaced, so nothing is shown"
    start.unlink()
    _pretrained(bundle, "continued", **settings)
    path = bundle / "models" / "continued.safetensors"
    header = encoder_header(path)
    assert header["start_from"] == "origin.safetensors"
    assert encoder_records(path)[1:] == records


def test_weights_for_another_encoder_are_refused_before_training(bundle: Path, tmp_path: Path) -> None:
    torch.save(encoder("resnet10", 0.125).state_dict(), tmp_path / "other.pt")
    with pytest.raises(RuntimeError) as caught:
        _pretrained(bundle, "refused", start_from=str(tmp_path / "other.pt"))
    assert "they are those of encoder('resnet10', width=0.125)" in format_error(caught.value)
    assert exit_code(caught.value) == 3


def test_the_installed_encoder_is_not_overwritten_and_another_one_with_a_notice(bundle: Path, caplog) -> None:
    installed = PRETRAINED["chest_xray_resnet18"]
    before = file_sha256(installed)
    with pytest.raises(RuntimeError) as caught:
        _pretrained(bundle, "installed", encoder_path=str(installed))
    assert "is installed with monai-simclr and stays as it is; pass another" in format_error(caught.value)
    assert exit_code(caught.value) == 4
    assert file_sha256(installed) == before
    there = bundle / "models" / "there.safetensors"
    there.write_bytes(installed.read_bytes())
    with caplog.at_level(logging.INFO, "monai_simclr"):
        _pretrained(bundle, "there")
    assert f"{there} is there already; the encoder of this run will replace it" in caplog.text
    assert file_sha256(there) != before


@pytest.mark.parametrize("name", ["encoder.pt", "encoder", "encoder.safetensors.bak"])
def test_an_encoder_is_written_as_safetensors_only_and_another_name_is_refused_before_any_work(bundle, name) -> None:
    with pytest.raises(RuntimeError) as caught:
        _pretrained(bundle, "misnamed", encoder_path=str(bundle / "models" / name))
    assert "encoder_path must end in .safetensors, the format of" in format_error(caught.value)
    assert exit_code(caught.value) == 2
    assert not (bundle / "output" / "misnamed").exists()


def test_training_says_when_it_starts_from_the_installed_encoder(tmp_path: Path, caplog) -> None:
    write_nih_phantoms(tmp_path / "phantoms", n_patients=40, size=64)
    held = encoder_header("chest_xray_resnet18")
    made = copy_bundle(tmp_path / "bundle", FINDINGS, size=32, encoder=held["name"], width=float(held["width"]))
    encoder_path = str(made / "models" / "encoder.safetensors")
    with caplog.at_level(logging.INFO, "monai_simclr"):
        _workflow(made, "train", "train", label_fraction=1.0, batch_size=4, encoder_path=encoder_path).run()
    assert "is the encoder that comes with monai-simclr, not one pretrained here" in caplog.text
