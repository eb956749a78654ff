"""Libraries that read what may be damaged, kept from talking: what is wrong is said once, by us, in a sentence."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep the warnings of pydicom, nibabel and Pillow, and their logs, from getting out.

    pydicom logs the traceback of whatever a decoder raises. What libtiff and libjpeg write to stderr stays.

    Example:
        >>> with quiet_libraries():
        ...     logging.getLogger("pydicom").error("damaged")
    """
    pydicom, nibabel = logging.getLogger("pydicom"), logging.getLogger("nibabel.global")
    before = pydicom.propagate, nibabel.disabled
    pydicom.propagate, nibabel.disabled = False, True  # the one speaks through the root, the other by itself
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        pydicom.propagate, nibabel.disabled = before
