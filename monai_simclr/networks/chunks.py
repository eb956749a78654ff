"""Cached gradients: a contrastive step of any batch size in the memory of a chunk (Gao et al. 2021, "Scaling deep
contrastive learning batch size under memory limited setup", GradCache).

The first pass makes all projections, chunk by chunk, and keeps no activations; the loss sees the whole batch. In the
backward pass each chunk is computed again, with the random numbers of the first time, and sends the gradient of its
projections down to the parameters. This is what checkpointing a network chunk by chunk does, so it needs no training
loop of its own: MONAI's trainer, autocast, gradient scaling and DistributedDataParallel (around the whole network) work
as without.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


@torch.compiler.disable  # Dynamo cannot trace a checkpoint that has a context; compile the encoder itself
def in_chunks(function: Callable[[Tensor], Tensor], images: Tensor, chunk_size: int, network: nn.Module) -> Tensor:
    """What a function makes of images, with the activations of one chunk in memory at a time, backward pass included.

    Value and gradient are those of ``function(images)`` if every image goes through it for itself. Batch statistics are
    those of a chunk; running averages move once for every chunk, in the first pass only.

    Args:
        function: images ``(B, ...)`` to projections ``(B, P)``.
        images: ``(B, ...)``.
        chunk_size: most images in a chunk; chunks are as even as can be.
        network: holds the batch-normalization layers that `function` uses.

    Returns:
        Projections ``(B, P)``.
    """
    parts = images.tensor_split(-(-len(images) // chunk_size))
    if not torch.is_grad_enabled():
        return torch.cat([function(part) for part in parts])

    def contexts() -> tuple[Any, Any]:
        return contextlib.nullcontext(), _averages_at_rest(network)

    return torch.cat([checkpoint(function, part, use_reentrant=False, context_fn=contexts) for part in parts])


def has_batch_statistics(network: nn.Module) -> bool:
    """Whether what a network makes of an image while training hangs on the other images of the batch."""
    return any(isinstance(module, _BatchNorm) for module in network.modules())


@contextlib.contextmanager
def _averages_at_rest(network: nn.Module) -> Iterator[None]:
    """While a chunk is computed again, running means and variances and their counts stay what they are."""
    layers = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    before = [(layer.momentum, layer.num_batches_tracked) for layer in layers]
    for layer in layers:
        layer.momentum, layer.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for layer, (momentum, tracked) in zip(layers, before, strict=True):
            layer.momentum, layer.num_batches_tracked = momentum, tracked
