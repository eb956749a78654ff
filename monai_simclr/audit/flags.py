"""Rules for what a person should look at, row by row, each with its meaning and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

LIKE_A_CHEST = 0.15
"""Frontal score below which an image is unlike a frontal chest: 2 of 1,932 frontal radiographs are below it."""
INVERTED = -0.3
"""Frontal score below which the polarity is likely wrong: 99.5 % of the same are, with their polarity inverted."""
_MAX_ROWS = 1000


class Flag(NamedTuple):
    """A rule over the joined table of index and facts; with `pixels` it needs ``--pixels``."""

    key: str
    title: str
    remedy: str
    rule: Callable[[pd.DataFrame], Any]
    pixels: bool = False


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
        "the store lists such files in rejected.csv and excludes them",
        lambda t: (t["damage"] != "") & (t["problem"] == ""),
        pixels=True,
    ),
    Flag(
        "not_a_chest",
        "not a chest by (0018,0015) Body Part Examined or a description",
        "exclude these rows",
        lambda t: t["chest"] == "no",
    ),
    Flag(
        "polarity",
        "looks like a chest with its polarity inverted (or like another body part)",
        "look at them; a wrong MONOCHROME tag is the usual reason",
        lambda t: t["frontal"] < INVERTED,
        pixels=True,
    ),
    Flag(
        "unlike_a_chest",
        "does not look like a frontal chest radiograph",
        "look at them: laterals, other body parts, rotated or opaque images; the rule cannot tell which",
        lambda t: (t["frontal"] >= INVERTED) & (t["frontal"] < LIKE_A_CHEST),
        pixels=True,
    ),
    Flag(
        "lateral_among_frontals",
        "lateral by its header or a description, but not in the index",
        "set view_position, or exclude them",
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
        "the view of the header is not that of the index",
        "find out which is right",
        lambda t: (t["header_view"] != "") & (t["view_position"] != "") & (t["header_view"] != t["view_position"]),
    ),
    Flag(
        "monochrome1",
        "MONOCHROME1: stored with dense tissue dark",
        "nothing: our reader inverts them, once",
        lambda t: t["photometric"] == "MONOCHROME1",
    ),
    Flag(
        "inverse",
        "Presentation LUT Shape INVERSE",
        "nothing: our reader inverts them, once, with MONOCHROME1 or not",
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
        "the reader refuses them; exclude these rows",
        lambda t: (t["format"] == "DICOM") & ((t["frames"] > 1) | (t["samples"] > 1)),
    ),
    Flag(
        "no_window",
        "neither a window nor a VOI LUT",
        "nothing: percentiles replace it, which depend on the picture",
        lambda t: (t["format"] == "DICOM") & (t["window"] == "none"),
    ),
    Flag(
        "no_spacing",
        "no pixel spacing, or zero",
        "nothing, unless you measure in millimetres",
        lambda t: (t["format"] == "DICOM") & ((t["spacing"] == "none") | t["spacing"].str.endswith("zero")),
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
            (t["format"] == "DICOM")
            & (t["burned_in"] != "YES")
            & ((t["burned_in"] == "") | t["sop_class"].str.contains("Secondary Capture"))
        ),
    ),
    Flag(
        "border",
        "at least a tenth of the area is uniform stripes at the edges",
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
        "at least half of the pixels are black or white",
        "look at the window and at the collimation",
        lambda t: t["saturated"] > 0.5,
        pixels=True,
    ),
)


def flag_rows(index: pd.DataFrame, facts: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Count and number the rows of every flag, by the flag's key; at most the first 1,000 rows.

    Args:
        index: N rows.
        facts: of the same rows, as `scan` returns them; without facts of pixels their flags are dropped.
    """
    table = index[["view_position"]].join(facts)
    flagged = {}
    for flag in FLAGS:
        if not flag.pixels or "frontal" in facts:
            rows = np.flatnonzero(flag.rule(table).to_numpy(dtype=bool))
            counts = {"count": len(rows), "rows": rows[:_MAX_ROWS].tolist()}
            flagged[flag.key] = {"title": flag.title, "remedy": flag.remedy, **counts}
    return flagged
