"""SimCLR on MONAI's `SupervisedTrainer`: the batch is two views of each image, the labels are group ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from ignite.engine import Engine, Events
from monai.data.meta_tensor import MetaTensor
from monai.engines import PrepareBatch, SupervisedTrainer
from monai.engines.utils import IterationEvents
from torch import Tensor

from monai_simclr.engines.precision import Precision, precision_settings
from monai_simclr.runtime.distributed import rank


class ViewTransform(Protocol):
    """A random transform that can be applied on the device."""

    def apply(self, images: Tensor, **params: Any) -> Tensor:
        """Make one view of each image ``(B, 1, H, W)`` with drawn parameters of leading length B."""


class PrepareTwoViews(PrepareBatch):
    """Batch -> ``(images (V*N, 1, H, W) float, group ids (V*N,))``, the views stacked one after another.

    The views come from the workers, under one key each; or they are made here, on the device, from the stored images
    and the parameters that `DrawViewsd` drew for them, with the same result. uint8 views are scaled to [0, 1] on the
    device, so that workers transfer one byte per pixel.

    Args:
        keys: of the views, by default `image_1` and `image_2` as from `MultiViewd`; on the device, of their parameters,
            by default `draws_1` and `draws_2`.
        group_key: integer ids of images that must not be each other's negatives, the patient; without the key in the
            batch every image, on every rank, is a group of its own.
        channels_last: use the memory format that convolutions prefer on GPUs, and on CPUs with bfloat16.
        transform: makes the views on the device; None where the workers make them.
        image_key: key of the stored images, for `transform`.
        partner_key: key of the images of the second view, where a batch has it, for `transform`.
    """

    def __init__(
        self,
        keys: Sequence[str] | None = None,
        group_key: str = "patient",
        channels_last: bool = True,
        transform: ViewTransform | None = None,
        image_key: str = "image",
        partner_key: str = "partner",
    ) -> None:
        default = ("image_1", "image_2") if transform is None else ("draws_1", "draws_2")
        self.keys, self.group_key, self.channels_last = tuple(keys or default), group_key, channels_last
        self.transform, self.image_key, self.partner_key = transform, image_key, partner_key

    def __call__(
        self,
        batchdata: dict[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        views = [_plain(view).to(device=device, non_blocking=non_blocking) for view in self._views(batchdata, device)]
        groups, here = batchdata.get(self.group_key), len(views[0])
        ids = torch.arange(here) + here * rank() if groups is None else torch.as_tensor(groups)
        images = _floats(torch.cat(views), device, non_blocking, self.channels_last)  # stacked while they are uint8
        return images, ids.to(device=device, non_blocking=non_blocking).repeat(len(views))

    def _views(self, batchdata: dict[str, Any], device: str | torch.device | None) -> list[Tensor]:
        if self.transform is None:
            return [batchdata[key] for key in self.keys]
        first = batchdata[self.image_key].to(device=device, non_blocking=True)
        partner = batchdata.get(self.partner_key)
        others = first if partner is None else partner.to(device=device, non_blocking=True)
        params = [{name: value.numpy() for name, value in batchdata[key].items()} for key in self.keys]
        return [self.transform.apply(others if view else first, **params[view]) for view in range(len(params))]


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

    The network maps images to projections ``(V*N, D)``, all views in one forward pass, so that batch statistics are
    those of all of them; the loss takes the projections and the group ids. `prepare_batch` defaults to
    `PrepareTwoViews`. `decollate` defaults to false: the output is a list of one dictionary, the whole batch, which
    MONAI's handlers read with ``from_engine(["loss"], first=True)``.

    Args:
        *args: as `SupervisedTrainer`.
        precision: of the network; sets MONAI's `inferer` and `amp` unless they are given.
        accumulation_steps: must be 1.
        decollate: as `SupervisedTrainer`.
        **kwargs: as `SupervisedTrainer`; ``compile=True`` runs the network through `torch.compile`.

    Raises:
        ValueError: if `accumulation_steps` is not 1 (accumulating gradients adds no negatives to a contrastive loss),
            or the device does not support the precision.
    """

    def __init__(
        self,
        *args: Any,
        precision: Precision | None = None,
        accumulation_steps: int = 1,
        decollate: bool = False,
        **kwargs: Any,
    ) -> None:
        if accumulation_steps != 1:
            raise ValueError(
                f"accumulation_steps is {accumulation_steps}, but accumulating gradients adds no negatives to NT-Xent: "
                "every small batch keeps its own; use a larger batch_size, or cached gradients"
            )
        if precision is not None:
            device = torch.device(args[0] if args else kwargs["device"])
            kwargs = {**precision_settings(precision, device), **kwargs}
        if kwargs.get("prepare_batch") is None:
            kwargs["prepare_batch"] = PrepareTwoViews()
        super().__init__(*args, **{"decollate": decollate, **kwargs})
        self.add_event_handler(Events.ITERATION_STARTED, _count_for_the_loss)
        if not decollate:
            OneItemOutput().attach(self)


class OneItemOutput:
    """Make a trainer's output a list of one dictionary, the whole batch, detached from the graph.

    MONAI's StatsHandler, TensorBoard and MLflow handlers (``--tracking mlflow``) read the loss from a decollated
    output, with ``from_engine(["loss"], first=True)``. This serves them without cutting a batch into images.
    """

    def attach(self, engine: Engine) -> None:
        """Register on a trainer with ``decollate=False``."""
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        output: Any = engine.state.output
        engine.state.output = [{name: value.detach() for name, value in output.items()}]  # type: ignore[assignment]


def _count_for_the_loss(engine: Engine) -> None:
    """Set the step of a loss that has one, for a temperature schedule, so that it need not be saved for a resume."""
    loss: Any = engine.loss_function  # type: ignore[attr-defined]
    if isinstance(getattr(loss, "step", None), int):
        loss.step = engine.state.iteration - 1


def _floats(images: Tensor, device: str | torch.device | None, non_blocking: bool, channels_last: bool) -> Tensor:
    """On the device, scaled, and a plain tensor."""
    images = _plain(images).to(device=device, non_blocking=non_blocking)
    images = images.float().div_(255) if images.dtype == torch.uint8 else images.float()
    return images.contiguous(memory_format=torch.channels_last) if channels_last else images


def _plain(images: Tensor) -> Tensor:
    """Without metadata.

    From a MetaTensor a network computes MetaTensors, aliases to autograd, so every in-place ReLU copies its gradient: a
    quarter of a ResNet-18's step (seen as CopySlices in torch's profiler).
    """
    return images.as_tensor() if isinstance(images, MetaTensor) else images
