"""The pages hold together: links lead somewhere, every page can be reached, the reference has every public name."""

from __future__ import annotations

import importlib
import inspect
import re
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from bundle_command import Forked

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _prose(page: Path) -> str:
    """A page without what stands in code."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`]*`", "", text)


def _anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, made as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    plain = [re.sub(r"[`*]", "", unicodedata.normalize("NFC", heading)).strip().lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def _script(folder: Path, name: str):
    """A script of the pages as a module, for as long as a fixture lives."""
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_link_of_a_page_leads_to_a_file_and_a_heading_that_are_there(page: Path) -> None:
    for link in LINK.findall(_prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if target.suffix == ".rst" and target.parent == DOCS / "reference":
            continue  # made by the build, which checks it
        assert target.exists(), f"{_name(page)}: {link} leads to nothing"
        assert not anchor or anchor in _anchors(target), f"{_name(page)}: {link}: no such heading in {target.name}"


def test_every_page_is_in_one_toctree() -> None:
    listed = []
    for page in DOCS.rglob("*.md"):
        for block in re.findall(r"^```\{toctree\}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.M):
            entries = [line for line in block.splitlines() if line and not line.startswith(":")]
            listed += [(page.parent / entry).relative_to(DOCS).as_posix() for entry in entries]
    pages = {page.relative_to(DOCS).with_suffix("").as_posix() for page in DOCS.rglob("*.md")}
    assert len(listed) == len(set(listed))
    assert set(listed) == pages - {"index"} | {"reference/index"}


@pytest.fixture(scope="module")
def reference():
    yield from _script(DOCS / "_ext", "reference")


def test_the_reference_has_every_public_name_once(reference) -> None:
    modules = reference.read_package()
    text = "\n".join(reference.pages(modules).values())
    entries = re.findall(r"^\.\. auto(?!module|summary)\w+:: (\S+)$", text, re.MULTILINE)
    assert len(entries) == len(set(entries)) > 300
    shown = reference.shown_as(modules)
    for name, module in modules.items():
        loaded = importlib.import_module(name)
        for public in [] if module.is_package else module.kinds:
            value = getattr(loaded, public)
            place = shown.get(f"{name}.{public}")
            if place is None:  # an alias such as XD = XDict = Xd, or a plain constant whose line says it all
                made_here = (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == name
                assert not made_here or value.__name__ != public, f"{name}.{public} is not in the reference"
                continue
            assert place in entries, f"{name}.{public} is not in the reference"
            room, _, last = place.rpartition(".")
            assert getattr(importlib.import_module(room), last) is value, f"{place} is another {name}.{public}"


def test_a_name_stands_where_users_import_it_from(reference) -> None:
    shown = reference.shown_as(reference.read_package())
    assert shown["monai_simclr.transforms.array.CLAHE"] == "monai_simclr.transforms.CLAHE"
    assert shown["monai_simclr.data.store.opened.Store"] == "monai_simclr.data.Store"
    assert shown["monai_simclr.inference.predict.predict"] == "monai_simclr.inference.predict"


@pytest.fixture(scope="module")
def tables():
    yield from _script(DOCS, "overrides")


def test_the_tables_of_the_bundle_page_are_those_of_the_configs(tables) -> None:
    page = tables.PAGE.read_text(encoding="utf-8")
    assert page == tables.fill(page), "run python docs/overrides.py"
    for name in tables.COMMANDS:
        assert f"\n## {name}\n" in page
        missing = [key for key in tables.overrides(name) if f"| `{key}` |" not in page]
        assert not missing, f"docs/how-to/bundle.md says nothing of {missing} of {name}.json"


def test_a_default_is_shown_as_a_reader_knows_it(tables) -> None:
    metadata = {"files": {"model": "models/model.pt"}, "defaults": {"seed": 7}, "sizes": [224]}
    assert tables.default_of(0.5, metadata) == "`0.5`"
    assert tables.default_of(["train", ""], metadata) == '`["train", ""]`'
    assert tables.default_of("$@bundle_root + '/data'", metadata) == "`data`"
    assert tables.default_of("$@bundle_root + '/' + @_meta_['files']['model']", metadata) == "`models/model.pt`"
    assert tables.default_of("@_meta_#defaults#seed", metadata) == "`7`, from `metadata.json`"
    assert tables.default_of("@_meta_#sizes#0", metadata) == "`224`, from `metadata.json`"
    assert tables.default_of("$torch.device('cpu')", metadata) == ""


@pytest.fixture(scope="module")
def results():
    yield from _script(DOCS, "result_tables")


def test_the_tables_of_the_results_are_those_of_the_files(results) -> None:
    page = results.PAGE.read_text(encoding="utf-8")
    assert page == results.fill(page), "run python docs/result_tables.py"
    assert set(re.findall(r"<!-- table: (\w+) -->", page)) == set(results.MAKERS)


def test_the_compute_of_a_try_ends_with_the_epoch_whose_weights_were_scored(results) -> None:
    about = {
        "sizes": [[64, 24], [128, 6]],
        "size": 128,
        "epochs": 30,
        "images": 1.0,
        "width": 0.5,
        "encoder": "resnet18",
    }
    assert results.compute(about, 26) == pytest.approx(results.compute(about | {"sizes": [[64, 24], [128, 2]]}))
    assert results.compute(about, 26) < results.compute(about) == results.compute(about, 30)
    notes = {row["name"]: row.get("note", "") for row in results.scaling_rows()}
    earlier = {name for name, note in notes.items() if note.startswith("the weights after epoch")}
    assert earlier == set(results.KEPT)
    assert all(f"epoch {epoch} of" in notes[name] for name, epoch in results.KEPT.items())


def test_the_tables_of_abstention_are_those_of_the_file() -> None:
    for tables in _script(DOCS, "abstention_tables"):
        page = tables.PAGE.read_text(encoding="utf-8")
        assert page == tables.fill(page), "run python docs/abstention_tables.py"


def test_a_difference_is_bold_only_where_its_interval_leaves_zero_out(results) -> None:
    assert results.gap(0.05, 0.01, 0.1) == "**+0.050 [0.010, 0.100]**"
    assert results.gap(-0.05, -0.1, -0.01) == "**-0.050 [-0.100, -0.010]**"
    assert results.gap(0.05, -0.01, 0.1) == "+0.050 [-0.010, 0.100]"


REPOSITORY = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "someone/monai-simclr"}


def _build(builder: str, folder: Path) -> None:
    pytest.importorskip("sphinx", reason="pip install 'monai-simclr[docs]' to build the site")
    command = [sys.executable, "-m", "sphinx", "-q", "-n", "-W", "--keep-going", "-b", builder]
    folders = ["-d", str(folder / "doctrees"), str(DOCS), str(folder / "site")]
    build = Forked(ROOT, folder, [*command, *folders], **REPOSITORY)
    said = build.communicate()
    assert build.returncode == 0, "".join(said)


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    _build("dummy", tmp_path)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("html")
    _build("html", folder)
    return folder / "site"


@pytest.mark.slow
def test_the_landing_page_has_the_version_the_installation_the_five_commands_and_the_repository(site: Path) -> None:
    page = (site / "index.html").read_text(encoding="utf-8")
    text = re.sub(r"<[^>]+>", "", page)
    assert f"monai-simclr {importlib.import_module('monai_simclr').__version__}" in text
    assert text.index('EncoderTransformer("chest_xray_resnet18")') < text.index("pip install -c constraints.txt")
    for name in (
        "bundle my_bundle",
        *(f"configs/{name}.json" for name in ("pretrain", "cluster", "train", "inference")),
    ):
        assert name in text, name
    assert 'href="https://github.com/someone/monai-simclr"' in page


@pytest.mark.slow
@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("store", "how-to/"),
        ("audit", "how-to/"),
        ("resume", "how-to/resume.html"),
        ("inference", "how-to/inference.html"),
        ("encoder", "how-to/pretrained.html"),
        ("NTXentLoss", "reference/"),
        ("split_by_patient", "reference/"),
    ],
)
def test_search_ranks_guides_above_the_reference_except_for_exact_names(site: Path, query: str, first: str) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("no chromium here; apt-get install chromium")
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    profile = f"--user-data-dir={site.parent / 'profile'}"
    address = f"{(site / 'search.html').as_uri()}?q={query}"
    command = [browser, *flags, profile, "--virtual-time-budget=15000", "--dump-dom", address]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    found = re.findall(r'<li class="kind-\w+"><a href="([^"]+)"', shown)
    assert found[0].startswith(first), found[:5]


@pytest.mark.slow
def test_the_pages_of_the_site_ask_nothing_of_a_network(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 50
    asked = re.compile(
        r'<(?:script|img|iframe)[^>]+src="(?:https?:)?//|<link[^>]+rel="stylesheet"[^>]+href="(?:https?:)?//'
    )
    for page in pages:
        found = asked.search(page.read_text(encoding="utf-8"))
        assert not found, f"{page.name}: {found}"
    formulas = (site / "concepts" / "contrastive.html").read_text(encoding="utf-8")
    assert formulas.count("<math") > 8
    assert "merror" not in formulas
