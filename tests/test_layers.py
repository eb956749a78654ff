"""The table of docs/architecture.md, held against the syntax trees: who may import whom, and what nobody may do."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "monai_simclr"

L2_AND_BELOW = [
    *("artefacts", "findings", "files", "fitting", "ops", "losses", "networks", "optimizers", "embeddings", "results"),
    *("locks", "progress", "ranks", "checkpoints", "names", "tables"),
    *("data", "transforms", "engines", "evaluation"),
]
MAY_IMPORT: dict[str, list[str]] = {
    "findings": [],
    "names": [],
    "files": ["names"],
    "tables": ["files", "names"],
    "fitting": [],
    "ops": ["fitting"],
    "losses": [],
    "networks": ["artefacts", "files"],
    "optimizers": [],
    "embeddings": ["artefacts", "tables"],
    "results": ["artefacts", "names"],
    "exits": ["files", "names"],
    "artefacts": ["files"],
    "locks": [],
    "progress": [],
    "ranks": [],
    "checkpoints": ["files"],
    "data": [
        *("artefacts", "exits", "findings", "files", "names", "tables", "fitting", "locks", "ops", "progress", "ranks"),
    ],
    "transforms": ["ops"],
    "engines": ["embeddings", "ranks"],
    "evaluation": ["findings", "embeddings", "files"],
    "recipes": ["data", "transforms", "ops"],
    "handlers": [
        *("artefacts", "evaluation", "embeddings", "results", "files", "tables", "exits", "ranks", "checkpoints"),
    ],
    "audit": ["data", "findings", "files", "names", "tables", "results"],
    "report": ["artefacts", "evaluation", "embeddings", "results", "files", "tables", "findings"],
    "preview": ["data", "transforms", "ops", "files", "recipes"],
    "inference": [
        "ops",
        *("files", "names", "tables", "locks", "results", "embeddings", "networks", "evaluation", "data", "fitting"),
        "artefacts",
    ],
    "workflows": [*L2_AND_BELOW, "exits", "recipes", "handlers", "inference"],
    "predicting": ["exits", "files", "inference", "tables"],
    "exporting": ["bundling", "files", "findings", "inference", "networks", "recipes", "verifying"],
    "verifying": ["bundles", "pickles"],
    "pickles": [],
    "bundling": ["artefacts", "exits", "findings", "files", "bundles"],
    "worklists": ["artefacts", "names", "tables", "embeddings", "evaluation", "results"],
    "study": [*L2_AND_BELOW, "recipes", "report", "workflows", "bundling"],
    "demo": [*L2_AND_BELOW, "recipes", "handlers", "report", "workflows", "bundling", "study"],
    "cli": [
        *(*L2_AND_BELOW, "exits", "recipes", "handlers", "report", "workflows", "bundling"),
        *("audit", "preview", "study", "worklists", "demo", "exporting", "verifying"),
    ],
    "__main__": ["cli"],
    "__init__": ["predicting"],
    "_version": [],
}
EVERYBODY_MAY = {"_version"}
LIGHT_ROOMS = [
    *("artefacts", "findings", "names", "files", "tables", "fitting", "results", "exits", "locks", "checkpoints"),
    *("cli", "__init__", "__main__", "_version"),
]


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = {_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8"), str(path)) for name, path in FILES.items()}


def _imported(node: ast.AST, module: str) -> list[str]:
    """Dotted names that one statement imports; `from a import b` is `a.b` where that is a module of ours."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        package = module if FILES[module].name == "__init__.py" else module.rpartition(".")[0]
        above = package.split(".")[: len(package.split(".")) - node.level + 1]
        base = ".".join([*above, base]).rstrip(".")
    dotted = [f"{base}.{alias.name}" for alias in node.names]
    return [name if name in FILES else base for name in dotted]


