"""Sphinx settings. `make docs` builds the site offline, with warnings as errors; open docs/_build/html/index.html."""

from __future__ import annotations

import os
import re
import sys
from importlib.metadata import metadata
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS / "_ext"))

import reference  # noqa: E402

from monai_simclr import __version__  # noqa: E402

project = "monai-simclr"
author = "The monai-simclr developers"
copyright = "The monai-simclr developers, Apache-2.0"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "mathml",
    "reference",
]
exclude_patterns = ["_build", "_ext"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
default_role = "code"  # `name` in a docstring is a name
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!monai_simclr\.).*")]  # others' names: their sites are not at hand offline

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autosummary_generate = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
pygments_style = "friendly"
pygments_dark_style = "github-dark"
html_title = f"monai-simclr {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_search_scorer = str(DOCS / "_ext" / "scorer.js")
html_copy_source = False
copybutton_exclude = ".linenos, .gp, .go"


def repository() -> str:
    """The repository's address, by the package's metadata, else by the workflow that builds the site; "" if unknown."""
    urls = dict(url.split(", ", 1) for url in metadata("monai-simclr").get_all("Project-URL") or [])
    if {"GITHUB_SERVER_URL", "GITHUB_REPOSITORY"} <= os.environ.keys():
        urls.setdefault("Repository", f"{os.environ['GITHUB_SERVER_URL']}/{os.environ['GITHUB_REPOSITORY']}")
    return urls.get("Repository", "")


html_theme_options: dict[str, object] = {}
if repository():
    html_theme_options["footer_icons"] = [
        {"name": "Repository", "url": repository(), "html": "Repository", "class": ""}
    ]
if repository().startswith("https://github.com/"):  # links at the top of each page to its source
    html_theme_options |= {"source_repository": repository(), "source_branch": "main", "source_directory": "docs/"}

SHOWN = reference.shown_as(reference.read_package())


def link_to_where_it_is_shown(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.Element
) -> nodes.Element | None:
    """A type is annotated by the module that defines it; the reference shows it under the package that exports it."""
    shown = SHOWN.get(node.get("reftarget", ""))
    if shown is None or node.get("refdomain") != "py":
        return None
    return env.get_domain("py").resolve_any_xref(env, node["refdoc"], app.builder, shown, node, text)[0][1]


def links_of_the_root(app: Sphinx, path: Path, docname: str, content: list[str]) -> None:
    """README, CONTRIBUTING and others lie one folder above their pages: their links are turned to fit."""
    if (DOCS / path).resolve().parent == DOCS.parent:
        text = re.sub(r"\]\(docs/", "](", content[0])
        content[0] = re.sub(r"\]\(([A-Z]+\.md)", lambda found: f"]({found[1].lower()}", text)


def leave_out_aliases(app: Sphinx, what: str, name: str, member: object, skip: bool, options: object) -> bool | None:
    """A named tuple's fields have no words of their own but Python's "Alias for field number 0"."""
    return True if (getattr(member, "__doc__", "") or "").startswith("Alias for field number") else None


def setup(app: Sphinx) -> None:
    app.connect("autodoc-skip-member", leave_out_aliases)
    app.connect("missing-reference", link_to_where_it_is_shown)
    app.connect("include-read", links_of_the_root)
