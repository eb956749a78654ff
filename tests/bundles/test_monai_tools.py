"""MONAI's own tools on the bundle, offline: load, create_workflow, verify_net_in_out, exports, tracking."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from bundle_command import bundle_command
from monai.bundle import ckpt_export, create_workflow, load, onnx_export, verify_net_in_out
from monai.data.torchscript_utils import load_net_with_metadata

from monai_simclr.data.phantoms import FINDINGS, write_nih_phantoms
from monai_simclr.networks import FindingClassifier, encoder, save_classifier, save_encoder
from monai_simclr.workflows.bundle import copy_bundle

pytestmark = pytest.mark.filterwarnings("ignore")  # MONAI warns that configs are code, torch of TorchScript's age
SIZE, WIDTH = 56, 0.25
CONFIGS = ["pretrain", "train", "cluster", "inference", "['train', 'evaluate']"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with an encoder and a classifier as training leaves them, of random weights, and a drawn archive."""
    folder = tmp_path_factory.mktemp("tools")
    write_nih_phantoms(folder / "phantoms", n_patients=96, size=96)
    copy_bundle(folder / "bundle", FINDINGS, size=SIZE, width=WIDTH)
    network = encoder("resnet18", WIDTH)
    save_encoder(folder / "bundle/models/encoder.safetensors", network, {"name": "resnet18", "width": str(WIDTH)})
    save_classifier(folder / "bundle/models/model.pt", FindingClassifier(network, FINDINGS))
    return folder


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory that is not the bundle's."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _images(size: int = SIZE) -> torch.Tensor:
    return torch.rand(3, 1, size, size, generator=torch.Generator().manual_seed(0))


def _expected(folder: Path, images: torch.Tensor) -> torch.Tensor:
    network = FindingClassifier(encoder("resnet18", WIDTH), FINDINGS)
    network.load_state_dict(torch.load(folder / "bundle/models/model.pt", weights_only=True))
    with torch.no_grad():
        return network.eval()(images)


@pytest.mark.parametrize("kind", ["inference", "train"])
def test_load_gives_the_trained_network_and_leaves_no_file(folder: Path, elsewhere: Path, kind: str) -> None:
    network = load("bundle", bundle_dir=str(folder), workflow_type=kind)
    with torch.no_grad():
        assert torch.equal(network.eval()(_images()), _expected(folder, _images()))
    assert list(elsewhere.iterdir()) == []
    assert not (folder / "bundle/output").exists()


def test_load_into_a_given_network_reads_no_config(folder: Path, elsewhere: Path) -> None:
    network = FindingClassifier(encoder("resnet18", WIDTH), FINDINGS)
    loaded = load("bundle", model=network, bundle_dir=str(folder))
    assert torch.equal(loaded.eval()(_images()), _expected(folder, _images()))


@pytest.mark.parametrize("names", CONFIGS)
def test_create_workflow_takes_every_config_from_any_folder(folder: Path, elsewhere: Path, names: str) -> None:
    listed = json.loads(names.replace("'", '"')) if names.startswith("[") else [names]
    files = [str(folder / "bundle/configs" / f"{name}.json") for name in listed]
    kind = "infer" if listed[0] == "inference" else "train"
    workflow = create_workflow(
        config_file=files,
        workflow_type=kind,
        logging_file=False,
        bundle_root=str(folder / "bundle"),
        dataset_dir=str(folder / "phantoms"),
        num_workers=0,
    )
    assert workflow.parser.get_parsed_content("network_def" if listed[0] != "cluster" else "encoder_def") is not None
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("size", [SIZE, 32])
def test_verify_net_in_out_passes_at_the_declared_and_the_smallest(folder: Path, tmp_path: Path, size: int) -> None:
    """Sizes are declared as numbers, since preprocessing makes exactly that size; 32 is the smallest of a bundle."""
    bundle = copy_bundle(tmp_path / "small", FINDINGS, size=size, width=WIDTH)
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(bundle / "configs/metadata.json"),
        config_file=str(bundle / "configs/inference.json"),
        device="cpu",
        n=1,
        p=1,
        any=1,
    )


def test_verify_net_in_out_refuses_metadata_with_another_number_of_findings(folder: Path) -> None:
    channels = {"_meta_#network_data_format#outputs#pred#num_channels": len(FINDINGS) + 1}
    with pytest.raises(ValueError, match=r"output channel number .* doesn't match"):
        verify_net_in_out(
            net_id="network_def",
            meta_file=str(folder / "bundle/configs/metadata.json"),
            config_file=str(folder / "bundle/configs/inference.json"),
            device="cpu",
            **channels,
        )


