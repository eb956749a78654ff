"""Run a network over an image store."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn


@torch.no_grad()
def embed(
    network: nn.Module,
    images: np.ndarray,
    finish: Callable[[Tensor], Tensor],
    device: str | torch.device = "cpu",
    batch_size: int = 256,
) -> np.ndarray:
    """Outputs of a network for every image of a store.

    Args:
        network: maps ``(B, 1, H, W)`` in [0, 1] to vectors ``(B, D)``; it is put into evaluation mode and moved to
            `device`.
        images: uint8 ``(N, S, S)``; a memory map is read batch by batch.
        finish: second half of the preprocessing, uint8 ``(B, 1, S, S)`` to float32 ``(B, 1, H, W)``.
        device: where to run.
        batch_size: B.

    Returns:
        float32 ``(N, D)``, finite.

    Raises:
        FloatingPointError: if an output is not finite (names the position of the first image).
    """
    network = network.to(device).eval()
    parts = []
    for start in range(0, len(images), batch_size):
        batch = torch.from_numpy(np.array(images[start : start + batch_size]))[:, None]
        parts.append(network(finish(batch).to(device)).float().cpu().numpy())
    outputs = np.concatenate(parts)
    bad = np.flatnonzero(~np.isfinite(outputs).all(axis=1))
    if len(bad):
        raise FloatingPointError(
            f"the network's outputs for {len(bad)} of {len(outputs)} images are not finite, the first is image "
            f"{bad[0]}; its weights have diverged: lower the learning rate, and train again"
        )
    return outputs
