"""Write the pages of the reference from the package itself: a page a room, an entry a public name.

A name stands where users import it from, `monai_simclr.transforms.CLAHE`, not where its file is. Names of a module that
its package does not export come after them, under their module. Nothing is imported here: the syntax trees say it all.
"""

from __future__ import annotations

import ast
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "monai_simclr"
ABOUT = """\
Reference
=========

Made from the docstrings. A room's page has first what the room passes on to others, then what its modules hold beside
that. Who may import whom is on the page about the :doc:`architecture <../architecture>`.

.. autosummary::

{names}

.. toctree::
   :hidden:

{names}
"""


class Module(NamedTuple):
    """A module, and what it defines or exports in public: name to the full name of where it is defined."""

    name: str
    kinds: dict[str, str]
    exports: dict[str, str]
    is_package: bool


def read_module(path: Path) -> Module:
    """What a file defines (`__all__`, or all public names) and which names of ours it passes on."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    dotted = path.relative_to(ROOT).with_suffix("").parts
    is_package = dotted[-1] == "__init__"
    listed = _listed(tree)
    kinds = {name: kind for name, kind in _defined(tree) if not name.startswith("_")}
    if listed is not None:
        kinds = {name: kind for name, kind in kinds.items() if name in listed}
    return Module(".".join(dotted[:-1] if is_package else dotted), kinds, _exported(tree, listed or []), is_package)


def _listed(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return None


def _defined(tree: ast.Module) -> list[tuple[str, str]]:
    found = []
    for node, after in zip_longest(tree.body, tree.body[1:]):
        if isinstance(node, ast.ClassDef):
            found.append((node.name, "exception" if node.name.endswith("Error") else "class"))
        elif isinstance(node, ast.FunctionDef):
            found.append((node.name, "function"))
        elif isinstance(node, ast.Assign | ast.AnnAssign) and _is_text(after):  # a constant with words below it
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            found += [(target.id, "data")] if isinstance(target, ast.Name) else []
        elif (
            isinstance(node, ast.Assign) and len(node.targets) > 1 and isinstance(node.value, ast.Call)
        ):  # Xd = XD = XDict = make_dict_transform(X)
            found.append((ast.unparse(node.targets[0]), "class"))
    return found


def _is_text(node: ast.stmt | None) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _exported(tree: ast.Module, listed: list[str]) -> dict[str, str]:
    """Names that a module passes on: `import X as X`, names of `__all__`, and what its `__getattr__` imports late."""
    lazy = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "__getattr__"]
    late = {
        name.name for node in lazy for part in ast.walk(node) if isinstance(part, ast.ImportFrom) for name in part.names
    }
    return {
        alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("monai_simclr")
        for alias in node.names
        if alias.asname == alias.name or alias.name in listed or alias.name in late
    }


def read_package() -> dict[str, Module]:
    """Every public module, by name."""
    paths = [path for path in sorted(PACKAGE.rglob("*.py")) if path.name == "__init__.py" or path.name[0] != "_"]
    return {module.name: module for module in map(read_module, paths)}


def shown_as(modules: dict[str, Module]) -> dict[str, str]:
    """Full name of a definition to the full name that the reference shows it under: the shortest that exports it."""
    shown = {f"{m.name}.{name}": f"{m.name}.{name}" for m in modules.values() for name in m.kinds}
    for module in sorted(modules.values(), key=lambda m: -len(m.name)):
        for name, source in module.exports.items():
            while source not in shown and (passed := _passed_on(modules, source)):
                source = passed
            if source in shown:
                shown[source] = f"{module.name}.{name}"
    return shown


def _passed_on(modules: dict[str, Module], name: str) -> str | None:
    module, _, last = name.rpartition(".")
    return modules[module].exports.get(last) if module in modules else None


def pages(modules: dict[str, Module]) -> dict[str, str]:
    """File name to text of every page."""
    shown = shown_as(modules)
    rooms = {name for name, module in modules.items() if module.is_package or name.count(".") == 1}
    made = {}
    for room in sorted(rooms):
        inside = [m for name, m in modules.items() if name == room or name.rpartition(".")[0] == room]
        parts = [_section(m, m.name == room, modules, shown) for m in inside if m.name == room or m.name not in rooms]
        made[f"{room}.rst"] = "\n".join(part for part in parts if part)
    names = "\n".join(f"   {name}" for name in sorted(rooms))
    return {"index.rst": ABOUT.format(names=names), **made}


def _section(module: Module, is_room: bool, modules: dict[str, Module], shown: dict[str, str]) -> str:
    kinds = {f"{m.name}.{name}": kind for m in modules.values() for name, kind in m.kinds.items()}
    here = {place: kinds[source] for source, place in shown.items() if place.rpartition(".")[0] == module.name}
    if not is_room and not here:
        return ""
    title = module.name.removeprefix("monai_simclr.")
    index = ["   :no-index:"] if module.name in shown.values() else []  # the function ops.clahe, the module ops.clahe
    lines = [title, ("=" if is_room else "-") * len(title), "", f".. automodule:: {module.name}", *index, ""]
    if len(here) > 1:
        lines += [
            ".. autosummary::",
            "   :nosignatures:",
            "",
            *(f"   {place.rpartition('.')[2]}" for place in sorted(here)),
            "",
        ]
    for place, kind in sorted(here.items()):
        members = ["   :members:"] if kind in ("class", "exception") else []
        lines += [f".. auto{kind}:: {place}", *members, ""]
    return "\n".join(lines)


def write_pages(app: Sphinx) -> None:
    """Write what has changed into ``docs/reference``, which git ignores."""
    folder = Path(app.srcdir) / "reference"
    folder.mkdir(exist_ok=True)
    made = pages(read_package())
    for path in folder.glob("*.rst"):
        if path.name not in made:
            path.unlink()
    for name, text in made.items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
