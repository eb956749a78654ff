"""Tables that scripts write into pages, between `<!-- MARK: NAME -->` and `<!-- /MARK -->`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, *rows]
    first, *others = (f"| {' | '.join(line)} |\n" for line in lines)
    return "".join([first, f"|{'---|' * len(head)}\n", *others])


def fill(page: str, mark: str, tables: Mapping[str, str]) -> str:
    """The page with every table of a mark made anew; the page and `tables` name the same."""
    marked = re.compile(rf"(<!-- {mark}: (\w+) -->\n).*?(<!-- /{mark} -->)", re.DOTALL)
    missing = set(tables) - {found[2] for found in marked.finditer(page)}
    if missing:
        raise ValueError(f"the page has no place for {sorted(missing)}; add <!-- {mark}: NAME --> and <!-- /{mark} -->")
    return marked.sub(lambda found: f"{found[1]}{tables[found[2]]}{found[3]}", page)
