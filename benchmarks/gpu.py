"""Everything that was ever asked of a GPU, by one command in at most nine minutes on one H100 or H200; see gpu.md.

    python benchmarks/gpu.py runs/films --prepare IDX       writes the films for pretraining, without a GPU
    python benchmarks/gpu.py OUT --films runs/films         on the machine with the GPU
    python benchmarks/gpu.py OUT --tiny                     on any CPU, in a minute: does all of it work?

Every part is a process of its own with a time box, and writes `OUT/gpu_PART.json` after each of its rows: a part that
crashes, hangs or is cut takes nothing from the others. kornia and lightly are compared where they can be imported.
"""

from __future__ import annotations

import os

os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # asking for a GPU must leave it usable after a fork

import argparse
import contextlib
import dataclasses
import functools
import gc
import importlib.util
import itertools
import json
import shutil
import signal
import socket
import statistics
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import loaders
import nt_xent
import torch
import transforms
from ignite.engine import Engine, Events
from peers import peer
from record import peak_megabytes, save
from scaling import STORED, Try, header_of, pretrain
from torch import Tensor, nn

from monai_simclr import ops, recipes
from monai_simclr.data import KeyedSampler, Store, StoreDataset, get_store, loader, write_index
from monai_simclr.data.phantoms import write_nih_phantoms
from monai_simclr.engines import ContrastiveTrainer, PrepareTwoViews
from monai_simclr.losses import NTXentLoss
from monai_simclr.losses import nt_xent as our_loss
from monai_simclr.networks import SimCLR, encoder, save_encoder
from monai_simclr.optimizers import make_optimizer
from monai_simclr.runtime.distributed import destroy_distributed, init_distributed
from monai_simclr.runtime.files import write_json
from monai_simclr.runtime.signals import Preempted
from monai_simclr.transforms import DrawViewsd, MultiViewd

PACKAGES = ("torch", "monai", "kornia", "lightly", "torchvision", "opencv-python-headless", "safetensors")
QUALITY = 75
"""Of the JPEG films: 16,260 of them at 128 pixels are 40 MB."""

Row = dict[str, Any]
Rows = Iterator[tuple[str, Callable[[], Row]]]
"""What is measured, and what measures it."""


class NotHere(Exception):  # noqa: N818 (nothing failed)
    """This cannot be measured on this machine."""


