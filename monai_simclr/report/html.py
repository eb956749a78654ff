"""What the pages of report and audit share: tables, the text of a cell, pictures inside a page, the template."""

from __future__ import annotations

import base64
import math
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any, NamedTuple

import jinja2
import pandas as pd

from monai_simclr.runtime.tables import table_text

_INTERVAL = re.compile(r"(-?[\d.]+) \[(?:(-?[\d.]+), (-?[\d.]+)|unknown)\]")


class Table(NamedTuple):
    """A title, column names, and rows of text."""

    title: str
    columns: list[str]
    rows: list[list[str]]

    @property
    def csv(self) -> str:
        """The table as the ``href`` of a link that saves it as CSV; "0.7 [0.6, 0.8]" becomes three columns.

        Example:
            >>> urllib.parse.unquote(Table("t", ["what", "AUROC"], [["=1", "-0.7 [-0.8, 0.1]"]]).csv)
            "data:text/csv;charset=utf-8,what,AUROC,AUROC low,AUROC high\\n'=1,-0.7,-0.8,0.1\\n"
        """
        rows = [[value.replace("\u00a0", " ") for value in row] for row in self.rows]
        split = [any(_INTERVAL.fullmatch(row[i]) for row in rows) for i in range(len(self.columns))]
        header = [
            name + part
            for name, three in zip(self.columns, split, strict=True)
            for part in (["", " low", " high"] if three else [""])
        ]
        lines: list[list[str]] = []
        for row in rows:
            lines.append([])
            for value, three in zip(row, split, strict=True):
                found = _INTERVAL.fullmatch(value)
                parts = [part or "" for part in found.groups()] if found else [value, "", ""]
                lines[-1] += ["" if part == "-" else part for part in (parts if three else [value])]
        text = table_text(pd.DataFrame(lines, columns=header))
        return "data:text/csv;charset=utf-8," + urllib.parse.quote(text)

    @property
    def file_name(self) -> str:
        """A name for that file."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")[:60] + ".csv"


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


def counted(n: Mapping[str, int]) -> str:
    """The counts of a run in words.

    Example:
        >>> counted({"test_images": 1200, "seen_patients": 0})
        '1,200 test images, 0 test patients seen in pretraining'
    """
    names = {"seen_patients": "test patients seen in pretraining"}
    return ", ".join(f"{number:,} {names.get(key, key.replace('_', ' '))}" for key, number in n.items())


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
