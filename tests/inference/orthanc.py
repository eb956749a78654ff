"""A real Orthanc (Debian's orthanc and orthanc-dicomweb) on the loopback, and radiographs to send, for tests."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from monai_simclr.data.phantoms import write_dicom_phantoms

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def write_radiographs(folder: Path, patients: int) -> list[Path]:
    write_dicom_phantoms(folder, n_patients=patients, size=64)
    return sorted(folder.rglob("*.dcm"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Orthanc:
    """One server with a database in `folder`; `restart` keeps the database and the ports."""

    def __init__(self, folder: Path, users: dict[str, str] | None = None, peers: dict[str, list] | None = None) -> None:
        if shutil.which("Orthanc") is None or not PLUGIN.exists():
            pytest.skip("Orthanc is not installed: apt-get install orthanc orthanc-dicomweb")
        self.folder, self.http, self.dicom = folder, free_port(), free_port()
        folder.mkdir(parents=True)
        config = {
            "StorageDirectory": str(folder / "db"),
            "IndexDirectory": str(folder / "db"),
            "HttpPort": self.http,
            "DicomPort": self.dicom,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": bool(users),
            "RegisteredUsers": users or {},
            "DicomModalities": peers or {},
            "DicomAlwaysAllowStore": True,
            "OverwriteInstances": True,
            "Plugins": [str(PLUGIN)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        (folder / "config.json").write_text(json.dumps(config))
        self.start()

    @property
    def web(self) -> str:
        return f"dicomweb+http://127.0.0.1:{self.http}/dicom-web"

    def start(self) -> None:
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(["Orthanc", self.folder / "config.json"], stdout=log, stderr=log)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.http}/system")
                return
            except urllib.error.HTTPError:  # it wants a password, so it is there
                return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError((self.folder / "log").read_text())

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()

    def get(self, path: str) -> object:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}") as answer:
            return json.loads(answer.read())

    def post(self, path: str, body: bytes) -> object:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", data=body) as answer:
            return json.loads(answer.read())
