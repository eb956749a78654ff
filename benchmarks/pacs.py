"""The door to a PACS at a steady load: a real Orthanc sends 2,000 instances to us, and is asked for them.

    python benchmarks/pacs.py [RESULT.json] [INSTANCES]        (needs Debian's orthanc and orthanc-dicomweb)

receive    Orthanc stores every instance at a `Receiver` by C-STORE, 20 to an association, one association after
           another; nothing is predicted.
listen     the same into `monai-simclr listen`, which predicts meanwhile.
fetch      `Worklist.fetch` of everything from Orthanc's DICOMweb service; then once more, with nothing new.

Each has its seconds until the last instance was on the disk and until the last row was written, instances a second of
both from the first to the last (and in each quarter of that time), rows and instances that have one, and memory in MB
(PSS: pages that processes share count once), of the process alone and with its workers: the means of the four quarters
of the time, and the highest; and seconds of CPU time, without Orthanc's.

The instances are 40 chest phantoms of 512 x 512 pixels (12 bits, uncompressed, 0.5 MB) under new UIDs, two to a study;
the bundle is the one that ships, with its classifier; two workers read files; sender, server and receiver share one
machine.
"""

from __future__ import annotations

import csv
import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pydicom
from pydicom.uid import generate_uid
from record import RESULTS, save

from monai_simclr.data.phantoms import draw_phantom, phantom_to_dicom
from monai_simclr.workflows.bundle import copy_bundle

ROOT = Path(__file__).resolve().parent.parent
SIDE, DRAWN, ASSOCIATION = 512, 40, 20
FETCH = """
import json, sys, time
from monai_simclr.inference.dicomweb import Worklist
worklist = Worklist(*sys.argv[1:])
for _ in range(2):
    began = time.monotonic()
    paths, failed = worklist.fetch()
    print(json.dumps({"files": len(paths), "failed": failed, "seconds": time.monotonic() - began}), flush=True)
"""
RECEIVE = """
import sys, time
from monai_simclr.inference.receiver import Receiver
with Receiver(sys.argv[1], port=int(sys.argv[2]), quiet_seconds=2, min_free_bytes=0):
    print("receives on", flush=True)
    time.sleep(1e6)
"""