def _exported(folder: Path, made: Path) -> dict[str, object]:
    bundle = folder / "bundle"
    return {
        "net_id": "network_def",
        "filepath": str(made),
        "ckpt_file": str(bundle / "models/model.pt"),
        "meta_file": str(bundle / "configs/metadata.json"),
        "config_file": str(bundle / "configs/inference.json"),
        "key_in_ckpt": "",
    }


@pytest.mark.parametrize("how", [{}, {"use_trace": True, "input_shape": [1, 1, SIZE, SIZE]}], ids=["script", "trace"])
def test_ckpt_export_makes_a_torchscript_file_of_equal_outputs(folder: Path, tmp_path: Path, how: dict) -> None:
    ckpt_export(**_exported(folder, tmp_path / "model.ts"), **how)
    network, metadata, _ = load_net_with_metadata(str(tmp_path / "model.ts"))
    assert metadata["name"] == "Chest radiograph SimCLR"
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(_images()), _expected(folder, _images()), rtol=0, atol=1e-5)


def test_onnx_export_makes_a_file_of_equal_outputs(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="the export extra is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="the export extra is not installed")
    onnx_export(
        **_exported(folder, tmp_path / "model.onnx"),
        use_trace=True,
        input_shape=[3, 1, SIZE, SIZE],
        converter_kwargs={"input_names": ["image"], "output_names": ["pred"]},
    )
    made = runtime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    (found,) = made.run(["pred"], {"image": _images().numpy()})
    torch.testing.assert_close(torch.from_numpy(found), _expected(folder, _images()), rtol=0, atol=1e-4)


def _run(folder: Path, config: str, output: str, *more: str, ranks: int = 1) -> subprocess.CompletedProcess[str]:
    places = ["--dataset_dir", str(folder / "phantoms"), "--output_dir", output, "--num_workers", "0"]
    command = bundle_command(config, *places, *more, ranks=ranks)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder / "bundle", capture_output=True, text=True, env=environment, timeout=240)


SMALL = ("--max_epochs", "1", "--batch_size", "8", "--label_fraction", "1.0", "--n_bootstrap", "20")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_training_on_two_ranks_starts_from_the_encoder_and_leaves_a_classifier(folder: Path) -> None:
    config, path = "['configs/train.json','configs/multi_gpu_train.json']", folder / "bundle/models/ranks.pt"
    done = _run(folder, config, "output/ranks", *SMALL, "--freeze_encoder", "True", "--ckpt_path", str(path), ranks=2)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("next: run configs/inference.json") == 1, "both ranks speak"
    made, first = (torch.load(one, weights_only=True) for one in (path, folder / "bundle/models/model.pt"))
    assert list(made) == list(first)
    assert torch.equal(made["_extra_state"], first["_extra_state"])
    name = "encoder.conv1.weight"
    assert torch.equal(made[name], first[name]), "frozen, it is still what pretraining left"
    scored = _run(folder, "['configs/train.json','configs/evaluate.json']", "output/scored", "--ckpt_path", str(path))
    assert scored.returncode == 0, scored.stdout + scored.stderr


SHOWN = {  # what the log says of an epoch, under the names of the metrics
    "pretrain": "loss images_per_second data_share chance_loss top1 chance effective_rank probe_auroc knn_auroc",
    "train": "loss images_per_second data_share val_mean_auroc",
}


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", ["pretrain", "train"])
def test_tensorboard_and_mlflow_get_every_number_that_the_log_shows(folder: Path, name: str) -> None:
    pytest.importorskip("mlflow", reason="the tracking extra is not installed")
    sqlalchemy = pytest.importorskip("sqlalchemy", reason="mlflow keeps its runs in SQLite, through sqlalchemy")
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    small = (*SMALL, "--val_interval", "1") if name == "train" else (*SMALL[:4], "--probe_interval", "1")
    encoder = str(folder / ("tracked.safetensors" if name == "pretrain" else "bundle/models/encoder.safetensors"))
    tracked = ("--tracking", "mlflow", "--encoder_path", encoder, "--ckpt_path", str(folder / "tracked.pt"))
    more = tracked if name == "train" else tracked[:4]
    done = _run(folder, f"configs/{name}.json", f"output/{name}-tracked", *small, *more)
    assert done.returncode == 0, done.stdout + done.stderr
    output = folder / f"bundle/output/{name}-tracked"
    with sqlalchemy.create_engine(f"sqlite:///{output / 'mlruns.db'}").connect() as connection:
        logged = {row[0] for row in connection.execute(sqlalchemy.text("select key from metrics"))}
    events = accumulator.EventAccumulator(str(output / "tensorboard")).Reload()
    shown = set(SHOWN[name].split())
    assert shown <= logged
    assert shown <= set(events.Tags()["scalars"])
