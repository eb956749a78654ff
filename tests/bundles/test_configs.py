"""No name or number is in two configs, settings are at the top of each with a description, and views can be edited."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from monai.bundle import ConfigParser
from monai_simclr.bundles import CHEST_XRAY_SIMCLR

from monai_simclr.recipes import Strength, augmentation, views

CONFIGS = CHEST_XRAY_SIMCLR / "configs"
OVERLAYS = {"evaluate": "scoring", "multi_gpu_train": "initialize"}
"""Overlays, and the first key of each that is no override."""

SHARED = (
    "size",
    "findings",
    "norm",
    "encoder_path",
    "ckpt_path",
    "store_dir",
    "encoder_def",
    "store",
    "seed",
    "device",
)


def _read(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def _leaves(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key != "_desc_":
                yield from _leaves(inner, f"{where}#{key}" if where else key)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{where}#{number}")
    else:
        yield where, value


def config_problems(folder: Path) -> list[str]:
    """Facts that stand in two places: a number under one key in two configs, a name that metadata.json has."""
    configs = _read(folder)
    metadata, found = configs.pop("metadata"), []
    names = {*metadata["network_data_format"]["outputs"]["pred"]["channel_def"].values(), *metadata["files"].values()}
    names |= {metadata["encoder"]["name"]}
    places: dict[tuple[str, str], list[str]] = {}
    for config, content in configs.items():
        for where, value in _leaves(content):
            if type(value) in (int, float) and value not in (0, 1):
                places.setdefault((where.rsplit("#")[-1], repr(value)), []).append(config)
            if isinstance(value, str) and not where.endswith("_target_"):
                found += [f"{config}#{where} says {name}, which is metadata.json's" for name in names if name in value]
    found += [f"{key} is {value} in {where}" for (key, value), where in places.items() if len(set(where)) > 1]
    for key in SHARED:
        values = {name: content[key] for name, content in configs.items() if key in content and name not in OVERLAYS}
        if len({json.dumps(value) for value in values.values()}) > 1:
            found.append(f"{key} differs: {values}")
    return found


def test_no_name_or_number_is_in_two_configs() -> None:
    assert config_problems(CONFIGS) == []


@pytest.mark.parametrize(
    ("config", "key", "value", "problem_text"),
    [
        ("train", "n_bootstrap", 500, None),
        ("pretrain", "val_interval", 5, "val_interval is 5 in"),
        ("cluster", "learning_rate", 0.001, "learning_rate is 0.001 in"),
        ("train", "size", 224, "size differs"),
        ("inference", "seed", 7, "seed differs"),
        ("evaluate", "scoring_finding", "Pneumothorax", "evaluate#scoring_finding says Pneumothorax"),
        ("pretrain", "start", "$@bundle_root + '/models/encoder.safetensors'", "says models/encoder.safetensors"),
        ("train", "encoder_def", {"_target_": "monai_simclr.networks.encoder", "name": "resnet18"}, "says resnet18"),
    ],
)
def test_a_planted_fact_is_found(
    tmp_path: Path, config: str, key: str, value: object, problem_text: str | None
) -> None:
    folder = Path(shutil.copytree(CONFIGS, tmp_path / "configs"))
    path = folder / f"{config}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    found = config_problems(folder)
    assert (found == []) if problem_text is None else any(problem_text in problem for problem in found), found


@pytest.mark.parametrize("name", sorted(set(_read(CONFIGS)) - {"metadata"}))
def test_overrides_are_at_the_top_and_described_in_their_order(name: str) -> None:
    config = _read(CONFIGS)[name]
    first, *keys = config
    top = keys[: keys.index(OVERLAYS.get(name, "run_settings"))]
    assert first == "_desc_"
    assert list(config["_desc_"]) == ["command", *top]
    assert all(len(text) > 5 for text in config["_desc_"].values())


@pytest.mark.parametrize("name", sorted(set(_read(CONFIGS)) - {"metadata"}))
def test_no_setting_hides_below_the_overrides(name: str) -> None:
    config = _read(CONFIGS)[name]
    plain = [key for key, value in config.items() if isinstance(value, (int, float, str, bool))]
    below = [key for key in plain if key not in config["_desc_"] and not str(config[key]).startswith(("$", "@"))]
    assert below == []


PARTS = ("positioning", "exposure", "detector", "processing")


def _views(config: str, part: str, **overrides: Any) -> Any:
    parser = ConfigParser()
    parser.read_config(CONFIGS / f"{config}.json")
    parser.read_meta(CONFIGS / "metadata.json")
    parser.update(overrides)
    return parser.get_parsed_content(part)


@pytest.mark.parametrize("strength", get_args(Strength))
def test_the_views_of_a_config_are_those_of_the_preset(strength: Strength) -> None:
    configured, preset = _views("pretrain", "train#views", strength=strength, size=64), views(strength, 64)
    assert configured.size == 64
    assert all(getattr(configured, part) == getattr(preset, part) for part in PARTS)


def test_fine_tuning_augments_by_the_mild_view() -> None:
    configured, preset = _views("train", "train#preprocessing", size=64), augmentation(64)
    assert all(getattr(configured.transform, part) == getattr(preset.transform, part) for part in PARTS)


def test_one_part_of_the_views_can_be_edited() -> None:
    edited = _views("pretrain", "train#views", strength="mild", **{"train#views#positioning#scale": [0.6, 0.9]})
    assert edited.positioning == dataclasses.replace(views("mild").positioning, scale=(0.6, 0.9))
    assert edited.detector == views("mild").detector
