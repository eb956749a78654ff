"""The door to a PACS at a steady load: a real Orthanc sends 2,000 instances to `listen`; a worklist is fetched from it.

    python benchmarks/pacs.py [RESULT.json] [INSTANCES]        (needs Debian's orthanc and orthanc-dicomweb)

receive    Orthanc stores every instance at `monai-simclr listen` by C-STORE (one association after another, as a PACS
           does) while it predicts: instances a second from the first to the last row, seconds from the last instance
           stored to the last row, and the memory of the listening process and its workers at each tenth of the rows.
worklist   `Worklist.fetch` of all of it over DICOMweb into an empty folder, a second look with nothing new, and the
           requests of each.

The instances are 40 chest phantoms of 512 x 512 pixels (12 bits, uncompressed) under new UIDs, two to a study; the
network is the bundle's as it ships, with random weights; sender, server and receiver share one machine.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import pydicom
from inference import trained_bundle
from pydicom.uid import generate_uid
from record import RESULTS, save

from monai_simclr.data.phantoms import draw_phantom, phantom_to_dicom
from monai_simclr.inference.dicomweb import Worklist

ROOT = Path(__file__).resolve().parent.parent
SIDE, DRAWN = 512, 40


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


def resident_megabytes(process: int) -> float:
    """Resident memory of a process and its children now, pages that they share counted once (Linux, PSS)."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()
    lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines()
    own = sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1e3
    return own + sum(resident_megabytes(int(child)) for child in children)


def receive(server: Any, bundle: Path, names: list[str], folder: Path, port: int) -> dict[str, Any]:
    """Let Orthanc send everything while it is predicted."""
    words = ["listen", "-b", bundle, "-o", folder / "out", "--port", port, "--quiet", 2, "--min-free", 0]
    command = [sys.executable, "-W", "ignore", "-m", "monai_simclr", *map(str, words)]
    with (folder / "listen.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    rows = folder / "out" / "predictions.jsonl"
    try:
        while "receives on" not in (folder / "listen.log").read_text(encoding="utf-8"):
            assert process.poll() is None, (folder / "listen.log").read_text(encoding="utf-8")
            time.sleep(0.2)
        memory, started = {0: resident_megabytes(process.pid)}, time.monotonic()
        job = server.post("/modalities/simclr/store", json.dumps({"Resources": names, "Asynchronous": True}).encode())
        first, sent, done = 0.0, 0.0, 0
        while done < len(names):
            time.sleep(0.5)
            assert process.poll() is None, (folder / "listen.log").read_text(encoding="utf-8")
            done = max(0, rows.read_bytes().count(b"\n") - 1) if rows.exists() else 0
            now = time.monotonic() - started
            first = first or (now if done else 0.0)
            sent = sent or (now if server.get(f"/jobs/{job['ID']}")["State"] == "Success" else 0.0)
            memory.setdefault(done * 10 // len(names) * 10, resident_megabytes(process.pid))
        return {
            "instances": len(names),
            "seconds_to_first_row": first,
            "seconds_to_last_instance": sent,
            "seconds_to_last_row": now,
            "instances_per_second": (done - 1) / (now - first),
            "resident_megabytes_by_percent_of_rows": memory,
        }
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=120)


def look(server: Any, folder: Path) -> dict[str, Any]:
    """Fetch a worklist, and look again."""
    worklist, asked, result = Worklist(server.web, folder / "worklist"), [0], {}
    search = worklist._search

    def counted(name: str, *uids: str, **options: Any) -> Any:
        asked[0] += 1
        return search(name, *uids, **options)

    worklist._search = counted  # type: ignore[method-assign]
    for name in ("first_look", "second_look"):
        asked[0], started = 0, time.monotonic()
        paths, failed = worklist.fetch()
        seconds = time.monotonic() - started
        result[name] = {"files": len(paths), "failed": failed, "seconds": seconds, "searches": asked[0]}
    return result


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS / "pacs.json"
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 2000
    tests = runpy.run_path(str(ROOT / "tests/inference/orthanc.py"))  # what starts a real Orthanc
    with tempfile.TemporaryDirectory() as name:
        place, listening = Path(name), tests["free_port"]()
        peer = {"simclr": ["SIMCLR", "127.0.0.1", listening]}
        pacs = tests["Orthanc"](place / "server", peers=peer)
        try:
            instances = fill(pacs, count)
            received = receive(pacs, trained_bundle(place), instances, place, listening)
            looked = look(pacs, place)
        finally:
            pacs.stop()
        save(target, ("pynetdicom", "dicomweb-client", "torch", "monai"), receive=received, worklist=looked)
        print(json.dumps({"receive": received, "worklist": looked}, indent=2))
