"""Cached gradients: a contrastive step of any batch size in the memory of a chunk (GradCache, Gao et al. 2021).

The first pass makes all projections, chunk by chunk, and keeps no activations; the loss sees the whole batch. In the
backward pass each chunk is computed again, with the random numbers of the first time, and sends the gradient of its
projections down to the parameters. Checkpointing a network chunk by chunk does just that, so it needs no training loop
of its own: MONAI's trainer, autocast, gradient scaling and DistributedDataParallel work as they do without.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def in_chunks(function: Callable[[Tensor], Tensor], images: Tensor, chunk_size: int, network: nn.Module) -> Tensor:
    """Apply a function to images with the activations of one chunk in memory at a time, backward pass included.

    Value and gradient are those of ``function(images)`` if images do not affect each other. Batch statistics are those
    of a chunk; running averages are updated once per chunk, in the first pass only.

    Args:
        function: images ``(B, ...)`` to projections ``(B, P)``.
        images: ``(B, ...)``.
        chunk_size: maximum number of images in a chunk; chunks are as even as possible.
        network: holds the batch-normalization layers that `function` uses.

    Returns:
        Projections ``(B, P)``.
    """
    # Dynamo cannot trace a checkpoint that has a context; compile the encoder itself. Said here and not by a decorator,
    # which would import Dynamo, a second of CPU time, with every command that has a network.
    result: Tensor = torch.compiler.disable(_in_chunks)(function, images, chunk_size, network)
    return result


def _in_chunks(function: Callable[[Tensor], Tensor], images: Tensor, chunk_size: int, network: nn.Module) -> Tensor:
    chunks = images.tensor_split(-(-len(images) // chunk_size))
    if not torch.is_grad_enabled():
        return torch.cat([function(chunk) for chunk in chunks])

    @contextlib.contextmanager
    def averages_frozen() -> Iterator[None]:
        layers = batch_norms(network)
        before = [(layer.momentum, layer.num_batches_tracked) for layer in layers]
        for layer in layers:
            layer.momentum, layer.num_batches_tracked = 0.0, None
        try:
            yield
        finally:
            for layer, (momentum, tracked) in zip(layers, before, strict=True):
                layer.momentum, layer.num_batches_tracked = momentum, tracked

    return torch.cat(
        [
            checkpoint(
                function, chunk, use_reentrant=False, context_fn=lambda: (contextlib.nullcontext(), averages_frozen())
            )
            for chunk in chunks
        ]
    )


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    """The layers through which images of a batch affect each other while training."""
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]
