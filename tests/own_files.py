"""Every kind of file that we write and read again, and how it can be damaged: for the fuzz test of all of them.

A kind makes a sound file and says what is read from it. Damage is done to the bytes (cut, a flipped bit, another kind's
bytes, nothing, a folder in its place) or to the content (other types, missing keys, numbers that cannot be), the latter
also with a checksum that fits, as a careful hand would leave it.
"""

from __future__ import annotations

import atexit
import copy
import functools
import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from ignite.engine import Engine
from PIL import Image
from torch import nn

from monai_simclr.data import build_store, open_store, read_index, write_index
from monai_simclr.data.pseudonyms import hash_key
from monai_simclr.data.store import StoreOptions
from monai_simclr.evaluation import Embeddings, fit_novelty
from monai_simclr.handlers import Checkpoint
from monai_simclr.inference import (
    InferenceConfig,
    Journal,
    OperatingPoint,
    read_inference_config,
    write_inference_config,
)
from monai_simclr.networks import (
    FindingClassifier,
    encoder,
    encoder_header,
    load_classifier,
    load_encoder,
    save_classifier,
    save_encoder,
)
from monai_simclr.report import collect_runs
from monai_simclr.runtime.artefacts import seal_zip, sealed, write_arrays, write_sealed_json, write_tensor_file
from monai_simclr.runtime.checkpoints import save_checkpoint
from monai_simclr.runtime.metrics import read_metrics, write_metrics
from monai_simclr.study.summary import read_run
from monai_simclr.workflows.bundle import copy_bundle, read_metadata
from monai_simclr.workflows.seen import check_classifier, record_patients

