"""A trained classifier for other runtimes: ONNX, TorchScript, and a folder for MONAI Deploy; all it needs is inside."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.data.torchscript_utils import save_net_with_metadata
from torch import nn

from monai_simclr.files import write_atomically, write_json
from monai_simclr.inference import ClassifierCard, read_card
from monai_simclr.networks import FindingClassifier, load_classifier

__all__ = ["export_folder", "export_onnx", "export_torchscript", "trained_classifier"]


def trained_classifier(bundle: str | Path) -> tuple[FindingClassifier, ClassifierCard, int]:
    """The classifier of a bundle, its card, and the side of its images in pixels.

    Raises:
        FileNotFoundError: if the bundle has no trained classifier.
    """
    folder = Path(bundle)
    config = ConfigParser()
    config.read_config(folder / "configs" / "inference.json")
    config.read_meta(folder / "configs" / "metadata.json")
    path = folder / config["_meta_#files#model"]
    card = read_card(path)
    network = load_classifier(config.get_parsed_content("network_def"), path)
    return network, card, int(config.get_parsed_content("size"))


def export_onnx(bundle: str | Path, path: str | Path) -> Path:
    """Write the classifier as ONNX: ``image`` float32 (N, 1, S, S) in [0, 1] to ``pred``, logits (N, K); N is free.

    The file's metadata hold, as JSON, what `metadata_of` gives: findings, preprocessing, temperatures and thresholds.

    Args:
        bundle: folder of a bundle with a trained classifier.
        path: the new file.
    """
    import onnx

    network, card, size = trained_classifier(bundle)
    image = torch.zeros(2, 1, size, size)
    batch = torch.export.Dim("batch", min=1)
    program = torch.onnx.export(
        network, (image,), input_names=["image"], output_names=["pred"], dynamic_shapes=({0: batch},), dynamo=True,
        verbose=False,
    )  # fmt: skip
    assert program is not None
    model = program.model_proto
    for key, value in metadata_of(card).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model)
    with write_atomically(path) as part:
        part.write_bytes(model.SerializeToString())
    return Path(path)


def export_torchscript(bundle: str | Path, path: str | Path) -> Path:
    """Write the classifier as TorchScript, with the bundle's configs inside as `monai.bundle ckpt_export` puts them,
    and what `metadata_of` gives in the metadata.

    MONAI Deploy looks for the configs in a folder of the archive that has the file's name without its ending, and goes
    on without them where there is none: do not rename the file, export it again.

    Args:
        bundle: folder of a bundle with a trained classifier.
        path: the new file.
    """
    path = Path(path)
    network, card, size = trained_classifier(bundle)
    with torch.no_grad():
        traced = torch.jit.trace(_Plain(network), torch.zeros(2, 1, size, size))
    inference = (Path(bundle) / "configs" / "inference.json").read_text(encoding="utf-8").encode()
    with tempfile.TemporaryDirectory() as folder:  # the file's name becomes that of the archive's folder
        made = Path(folder) / path.name
        save_net_with_metadata(
            traced, str(made), include_config_vals=False, append_timestamp=False,
            meta_values=_metadata(bundle, card), more_extra_files={"inference.json": inference},
        )  # fmt: skip
        with write_atomically(path) as part:
            shutil.copyfile(made, part)
    return path


def export_folder(bundle: str | Path, folder: str | Path) -> Path:
    """Write the folder that MONAI Deploy runs as a bundle: ``models/model.ts``, and configs with `metadata_of` inside.

    Args:
        bundle: folder of a bundle with a trained classifier.
        folder: the new folder; must not exist, or be empty.

    Raises:
        FileExistsError: if the folder has something in it.
    """
    folder, bundle = Path(folder), Path(bundle)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; name a new folder for the export")
    _, card, _ = trained_classifier(bundle)
    for name in ("configs", "models"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name in ("LICENSE", "docs/README.md", "configs/inference.json"):
        if (bundle / name).is_file():
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(bundle / name, folder / name)
    export_torchscript(bundle, folder / "models" / "model.ts")
    write_json(folder / "configs" / "metadata.json", _metadata(bundle, card))  # last: without it, it is no bundle
    return folder


def metadata_of(card: ClassifierCard) -> dict[str, str]:
    """What travels inside an exported file, as text: findings, preprocessing, operating points, the checksum."""
    operating: dict[str, Any] = {
        name: {"temperature": card.operating[name].temperature, "threshold_probability": threshold}
        for name, threshold in zip(card.findings, card.thresholds(), strict=True)
    }
    return {
        "findings": json.dumps(list(card.findings)),
        "preprocessing": json.dumps(dict(card.preprocessing), sort_keys=True, default=list),
        "operating": json.dumps(operating),
        "model_sha256": card.model_sha256,
        "notice": "research only, not for diagnosis",
    }


def _metadata(bundle: str | Path, card: ClassifierCard) -> dict[str, Any]:
    text = (Path(bundle) / "configs" / "metadata.json").read_text(encoding="utf-8")
    return {**json.loads(text), **metadata_of(card)}


class _Plain(nn.Module):
    """The classifier without its extra state, which TorchScript cannot hold."""

    def __init__(self, network: FindingClassifier) -> None:
        super().__init__()
        self.encoder, self.classifier = network.encoder, network.classifier

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.encoder(images))
