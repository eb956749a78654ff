"""Packages that only some commands need: imported when they are, with the extra that brings them in the error."""

from __future__ import annotations

import importlib
from typing import Any

from monai_simclr.runtime.exit_codes import SettingError


class MissingPackageError(ModuleNotFoundError, SettingError):
    """A package of an extra that is not installed; the message says what to install."""


def import_extra(module: str, extra: str, purpose: str) -> Any:
    """Import a package of an extra.

    Args:
        module: its name.
        extra: of monai-simclr, which brings it.
        purpose: what needs it, for the message.

    Raises:
        MissingPackageError: if it is not installed.

    Example:
        >>> import_extra("no_such_package", "pacs", "receiving DICOM")
        Traceback (most recent call last):
        ...
        monai_simclr.runtime.extras.MissingPackageError: receiving DICOM needs no_such_package, which is not ...
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise MissingPackageError(
            f"{purpose} needs {module}, which is not installed: pip install 'monai-simclr[{extra}]'", name=error.name
        ) from error
