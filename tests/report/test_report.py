from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from monai_simclr.embeddings import Embeddings
from monai_simclr.report import write_report

EVIL = "<script>alert('x')</script>"


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.sources: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append(tag)
        self.ids += [found["id"]] if "id" in found else []
        self.sources += [found[name] for name in ("src", "href") if name in found]


SECTIONS = ["results", "map", "clusters", "sheets", "few-labels", "training", "versions"]


def test_a_full_report_has_every_section_escapes_names_and_needs_no_other_file(tmp_path):
    rng = np.random.default_rng(0)
    index = pd.DataFrame({"split": ["test"] * 20, "view_position": ["PA", EVIL] * 10, EVIL: [0.0, 1.0] * 10})
    few = [{"arm": EVIL, "fraction": f, "mean": 0.6, "sd": None} for f in (0.01, 0.1)]
    path = write_report(
        tmp_path / "report.html",
        title=EVIL,
        notice="phantom: says nothing about patients",
        metrics={"cluster": {"values": {EVIL: {"value": 0.5, "low": None}}, "seed": 0}, "few_label": {"values": few}},
        embeddings=Embeddings(rng.normal(size=(20, 4)), index),
        clusters=np.arange(20) % 2,
        thumbnails=rng.integers(255, size=(20, 8, 8), dtype=np.uint8),
        history=[{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}],
        commands=[EVIL],
    )
    text = path.read_text()
    page = _Page(text)
    assert page.ids == SECTIONS
    assert "script" not in page.tags
    assert "phantom: says nothing about patients" in text
    assert len(page.sources) == 6
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)


def test_an_empty_report_says_what_is_missing(tmp_path):
    text = write_report(tmp_path / "r.html", title="t", notice="", metrics={}).read_text()
    assert _Page(text).ids == SECTIONS
    assert "No training history was given." in text
    assert 'role="note"' not in text


def test_clusters_of_other_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match="3 clusters do not go with 0 embeddings"):
        write_report(tmp_path / "r.html", title="t", notice="", metrics={}, clusters=np.zeros(3))
