"""Where a positive decision comes from: Grad-CAM, mapped back onto the original pixels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from monai_simclr.ops.resize import undo_pad_resize
from monai_simclr.runtime.files import write_atomically

_LONGEST, _OPACITY = 1024, 0.45


def last_map(network: nn.Module, images: Tensor) -> str:
    """Name of the module whose output is the last with more than one pixel: where Grad-CAM looks.

    Args:
        network: any classifier of images.
        images: a batch that it takes.

    Raises:
        ValueError: if no module gives maps.
    """
    seen: list[str] = []

    def remember(name: str) -> None:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1:
                seen.append(name)

        hooks.append(modules[name].register_forward_hook(hook))

    modules = dict(network.named_modules())
    hooks: list[torch.utils.hooks.RemovableHandle] = []
    for name in modules:
        remember(name)
    try:
        with torch.no_grad():
            network(images)
    finally:
        for hook in hooks:
            hook.remove()
    if not seen:
        raise ValueError(f"{type(network).__name__} has no module with maps of more than one pixel; Grad-CAM needs one")
    return seen[-1]


def overlay(network: nn.Module, image: Tensor, finding: int, pixels: np.ndarray) -> np.ndarray:
    """The radiograph with what spoke for a finding in color (Selvaraju et al., ICCV 2017).

    A map of the last layer is coarse (a 32nd of the image's side in a ResNet) and shows what the network looked at, not
    where a disease is.

    Args:
        network: classifier in evaluation mode.
        image: what it saw, shape ``(1, S, S)``.
        finding: number of its logit.
        pixels: the canonical image, shape ``(H, W)``, in [0, 1].

    Returns:
        uint8 ``(H, W, 3)``, red, green, blue.
    """
    heat = undo_pad_resize(_grad_cam(network, image[None].detach().float(), finding), pixels.shape)
    color = cv2.cvtColor(
        cv2.applyColorMap(np.rint(heat * 255).astype(np.uint8), cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB
    )
    share = (_OPACITY * heat)[..., None]
    gray = np.repeat(np.clip(pixels, 0, 1)[..., None], 3, axis=2)
    return np.rint((1 - share) * gray * 255 + share * color).astype(np.uint8)


def write_overlay(picture: np.ndarray, path: str | Path) -> Path:
    """Write an overlay as PNG, its longer side at most 1,024 pixels."""
    scale = min(1.0, _LONGEST / max(picture.shape[:2]))
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else picture
    with write_atomically(path) as part:
        part.write_bytes(cv2.imencode(".png", cv2.cvtColor(small, cv2.COLOR_RGB2BGR))[1].tobytes())
    return Path(path)


def _grad_cam(network: nn.Module, batch: Tensor, finding: int) -> np.ndarray:
    """Grad-CAM of one image, ``(S, S)`` in [0, 1]: the last maps, weighted by the mean gradient of the logit.

    MONAI's `GradCAM` gives the same, but leaves hooks and maps on the network, a set for every picture.
    """
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        kept.append(output)
        return output.clone()  # a ReLU in place that follows must not change what is kept

    layer = network.get_submodule(last_map(network, batch))
    with torch.enable_grad(), layer.register_forward_hook(keep):
        logit = network(batch.requires_grad_())[:, finding].sum()
        (gradient,) = torch.autograd.grad(logit, kept)
    maps = torch.relu((gradient.mean((2, 3), keepdim=True) * kept[0].detach()).sum(1, keepdim=True))
    large = nn.functional.interpolate(maps, batch.shape[2:], mode="bilinear", align_corners=False)
    heat = large[0, 0].float().cpu().numpy()
    return (heat - heat.min()) / max(float(np.ptp(heat)), float(np.finfo(np.float32).tiny))
