"""Rules for what a person should look at, row by row, each with its meaning and what to do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

FLAGS = {
    "unreadable": ("the file is missing or its header cannot be read", "see their reasons under Files"),
    "damaged": ("the reader refuses the image", "the store lists such files in rejected.csv and excludes them"),
    "not_a_chest": ("not a chest by (0018,0015) Body Part Examined or a description", "exclude these rows"),
    "polarity": (
        "looks like a chest with its polarity inverted (or like another body part)",
        "look at them; a wrong MONOCHROME tag is the usual reason",
    ),
    "unlike_a_chest": (
        "does not look like a frontal chest radiograph",
        "look at them: laterals, other body parts, rotated or opaque images; the rule cannot tell which",
    ),
    "lateral_among_frontals": (
        "lateral by its header or a description, but not in the index",
        "set view_position, or exclude them",
    ),
    "lateral": ("lateral in an index that has frontal images too", "keep one kind: views=('PA', 'AP')"),
    "view_conflict": ("the view of the header is not that of the index", "find out which is right"),
    "monochrome1": ("MONOCHROME1: stored with dense tissue dark", "nothing: our reader inverts them, once"),
    "inverse": ("Presentation LUT Shape INVERSE", "nothing: our reader inverts them, once, with MONOCHROME1 or not"),
    "for_processing": ("FOR PROCESSING: raw detector values", "ask for the FOR PRESENTATION images"),
    "no_radiograph": ("several frames or colour in a DICOM file", "the reader refuses them; exclude these rows"),
    "no_window": ("neither a window nor a VOI LUT", "nothing: percentiles replace it, which depend on the picture"),
    "no_spacing": ("no pixel spacing, or zero", "nothing, unless you measure in millimetres"),
    "burned_in": ("(0028,0301) Burned In Annotation is YES", "text in the picture may name the patient: look"),
    "burned_in_unknown": (
        "Burned In Annotation is not given, or the file is a secondary capture",
        "text in the picture may name the patient: look at some",
    ),
    "border": (
        "at least a tenth of the area is uniform stripes at the edges",
        "collimation or padding: crop, or keep it",
    ),
    "flat": (
        "almost no contrast (standard deviation under 0.05)",
        "look at them: black, white, or wrongly windowed",
    ),
    "saturated": ("at least half of the pixels are black or white", "look at the window and at the collimation"),
}
"""What each flag means, and what to do."""
LIKE_A_CHEST = 0.15
"""Frontal score below which an image is unlike a frontal chest: 2 of 1,932 frontal radiographs are below it."""
INVERTED = -0.3
"""Frontal score below which the polarity is likely wrong: 99.5 % of the same are, with their polarity inverted."""
_MAX_ROWS = 1000


def flag_rows(index: pd.DataFrame, facts: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Title, remedy, count and first 1,000 rows of every flag; flags of pixels only where `scan` read them."""
    view, header_view = index["view_position"], facts["header_view"]
    dicom, unmarked = facts["format"] == "DICOM", facts["burned_in"] != "YES"
    masks = {
        "unreadable": facts["problem"] != "",
        "not_a_chest": facts["chest"] == "no",
        "lateral_among_frontals": (view != "LL") & ((header_view == "LL") | (facts["lateral_words"] == "yes")),
        "lateral": (view == "LL") & bool(view.isin(["PA", "AP"]).any()),
        "view_conflict": (header_view != "") & (view != "") & (header_view != view),
        "monochrome1": facts["photometric"] == "MONOCHROME1",
        "inverse": facts["presentation_lut"] == "INVERSE",
        "for_processing": facts["intent"] == "FOR PROCESSING",
        "no_radiograph": dicom & ((facts["frames"] > 1) | (facts["samples"] > 1)),
        "no_window": dicom & (facts["window"] == "none"),
        "no_spacing": dicom & ((facts["spacing"] == "none") | facts["spacing"].str.endswith("zero")),
        "burned_in": ~unmarked,
        "burned_in_unknown": dicom
        & unmarked
        & ((facts["burned_in"] == "") | facts["sop_class"].str.contains("Secondary Capture")),
    }
    if "frontal" in facts:
        masks |= {
            "damaged": (facts["damage"] != "") & (facts["problem"] == ""),
            "polarity": facts["frontal"] < INVERTED,
            "unlike_a_chest": (facts["frontal"] >= INVERTED) & (facts["frontal"] < LIKE_A_CHEST),
            "border": facts["border"] > 0.1,
            "flat": facts["contrast"] < 0.05,
            "saturated": facts["saturated"] > 0.5,
        }
    flags = {}
    for name, (title, remedy) in FLAGS.items():
        if name in masks:
            rows = np.flatnonzero(masks[name].to_numpy(dtype=bool))
            flags[name] = {"title": title, "remedy": remedy, "count": len(rows), "rows": rows[:_MAX_ROWS].tolist()}
    return flags