FINDINGS, WIDTH = ["Mass", "Edema"], 0.125


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Attributes:
        name: of the kind.
        make: writes it, and what it stands beside, into a folder; gives its path.
        read: reads it from there, into plain values that can be compared.
        checked: whether it has a checksum, so that whatever is read must be what was written. A table that a person may
            write has none: there, what is read may differ, as long as reading ends in a value or in a sentence of ours.
        made_again: the part of it that is lost is made again, so that what is read may be less.
    """

    name: str
    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    checked: bool = True
    made_again: bool = False


def _network() -> FindingClassifier:
    torch.manual_seed(0)
    return FindingClassifier(encoder("resnet10", width=WIDTH), FINDINGS).eval()


def _tensors(network: nn.Module) -> dict[str, Any]:
    return {name: value.tolist() for name, value in network.state_dict().items() if value.numel() < 2000}


def make_encoder(folder: Path) -> Path:
    header = {"name": "resnet10", "width": str(WIDTH), "size": "64", "patients_key": "k", "patients_seen": '["a"]'}
    return save_encoder(folder / "encoder.safetensors", _network().encoder, header)


def make_classifier(folder: Path) -> Path:
    return save_classifier(folder / "model.pt", _network())


def make_card(folder: Path) -> Path:
    (folder / "model.pt").write_bytes(b"weights")
    rng = np.random.default_rng(0)
    operating = {
        "Mass": OperatingPoint(2.0, 1.0, 0.9, {"specificity": 0.9}, 30, 5),
        "Edema": OperatingPoint(1.0, None, 0.9),
    }
    novelty = fit_novelty(rng.normal(size=(60, 6)), rng.normal(size=(30, 6)))
    return write_inference_config(InferenceConfig(FINDINGS, {"size": 56}, operating, novelty), folder / "model.pt")


def make_novelty(folder: Path) -> Path:
    return make_card(folder).with_name("novelty.safetensors")


def _card(folder: Path) -> Any:
    card = read_inference_config(folder / "model.pt")
    novelty = {name: np.asarray(value).tolist() for name, value in vars(card.novelty).items()}
    return card.findings, card.preprocessing, {name: vars(one) for name, one in card.operating.items()}, novelty


def _index(rows: int = 6) -> pd.DataFrame:
    table = {"image": [f"/x/{n}.png" for n in range(rows)], "patient_id": [f"00{n}" for n in range(rows)]}
    table |= {name: [""] * rows for name in ("study_id", "view_position", "sex")}
    return pd.DataFrame({**table, "age": 50.0, "split": "train", "Mass": [float(n % 2) for n in range(rows)]})


def make_embeddings(folder: Path) -> Path:
    features = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    Embeddings(features, _index(), {"encoder": "a"}).save(folder / "embeddings.npz")
    return folder / "embeddings.npz"


def _embeddings(folder: Path) -> Any:
    found = Embeddings.load(folder / "embeddings.npz")
    return found.features.tolist(), found.index.astype(str).to_numpy().tolist(), found.source


def _training(folder: Path) -> tuple[Checkpoint, Engine, nn.Module]:
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    engine = Engine(lambda engine, batch: None)
    engine.state.epoch_length, engine.state.max_epochs = 2, 3
    return Checkpoint(folder / "checkpoints", {"network": network}, {"seed": 0}), engine, network


def make_checkpoint(folder: Path) -> Path:
    checkpoint, engine, _ = _training(folder)
    path = checkpoint.save(engine, 2)
    assert path is not None
    return path


def _checkpoint(folder: Path) -> Any:
    checkpoint, engine, network = _training(folder)
    with torch.no_grad():
        network.weight.zero_()
    checkpoint.resume(engine)
    return engine.state.iteration, _tensors(network)


def make_journal(folder: Path) -> Path:
    journal = Journal(folder, {"model": "a", "keep": {"paths": False}})
    journal.append([{"file_hash": f"h{n}", "stamp": f"{n}-2", "reason": "", "logits": [n / 7, 1.5]} for n in range(4)])
    journal.close()
    return journal.path


def _journal(folder: Path) -> Any:
    journal = Journal(folder, {"model": "a", "keep": {"paths": False}})
    journal.close()
    again = Journal(folder, {"model": "a", "keep": {"paths": False}})  # what was left can be read
    again.close()
    assert again.rows == journal.rows
    return journal.rows


@functools.cache
def _archive() -> pd.DataFrame:
    """Four pictures, where they stay for the whole session."""
    folder = Path(tempfile.mkdtemp(prefix="own_files"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    rng = np.random.default_rng(0)
    for number in range(4):
        Image.fromarray(rng.integers(0, 256, (40, 40), dtype=np.uint8)).save(folder / f"{number}.png")
    return _index(4).assign(image=[str(folder / f"{number}.png") for number in range(4)])


def _maker_of_store(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        build_store(_archive(), folder / "store", 16, 0)
        return folder / "store" / name

    return make


def _store(folder: Path) -> Any:
    store = open_store(folder / "store", verify=True)
    return store.images.tolist(), store.index["patient_id"].tolist(), store.provenance["sha256"]


def _cached_store(folder: Path) -> Any:
    again = StoreOptions(rebuild=True)
    build_store(_archive(), folder / "store", 16, 0, options=again)
    return _store(folder)


def make_metrics(folder: Path) -> Path:
    return write_metrics(folder, {"auroc": 0.75, "few_label": []}, command="study", split="test", seed=0, n={"x": 4})


def make_patients(folder: Path) -> Path:
    (folder / "model.pt").write_bytes(b"weights")
    return record_patients(folder / "model.pt", np.array(["p1", "p2"]))


def make_settings(folder: Path) -> Path:
    make_scores(folder)
    content = {"settings": {"arm": "frozen"}, "labelled_patients": 3, "labelled_images": 5, "seconds": 1.5}
    write_sealed_json(folder / "settings.json", content)
    return folder / "settings.json"


def make_scores(folder: Path) -> Path:
    arrays = {"scores": np.array([[0.5], [1.5]]), "labels": np.array([[0.0], [1.0]])}
    arrays |= {"patients": np.array(["a", "b"]), "findings": np.array(["Mass"])}
    write_arrays(folder / "scores.npz", arrays)
    return folder / "scores.npz"


def make_run_scores(folder: Path) -> Path:
    return make_settings(folder).with_name("scores.npz")


def _run(folder: Path) -> Any:
    about, arrays = read_run(folder)
    return about, {name: value.tolist() for name, value in arrays.items()}


def _reported(name: str, content: str, command: str) -> tuple[Callable[[Path], Path], Callable[[Path], Any]]:
    def make(folder: Path) -> Path:
        values = {"clusters": {"encoder": {"3": {}}}} if command == "cluster" else {}
        write_metrics(folder, values, command=command, split="test", seed=0, n={})
        if command == "cluster":
            make_embeddings(folder)
        (folder / name).write_text(content, encoding="utf-8")
        return folder / name

    return make, lambda folder: bool(collect_runs([folder]).metrics)


def make_metadata(folder: Path) -> Path:
    return copy_bundle(folder / "bundle", FINDINGS, size=48) / "configs" / "metadata.json"


def make_index(folder: Path) -> Path:
    return write_index(_index(), folder / "index.csv")


def make_key(folder: Path) -> Path:
    hash_key(folder)
    return folder / "hash_key.txt"


KINDS = [
    Kind(
        "encoder",
        make_encoder,
        lambda folder: (
            _tensors(load_encoder(folder / "encoder.safetensors")),
            encoder_header(folder / "encoder.safetensors"),
        ),
    ),
    Kind("classifier", make_classifier, lambda folder: _tensors(load_classifier(_network(), folder / "model.pt"))),
    Kind("card", make_card, _card),
    Kind("novelty", make_novelty, _card),
    Kind("embeddings", make_embeddings, _embeddings),
    Kind("checkpoint", make_checkpoint, _checkpoint),
    Kind("journal", make_journal, _journal, made_again=True),
    *(
        Kind(f"store's {name}", _maker_of_store(name), _store)
        for name in ("provenance.json", "index.csv", "rejected.csv", "sources.csv", "rows.npz", "images.npy")
    ),
    *(
        Kind(f"cached store's {name}", _maker_of_store(name), _cached_store)
        for name in ("provenance.json", "index.csv", "rejected.csv", "sources.csv", "rows.npz")
    ),
    Kind("metrics", make_metrics, read_metrics),
    Kind("patients", make_patients, lambda folder: check_classifier(folder / "model.pt", np.array(["p9"]))),
    Kind("settings of a run", make_settings, _run),
    Kind("scores of a run", make_run_scores, _run),
    Kind("history", *_reported("history.json", '[{"epoch": 1, "loss": 2.5}]', "pretrain"), checked=False),
    Kind("config", *_reported("config.json", '{"size": 48, "keep": {"a": 1}}', "pretrain"), checked=False),
    Kind("scores table", *_reported("scores.csv", "finding,score,value\nMass,auroc,0.5\n", "train"), checked=False),
    Kind("clusters", *_reported("clusters.csv", "image,cluster_of_3\n" + "a,1\n" * 6, "cluster"), checked=False),
    Kind("metadata", make_metadata, lambda folder: read_metadata(folder / "bundle"), checked=False),
    Kind("index", make_index, lambda folder: read_index(folder / "index.csv"), checked=False),
    Kind("key", make_key, hash_key, checked=False),
]


@dataclass(frozen=True)
class Damage:
    """What was done to a file, in words, and what it holds then; None for a folder in its place.

    Attributes:
        sealed: the checksum in it fits, so that only the values can be told from sound ones.
    """

    what: str
    content: bytes | None
    sealed: bool = False


def damages(kind: str, content: bytes, others: dict[str, bytes], rng: np.random.Generator, n: int) -> Iterator[Damage]:
    """Of every sort, `n` of the random ones."""
    yield Damage("empty", b"")
    yield Damage("a folder", None)
    for name, other in others.items():
        if other != content:
            yield Damage(f"a {name} in its place", other)
    for _ in range(n):
        end = int(rng.integers(1, max(2, len(content))))
        yield Damage(f"cut after {end} bytes", content[:end])
        at, bit = int(rng.integers(len(content))), int(rng.integers(8))
        flipped = bytearray(content)
        flipped[at] ^= 1 << bit
        yield Damage(f"bit {bit} of byte {at} flipped", bytes(flipped))
    yield from _other_values(kind, content, rng, n)


_STRANGE: list[Any] = [None, True, -1, 0, 1e308, "text", [], {}, [1, "a"], {"a": 1}, float("nan"), float("inf")]


def _other_values(kind: str, content: bytes, rng: np.random.Generator, n: int) -> Iterator[Damage]:
    """Values of other types, numbers that cannot be and missing keys, with an old checksum and with one that fits."""
    if content[:2] == b"PK":
        yield from _other_arrays(kind, content, rng, n)
    elif kind in ("encoder", "novelty"):
        yield from _other_tensors(content, rng)
    elif content[:1] in b"{[" and kind != "journal":
        for _ in range(n):
            changed, what = _changed(json.loads(content), rng)
            yield Damage(f"{what}", json.dumps(changed).encode())
            if isinstance(changed, dict) and "checksum" in changed:
                plain = {name: value for name, value in changed.items() if name != "checksum"}
                try:
                    yield Damage(f"{what}, sealed", json.dumps(sealed(plain)).encode(), sealed=True)
                except ValueError:  # NaN cannot be sealed
                    continue


def _changed(content: Any, rng: np.random.Generator) -> tuple[Any, str]:
    """A copy with one place removed or replaced."""
    content = copy.deepcopy(content)
    holder, key = content, None
    while isinstance(holder, dict | list) and holder:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key = keys[int(rng.integers(len(keys)))]
        if not isinstance(holder[key], dict | list) or not holder[key] or rng.random() < 0.3:
            break
        holder = holder[key]
    if rng.random() < 0.3:
        del holder[key]
        return content, f"{key!r} removed"
    value = _STRANGE[int(rng.integers(len(_STRANGE)))]
    holder[key] = value
    return content, f"{key!r} became {value!r}"


def _other_tensors(content: bytes, rng: np.random.Generator) -> Iterator[Damage]:
    weights = safetensors.torch.load(content)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    for value in (float("nan"), float("inf"), -1e30):
        name = str(rng.choice([name for name in weights if "num_batches" not in name and "weight" not in name]))
        spoilt = {**weights, name: torch.full_like(weights[name], value)}
        about = {key: text for key, text in header.items() if key != "checksum"}
        yield Damage(f"{name} full of {value}, sealed", _sealed_tensors(spoilt, about), sealed=True)
    for key in header:
        about = {name: text for name, text in header.items() if name not in (key, "checksum")}
        yield Damage(f"without {key}, sealed", _sealed_tensors(weights, about), sealed=True)
        strange = {**about, key: str(_STRANGE[int(rng.integers(len(_STRANGE)))])}
        yield Damage(f"{key} became {strange[key]}, sealed", _sealed_tensors(weights, strange), sealed=True)


def _sealed_tensors(weights: dict[str, torch.Tensor], about: dict[str, str]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write_tensor_file(Path(folder) / "a", safetensors.torch.save(weights, metadata=about))
        return (Path(folder) / "a").read_bytes()


def _other_arrays(kind: str, content: bytes, rng: np.random.Generator, n: int) -> Iterator[Damage]:
    if kind == "checkpoint":
        for strange in (3, {"format": 1}, {"format": 2}, ["a"], torch.ones(2), {}):
            yield Damage(f"{strange} saved by torch", _saved(strange), sealed=True)
        state = torch.load(io.BytesIO(content), weights_only=True)
        for _ in range(n):
            changed, what = _changed(state, rng)
            yield Damage(what, _saved(changed), sealed=True)
        return
    if kind == "classifier":
        state = torch.load(io.BytesIO(content), weights_only=True)
        for strange in (float("nan"), float("inf"), -1.0):
            spoilt = {**state, "encoder.bn1.running_var": torch.full_like(state["encoder.bn1.running_var"], strange)}
            yield Damage(f"a variance of {strange}, sealed", seal_zip(_saved(spoilt)), sealed=True)
        for name in list(state)[:: max(1, len(state) // 5)]:
            less = {key: value for key, value in state.items() if key != name}
            yield Damage(f"without {name}, sealed", seal_zip(_saved(less)), sealed=True)
        for strange in (3, ["a"], {"a": 1}, {3: torch.ones(2)}, {"_extra_state": torch.ones(2)}):
            yield Damage(f"{strange} saved by torch", _saved(strange), sealed=True)
        return
    with np.load(io.BytesIO(content)) as file:
        arrays = {name: file[name] for name in file.files if name != "checksum"}
    for name in arrays:
        for strange in (np.float32(np.nan), np.array(["x"]), np.zeros((0, 3)), np.arange(5), np.array(b"\xff")):
            file = io.BytesIO()
            np.savez(file, **{**arrays, name: strange})
            yield Damage(f"{name} became {strange!r}, sealed", seal_zip(file.getvalue()), sealed=True)
            yield Damage(f"{name} became {strange!r}", _with_old_checksum(file.getvalue(), content))
        file = io.BytesIO()
        np.savez(file, **{other: value for other, value in arrays.items() if other != name})
        yield Damage(f"without {name}, sealed", seal_zip(file.getvalue()), sealed=True)


def _with_old_checksum(new: bytes, old: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(old)) as archive:
        if "checksum.npy" not in archive.namelist():  # the checksum of a store's file is in its provenance
            return new
        checksum = archive.read("checksum.npy")
    file = io.BytesIO(new)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("checksum.npy", checksum)
    return file.getvalue()


def _saved(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def put(path: Path, damage: Damage) -> Path:
    """Do the damage; its path, which is another one for a checkpoint that was given a name that fits."""
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()
    if damage.content is None:
        path.mkdir()
    elif damage.sealed and path.parent.name == "checkpoints":
        return save_checkpoint(path.parent, 2, damage.content)
    else:
        path.write_bytes(damage.content)
    return path