@dataclass(frozen=True)
class Setup:
    """What every part is told: the device, whether to do only the least of everything, and where things are."""

    device: torch.device
    tiny: bool
    out: Path
    scratch: Path
    films: Path | None
    ends: float

    @property
    def workers(self) -> int:
        """Processes of a loader."""
        return 1 if self.tiny else max(1, min(14, (os.cpu_count() or 1) - 2))

    @property
    def on_gpu(self) -> bool:
        """Whether there is a GPU."""
        return self.device.type == "cuda"

    def wait(self) -> None:
        """Until the GPU has done what it was given."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def milliseconds(self, work: Callable[[], Any]) -> float:
        """Of one call: the median of some, after two that warm up."""
        spent = []
        for number in range(4 if self.tiny else 12):
            start = time.perf_counter()
            work()
            self.wait()
            if number > 1:
                spent.append(1000 * (time.perf_counter() - start))
        return statistics.median(spent)

    def megabytes(self, work: Callable[[], Any]) -> float:
        """Peak of memory above what there was before."""
        if not self.on_gpu:
            return peak_megabytes(work)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return (torch.cuda.max_memory_allocated() - before) / 2**20


def need(package: str) -> None:
    """Leave a row out where a peer is not installed."""
    if importlib.util.find_spec(package) is None:
        raise NotHere(f"{package} is not installed")


def views(s: Setup) -> Rows:
    """Two views of 1,024 images, 256 to 224 px, against kornia and a step of ResNet-50; and whether they are right."""
    images = transforms.float_images(2 if s.tiny else 1024, s.device)
    ours = functools.cache(lambda: s.milliseconds(transforms.device_views(images)) / len(images))

    def against_kornia() -> Row:
        need("kornia")
        theirs = s.milliseconds(transforms.kornia_views(images)) / len(images)
        return {"ours_ms": ours(), "kornia_ms": theirs, "measured": theirs / ours(), "at least": 1.5}

    def share_of_a_step() -> Row:
        batch = torch.rand(4 if s.tiny else 256, 1, 224, 224, device=s.device).to(memory_format=torch.channels_last)
        network = nn.Sequential(encoder("resnet50", 0.25 if s.tiny else 1.0)).to(s.device)
        network = network.to(memory_format=torch.channels_last)

        def step() -> None:
            with torch.autocast(s.device.type, torch.bfloat16, enabled=s.on_gpu):
                network(batch).float().square().mean().backward()

        of_image = s.milliseconds(step) / len(batch)
        return {"step_ms": of_image, "view_ms": ours() / 2, "measured": ours() / 2 / of_image, "at most": 0.05}

    def same_as_opencv() -> Row:
        pixels = torch.from_numpy(transforms.picture())[None, None].repeat(2 if s.tiny else 64, 1, 1, 1)
        drawn = transforms.our_view(full=True).set_random_state(0).draw(len(pixels))
        there = ops.make_views(pixels.to(s.device), drawn, 224, backend="torch").cpu().float()
        difference = (there - ops.make_views(pixels, drawn, 224).float()).abs().mean().item()
        return {"unit": "mean gray levels", "measured": difference, "at most": 1.0}

    yield "two views", lambda: {"images": len(images), "views_per_second": 2000 / ours()}
    yield "two views against kornia", against_kornia
    yield "a view's share of a ResNet-50 step", share_of_a_step
    yield "views of the device against OpenCV's", same_as_opencv


def clahe(s: Setup) -> Rows:
    """CLAHE with 8 x 8 tiles at 256 px, uint8 and float32, against kornia."""
    floats = transforms.float_images(2 if s.tiny else 256, s.device)
    pixels = floats.mul(255).round().to(torch.uint8)
    ours = functools.cache(lambda: s.milliseconds(lambda: ops.clahe(floats, 2.0, backend="torch")) / len(floats))

    def against_kornia() -> Row:
        need("kornia")
        enhance = peer("kornia.enhance")
        theirs = s.milliseconds(lambda: enhance.equalize_clahe(floats, 2.0, (8, 8))) / len(floats)
        return {"ours_ms": ours(), "kornia_ms": theirs, "measured": theirs / ours(), "at least": 3.0}

    def of_uint8() -> Row:
        return {"ours_ms": s.milliseconds(lambda: ops.clahe(pixels, 2.0, backend="torch")) / len(pixels)}

    yield "CLAHE, float32", lambda: {"ours_ms": ours()}
    yield "CLAHE, uint8", of_uint8
    yield "CLAHE against kornia", against_kornia


def loss(s: Setup) -> Rows:
    """NT-Xent, forward and backward, time and memory, against the plain form and lightly's, which may not fit."""

    def one(name: str, images: int) -> Row:
        if name == "of_lightly":
            need("lightly")
        z = nt_xent.projections(images).detach().to(s.device).requires_grad_()

        def both() -> None:
            z.grad = None
            nt_xent.LOSSES[name](z).backward()

        try:
            return {"images": images, "ms": s.milliseconds(both), "megabytes": s.megabytes(both)}
        except torch.OutOfMemoryError:
            return {"images": images, "out of memory": True}

    for images in (64, 128) if s.tiny else (4096, 16384, 65536):
        for name in ("ours", "ours_same_patient", "plain", "of_lightly"):
            yield f"{name}, {images} images", functools.partial(one, name, images)


