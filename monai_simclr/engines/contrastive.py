"""SimCLR as MONAI trains everything: a `SupervisedTrainer` whose batch is two views and whose labels are group ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.engines import PrepareBatch, SupervisedTrainer
from torch import Tensor

__all__ = ["ContrastiveTrainer", "PrepareLabelled", "PrepareTwoViews"]


class PrepareTwoViews(PrepareBatch):
    """Batch with one key a view -> ``(images (V*N, 1, H, W) float, group ids (V*N,))``, views stacked one after
    another.

    Args:
        keys: the views' keys, `image_1` and `image_2` as `MultiViewd` names them.
        group_key: integer ids of what may not be each other's negatives, the patient; without the key in the batch
            every
            image is a group of its own.
        channels_last: memory format that convolutions on CPUs with bfloat16 and on GPUs prefer.

    uint8 views are scaled to [0, 1] on the device, so that workers hand over one byte a pixel.
    """

    def __init__(
        self, keys: Sequence[str] = ("image_1", "image_2"), group_key: str = "patient", channels_last: bool = True
    ) -> None:
        self.keys, self.group_key, self.channels_last = tuple(keys), group_key, channels_last

    def __call__(
        self,
        batchdata: dict[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        views = [_floats(batchdata[key], device, non_blocking, self.channels_last) for key in self.keys]
        groups = batchdata.get(self.group_key)
        ids = torch.arange(len(views[0])) if groups is None else torch.as_tensor(groups)
        return torch.cat(views), ids.to(device=device, non_blocking=non_blocking).repeat(len(views))


class PrepareLabelled(PrepareBatch):
    """Batch -> ``(images (N, 1, H, W) float, labels (N, K) float, NaN where unknown)``; uint8 is scaled to [0, 1]."""

    def __init__(self, image_key: str = "image", label_key: str = "label", channels_last: bool = True) -> None:
        self.image_key, self.label_key, self.channels_last = image_key, label_key, channels_last

    def __call__(
        self,
        batchdata: dict[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        images = _floats(batchdata[self.image_key], device, non_blocking, self.channels_last)
        labels = batchdata.get(self.label_key)
        return images, None if labels is None else labels.to(device=device, non_blocking=non_blocking)


class ContrastiveTrainer(SupervisedTrainer):
    """`SupervisedTrainer` with SimCLR's defaults; the training step is MONAI's own.

    Takes what `SupervisedTrainer` takes. The network maps images to projections ``(V*N, D)``, the loss takes them and
    the
    group ids. `prepare_batch` defaults to `PrepareTwoViews`, `decollate` to false (nothing here reads single items).

    Raises:
        ValueError: if `accumulation_steps` is not 1: accumulating gradients adds no negatives to a contrastive loss.
    """

    def __init__(self, *args: Any, accumulation_steps: int = 1, decollate: bool = False, **kwargs: Any) -> None:
        if accumulation_steps != 1:
            raise ValueError(
                f"accumulation_steps is {accumulation_steps}, but accumulating gradients adds no negatives to NT-Xent: "
                "every small batch keeps its own; use a larger batch_size"
            )
        kwargs.setdefault("prepare_batch", PrepareTwoViews())
        super().__init__(*args, **{"decollate": decollate, **kwargs})


def _floats(images: Tensor, device: str | torch.device | None, non_blocking: bool, channels_last: bool) -> Tensor:
    images = images.to(device=device, non_blocking=non_blocking)
    images = images.float().div_(255) if images.dtype == torch.uint8 else images.float()
    return images.contiguous(memory_format=torch.channels_last) if channels_last else images
