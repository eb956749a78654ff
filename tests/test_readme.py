"""What the README and docs/ tell people to run: Python blocks run, and shell blocks name things that exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import monai.bundle
import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"(?:<!-- needs: (?P<needs>\w+) -->[ \t]*\n+)?^```(?P<language>\w+)\n(?P<code>.*?)^```", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    code: str
    needs: str | None


def _blocks(page: Path, language: str) -> list[Block]:
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    found = [match for match in BLOCK.finditer(text) if match["language"] == language]
    return [Block(page, text.count("\n", 0, m.start("code")) + 1, m["code"], m["needs"]) for m in found]


def _identify(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _folder(name: str) -> Path:
    variable = f"MONAI_SIMCLR_{name.upper()}"
    return Path(os.environ.get(variable, ROOT.parent / "shared" / name))


def _run(block: Block, names: dict[str, object]) -> None:
    # Leading newlines make a traceback's line numbers those of the page.
    source = "\n" * (block.line - 1) + block.code
    try:
        exec(compile(source, str(block.page), "exec"), names)
    except Exception as error:
        trail, line = error.__traceback__, block.line
        while trail is not None:
            line = trail.tb_lineno if trail.tb_frame.f_code.co_filename == str(block.page) else line
            trail = trail.tb_next
        raise AssertionError(f"{_identify(block.page)}:{line}: {type(error).__name__}: {error}") from error


def test_there_is_a_readme_with_python_and_shell() -> None:
    assert (ROOT / "README.md").is_file(), "README.md is not there"
    assert _blocks(ROOT / "README.md", "python")
    assert _blocks(ROOT / "README.md", "bash")


@pytest.mark.parametrize("page", [p for p in PAGES if _blocks(p, "python")], ids=_identify)
def test_the_python_of_a_page_runs_from_top_to_bottom(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__page__"}
    for block in _blocks(page, "python"):
        if block.needs and not _folder(block.needs).is_dir():
            pytest.skip(f"{_identify(page)}:{block.line}: needs {_folder(block.needs)}, which is not there")
        _run(block, names)


def test_a_failing_block_is_named_by_page_and_line() -> None:
    block = Block(ROOT / "README.md", 40, "one = 1\nraise ValueError('no such thing')\n", None)
    with pytest.raises(AssertionError, match=r"^README\.md:41: ValueError: no such thing$"):
        _run(block, {})


def _commands() -> list[tuple[str, list[str]]]:
    """(page:line, words) of every command in every shell block; `a && b` is two commands."""
    found = []
    for block in (block for page in PAGES for block in _blocks(page, "bash")):
        for offset, text in enumerate(block.code.replace("\\\n", "  ").splitlines()):
            for part in re.split(r"&&|\|\||;|\|", text):
                words = shlex.split(part, comments=True)
                if words:
                    found.append((f"{_identify(block.page)}:{block.line + offset}", words))
    return found


def test_the_configs_that_the_pages_run_are_in_the_bundle() -> None:
    named = [
        (place, config)
        for place, words in _commands()
        if words[:4] == ["python", "-m", "monai.bundle", "run"]
        for config in re.findall(r"configs/[\w.-]+\.json", " ".join(words))
    ]
    assert named, "no page runs a config of the bundle"
    missing = [f"{place}: {c}" for place, c in named if not (ROOT / "bundles/chest_xray_simclr" / c).is_file()]
    assert not missing


def test_the_verbs_that_the_pages_use_are_commands() -> None:
    from typer.main import get_command

    from monai_simclr.cli.app import app

    verbs = set(getattr(get_command(app), "commands", {}))
    used = [(place, words[1]) for place, words in _commands() if words[0] == "monai-simclr" and len(words) > 1]
    assert used, "no page uses the command line"
    wrong = [f"{place}: monai-simclr {verb}" for place, verb in used if verb not in verbs and verb[0] != "-"]
    assert not wrong, f"{wrong}; the verbs are {sorted(verbs)}"


def test_the_make_targets_that_the_pages_use_are_there() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    used = [
        (place, word) for place, words in _commands() if words[0] == "make" for word in words[1:] if "=" not in word
    ]
    assert used, "no page uses make"
    wrong = [f"{place}: make {word}" for place, word in used if word not in targets]
    assert not wrong, f"{wrong}; the targets are {sorted(targets)}"


def test_the_setting_of_the_readme_silences_the_notice_that_monai_repeats(tmp_path: Path) -> None:
    setting = re.search(r'export PYTHONWARNINGS="([^"]+)"', (ROOT / "README.md").read_text(encoding="utf-8"))
    assert setting
    (tmp_path / "c.json").write_text('{"run": "$1"}', encoding="utf-8")
    with pytest.warns(UserWarning, match="GHSA-873f") as notices:
        monai.bundle.run("run", config_file=str(tmp_path / "c.json"))
    notice = next(each for each in notices if "GHSA-873f" in str(each.message))
    assert notice.category is UserWarning
    again = "import sys, warnings; warnings.warn_explicit(sys.argv[1], UserWarning, 'scripts.py', 1, 'monai.bundle')"
    command = [sys.executable, "-c", again, str(notice.message)]
    for value, shown in (("", True), (setting[1], False)):
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONWARNINGS": value}
        )
        assert ("GHSA-873f" in done.stderr) == shown, done.stderr
