"""Self-supervised learning on chest radiographs, as a MONAI extension.

Importing this package imports neither torch nor MONAI; the parts are imported by name:

    from monai_simclr.data import open_index, open_store
    from monai_simclr.transforms import RandCLAHEd
    from monai_simclr.losses import NTXentLoss
    from monai_simclr.inference import predict
"""

from monai_simclr._version import __version__ as __version__
