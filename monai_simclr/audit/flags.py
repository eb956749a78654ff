"""What a person should look at, row by row: one rule a flag, each with what it means and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

LIKE_A_CHEST = 0.15
"""Frontal score under which an image is unlike a frontal chest: 2 of 1,932 frontal radiographs are under it."""
TURNED = -0.3
"""Frontal score under which the polarity is likely wrong: 99.5 % of the same are, with their polarity turned."""
_ROWS = 1000


class Flag(NamedTuple):
    """A rule over the joined table of index and facts; `pixels` says that it needs `--pixels`."""

    key: str
    title: str
    remedy: str
    rule: Callable[[pd.DataFrame], Any]
    pixels: bool = False


def _dicom(table: pd.DataFrame) -> pd.Series:
    return table["format"] == "DICOM"


FLAGS: tuple[Flag, ...] = (
    Flag(
        "unreadable",
        "the file is missing or its header cannot be read",
        "see the table of problems",
        lambda t: t["problem"] != "",
    ),
    Flag(
        "damaged",
        "the reader refuses the image",
        "the store lists such files in rejected.csv and leaves them out",
        lambda t: (t["damage"] != "") & (t["problem"] == ""),
        pixels=True,
    ),
    Flag(
        "not_a_chest",
        "no chest by (0018,0015) Body Part Examined or a description",
        "leave these rows out",
        lambda t: t["chest"] == "no",
    ),
    Flag(
        "polarity",
        "looks like a chest with its polarity turned (or like no chest)",
        "look at them; a wrong MONOCHROME tag is the usual reason",
        lambda t: t["frontal"] < TURNED,
        pixels=True,
    ),
    Flag(
        "unlike_a_chest",
        "does not look like a frontal chest radiograph",
        "look at them: laterals, other body parts, rotated or opaque images; the rule cannot tell which",
        lambda t: (t["frontal"] >= TURNED) & (t["frontal"] < LIKE_A_CHEST),
        pixels=True,
    ),
    Flag(
        "lateral_among_frontals",
        "lateral by its header or a description, but not in the index",
        "set view_position, or leave them out",
        lambda t: (t["view_position"] != "LL") & ((t["header_view"] == "LL") | (t["lateral_words"] == "yes")),
    ),
    Flag(
        "lateral",
        "lateral in an index that has frontal images too",
        "keep one kind: views=('PA', 'AP')",
        lambda t: (t["view_position"] == "LL") & bool(t["view_position"].isin(["PA", "AP"]).any()),
    ),
    Flag(
        "view_conflict",
        "the header says another view than the index",
        "find out which is right",
        lambda t: (t["header_view"] != "") & (t["view_position"] != "") & (t["header_view"] != t["view_position"]),
    ),
    Flag(
        "monochrome1",
        "MONOCHROME1: stored with dense tissue dark",
        "nothing: our reader turns them, once",
        lambda t: t["photometric"] == "MONOCHROME1",
    ),
    Flag(
        "inverse",
        "Presentation LUT Shape INVERSE",
        "nothing: our reader turns them, once, with MONOCHROME1 or not",
        lambda t: t["presentation_lut"] == "INVERSE",
    ),
    Flag(
        "for_processing",
        "FOR PROCESSING: raw detector values",
        "ask for the FOR PRESENTATION images",
        lambda t: t["intent"] == "FOR PROCESSING",
    ),
    Flag(
        "no_radiograph",
        "several frames or colour in a DICOM file",
        "the reader refuses them; leave these rows out",
        lambda t: _dicom(t) & ((t["frames"] > 1) | (t["samples"] > 1)),
    ),
    Flag(
        "no_window",
        "neither a window nor a VOI LUT",
        "nothing: percentiles stand in, which hang on the picture",
        lambda t: _dicom(t) & (t["window"] == "none"),
    ),
    Flag(
        "no_spacing",
        "no pixel spacing, or zero",
        "nothing, unless you measure in millimetres",
        lambda t: _dicom(t) & ((t["spacing"] == "none") | t["spacing"].str.endswith("zero")),
    ),
    Flag(
        "burned_in",
        "(0028,0301) Burned In Annotation is YES",
        "text in the picture may name the patient: look",
        lambda t: t["burned_in"] == "YES",
    ),
    Flag(
        "burned_in_unknown",
        "Burned In Annotation is not given, or the file is a secondary capture",
        "text in the picture may name the patient: look at some",
        lambda t: (
            _dicom(t)
            & (t["burned_in"] != "YES")
            & ((t["burned_in"] == "") | t["sop_class"].str.contains("Secondary Capture"))
        ),
    ),
    Flag(
        "border",
        "a tenth of the area or more is uniform stripes at the edges",
        "collimation or padding: crop, or live with it",
        lambda t: t["border"] > 0.1,
        pixels=True,
    ),
    Flag(
        "flat",
        "almost no contrast (standard deviation under 0.05)",
        "look at them: black, white, or wrongly windowed",
        lambda t: t["contrast"] < 0.05,
        pixels=True,
    ),
    Flag(
        "saturated",
        "half of the pixels or more are black or white",
        "look at the window and at the collimation",
        lambda t: t["saturated"] > 0.5,
        pixels=True,
    ),
)


def flag_rows(index: pd.DataFrame, facts: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Every flag with the rows that it is raised for, counted; the first 1,000 rows by number.

    Args:
        index: N rows.
        facts: of the same rows, as `scan` gives them; without the pixels' columns their flags are left out.
    """
    table = pd.concat([index[["view_position"]], facts], axis=1)
    raised = {}
    for flag in FLAGS:
        if flag.pixels and "frontal" not in facts:
            continue
        rows = np.flatnonzero(flag.rule(table).to_numpy(dtype=bool))
        found = {"count": len(rows), "rows": rows[:_ROWS].tolist()}
        raised[flag.key] = {"title": flag.title, "remedy": flag.remedy, **found}
    return raised
