"""Look-up tables and windows of DICOM (PS3.3 C.11.1 and C.11.2), on arrays of values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom

from monai_simclr.data.formats.dicom_tags import keyword_name, numbers
from monai_simclr.data.radiograph import RadiographError


@dataclass(frozen=True)
class LookupTable:
    """A table of whole numbers (PS3.3 C.11.1.1.1).

    Attributes:
        first: the input that is mapped to the first entry; what is below maps to it too, what is above to the last.
        entries: float64 ``(N,)``.
        top: the largest output that its bits can have.

    Example:
        >>> LookupTable(10, np.array([0.0, 5.0, 9.0]), 15.0)(np.array([-1, 10, 11, 99])).tolist()
        [0.0, 0.0, 5.0, 9.0]
    """

    first: int
    entries: np.ndarray
    top: float

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Map values of any shape, rounded to whole numbers."""
        return self.entries[np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1).astype(np.intp)]


def lookup_table(path: Path, item: pydicom.Dataset, signed_input: bool, little_endian: bool) -> LookupTable:
    """Read one item of a Modality or VOI LUT Sequence.

    Args:
        path: the file, for the error.
        item: the item.
        signed_input: whether the input can be negative, so that a first input above 32767 is meant so.
        little_endian: of the file, for entries that are stored as bytes.

    Raises:
        RadiographError: if the descriptor or the data are missing, damaged or do not fit each other.
    """
    descriptor = numbers(path, item, "LUTDescriptor")
    if len(descriptor) != 3 or not np.isfinite(descriptor).all():
        raise RadiographError(path, f"{keyword_name('LUTDescriptor')} is not three numbers")
    length, first, bits = (int(value) for value in descriptor)
    length %= 65536  # 65535 may be written as -1, and 0 means 65536
    if not 8 <= bits <= 16:
        raise RadiographError(path, f"{keyword_name('LUTDescriptor')} speaks of {bits} bits; 8 to 16 are possible")
    entries = _entries(path, item, length or 65536, bits, little_endian)
    # some writers say 8 bits and store 12: then what is stored counts
    top = max(2.0**bits - 1, 2.0 ** int(entries.max()).bit_length() - 1)
    return LookupTable(first - 65536 if signed_input and first > 32767 else first, entries, top)


def _entries(path: Path, item: pydicom.Dataset, length: int, bits: int, little_endian: bool) -> np.ndarray:
    try:
        value = item.get("LUTData")
        if isinstance(value, int):
            value = [value]
        content = value if isinstance(value, bytes) else (np.asarray(value, np.int64) % 65536).astype("<u2").tobytes()
        order = "<" if little_endian or not isinstance(value, bytes) else ">"
    except Exception as error:  # a raw value is converted when it is first looked at, and damaged ones in many ways
        raise RadiographError(path, f"{keyword_name('LUTData')} is damaged") from error
    if len(content) >= 2 * length:
        return np.frombuffer(content, f"{order}u2", length).astype(np.float64)
    if bits == 8 and len(content) >= length:  # two entries in a word
        return np.frombuffer(content, np.uint8, length).astype(np.float64)
    raise RadiographError(
        path, f"{keyword_name('LUTData')} has {len(content)} bytes, too few for the {length} entries of its descriptor"
    )


def window_values(values: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    """Show a window of values as gray in [0, 1] (PS3.3 C.11.2.1.2 and C.11.2.1.3).

    Args:
        values: float64, any shape.
        center, width: of the window; the width is 1 or more for LINEAR, above 0 for the others.
        function: "LINEAR", "LINEAR_EXACT" or "SIGMOID".

    Returns:
        float64 of the same shape.

    Example:
        >>> window_values(np.array([0.0, 1024.0, 2047.5, 4096.0]), 2048, 4096, "LINEAR").round(4).tolist()
        [0.0, 0.2501, 0.5, 1.0]
    """
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if width == 0:  # LINEAR of width 1: a threshold
        return (values > center).astype(np.float64)
    return np.clip((values - center) / width + 0.5, 0, 1)
