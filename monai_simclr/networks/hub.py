"""Encoders shared in a folder or on the Hugging Face Hub (extra ``hub``): the file, and a model card of its header."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from torch import nn

from monai_simclr.networks.weights import PRETRAINED, encoder_file, encoder_header, load_encoder, patients_records
from monai_simclr.runtime.extras import import_extra
from monai_simclr.runtime.files import write_text, writing
from monai_simclr.runtime.names import shown

_FILE, _CARD = "encoder.safetensors", "README.md"
_NOT_TOLD = ("patients_key", "patients_seen", "patients_before")  # hashes, for programs


def save_pretrained(encoder: str | Path, folder: str | Path) -> Path:
    """Write a folder that `from_pretrained` and the Hub read: the encoder's file as it is, and a model card.

    Args:
        encoder: file that `save_encoder` or pretraining wrote, or a name in `PRETRAINED`.
        folder: the folder, new or old.

    Returns:
        `folder`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not an encoder of ours, or was altered.
    """
    header, folder = encoder_header(encoder), Path(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(encoder_file(encoder), folder / _FILE)
    write_text(folder / _CARD, model_card(header))
    return folder


def push_to_hub(
    encoder: str | Path,
    repo: str,
    private: bool = True,
    token: str | None = None,
    endpoint: str | None = None,
) -> str:
    """Upload an encoder and its model card to the Hugging Face Hub.

    The file holds keyed hashes of the patients seen, which somebody who has their ids can recognize (SECURITY.md).

    Args:
        encoder: file that `save_encoder` or pretraining wrote, or a name in `PRETRAINED`.
        repo: ``OWNER/NAME``; made if it is not there.
        private: of a new repository; publish it on the Hub when you have looked at it.
        token: by default that of ``hf auth login`` or ``HF_TOKEN``.
        endpoint: address of another hub.

    Returns:
        The address of the commit.

    Raises:
        ModuleNotFoundError: if huggingface_hub is not installed (says what to install).
    """
    api = _hub().HfApi(endpoint=endpoint, token=token)
    with tempfile.TemporaryDirectory() as scratch:
        folder = save_pretrained(encoder, Path(scratch) / "repo")
        api.create_repo(repo, private=private, exist_ok=True)
        done = api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Encoder of monai-simclr")
    return str(done.commit_url)


def fetch_encoder(
    source: str | Path, revision: str | None = None, token: str | None = None, endpoint: str | None = None
) -> Path:
    """The local file of an encoder, wherever it is; only a name ``OWNER/NAME`` of the Hub is downloaded, and cached.

    Args:
        source: a name in `PRETRAINED`, a file, a folder of `save_pretrained`, or ``OWNER/NAME`` on the Hub.
        revision: on the Hub: branch, tag or commit.
        token, endpoint: see `push_to_hub`.

    Raises:
        FileNotFoundError: if it is nowhere.
        ModuleNotFoundError: if it would be on the Hub, and huggingface_hub is not installed.
    """
    path = encoder_file(source)
    if path.is_dir():
        return path / _FILE
    parts = str(source).split("/")
    if path.is_file() or path.suffix == ".safetensors" or len(parts) != 2 or not all(parts):
        return path
    hub = _hub()
    try:
        return Path(hub.hf_hub_download(str(source), _FILE, revision=revision, token=token, endpoint=endpoint))
    except (hub.errors.HfHubHTTPError, hub.errors.LocalEntryNotFoundError, hub.errors.HFValidationError) as error:
        reason = shown(" ".join(str(error).split()))[:200]
        raise FileNotFoundError(
            f"no encoder {source}: there is no such file or folder here, none of {', '.join(PRETRAINED)}, and the Hub "
            f"says {reason}"
        ) from error


def from_pretrained(
    source: str | Path, revision: str | None = None, token: str | None = None, endpoint: str | None = None
) -> nn.Module:
    """Load an encoder in evaluation mode: `load_encoder` of what `fetch_encoder` finds.

    Example:
        >>> network = from_pretrained(save_pretrained("chest_xray_resnet18", "shared"))
        >>> network.training
        False
    """
    return load_encoder(fetch_encoder(source, revision, token, endpoint))


def model_card(header: dict[str, str]) -> str:
    """The README.md of a shared encoder, in Markdown, of the header of its file.

    Example:
        >>> print(model_card({"name": "resnet18", "width": "0.5", "size": "128"}).splitlines()[9])
        # resnet18 of width 0.5, pretrained on chest radiographs
    """
    told = {key: shown(value).replace("|", "\\|") for key, value in sorted(header.items()) if key not in _NOT_TOLD}
    own = patients_records(header)[0]
    count = len(own.hashes) - own.unnamed
    told |= {"patients seen": str(count)} if count else {}
    rows = "\n".join(f"| {key} | {value} |" for key, value in told.items())
    return f"""---
library_name: monai-simclr
pipeline_tag: image-feature-extraction
tags:
- medical
- chest-x-ray
- self-supervised
---

# {told["name"]} of width {told["width"]}, pretrained on chest radiographs

An encoder of [monai-simclr](https://pypi.org/project/monai-simclr): gray images in [0, 1] of {told.get("size", "any")}
pixels to vectors. For research only; not for diagnosis.

```python
from monai_simclr.workflows import EncoderTransformer

features = EncoderTransformer("OWNER/NAME").fit_transform(["a.dcm", "b.png"])
```

| | |
|---|---|
{rows}
"""


def _hub() -> Any:
    hub = import_extra("huggingface_hub", "hub", "the Hugging Face Hub")
    import_extra("huggingface_hub.errors", "hub", "the Hugging Face Hub")
    return hub
