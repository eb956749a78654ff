"""What the pages of report and audit share: tables, the text of a cell, the template, pictures inside a page."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, NamedTuple

import jinja2


class Table(NamedTuple):
    """A title, column names, and rows of text."""

    title: str
    columns: list[str]
    rows: list[list[str]]


def cell(value: Any) -> str:
    """The text of a table's cell; numbers with a fraction get three decimals.

    Example:
        >>> cell(0.12345), cell(None), cell({"images": 12, "share": 0.5})
        ('0.123', '-', 'images 12, share 0.500')
    """
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {cell(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(cell(item) for item in value)
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def page_template(package: str) -> jinja2.Template:
    """The ``page.html`` of a package: everything is escaped, and a name that nobody gave is an error."""
    loader = jinja2.PackageLoader(package, package_path=".")
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined).get_template(
        "page.html"
    )


def png_source(png: bytes) -> str:
    """Bytes of a PNG as the ``src`` of an ``<img>``."""
    return "data:image/png;base64," + base64.b64encode(png).decode()