def fill(server: Any, n: int) -> list[str]:
    """Put instances into Orthanc, two to a study; returns its own names of them."""
    datasets = [phantom_to_dicom(draw_phantom(number, 0, size=SIDE)) for number in range(DRAWN)]
    names, path = [], server.folder / "instance.dcm"
    for number in range(n):
        dataset = datasets[number % DRAWN]
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(number)])
        dataset.StudyInstanceUID = generate_uid(entropy_srcs=["study", str(number // 2)])
        dataset.SeriesInstanceUID = generate_uid(entropy_srcs=["series", str(number)])
        dataset.PatientID = f"P{number // 2}"
        pydicom.dcmwrite(path, dataset)
        names.append(server.post("/instances", path.read_bytes())["ID"])
    return names


def megabytes(process: int) -> list[float]:
    """Memory (PSS) of a process and each of its descendants now; one that ends meanwhile is left out (Linux)."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()
        lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return []
    own = sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1e3
    return [own, *(one for child in children for one in megabytes(int(child)))]


@contextmanager
def started(command: list[Any], folder: Path, ready: str = "") -> Iterator[subprocess.Popen]:
    """A process that has said that it is ready; ended by SIGTERM."""
    log = folder / "log"
    with log.open("w") as file:
        process = subprocess.Popen([sys.executable, "-W", "ignore", *map(str, command)], stdout=file, stderr=file)
    try:
        while ready not in log.read_text(encoding="utf-8"):
            assert process.poll() is None, log.read_text(encoding="utf-8")
            time.sleep(0.2)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=120)


def send(server: Any, names: list[str]) -> threading.Thread:
    """Let Orthanc send everything, in a thread; what is not answered within its ten seconds is sent again."""

    def work() -> None:
        for first in range(0, len(names), ASSOCIATION):
            body = json.dumps(names[first : first + ASSOCIATION]).encode()
            while True:
                try:
                    server.post("/modalities/simclr/store", body)
                    break
                except urllib.error.HTTPError:
                    time.sleep(1)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def follow(process: subprocess.Popen, folder: Path, goes_on: Callable[[int, int], bool]) -> dict[str, Any]:
    """Count files and rows, and measure memory, while a process works."""
    samples, began, journal = [(0.0, 0, 0, [0.0])], time.monotonic(), folder / "predictions.jsonl"
    while process.poll() is None and goes_on(*samples[-1][1:3]):
        time.sleep(1)
        files = sum(name.endswith(".dcm") for *_, names in os.walk(folder) for name in names)
        rows = max(0, journal.read_bytes().count(b"\n") - 1) if journal.exists() else 0
        if memory := megabytes(process.pid):
            samples.append((time.monotonic() - began, files, rows, memory))
    result: dict[str, Any] = {}
    for column, name in ((1, "files"), (2, "rows")):
        steps = [now for before, now in pairwise(samples) if now[column] != before[column]]
        if steps:
            first, last = steps[0], steps[-1]
            whole = (last[column] - first[column]) / max(last[0] - first[0], 1)
            moments, counts = [sample[0] for sample in samples], [sample[column] for sample in samples]
            quarters = np.diff(np.interp(np.linspace(first[0], last[0], 5), moments, counts))
            rates = [float(count) / max(last[0] - first[0], 1) * 4 for count in quarters]
            result |= {f"{name}_per_second": whole, f"{name}_per_second_by_quarter": rates}
            result[f"seconds_to_last_of_{name}"] = last[0]
    for name, total in (("process", lambda memory: memory[0]), ("process_and_workers", sum)):
        values = [total(memory) for *_, memory in samples[1:]]
        quarters = [float(np.mean(part)) for part in np.array_split(values, 4)]
        result[f"megabytes_of_{name}"] = {"quarters": quarters, "highest": max(values)}
    return result


def rows_of_instances(folder: Path) -> dict[str, int]:
    """How many rows there are, of how many instances, and how many have a prediction."""
    with (folder / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    instances = {row["sop_instance_hash"] for row in rows}
    return {"rows": len(rows), "instances": len(instances), "predicted": sum(not row["reason"] for row in rows)}


def receive(server: Any, folder: Path, names: list[str], port: int) -> dict[str, Any]:
    """Only receive."""
    with started(["-c", RECEIVE, folder, port], folder, "receives on") as process:
        sender = send(server, names)
        result = follow(process, folder, lambda files, rows: sender.is_alive())
    files = [path.stem for path in folder.glob("*/*/*.dcm")]
    return {"files": len(files), "instances": len(set(files)), **result}


def listen(server: Any, folder: Path, names: list[str], port: int, bundle: Path) -> dict[str, Any]:
    """Receive and predict."""
    command = ["-m", "monai_simclr", "listen", "-b", bundle, "-o", folder, "--port", port, "--quiet", 2]
    with started([*command, "--min-free", 0], folder, "receives on") as process:
        send(server, names)
        result = follow(process, folder, lambda files, rows: rows < len(names))
    return {**rows_of_instances(folder), **result}


def fetch(server: Any, folder: Path) -> dict[str, Any]:
    """Fetch a worklist, and look again."""
    with started(["-c", FETCH, server.web, folder / "incoming"], folder) as process:
        result = follow(process, folder, lambda files, rows: True)
    looks = [json.loads(line) for line in (folder / "log").read_text(encoding="utf-8").splitlines()]
    files = [path.stem for path in folder.glob("*/*/*.dcm")]
    return {"files": len(files), "instances": len(set(files)), **result, "looks": looks}


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS / "pacs.json"
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 2000
    tests = runpy.run_path(str(ROOT / "tests/inference/orthanc.py"))  # what starts a real Orthanc
    with tempfile.TemporaryDirectory() as name:
        place, listening = Path(name), tests["free_port"]()
        shipped = copy_bundle(place / "bundle")
        pacs = tests["Orthanc"](place / "server", peers={"simclr": ["SIMCLR", "127.0.0.1", listening]})
        try:
            everything = fill(pacs, count)
            about = {"instances": count, "pixels": SIDE, "orthanc": pacs.get("/system")["Version"]}
            about["load_of_the_machine_before"] = os.getloadavg()[0]
            results = {}
            for part, arguments in (
                (receive, (everything, listening)),
                (listen, (everything, listening, shipped)),
                (fetch, ()),
            ):
                folder, before = place / part.__name__, resource.getrusage(resource.RUSAGE_CHILDREN)
                folder.mkdir()
                results[part.__name__] = part(pacs, folder, *arguments)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                results[part.__name__]["cpu_seconds"] = cpu
                print(json.dumps({part.__name__: results[part.__name__]}, indent=2), flush=True)
        finally:
            pacs.stop()
    save(target, ("pynetdicom", "dicomweb-client", "torch", "monai"), about=about, **results)
