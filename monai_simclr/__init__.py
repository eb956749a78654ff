"""Self-supervised learning on chest radiographs, as a MONAI extension.

Importing this package imports neither torch nor MONAI; the parts are imported by name:

    from monai_simclr.data import open_index, open_store
    from monai_simclr.transforms import RandCLAHEd
    from monai_simclr.losses import NTXentLoss
    from monai_simclr import predict
"""

from typing import Any

from monai_simclr._version import __version__ as __version__


def __getattr__(name: str) -> Any:
    if name == "predict":  # on first use: it brings torch and MONAI
        from monai_simclr.predicting import predict

        return predict
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
