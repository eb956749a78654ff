"""What an encoder is trained with: the projection head of SimCLR, and the classifier of findings."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from monai_simclr.networks.chunks import batch_norms, in_chunks
from monai_simclr.networks.encoders import feature_dim

HeadNorm = Literal["batch", "layer"]
"""How the projection head normalizes: over the batch as in the paper, or within each row."""

logger = logging.getLogger("monai_simclr")


class ProjectionHead(nn.Sequential):
    """Features ``(B, D)`` to projections ``(B, P)``: linear, norm, ReLU, linear (Chen et al., SimCLR, ICML 2020).

    Args:
        in_features: D.
        hidden: width of the hidden layer; 0 means D.
        out_features: P.
        norm: ``"batch"`` as in the paper, or ``"layer"``, which does not depend on the batch.

    Raises:
        ValueError: if there is no such norm.
    """

    def __init__(self, in_features: int, hidden: int = 0, out_features: int = 128, norm: HeadNorm = "batch") -> None:
        if norm not in get_args(HeadNorm):
            raise ValueError(f"norm of the head must be one of {', '.join(get_args(HeadNorm))}, got {norm!r}")
        hidden = hidden or in_features
        super().__init__(
            nn.Linear(in_features, hidden, bias=False),
            nn.BatchNorm1d(hidden) if norm == "batch" else nn.LayerNorm(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, out_features, bias=False),
        )


class SimCLR(nn.Module):
    """An encoder with a projection head: images ``(B, 1, H, W)`` to projections ``(B, P)``.

    With `chunk_size`, gradients are cached (`in_chunks`): a batch of any size trains in the memory of a chunk, for one
    more forward pass. The result is exact unless there are batch statistics, which are then those of a chunk.

    Args:
        encoder: any module that maps images to vectors, see `feature_dim`.
        hidden: width of the head's hidden layer; 0 means the encoder's.
        out_features: P, 128 in the paper.
        norm: of the head, see `ProjectionHead`.
        chunk_size: maximum number of views whose activations are in memory at once while training; 0 for all.

    Raises:
        ValueError: if the encoder makes no vectors, or `chunk_size` is 1 or below 0.

    Example:
        >>> import torch
        >>> from monai_simclr.networks import encoder
        >>> model = SimCLR(encoder("resnet10", width=0.125), out_features=32)
        >>> model(torch.rand(4, 1, 64, 64)).shape
        torch.Size([4, 32])
    """

    def __init__(
        self,
        encoder: nn.Module,
        hidden: int = 0,
        out_features: int = 128,
        norm: HeadNorm = "batch",
        chunk_size: int = 0,
    ) -> None:
        super().__init__()
        if chunk_size < 0 or chunk_size == 1:
            raise ValueError(f"chunk_size must be at least 2 images, or 0 for all at once, got {chunk_size}")
        self.encoder = encoder
        self.head = ProjectionHead(feature_dim(encoder), hidden, out_features, norm)
        self.chunk_size = chunk_size
        if chunk_size and batch_norms(self):
            logger.warning(
                f"gradients are cached in chunks of {chunk_size} images: batch normalization sees a chunk, not the "
                "batch; for the exact gradient of the batch use encoder(norm='group') and SimCLR(norm='layer')"
            )

    def forward(self, images: Tensor) -> Tensor:
        if self.chunk_size and self.training:
            return in_chunks(self._project, images, self.chunk_size, self)
        return self._project(images)

    def _project(self, images: Tensor) -> Tensor:
        return self.head(self.encoder(images))


class FindingClassifier(nn.Module):
    """Images ``(B, 1, H, W)`` to one logit per finding ``(B, K)``; the state dict contains the findings' names.

    Args:
        encoder: any module that maps images to vectors, see `feature_dim`.
        findings: K names, in the order of the output.
        freeze_encoder: keep the encoder as it is, batch statistics included, and train the last layer only.

    Raises:
        ValueError: on loading a state dict that was trained for other findings (names both).

    Example:
        >>> import torch
        >>> from monai_simclr.networks import encoder
        >>> net = FindingClassifier(encoder("resnet10", width=0.125), ["Effusion", "Edema"])
        >>> net(torch.rand(4, 1, 64, 64)).shape
        torch.Size([4, 2])
    """

    def __init__(self, encoder: nn.Module, findings: Sequence[str], freeze_encoder: bool = False) -> None:
        super().__init__()
        if not findings:
            raise ValueError("a classifier needs at least one finding, got none; see `findings` in metadata.json")
        self.encoder = encoder
        self.findings = tuple(findings)
        self.classifier = nn.Linear(feature_dim(encoder), len(self.findings))
        self._frozen: tuple[str, ...] = ()  # names: synchronized batch normalization takes the place of modules
        self._keeps_statistics = False
        encoder.requires_grad_(True)
        if freeze_encoder:
            self.freeze(encoder)

    def freeze(self, *modules: nn.Module) -> None:
        """Exclude parts of the network from training: they keep their weights and their batch statistics."""
        self._frozen += tuple(name for name, module in self.named_modules() if module in modules)
        for module in modules:
            module.requires_grad_(False).eval()

    def freeze_batch_statistics(self) -> None:
        """Normalize by the statistics that the encoder came with, while all weights train: a few images make poor ones.

        Example:
            >>> import torch
            >>> from monai_simclr.networks import encoder
            >>> net = FindingClassifier(encoder("resnet10", width=0.125), ["Effusion"])
            >>> net.freeze_batch_statistics()
            >>> net.encoder.bn1.training, net.encoder.bn1.weight.requires_grad
            (False, True)
        """
        self._keeps_statistics = True
        self.train(self.training)

    def forward(self, images: Tensor) -> Tensor:
        features = self.encoder(images)
        if torch.jit.is_scripting():
            return self.classifier(features)
        else:  # the compiler of torch.jit.script leaves out a branch, not what follows one
            return _in_float32(self.classifier, features)

    def train(self, mode: bool = True) -> FindingClassifier:
        """Set training mode; what is frozen, modules or batch statistics, stays in evaluation mode."""
        super().train(mode)
        frozen = [self.get_submodule(name) for name in self._frozen]
        for module in [*frozen, *(batch_norms(self) if self._keeps_statistics else ())]:
            module.eval()
        return self

    def get_extra_state(self) -> Tensor:
        """The findings, JSON as bytes in a tensor: `monai.bundle.load` asks every entry of a state dict for a shape."""
        return torch.frombuffer(bytearray(json.dumps(self.findings).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        findings = json.loads(bytes(state.tolist()))
        if tuple(findings) != self.findings:
            raise ValueError(
                f"the checkpoint was trained for the findings {findings}, the network is for "
                f"{list(self.findings)}; use the metadata.json of the bundle that trained it, or pass --findings"
            )


def _in_float32(layer: nn.Module, features: Tensor) -> Tensor:
    """The last layer outside of autocast: logits of 8 or 11 bits tie, and they are ranked and decided on."""
    kind = features.device.type
    if not torch.is_autocast_enabled(kind):
        return layer(features)
    with torch.autocast(kind, enabled=False):
        return layer(features.float())