def _everywhere(module: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(TREES[module]):
        for name in _imported(node, module):
            yield getattr(node, "lineno", 0), name


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _on_import(module: str) -> list[str]:
    """What runs when the module is imported: no bodies of functions, no `if TYPE_CHECKING`."""
    found: list[str] = []
    waiting: list[ast.AST] = list(TREES[module].body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or _is_type_checking(node):
            continue
        found += _imported(node, module)
        waiting += ast.iter_child_nodes(node)
    return found


def _is_of(name: str, *libraries: str) -> bool:
    return name.split(".")[0] in libraries


@pytest.mark.parametrize("module", FILES)
def test_a_room_imports_only_what_the_table_allows(module: str) -> None:
    path = FILES[module]
    room = _room(path)
    assert room in MAY_IMPORT, f"{path.relative_to(ROOT)}: room '{room}' has no row in docs/architecture.md"
    allowed = {*MAY_IMPORT[room], *EVERYBODY_MAY, room}
    ours = [
        (line, ([*name.split("."), "__init__"])[1]) for line, name in _everywhere(module) if _is_of(name, PACKAGE.name)
    ]
    wrong = [f"{path.name}:{line} imports '{other}'" for line, other in ours if other not in allowed]
    assert not wrong, f"{room} may import {MAY_IMPORT[room]}, but {', '.join(dict.fromkeys(wrong))}"


@pytest.mark.parametrize(
    ("room", "library"), [("evaluation", "torch"), ("evaluation", "monai"), ("ops", "monai"), ("findings", "torch")]
)
def test_a_room_never_imports_the_library_even_inside_functions(room: str, library: str) -> None:
    modules = [module for module, path in FILES.items() if _room(path) == room]
    assert modules, f"room '{room}' is empty or gone"
    found = [f"{m}:{line} {name}" for m in modules for line, name in _everywhere(m) if _is_of(name, library)]
    assert not found, f"{room} may not import {library}: {found}"


@pytest.mark.parametrize("room", LIGHT_ROOMS)
def test_a_light_room_names_neither_torch_nor_monai_when_it_is_imported(room: str) -> None:
    module = "monai_simclr" if room == "__init__" else f"monai_simclr.{room}"
    assert [name for name in _on_import(module) if _is_of(name, "torch", "monai", "ignite")] == []


def _modules_after(code: str) -> str:
    script = f"import sys\n{code}\nprint('heavy:', sorted({{'torch', 'monai', 'ignite'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", ["monai_simclr", "monai_simclr.cli"])
def test_importing_it_leaves_torch_and_monai_unimported(module: str) -> None:
    assert _modules_after(f"import {module}") == "heavy: []\n"


def test_help_leaves_torch_and_monai_unimported() -> None:
    code = (
        "import runpy\nsys.argv = ['monai-simclr', '--help']\n"
        "try:\n    runpy.run_module('monai_simclr', run_name='__main__')\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code"
    )
    printed = _modules_after(code)
    assert "Usage" in printed
    assert printed.endswith("heavy: []\n")


def test_modules_import_each_other_in_no_circle() -> None:
    needs = {module: {n for n in _on_import(module) if n in FILES and n != module} for module in FILES}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join([*trail[trail.index(module) :], module])
        if module not in done:
            for other in sorted(needs[module]):
                visit(other, (*trail, module))
            done.add(module)

    for module in FILES:
        visit(module, ())
    assert done == set(FILES)


def test_no_file_is_called_utils() -> None:
    found = [str(p.relative_to(ROOT)) for p in FILES.values() if p.stem in {"utils", "util", "helpers", "common"}]
    assert not found, f"name these by the idea they hold: {found}"


def _public_names(module: str) -> set[str]:
    """`__all__`, and without one what the module itself defines in public."""
    loaded = importlib.import_module(module)
    if hasattr(loaded, "__all__"):
        return set(loaded.__all__)
    members = inspect.getmembers(loaded, lambda o: inspect.isclass(o) or inspect.isfunction(o))
    return {name for name, value in members if value.__module__ == module and not name.startswith("_")}


def test_no_public_name_is_one_that_monai_has() -> None:
    from monai.bundle import ComponentLocator

    locator = ComponentLocator()

    def modules_with(name: str) -> list[str]:
        found = locator.get_component_module_name(name)
        found = [found] if isinstance(found, str) else found or []
        return [module for module in found if _is_of(module, "monai")]

    assert modules_with("Compose"), "the locator no longer finds MONAI's own Compose, so this test sees nothing"
    names = {(name, module) for module in FILES if module != "monai_simclr.__main__" for name in _public_names(module)}
    assert len(names) > 50
    clashes = {f"{module}.{name}": modules_with(name) for name, module in names if modules_with(name)}
    assert not clashes, f"a bundle's short name would resolve to MONAI's: {clashes}"


FORBIDDEN_KEYWORDS = {"weights_only": False, "allow_pickle": True, "force": True}


def _unsafe(node: ast.AST) -> str:
    if isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant) and node.arg in FORBIDDEN_KEYWORDS:
        return f"{node.arg}={node.value.value}" if node.value.value is FORBIDDEN_KEYWORDS[node.arg] else ""
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
        return next((f"import {n}" for n in names if _is_of(n, "pickle", "joblib", "dill", "cloudpickle")), "")
    return ""


@pytest.mark.parametrize(
    "code",
    [
        "torch.load(f, weights_only=False)",
        "np.load(f, allow_pickle=True)",
        "dcmread(f, force=True)",
        "import pickle",
        "from pickle import load",
    ],
)
def test_the_search_for_unsafe_reading_finds_it(code: str) -> None:
    assert any(_unsafe(node) for node in ast.walk(ast.parse(code)))


@pytest.mark.parametrize("module", FILES)
def test_no_module_reads_what_can_run_code(module: str) -> None:
    found = [f"{FILES[module].relative_to(ROOT)}: {_unsafe(n)}" for n in ast.walk(TREES[module]) if _unsafe(n)]
    assert not found
