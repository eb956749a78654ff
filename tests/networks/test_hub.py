"""Encoders shared in a folder and on a hub, which is a server of this machine here."""

from __future__ import annotations

import base64
import importlib.util
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from monai_simclr.networks import encoder, from_pretrained, load_encoder, push_to_hub, save_encoder, save_pretrained
from monai_simclr.networks.hub import fetch_encoder

with_hub = pytest.mark.skipif(importlib.util.find_spec("huggingface_hub") is None, reason="no huggingface_hub")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def path(tmp_path):
    torch.manual_seed(0)
    header = {"name": "resnet10", "width": "0.125", "size": "64", "data": "a | b\n[x](y)"}
    header |= {"patients_key": "secretkey", "patients_seen": '["secrethash"]'}
    return save_encoder(tmp_path / "e.safetensors", encoder("resnet10", 0.125), header)


class _Hub(ThreadingHTTPServer):
    """As much of the Hub's protocol as huggingface_hub needs for small files: create, preupload, commit, resolve."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str, str]] = []
        self.private: bool | None = None
        super().__init__(("127.0.0.1", 0), _Answers)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answers(BaseHTTPRequestHandler):
    server: _Hub

    def log_message(self, *_: object) -> None:
        pass

    def _send(self, code: int, body: bytes, **headers: str) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.command, self.path, self.headers.get("Authorization", "")))
        answer: dict[str, object] = {}
        if self.path == "/api/repos/create":
            self.server.private = json.loads(body).get("private", json.loads(body).get("visibility") == "private")
            answer = {"url": f"{self.server.address}/owner/name"}
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            answer = {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            answer = {"commitUrl": f"{self.server.address}/owner/name/commit/{COMMIT}", "commitOid": COMMIT}
        self._send(200, json.dumps(answer).encode(), Content_Type="application/json")

    def do_GET(self) -> None:
        self.server.asked.append((self.command, self.path, self.headers.get("Authorization", "")))
        content = self.server.files.get(self.path.rsplit("/", 1)[-1])
        if content is None or not self.path.startswith("/owner/name/resolve/"):
            self._send(404, b"", X_Error_Code="RepoNotFound")
        else:
            self._send(200, content, ETag='"1"', X_Repo_Commit=COMMIT)

    def do_HEAD(self) -> None:
        self.do_GET()


@pytest.fixture
def hub(monkeypatch, tmp_path):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    server = _Hub()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_shared_folder_holds_the_file_as_it_was_and_a_card_without_hashes(path, tmp_path):
    folder = save_pretrained(path, tmp_path / "shared")
    assert sorted(file.name for file in folder.iterdir()) == ["README.md", "encoder.safetensors"]
    assert (folder / "encoder.safetensors").read_bytes() == path.read_bytes()
    card = (folder / "README.md").read_text("utf-8")
    assert "# resnet10 of width 0.125" in card
    assert "| size | 64 |" in card
    assert "| patients seen | 1 |" in card
    assert "secret" not in card
    assert "a \\| b\\n" in card
    images = torch.rand(2, 1, 64, 64)
    assert torch.equal(from_pretrained(folder)(images), load_encoder(path)(images))


@with_hub
def test_an_encoder_goes_to_a_hub_and_comes_back(path, hub, tmp_path):
    where = push_to_hub(path, "owner/name", token="hf_word", endpoint=hub.address)
    assert where == f"{hub.address}/owner/name/commit/{COMMIT}"
    assert hub.private is True
    assert hub.files["encoder.safetensors"] == path.read_bytes()
    assert b"library_name: monai-simclr" in hub.files["README.md"]
    network = from_pretrained("owner/name", token="hf_word", endpoint=hub.address)
    assert all(said == "Bearer hf_word" for *_, said in hub.asked)
    images = torch.rand(2, 1, 64, 64)
    assert torch.equal(network(images), load_encoder(path)(images))
    hub.asked.clear()
    hub.files["encoder.safetensors"] = b"damaged" + path.read_bytes()[7:]
    fetch_encoder("owner/name", endpoint=hub.address)  # the cached file of the same commit
    assert [method for method, *_ in hub.asked] == ["HEAD"]


@with_hub
def test_what_is_nowhere_is_an_error_that_says_so(hub):
    with pytest.raises(FileNotFoundError, match=r"no encoder owner/none: .* none of chest_xray_resnet18, and the Hub"):
        from_pretrained("owner/none", endpoint=hub.address)


def test_names_files_and_folders_are_found_without_a_hub(path, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert fetch_encoder("chest_xray_resnet18").is_file()
    assert fetch_encoder(path) == path
    assert fetch_encoder(save_pretrained(path, tmp_path / "shared")).is_file()
    with pytest.raises(FileNotFoundError, match="no encoder at"):
        from_pretrained("models/encoder.safetensors")
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'monai-simclr\[hub\]'"):
        from_pretrained("owner/name")