def rate(
    s: Setup,
    batches: Iterable[Any],
    network: nn.Module,
    images: int,
    prepare: PrepareTwoViews | None = None,
    **settings: Any,
) -> float:
    """Images a second of our trainer, after a third of the steps to warm up."""
    steps, clock = (3 if s.tiny else 60), [0.0]
    settings = {"precision": "bfloat16" if s.on_gpu else "auto", **settings}
    optimizer, criterion = make_optimizer("adamw", network, 1e-4), NTXentLoss(0.1)
    trainer = ContrastiveTrainer(
        s.device, 1, batches, network, optimizer, criterion, epoch_length=steps, prepare_batch=prepare, **settings
    )

    def start(engine: Engine) -> None:
        s.wait()
        clock[0] = time.perf_counter()

    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=steps // 3), start)
    trainer.run()
    s.wait()
    return images * (steps - steps // 3) / (time.perf_counter() - clock[0])


def simclr(s: Setup, name: str) -> SimCLR:
    """A network on the device."""
    torch.manual_seed(0)
    network = SimCLR(encoder(name, 0.25 if s.tiny else 1.0)).train()
    return network.to(s.device).to(memory_format=torch.channels_last)


def training(s: Setup) -> Rows:
    """ResNet-18 and -50 at 224 px in bfloat16: from a store, views by the workers or the device, against no data."""
    torch.backends.cudnn.benchmark = True
    size, images = (32, 8) if s.tiny else (224, 256)
    store = loaders.make_store(s.scratch, size, (4 if s.tiny else 32) * images)
    view = recipes.views("default", size)
    synthetic: dict[str, float] = {}

    def without_data(name: str) -> Row:
        pair = torch.rand(2, images, 1, size, size, device=s.device)
        batch = dict(zip(("image_1", "image_2"), pair, strict=True))
        synthetic[name] = rate(s, [batch] * 4, simclr(s, name), images)
        return {"images_per_second": synthetic[name]}

    def from_store(name: str, on_device: bool) -> Row:
        data = StoreDataset(store, transform=(DrawViewsd if on_device else MultiViewd)("image", view))
        batches = loader(data, KeyedSampler(data), images, s.workers, 0)
        prepare = PrepareTwoViews(transform=view if on_device else None)
        found = rate(s, batches, simclr(s, name), images, prepare)
        return {"images_per_second": found, "measured": found / synthetic[name], "at least": 0.95}

    def of_lightly(name: str) -> Row:
        need("lightly")
        found = lightly_rate(s, loaders.lightly_batches(store.images, size, images, s.workers), simclr(s, name))
        return {"images_per_second": found, "measured": found / synthetic[name]}

    for name in ("resnet18", "resnet50"):
        yield f"{name}, synthetic data", functools.partial(without_data, name)
        yield f"{name}, views on the device", functools.partial(from_store, name, True)
        yield f"{name}, views in the workers", functools.partial(from_store, name, False)
        yield f"{name}, lightly's loop", functools.partial(of_lightly, name)


def lightly_rate(s: Setup, batches: Iterable[Any], network: nn.Module) -> float:
    """Images a second of the loop of lightly's tutorial, in bfloat16, after a third of the steps to warm up."""
    criterion, optimizer = peer("lightly.loss").NTXentLoss(0.1), torch.optim.AdamW(network.parameters(), 1e-4)
    steps, start, images = (3 if s.tiny else 24), 0.0, 0
    endless = itertools.chain.from_iterable(itertools.repeat(batches))
    for number, pair in enumerate(itertools.islice(endless, steps)):
        if number == steps // 3:
            s.wait()
            start = time.perf_counter()
        first, second = (v.to(s.device, memory_format=torch.channels_last, non_blocking=True) for v in pair)
        with torch.autocast(s.device.type, torch.bfloat16, enabled=s.on_gpu):
            first, second = network(first), network(second)
        optimizer.zero_grad()
        criterion(first.float(), second.float()).backward()
        optimizer.step()
        images += len(first) * (number >= steps // 3)
    s.wait()
    return images / (time.perf_counter() - start)


class At:
    """Handler that does something with the trainer at an event."""

    def __init__(self, event: Any, action: Callable[[Any], Any]) -> None:
        self.event, self.action = event, action

    def attach(self, engine: Engine) -> None:
        """Register on a trainer."""
        engine.add_event_handler(self.event, lambda trainer: self.action(trainer))


def one_rank(s: Setup) -> Row:
    """NCCL (on a CPU gloo) with one rank: collectives, and the gradients of a rank against those without ranks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update(RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    images, alone = torch.rand(8, 1, 64, 64, device=s.device), simclr(s, "resnet18")
    init_distributed(s.device)
    try:
        shared: nn.Module = simclr(s, "resnet18")
        if s.on_gpu:
            shared = nn.SyncBatchNorm.convert_sync_batchnorm(shared)
        shared = nn.parallel.DistributedDataParallel(shared, [s.device] if s.on_gpu else None)
        groups = torch.arange(4, device=s.device).repeat(2)
        for network, gather in ((alone, False), (shared, True)):
            our_loss(network(images), groups, gather=gather).backward()
        one, other = (torch.cat([p.grad.flatten() for p in network.parameters()]) for network in (alone, shared))
        number = torch.ones(1, device=s.device)
        torch.distributed.all_reduce(number)
        backend = torch.distributed.get_backend()
    finally:
        destroy_distributed()
    difference = ((one - other).norm() / one.norm()).item()
    return {"backend": backend, "all_reduce": number.item(), "measured": difference, "at most": 0.001}


def compiled(s: Setup) -> Row:
    """What torch.compile is worth; on a CPU only whether the network is traced, as that needs no compiler."""
    images, size = (8, 32) if s.tiny else (256, 128)
    pair = torch.rand(2, images, 1, size, size, device=s.device)
    batches, network = [dict(zip(("image_1", "image_2"), pair, strict=True))] * 4, simclr(s, "resnet18")
    before, start = rate(s, batches, network, images), time.perf_counter()
    backend = {"backend": "eager" if s.tiny else "inductor"}
    after = rate(s, batches, network, images, compile=True, compile_kwargs=backend)
    return {"eager_per_second": before, "measured": after / before, "seconds": time.perf_counter() - start}


def deterministic() -> None:
    """Let the same run give the same bits."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False


def checks(s: Setup) -> Rows:
    """NCCL with one rank, compile, float16 with its scaler, determinism, exact resume."""
    small = Try(width=0.25, size=32, epochs=2, batch_size=8, strength="default", precision="auto")
    if not s.tiny:
        small = dataclasses.replace(small, width=1.0, size=128, batch_size=64)
    store = loaders.make_store(s.scratch, small.size, 4 * small.batch_size)

    def weights(folder: str, *handlers: At, **changed: Any) -> Tensor:
        settings = dataclasses.replace(small, **changed)
        network, _ = pretrain(settings, store, s.scratch / folder, s.device, s.workers, handlers)
        return torch.cat([value.flatten().double().cpu() for value in network.state_dict().values()])

    def float16() -> Row:
        if not s.on_gpu:
            raise NotHere("float16 needs a GPU")
        scales: list[float] = []
        keep = At(Events.COMPLETED, lambda trainer: scales.append(trainer.scaler.get_scale()))
        finite = bool(weights("float16", keep, precision="float16").isfinite().all())
        return {"scale": scales[0], "measured": float(finite and scales[0] > 0), "at least": 1.0}

    @functools.cache
    def whole() -> Tensor:
        deterministic()
        return weights("whole")

    def again() -> Row:
        return {"measured": (whole() - weights("again")).abs().max().item(), "at most": 0.0}

    def resumed() -> Row:
        expected, ask = whole(), At(Events.ITERATION_COMPLETED(once=6), lambda _: os.kill(os.getpid(), signal.SIGTERM))
        try:
            weights("resumed", ask)
        except Preempted:  # in the second epoch, saved
            return {"measured": (expected - weights("resumed")).abs().max().item(), "at most": 0.0}
        raise RuntimeError("the run went on although it was asked to stop")

    yield "collectives and gradients of one rank", functools.partial(one_rank, s)
    yield "compile", functools.partial(compiled, s)
    yield "float16", float16
    yield "the same run twice, largest difference", again
    yield "stopped within an epoch and resumed, largest difference", resumed


def pretraining(s: Setup) -> Rows:
    """An encoder of the films, at 64, 96 and 128 px in large batches, for as many epochs as the time allows."""
    deterministic()
    settings = Try(size=STORED, strength="default", batch_size=1024, learning_rate=0.003, width=1.0, precision="auto")
    if s.tiny:
        settings = dataclasses.replace(settings, batch_size=8, width=0.25)
    plan, file = s.out / "plan.json", s.out / "encoder.safetensors"

    @functools.cache
    def films() -> Store:
        if s.films is None:
            raise NotHere("--films were not given")
        if file.is_file():
            raise NotHere(f"{file} is there already")
        return get_store(s.films, s.scratch / "store", recipes.stored_size(STORED), workers=s.workers)

    def made(epochs: int, sizes: tuple[int, int, int], folder: Path, *handlers: At) -> tuple[Try, nn.Module, Row]:
        stages = tuple(zip((64, 96, 128), sizes, strict=True))
        final = dataclasses.replace(settings, epochs=epochs, sizes=stages)
        return final, *pretrain(final, films(), folder, s.device, s.workers, handlers)

    def planned() -> Row:
        """How many epochs: the second one of each size says how long it takes, and a fifth of the time is spare."""
        images = len(films().images)
        if not plan.is_file():
            marks: list[float] = []
            clock = At(Events.STARTED | Events.EPOCH_COMPLETED, lambda _: marks.append(time.perf_counter()))
            made(6, (2, 2, 2), s.scratch / "trial", clock)
            seconds = [marks[number] - marks[number - 1] for number in (2, 4, 6)]
            mean = sum(share * spent for share, spent in zip((0.4, 0.3, 0.3), seconds, strict=True))
            epochs = 3 if s.tiny else max(3, min(2000, int(0.8 * (s.ends - time.monotonic()) / mean)))
            write_json(plan, {"epochs": epochs, "seconds_of_an_epoch": dict(zip((64, 96, 128), seconds, strict=True))})
        return {**json.loads(plan.read_text(encoding="utf-8")), "images": images}

    def trained() -> Row:
        store, epochs = films(), json.loads(plan.read_text(encoding="utf-8"))["epochs"]
        small, middle = round(0.4 * epochs), round(0.3 * epochs)
        final, network, logged = made(epochs, (small, middle, epochs - small - middle), s.out)
        save_encoder(file, network, header_of(network, final, store, "benchmarks/gpu.py"), torch.float16)
        shutil.rmtree(s.out / "checkpoints")
        return {"encoder": file.name, "settings": dataclasses.asdict(final), **logged}

    yield "plan", planned
    yield "pretraining", trained


PARTS: dict[str, tuple[Callable[[Setup], Rows], float]] = {
    "views": (views, 50),
    "clahe": (clahe, 25),
    "nt_xent": (loss, 50),
    "training": (training, 130),
    "checks": (checks, 75),
    "pretraining": (pretraining, float("inf")),
}
"""Each part and its time box in seconds; the last gets what is left."""


def attempt(what: str, measure: Callable[[], Row]) -> Row:
    """A row, whatever happens: one that fails must not take the others along."""
    try:
        return {"what": what, **measure()}
    except NotHere as reason:
        return {"what": what, "left out": str(reason)}
    except Exception as error:
        traceback.print_exc()
        return {"what": what, "error": f"{type(error).__name__}: {error}"}


def work(name: str, out: Path, scratch: Path, films: Path | None, tiny: bool, box: float) -> bool:
    """Measure a part in this process, row by row, each saved as soon as it is there; whether no row failed."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    warnings.simplefilter("ignore")
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # for deterministic algorithms
    scratch.mkdir()
    start, rows = time.monotonic(), []
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    s = Setup(device, tiny, out, scratch, films, start + box)
    keep = functools.partial(save, out / f"gpu_{name}.json", PACKAGES, part=name, tiny=tiny)
    for what, measure in PARTS[name][0](s):
        rows.append(attempt(what, measure))
        gc.collect()  # a trainer is a circle
        shown = {k: round(v, 4) if isinstance(v, float) else v for k, v in rows[-1].items()}
        print(name, shown, verdict(rows[-1]), flush=True)
        keep(whole=False, seconds=time.monotonic() - start, results=rows)
    keep(whole=True, seconds=time.monotonic() - start, results=rows)
    return not any("error" in row for row in rows)


def verdict(row: Row) -> str:
    """Whether what was measured is where it should be."""
    if not {"at least", "at most"} & set(row):
        return ""
    measured = row["measured"]
    return "reached" if row.get("at least", measured) <= measured <= row.get("at most", measured) else "MISSED"


def boxed(job: Callable[[], bool], seconds: float) -> str:
    """Do a job in a process of its own, asked to stop after some seconds and killed ten later: how it ended."""
    sys.stdout.flush()  # else the process prints it again
    pid = os.fork()
    if pid == 0:
        good = False
        try:
            os.setsid()
            good = job()
        except BaseException:  # the parent must hear of it
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0 if good else 1)

    def ended_by(end: float) -> int | None:
        while time.monotonic() < end:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return status
            time.sleep(0.05)
        return None

    status = None
    try:
        status = ended_by(time.monotonic() + seconds)
        if status is not None:
            return "done" if status == 0 else "failed"
        return "cut"
    finally:
        if status is None:
            os.kill(pid, signal.SIGTERM)  # pretraining saves
            status = ended_by(time.monotonic() + 10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # workers of loaders, too
        if status is None:
            os.waitpid(pid, 0)


def main(out: Path, films: Path | None, parts: list[str], minutes: float, tiny: bool) -> int:
    """Do the parts one after another; 0 if all of them are done and no row failed."""
    end = time.monotonic() + 60 * minutes - 15  # ten to stop the last part, five to start
    out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    ends = {}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        if tiny and films is None:
            films = prepare(write_nih_phantoms(scratch / "phantoms", n_patients=16, size=64), scratch / "films")
        for part in parts:
            seconds = min(PARTS[part][1] * (8 if tiny else 1), end - time.monotonic())  # a CPU may be slow
            job = functools.partial(work, part, out, scratch / part, films, tiny, seconds)
            ends[part] = boxed(job, seconds) if seconds > 5 else "no time left"
            print(f"{part}: {ends[part]}, {end - time.monotonic():.0f} s left", flush=True)
    return 0 if set(ends.values()) <= {"done"} else 1


def prepare(archive: Path, folder: Path) -> Path:
    """Write an archive's films, but those of test patients, as JPEG of 128 px with an index."""
    with tempfile.TemporaryDirectory() as scratch:
        store = get_store(archive, scratch, STORED, workers=1)
        (folder / "films").mkdir(parents=True)
        kept = store.index[store.index["split"] != "test"]
        names = [folder.absolute() / "films" / f"{row}.jpg" for row in kept.index]
        for row, name in zip(kept.index, names, strict=True):
            cv2.imwrite(str(name), store.images[row], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    write_index(kept.assign(image=[str(name) for name in names]).reset_index(drop=True), folder / "index.csv")
    size = sum(name.stat().st_size for name in names) / 1e6
    print(f"wrote {len(names)} films, {size:.1f} MB, to {folder}")
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for all that is written")
    parser.add_argument("--films", type=Path, help="folder that --prepare wrote")
    parser.add_argument("--prepare", type=Path, metavar="IDX", help="folder of real_pack.py: write its films to OUT")
    parser.add_argument("--only", choices=PARTS, action="append", help="do this part (can be repeated)")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--tiny", action="store_true", help="the least of everything, on any machine")
    given = parser.parse_args()
    if given.prepare is not None:
        prepare(given.prepare / "pretraining", given.out)
    else:
        sys.exit(main(given.out, given.films, given.only or list(PARTS), given.minutes, given.tiny))
