"""The model zoo's rules for metadata.json and large files, written down from what its checks do.

`METADATA` is a JSON Schema of our own with the rules of meta_schema_20240725, and stricter: the published one names
types and eleven required keys, and cannot be fetched in a test. It was run once by hand over our metadata.json, which
it accepts; MONAI_SIMCLR_META_SCHEMA=FILE does it again in test_zoo_rules.py. `large_file_problems` is the rule for
files over 25 MB.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import yaml

_TEXT = {"type": "string", "minLength": 1}
_PIN = {"type": "string", "pattern": r"^\d+(\.\d+){0,3}((a|b|rc)\d+)?$"}  # `pip install name==PIN`: no +cpu, no range
_SIZE = {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": r"^[\d\s*+a-z()-]+$"}]}
_TENSOR = {
    "type": "object",
    "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"],
    "properties": {
        "type": {"enum": ["image", "series", "tuples", "probabilities"]},
        "format": {
            "enum": [
                "magnitude",
                "hounsfield",
                "kspace",
                "raw",
                "labels",
                "classes",
                "segmentation",
                "points",
                "normals",
                "indices",
                "sequence",
                "latent",
                "gradient",
            ],
        },
        "modality": _TEXT,
        "num_channels": {"type": "integer", "minimum": 1},
        "spatial_shape": {"type": "array", "items": _SIZE},
        "dtype": {"enum": ["float16", "float32", "float64", "uint8", "int32", "int64"]},
        "value_range": {"type": "array", "items": {"type": "number"}, "maxItems": 2},
        "is_patch_data": {"type": "boolean"},
        "channel_def": {"type": "object", "propertyNames": {"pattern": r"^\d+$"}, "additionalProperties": _TEXT},
    },
}
METADATA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2019-09/schema",
    "type": "object",
    "required": [
        "schema",
        "name",
        "version",
        "changelog",
        "monai_version",
        "pytorch_version",
        "numpy_version",
        "required_packages_version",
        "task",
        "description",
        "authors",
        "copyright",
        "network_data_format",
    ],
    "properties": {
        **dict.fromkeys(("schema", "name", "task", "description", "authors", "copyright"), _TEXT),
        **dict.fromkeys(("data_source", "data_type", "intended_use", "image_classes", "pred_classes"), _TEXT),
        **dict.fromkeys(("version", "monai_version", "pytorch_version", "numpy_version"), _PIN),
        "schema": {"type": "string", "pattern": r"^https://github\.com/Project-MONAI/.*/meta_schema_20240725\.json$"},
        "required_packages_version": {"type": "object", "additionalProperties": _PIN},
        "optional_packages_version": {"type": "object", "additionalProperties": _PIN},
        "changelog": {"type": "object", "additionalProperties": _TEXT, "minProperties": 1},
        "references": {"type": "array", "items": _TEXT},
        "supported_apps": {"type": "object"},
        "network_data_format": {
            "type": "object",
            "required": ["inputs", "outputs"],
            "properties": {
                "inputs": {"type": "object", "required": ["image"], "additionalProperties": _TENSOR},
                "outputs": {"type": "object", "required": ["pred"], "additionalProperties": _TENSOR},
            },
        },
    },
}

LARGE = 25 * 1024**2
"""Bytes from which on the zoo wants a file by address and checksum."""


def metadata_problems(metadata: dict[str, Any]) -> list[str]:
    """What is wrong with a metadata.json; what JSON Schema cannot say is said in Python."""
    validator = jsonschema.Draft201909Validator(METADATA)
    found = [f"{'#'.join(map(str, error.path))}: {error.message}" for error in validator.iter_errors(metadata)]
    if metadata.get("version") not in metadata.get("changelog", {}):
        found.append(f"the changelog has no entry for version {metadata.get('version')}")
    if str(metadata.get("monai_version")).endswith(".9"):
        found.append("monai_version ends with .9, which the zoo's increment_version makes .1 of")
    for side in ("inputs", "outputs"):
        for name, tensor in metadata.get("network_data_format", {}).get(side, {}).items():
            named, channels = tensor.get("channel_def"), tensor.get("num_channels")
            if named is None:
                continue
            if list(named) != [str(i) for i in range(len(named))] or len(named) != channels:
                found.append(f"{side}#{name}: channel_def names {list(named)}, num_channels is {channels}")
    return found


def large_file_problems(bundle: Path) -> list[str]:
    """Files over 25 MB without an entry in large_files.yml, and entries that are not whole."""
    lists = [path for path in (bundle / f"large_files.{end}" for end in ("yml", "yaml", "json")) if path.is_file()]
    entries = [entry for path in lists for entry in yaml.safe_load(path.read_text())["large_files"]]
    found = []
    for entry in entries:
        missing = [key for key in ("path", "url", "hash_val") if not entry.get(key)]
        if missing or entry.get("hash_type") != "sha256":
            found.append(f"{entry.get('path')}: lacks {missing}, hash_type is {entry.get('hash_type')}")
    listed = {entry.get("path") for entry in entries}
    for path in sorted(path for path in bundle.rglob("*") if path.is_file() and path.stat().st_size > LARGE):
        if path.relative_to(bundle).as_posix() not in listed:
            found.append(f"{path.relative_to(bundle)}: over 25 MB and not in large_files.yml")
    return found
