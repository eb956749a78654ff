"""Where a positive decision comes from: Grad-CAM, mapped back onto the original pixels."""

from __future__ import annotations

import functools

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from monai_simclr.ops.resize import undo_pad_resize

_LONGEST, _OPACITY = 1024, 0.45


def last_map(network: nn.Module, images: Tensor) -> str:
    """Name of the module that Grad-CAM uses: the last one whose output has more than one pixel.

    Args:
        network: any classifier of images.
        images: a batch that it accepts.

    Raises:
        ValueError: if no module outputs maps.
    """
    names: list[str] = []

    def hook(module: nn.Module, inputs: object, output: object, name: str) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1:
            names.append(name)

    hooks = [
        module.register_forward_hook(functools.partial(hook, name=name)) for name, module in network.named_modules()
    ]
    try:
        with torch.enable_grad():  # without, another runtime may compute the features
            network(images)
    finally:
        for handle in hooks:
            handle.remove()
    if not names:
        raise ValueError(f"{type(network).__name__} has no module with maps of more than one pixel; Grad-CAM needs one")
    return names[-1]


def overlay(network: nn.Module, image: Tensor, finding: int, pixels: np.ndarray) -> np.ndarray:
    """Color a radiograph by what spoke for a finding (Grad-CAM, Selvaraju et al., ICCV 2017).

    The maps of the last layer, weighted by the mean gradient of the logit, are coarse (a 32nd of the image's side in a
    ResNet) and show what the network looked at, not where a disease is. MONAI's `GradCAM` gives the same, but leaves
    hooks and maps on the network, a set for every picture.

    Args:
        network: classifier in evaluation mode.
        image: its input, shape ``(1, S, S)``.
        finding: number of the logit.
        pixels: the canonical image, shape ``(H, W)``, in [0, 1].

    Returns:
        uint8 ``(H, W, 3)``, red, green, blue.
    """
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        kept.append(output)
        return output.clone()  # a ReLU in place that follows must not change what is kept

    batch = image[None].detach().float()
    layer = network.get_submodule(last_map(network, batch))
    with torch.enable_grad(), layer.register_forward_hook(keep):
        logit = network(batch.requires_grad_())[:, finding].sum()
        (gradient,) = torch.autograd.grad(logit, kept)
    maps = torch.relu((gradient.mean((2, 3), keepdim=True) * kept[0].detach()).sum(1, keepdim=True))
    large = nn.functional.interpolate(maps, batch.shape[2:], mode="bilinear", align_corners=False)
    heat = large[0, 0].float().cpu().numpy()
    heat = (heat - heat.min()) / max(float(np.ptp(heat)), float(np.finfo(np.float32).tiny))
    heat = undo_pad_resize(heat, pixels.shape)
    color = cv2.cvtColor(
        cv2.applyColorMap(np.rint(heat * 255).astype(np.uint8), cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB
    )
    share = (_OPACITY * heat)[..., None]
    gray = np.repeat(np.clip(pixels, 0, 1)[..., None], 3, axis=2)
    return np.rint((1 - share) * gray * 255 + share * color).astype(np.uint8)


def encode_overlay(picture: np.ndarray) -> bytes:
    """An overlay as PNG, its longer side at most 1,024 pixels."""
    scale = min(1.0, _LONGEST / max(picture.shape[:2]))
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else picture
    return cv2.imencode(".png", cv2.cvtColor(small, cv2.COLOR_RGB2BGR))[1].tobytes()
