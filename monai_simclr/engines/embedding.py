"""Run a network over an image store."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from monai_simclr.runtime.cluster import open_executor
from monai_simclr.runtime.spread import map_chunks, pack, unpack_answer

_Finish = Callable[[Tensor], Tensor]


@torch.no_grad()
def embed(
    network: nn.Module,
    images: np.ndarray,
    finish: _Finish,
    device: str | torch.device = "cpu",
    batch_size: int = 256,
    rows: np.ndarray | None = None,
) -> np.ndarray:
    """Outputs of a network for images of a store.

    Args:
        network: maps ``(B, 1, H, W)`` in [0, 1] to vectors ``(B, D)``; it is put into evaluation mode and moved to
            `device`.
        images: uint8 ``(N, S, S)``; a memory map is read batch by batch.
        finish: second half of the preprocessing, uint8 ``(B, 1, S, S)`` to float32 ``(B, 1, H, W)``.
        device: where to run.
        batch_size: B.
        rows: which images, in this order; all by default.

    Returns:
        float32 ``(N, D)``, finite; N is the number of `rows`.

    Raises:
        FloatingPointError: if an output is not finite (names the position of the first image).
    """
    network = network.to(device).eval()
    rows = np.arange(len(images)) if rows is None else rows
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    outputs = np.concatenate([_outputs(network, images[batch], finish, device) for batch in batches])
    _check_finite(outputs)
    return outputs


def embed_spread(
    network: nn.Module,
    file: str | Path,
    finish: _Finish,
    folder: str | Path,
    engine: str | Executor,
    workers: int = 2,
    device: str | torch.device = "cpu",
    batch_size: int = 256,
) -> np.ndarray:
    """What `embed` returns, by the workers of an engine, batch by batch.

    Equal to `embed` within float32's rounding (1e-5 of the largest output), and bit for bit where workers have the
    same processor and one thread each, as here.

    Args:
        network: as for `embed`; its class can be imported on the workers.
        file: ``images.npy`` of a store, uint8 ``(N, S, S)``, which the workers see below the same path.
        finish: as for `embed`; it can be pickled.
        folder: which workers see too; weights and outputs are in it meanwhile.
        engine: see `monai_simclr.runtime.cluster.open_executor`; or what it opened, whose processes are used again.
        workers: processes of this machine, without a cluster.
        device: of each worker; start one worker a GPU.
        batch_size: B.

    Raises:
        FloatingPointError: as `embed` does.
        ChildProcessError: if a worker was lost twice at a batch.
    """
    images = np.load(file, mmap_mode="r")
    count, width = len(images), embed(network, images[:1], finish, device).shape[1]
    with TemporaryDirectory(prefix="embedding-", dir=folder) as scratch:
        weights, target = Path(scratch).absolute() / "weights.safetensors", Path(scratch).absolute() / "outputs.npy"
        save_file({name: value.cpu().contiguous() for name, value in network.state_dict().items()}, weights)
        outputs = np.lib.format.open_memmap(target, "w+", np.float32, (count, width))
        without_weights = pack((None, copy.deepcopy(network).eval().to("meta")))
        work = _EmbedRows(without_weights, str(weights), str(Path(file).absolute()), str(target), finish, str(device))
        chunks = [[(start, min(start + batch_size, count))] for start in range(0, count, batch_size)]
        opened = open_executor(engine, min(workers, len(chunks))) if isinstance(engine, str) else nullcontext(engine)
        with opened as executor:
            for _ in map_chunks(work, chunks, executor, _blame):
                pass
        found = np.array(outputs)
    _check_finite(found)
    return found


@dataclass(frozen=True)
class _EmbedRows:
    """In a worker: outputs of a network for runs of rows, written to their places in a ``.npy`` file."""

    network: bytes
    weights: str
    source: str
    target: str
    finish: _Finish
    device: str

    def __call__(self, runs: Sequence[tuple[int, int]]) -> Iterator[int]:
        network, images = _load(self.network, self.weights).to(self.device), np.load(self.source, mmap_mode="r")
        outputs = np.load(self.target, mmap_mode="r+")
        torch.set_num_threads(1)
        with torch.no_grad():
            for start, stop in runs:
                outputs[start:stop] = _outputs(network, images[start:stop], self.finish, self.device)
                outputs.flush()
                yield start


@cache
def _load(without_weights: bytes, weights: str) -> nn.Module:
    network: nn.Module = unpack_answer(without_weights).to_empty(device="cpu")
    network.load_state_dict(load_file(weights))
    return network.eval()


def _outputs(network: nn.Module, images: np.ndarray, finish: _Finish, device: str | torch.device) -> np.ndarray:
    batch = torch.from_numpy(np.require(images, requirements="W"))[:, None]  # of a read-only map a copy
    outputs: np.ndarray = network(finish(batch).to(device)).float().cpu().numpy()
    return outputs


def _blame(run: tuple[int, int], error: BaseException) -> int:
    raise ChildProcessError(
        f"a worker was lost twice at the images {run[0]} to {run[1] - 1} ({error}); is there enough memory? Run the "
        "same command again, with fewer workers"
    ) from error


def _check_finite(outputs: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(outputs).all(axis=1))
    if len(bad):
        raise FloatingPointError(
            f"the network's outputs for {len(bad)} of {len(outputs)} images are not finite, the first is image "
            f"{bad[0]}; its weights have diverged: lower the learning rate, and train again"
        )
