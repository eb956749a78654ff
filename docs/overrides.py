"""Write the tables of overrides into docs/how-to/bundle.md, from the bundle's configs: what each does, and its default.

Run: python docs/overrides.py     (after a change of a config's `_desc_` or defaults)
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import marked

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "bundles" / "chest_xray_simclr" / "configs"
PAGE = ROOT / "docs" / "how-to" / "bundle.md"
COMMANDS = ("pretrain", "cluster", "train", "evaluate", "inference", "multi_gpu_train")
OVERLAYS = ("evaluate", "multi_gpu_train")
Override = tuple[str, str]
"""What an override does, and its default, in words for a table."""


def read(name: str) -> dict[str, Any]:
    """A config of the bundle."""
    content: dict[str, Any] = json.loads((CONFIGS / f"{name}.json").read_text(encoding="utf-8"))
    return content


def overrides(name: str) -> dict[str, Override]:
    """The overrides of a config, in its order."""
    config, metadata = read(name), read("metadata")
    told = {key: text for key, text in config["_desc_"].items() if key != "command"}
    return {key: (text.replace("|", "\\|"), default_of(config[key], metadata)) for key, text in told.items()}


def default_of(value: Any, metadata: dict[str, Any]) -> str:
    """A default as a reader knows it: a value, a place below the bundle's folder, or metadata.json."""
    if isinstance(value, dict):
        return " ".join(f"`{key}={inner}`" for key, inner in value.items() if key != "_target_")
    if not isinstance(value, str):
        return f"`{json.dumps(value)}`"
    if value.startswith("$@bundle_root"):
        below = re.search(r"\['files'\]\['(\w+)'\]", value)
        return f"`{metadata['files'][below[1]] if below else value.split(chr(39))[1].strip('/')}`"
    if value.startswith("@_meta_#"):
        return f"`{_at(metadata, value.split('#')[1:])}`, from `metadata.json`"
    if "@_meta_" in value:
        return "from `metadata.json`"
    return "" if value.startswith("$") else f"`{value}`"


def _at(content: Any, path: list[str]) -> Any:
    for key in path:
        content = content[int(key) if isinstance(content, list) else key]
    return content


def shared(every: dict[str, dict[str, Override]]) -> dict[str, Override]:
    """Overrides that mean one thing, with one default, in every config that has them, and at least two have them."""
    keys = dict.fromkeys(key for one in every.values() for key in one)
    found = {key: [one[key] for one in every.values() if key in one] for key in keys}
    return {key: all_of[0] for key, all_of in found.items() if len(all_of) > 1 and len(set(all_of)) == 1}


def fill(page: str) -> str:
    """The page with every table as the configs have it now."""
    every = {name: overrides(name) for name in COMMANDS}
    common = shared({name: rows for name, rows in every.items() if name not in OVERLAYS})
    tables = {name: dict(row for row in rows.items() if row not in common.items()) for name, rows in every.items()}
    tables["shared"] = common
    head = ("override", "default", "does")
    written = {
        name: marked.table(head, [(f"`{key}`", default, text) for key, (text, default) in rows.items()])
        for name, rows in tables.items()
    }
    return marked.fill(page, "overrides", written)


def main() -> None:
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
