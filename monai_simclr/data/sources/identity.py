"""Who is on an image, when a publisher does not say, and which patients are held out for validation."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Sequence
from functools import cache

from monai_simclr.runtime.names import encode_name, shown

logger = logging.getLogger("monai_simclr.data")

_VAL_SHARE = 0.125


def patients_by_name(names: Sequence[str], pattern: str, archive: str) -> list[str]:
    """A patient's id for every file name, by a regular expression; without one, loudly, every image its own patient.

    Args:
        names: file names, or paths below the archive's folder with ``/``.
        pattern: regular expression whose first group is the patient, as ``r"^(\\d+)_"``; it is searched in each name.
        archive: what the log calls the archive.

    Raises:
        ValueError: if the pattern is not a regular expression with a group, or finds nothing in a name.

    Example:
        >>> patients_by_name(["00013_002.png", "00013_004.png"], r"^(\\d+)_", "this archive")
        ['00013', '00013']
    """
    if not pattern:
        logger.warning(
            f"NO PATIENT IDS: {shown(archive)} does not say who is on an image, so each of its {len(names)} images "
            "counts as a patient of its own, and a split may put one patient on both sides; if the file names hold the "
            r"patient, give a patient_pattern whose first group is it, as '^(\d+)_'"
        )
        return list(names)
    try:
        search = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"patient_pattern {pattern!r} is not a regular expression: {error}") from error
    if not search.groups:
        raise ValueError(f"patient_pattern {pattern!r} has no group; put the patient's part in brackets")
    return [_first_group(search, name) for name in names]


def _first_group(search: re.Pattern[str], name: str) -> str:
    match = search.search(name)
    if match is None or not match[1]:
        raise ValueError(f"patient_pattern {search.pattern!r} finds no patient in the file name {shown(name)!r}")
    return match[1]


def split_test_patients(patients: Iterable[str]) -> list[bool]:
    """Which patients of a training list are for validation: one in eight, by a hash of the id, the same for ever."""
    return [_is_held_out(patient) for patient in patients]


@cache
def _is_held_out(patient: str) -> bool:
    return int(hashlib.sha256(encode_name(patient)).hexdigest()[:8], 16) / 2**32 < _VAL_SHARE
