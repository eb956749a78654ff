"""Libraries that read what may be damaged, kept from talking: what is wrong is said once, by us, in a sentence."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet_pydicom"]


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Keep pydicom's warnings and log, which has the traceback of whatever a decoder raises, from getting out.

    Example:
        >>> with quiet_pydicom():
        ...     logging.getLogger("pydicom").error("damaged")
    """
    logger = logging.getLogger("pydicom")
    propagate = logger.propagate
    logger.propagate = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.propagate = propagate
