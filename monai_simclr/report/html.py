"""What the pages of report and audit share: tables, the text of a cell, pictures inside a page, the template."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jinja2


class Table(NamedTuple):
    """A title, column names, and rows of text."""

    title: str
    columns: list[str]
    rows: list[list[str]]


class Picture(NamedTuple):
    """An ``<img>``: its ``src``, its text for readers who cannot see it, and a name for a switch between pictures."""

    source: str
    alt: str
    name: str = ""


def cell(value: Any) -> str:
    """The text of a table's cell; numbers with a fraction get three decimals, missing ones are "-".

    Example:
        >>> cell(0.12345), cell(None), cell({"images": 12, "share": 0.5})
        ('0.123', '-', 'images 12, share 0.500')
    """
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {cell(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(cell(item) for item in value)
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.3f}"
    return "-" if value is None else str(value)


def page_template(package: str) -> jinja2.Template:
    """The ``page.html`` of a package, which extends ``base.html``; text is escaped, an undefined name is an error."""
    loaders = [jinja2.PackageLoader(name, package_path=".") for name in (package, "monai_simclr.report")]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("page.html")


def png_source(png: bytes) -> str:
    """Bytes of a PNG as the ``src`` of an ``<img>``."""
    return "data:image/png;base64," + base64.b64encode(png).decode()
