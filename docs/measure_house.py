"""Print how the house stands: names, rooms and arrows, entry points, helpers, lines. A report, not a gate.

    python docs/measure_house.py [--details] [FOLDER OF THE PROJECT]

Only syntax trees and texts are read; nothing of the project is imported. A *room* is a folder or a module at the top of
the package, or `benchmarks`; an *arrow* is one room importing another, inside functions too; the *floors* are the
longest chain of arrows. Imports of `monai_simclr.bundles`, which is data, are no arrows.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

PACKAGE = "monai_simclr"
BUNDLE = Path("bundles") / "chest_xray_simclr" / "configs"
_STORE = re.compile(r"(?:[a-z]+_)?(?:store|archive)(?:_of)?")


class Row(NamedTuple):
    """One line of the table: what is measured, the figure, where it should end, and what it is made of."""

    what: str
    now: str
    aim: str
    details: list[str]


class House:
    """The modules of a project: name to path and syntax tree."""

    def __init__(self, root: Path) -> None:
        self.root = root
        paths = [*sorted((root / PACKAGE).rglob("*.py")), *sorted((root / "benchmarks").glob("*.py"))]
        self.texts = {_module(path.relative_to(root)): path.read_text(encoding="utf-8") for path in paths}
        self.trees = {name: ast.parse(text) for name, text in self.texts.items()}
        self.packages = {_module(path.relative_to(root)) for path in paths if path.name == "__init__.py"}
        self.ours = [name for name in self.texts if name.split(".")[0] == PACKAGE]

    def imports(self, module: str) -> Iterator[str]:
        """Modules of ours that a module imports, anywhere in it."""
        for node in ast.walk(self.trees[module]):
            if isinstance(node, ast.ImportFrom) and not node.level:
                for alias in node.names:
                    name = f"{node.module}.{alias.name}"
                    yield name if name in self.texts else str(node.module)
            elif isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)

    def arrows(self) -> dict[str, set[str]]:
        """Room to the rooms that it imports."""
        made: dict[str, set[str]] = {_room(module): set() for module in self.texts}
        for module in self.texts:
            for name in self.imports(module):
                if name.split(".")[0] == PACKAGE and _room(name) in made and _room(name) != _room(module):
                    made[_room(module)].add(_room(name))
        return made


def _module(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _room(module: str) -> str:
    parts = module.split(".")
    if parts[0] != PACKAGE:
        return parts[0]
    return parts[1] if len(parts) > 1 else "__init__"


def floors(arrows: Mapping[str, set[str]]) -> dict[str, int]:
    """Height of every room: one more than the highest that it imports; rooms of a circle have the height 0."""

    @cache
    def height(room: str, trail: frozenset[str] = frozenset()) -> int:
        if room in trail:
            return -1000
        return 1 + max((height(other, trail | {room}) for other in arrows[room]), default=0)

    return {room: max(height(room), 0) for room in arrows}


def circles(arrows: Mapping[str, set[str]]) -> list[str]:
    """Rooms from which arrows lead back to them."""

    def reach(room: str) -> set[str]:
        seen: set[str] = set()
        waiting = [*arrows[room]]
        while waiting:
            other = waiting.pop()
            if other not in seen:
                seen.add(other)
                waiting += arrows[other]
        return seen

    return [room for room in arrows if room in reach(room)]


def upward(root: Path, arrows: Mapping[str, set[str]]) -> list[str]:
    """Arrows that lead to the same floor or up, by the table of docs/architecture.md; none where there is no table."""
    page = (root / "docs" / "architecture.md").read_text(encoding="utf-8")
    floor = {room: int(number) for number, room in re.findall(r"^\| (\d+) \| `(\w+)` \|", page, re.MULTILINE)}
    pairs = [(room, other) for room, others in arrows.items() for other in sorted(others)]
    return [f"{a} -> {b}" for a, b in pairs if a in floor and b in floor and floor[b] >= floor[a]]


def store_functions(house: House) -> list[str]:
    """Public functions by which code comes to an image store."""
    return [
        f"{module}.{node.name}"
        for module in house.ours
        for node in house.trees[module].body
        if isinstance(node, ast.FunctionDef) and _STORE.fullmatch(node.name) and not _is_command(node)
    ]


def _is_command(node: ast.FunctionDef) -> bool:
    return any("command" in ast.unparse(decorator) for decorator in node.decorator_list)


def private_functions(house: House) -> tuple[int, list[str]]:
    """How many private functions there are (no methods), and those that their module names in one place only."""
    total, once = 0, []
    for module in house.ours:
        tree = house.trees[module]
        named = Counter(
            node.id if isinstance(node, ast.Name) else node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Name | ast.Attribute)
        )
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and re.match(r"_[^_]", node.name):
                total += 1
                if named[node.name] == 1:
                    once.append(f"{module}.{node.name}")
    return total, once


def with_all(house: House) -> list[str]:
    """Modules with `__all__` that are not packages."""
    return [
        module
        for module in house.ours
        if module not in house.packages and re.search(r"^__all__\b", house.texts[module], re.MULTILINE)
    ]


def files_of(house: House, name: str) -> list[str]:
    """The module that defines a class, and the modules of its room and of `runtime` that it needs."""
    [start] = [m for m in house.ours if any(getattr(node, "name", "") == name for node in house.trees[m].body)]
    found, waiting = [], [start]
    while waiting:
        module = waiting.pop()
        if module not in found and module not in house.packages:
            found.append(module)
            near = (_room(start), "ranks", "distributed")
            waiting += [n for n in house.imports(module) if n in house.texts and {*n.split(".")} & {*near}]
    return sorted(found)


def targets(path: Path) -> list[str]:
    """Every `_target_` of a config."""
    return re.findall(r'"_target_": "([^"]+)"', path.read_text(encoding="utf-8"))


def measure(root: Path) -> list[Row]:
    """The rows of the table."""
    house = House(root)
    arrows = house.arrows()
    high = floors(arrows)
    lines = sum(len(house.texts[module].splitlines()) for module in house.ours)
    leads = [f"{a} -> {', '.join(sorted(b))}" for a, b in arrows.items()]
    public = sorted({_room(module) for module in house.ours if not _room(module).startswith("_")})
    n_arrows = sum(map(len, arrows.values()))
    by_floor: dict[int, list[str]] = defaultdict(list)
    for room, floor in high.items():
        by_floor[floor].append(room)
    store, (private, once) = store_functions(house), private_functions(house)
    skips = [f"{m}: {n}" for m in house.ours if (n := house.texts[m].count("# fmt: skip"))]
    loss = files_of(house, "NTXentLoss")
    loss_lines = sum(len(house.texts[module].splitlines()) for module in loss)
    named = targets(root / BUNDLE / "pretrain.json")
    others = [name for name in named if not name.startswith(f"{PACKAGE}.")]
    return [
        Row("public names at the top of the package", f"{len(public)}", "<= 17", public),
        Row("rooms", f"{len(arrows)}", "<= 21", sorted(arrows)),
        Row("floors", f"{max(high.values())}", "<= 7", [f"{f}: {', '.join(by_floor[f])}" for f in sorted(by_floor)]),
        Row("arrows between rooms", f"{n_arrows}", "<= 70", leads),
        Row("rooms in circles", f"{len(circles(arrows))}", "0", circles(arrows)),
        Row("arrows that lead up", f"{len(upward(root, arrows))}", "0", upward(root, arrows)),
        Row("entry points of the image store", f"{len(store)}", "3", store),
        Row(
            "private functions named in one place, per 1,000 lines",
            f"{1000 * len(once) / lines:.1f} ({len(once)} of {private})",
            "<= 6",
            once,
        ),
        Row("`__all__` in modules that are not packages", f"{len(with_all(house))}", "public only", with_all(house)),
        Row("`fmt: skip`", f"{sum(int(s.split(': ')[1]) for s in skips)}", "< 10", skips),
        Row("lines of monai_simclr", f"{lines:,}", "<= 21,000", []),
        Row("NT-Xent: files / lines", f"{len(loss)} / {loss_lines}", "2 files", loss),
        Row(
            "targets of pretrain.json that are MONAI's, torch's or ignite's",
            f"{len(others)} of {len(named)}",
            "all that do the same",
            others,
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--details", action="store_true", help="what each figure is made of")
    parser.add_argument("--json", action="store_true", help="the figures as JSON")
    given = parser.parse_args()
    rows = measure(given.root)
    if given.json:
        print(json.dumps({row.what: row.now for row in rows}, indent=2))
        return
    print("| what | now | aim |\n|---|---|---|")
    for row in rows:
        print(f"| {row.what} | {row.now} | {row.aim} |")
        if given.details and row.details:
            print("\n".join(f"    {line}" for line in row.details))


if __name__ == "__main__":
    main()
