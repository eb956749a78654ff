"""metadata.json and the bundle's files against the rules of MONAI's model zoo."""

from __future__ import annotations

import configparser
import copy
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from monai.bundle import verify_metadata
from monai_simclr.bundles import CHEST_XRAY_SIMCLR
from zoo_rules import LARGE, METADATA, large_file_problems, metadata_problems

from monai_simclr import __version__
from monai_simclr.workflows.bundle import copy_bundle, read_metadata

ROOT = Path(__file__).resolve().parents[2]
OURS = read_metadata(CHEST_XRAY_SIMCLR)


def test_our_metadata_keeps_the_rules() -> None:
    assert metadata_problems(OURS) == []


def test_a_copy_for_other_findings_keeps_the_rules(tmp_path: Path) -> None:
    made = copy_bundle(tmp_path / "copy", ["Mass", "Edema"], size=64, encoder="resnet34", width=0.5)
    assert metadata_problems(read_metadata(made)) == []


def _without(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda metadata: metadata.pop(key)


def _with(key: str, value: object) -> Callable[[dict[str, Any]], object]:
    def change(metadata: dict[str, Any]) -> None:
        *parents, last = key.split("#")
        for name in parents:
            metadata = metadata[name]
        metadata[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_without("required_packages_version"), "'required_packages_version' is a required property"),
        (_without("changelog"), "'changelog' is a required property"),
        (_with("version", "0.9.0"), "the changelog has no entry for version 0.9.0"),
        (_with("pytorch_version", "2.13.0+cpu"), r"pytorch_version: '2.13.0\+cpu' does not match"),
        (_with("required_packages_version#pydicom", ">=3"), "required_packages_version#pydicom: '>=3' does not match"),
        (_with("monai_version", "1.6.9"), "monai_version ends with .9"),
        (_with("references", "Chen et al."), "references: 'Chen et al.' is not of type 'array'"),
        (_with("network_data_format#inputs", {"view": {}}), "'image' is a required property"),
        (_with("network_data_format#outputs#pred#num_channels", "14"), "'14' is not of type 'integer'"),
        (_with("network_data_format#outputs#pred#num_channels", 3), "num_channels is 3"),
        (_with("network_data_format#inputs#image#format", "picture"), "'picture' is not one of"),
        (_with("schema", "https://example.org/meta_schema_20220324.json"), "schema: .* does not match"),
    ],
)
def test_a_broken_rule_is_found(change: Callable[[dict[str, Any]], object], said: str) -> None:
    metadata = copy.deepcopy(OURS)
    change(metadata)
    assert any(re.search(said, problem) for problem in metadata_problems(metadata)), metadata_problems(metadata)


def test_the_published_schema_accepts_our_metadata() -> None:
    path = os.environ.get("MONAI_SIMCLR_META_SCHEMA")
    if not path:
        pytest.skip("set MONAI_SIMCLR_META_SCHEMA to a file of meta_schema_20240725.json")
    jsonschema.validate(OURS, json.loads(Path(path).read_text(encoding="utf-8")))


def test_monais_verify_metadata_runs_offline_with_a_local_schema(tmp_path: Path) -> None:
    """MONAI downloads the schema unless `filepath` exists, so a file in its place is all that it needs."""
    schema = tmp_path / "schema.json"
    if os.environ.get("MONAI_SIMCLR_META_SCHEMA"):
        shutil.copy(os.environ["MONAI_SIMCLR_META_SCHEMA"], schema)
    else:
        schema.write_text(json.dumps(METADATA))
    verify_metadata(meta_file=str(CHEST_XRAY_SIMCLR / "configs" / "metadata.json"), filepath=str(schema))
    broken = tmp_path / "metadata.json"
    broken.write_text(json.dumps({key: value for key, value in OURS.items() if key != "task"}))
    with pytest.raises(ValueError, match="'task' is a required property"):
        verify_metadata(meta_file=str(broken), filepath=str(schema))


def _pins() -> dict[str, str]:
    named = {"monai": OURS["monai_version"], "torch": OURS["pytorch_version"], "numpy": OURS["numpy_version"]}
    return {**named, **OURS["required_packages_version"]}


def test_the_pins_are_those_that_we_test_with() -> None:
    tested = {line.split(" ;")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    tested.add(f"monai-simclr=={__version__}")
    assert [f"{name}=={pin}" for name, pin in _pins().items() if f"{name}=={pin}" not in tested] == []


def test_what_the_configs_import_is_listed() -> None:
    """Of what the package requires, all but what only the command line and the report need."""
    required = configparser.ConfigParser()
    required.read(ROOT / "setup.cfg")
    lines = [line for line in required["options"]["install_requires"].splitlines() if line and line[0] != "#"]
    names = {re.split("[<>=]", line)[0] for line in lines}
    assert names - set(_pins()) - {"typer", "jinja2", "matplotlib"} == {"torch"} - set(_pins())


def test_no_large_file_lacks_an_address_and_a_checksum() -> None:
    assert large_file_problems(CHEST_XRAY_SIMCLR) == []


def test_a_large_file_is_found_until_it_is_listed_with_sha256(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    with open(tmp_path / "models" / "model.pt", "wb") as file:
        file.truncate(LARGE + 1)  # sparse: takes no room
    assert large_file_problems(tmp_path) == ["models/model.pt: over 25 MB and not in large_files.yml"]
    entry = "large_files:\n- path: models/model.pt\n  url: https://example.org/model.pt\n  hash_val: abc\n"
    (tmp_path / "large_files.yml").write_text(entry)
    assert large_file_problems(tmp_path) == ["models/model.pt: lacks [], hash_type is None"]
    (tmp_path / "large_files.yml").write_text(entry + "  hash_type: sha256\n")
    assert large_file_problems(tmp_path) == []


def test_the_files_that_the_zoo_asks_for_exist() -> None:
    wanted = ["LICENSE", "configs/metadata.json", "configs/inference.json", "configs/train.json", "docs/README.md"]
    assert [name for name in [*wanted, "docs/data_license.txt"] if not (CHEST_XRAY_SIMCLR / name).is_file()] == []
    texts = [path.read_text(encoding="utf-8") for path in CHEST_XRAY_SIMCLR.rglob("*.json")]
    assert not [text for text in texts if re.search(r"/(home|work|root|Users)/", text)], "a path of one machine"
