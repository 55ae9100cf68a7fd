# SPDX-License-Identifier: Apache-2.0
"""Checkpoints by hub id, from a cache laid out by hand and from a hub on this machine."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from mobilevlm_ros.checkpoints.checkpoint import open_checkpoint
from mobilevlm_ros.checkpoints.hub import choose_files, is_hub_id, locate
from mobilevlm_ros.errors import CheckpointError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cache"
    monkeypatch.setenv("HF_HUB_CACHE", str(path))
    monkeypatch.chdir(tmp_path)
    return path


@pytest.fixture
def checkpoint(parity: Path, tmp_path: Path) -> Path:
    """A V1 checkpoint whose tower is the repository openai/clip's."""
    path = shutil.copytree(parity / "ckpt" / "tiny-ldpnet", tmp_path / "v1")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "mm_vision_tower": "openai/clip"}))
    return path


def keep(cache: Path, name: str, source: Path, revision: str = "main", commit: str = COMMIT) -> Path:
    """Puts a directory into the cache as huggingface_hub lays it out; returns the snapshot."""
    repository = cache / ("models--" + name.replace("/", "--"))
    snapshot = repository / "snapshots" / commit
    for directory in (repository / "refs", repository / "blobs", snapshot):
        directory.mkdir(parents=True, exist_ok=True)
    (repository / "refs" / revision).write_text(commit)
    for file in source.iterdir():
        blob = repository / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copyfile(file, blob)
        (snapshot / file.name).symlink_to(os.path.relpath(blob, snapshot))
    return snapshot


def test_what_is_a_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here" / "model").mkdir(parents=True)
    assert is_hub_id("mtgv/MobileVLM_V2-1.7B")
    for name in ("here/model", "model", "./a/b", "/a/b", "../b", "a/b/c", "", "~/model"):
        assert not is_hub_id(name)
        assert locate(name) == Path(name)


def test_a_revision_needs_a_hub_id(tmp_path):
    with pytest.raises(CheckpointError, match="no revision v1"):
        locate(tmp_path, "v1")


def test_a_cached_checkpoint_is_used_without_asking_the_network(cache, parity, checkpoint):
    keep(cache, "openai/clip", parity / "ckpt" / "tiny-clip-336")
    snapshot = keep(cache, "robots/tiny", checkpoint)
    assert locate("robots/tiny") == snapshot
    assert locate("robots/tiny", COMMIT) == snapshot
    other = keep(cache, "robots/tiny", checkpoint, "v2", COMMIT[::-1])
    assert locate(Path("robots/tiny"), "v2") == other


def test_without_the_network_only_the_cache_helps(cache, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"HF_HUB_OFFLINE forbids.* give the directory") as error:
        locate("robots/other")
    assert str(error.value).startswith("robots/other is neither a directory here nor complete in the")
    assert str(cache) in str(error.value)


def test_an_unreachable_hub_is_said(cache, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens on the discard port
    with pytest.raises(CheckpointError, match="a/b at revision v2 is not a directory here, and cannot be"):
        locate("a/b", "v2")


def test_safetensors_are_preferred_and_nothing_else_is_fetched():
    papers = ["config.json", "generation_config.json", "tokenizer.model", "special_tokens_map.json"]
    rest = ["README.md", "training_args.bin", "tf_model.h5", "evil.py", "onnx/model.safetensors"]
    bins = ["pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"]
    tensors = ["model-00001-of-00002.safetensors", "model.safetensors.index.json"]
    assert sorted(choose_files(papers + rest + bins + tensors)) == sorted(papers + tensors)
    assert sorted(choose_files(papers + rest + bins)) == sorted(papers + bins)
    assert choose_files(["README.md"]) == []


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as a download needs: a repository's description, tree and files."""

    repositories: dict[str, Path]
    asked: list[str]

    def do_HEAD(self) -> None:
        self._reply()

    def do_GET(self) -> None:
        self._reply()

    def _reply(self) -> None:
        path = self.path.partition("?")[0].removeprefix("/api/models").strip("/").split("/")
        source, kind = self.repositories.get("/".join(path[:2])), "".join(path[2:3])
        if source is None:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif kind == "resolve":
            self.asked.append(path[4])
            content = (source / path[4]).read_bytes()
            tag = hashlib.sha1(content).hexdigest()
            self._send(200, content, {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT})
        elif kind == "tree":
            entries = [
                {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0" * 40}
                for file in source.iterdir()
            ]
            self._send(200, json.dumps(entries).encode())
        else:
            siblings = [{"rfilename": file.name} for file in source.iterdir()]
            about = {"id": "/".join(path[:2]), "sha": COMMIT, "siblings": siblings}
            self._send(200, json.dumps(about).encode())

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    handler = type("ThisHub", (Hub,), {"repositories": {}, "asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        yield handler
        server.shutdown()


def test_a_download_brings_the_tower_that_v1_names(cache, hub, parity, checkpoint, monkeypatch):
    (checkpoint / "README.md").write_text("not needed")
    hub.repositories = {"robots/v1": checkpoint, "openai/clip": parity / "ckpt" / "tiny-clip-336"}
    path = locate("robots/v1")
    assert path.name == COMMIT
    assert "README.md" not in hub.asked
    _, source = open_checkpoint(path)
    assert source.clip is not None  # the tower is the repository's, not the checkpoint's copy
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert locate("robots/v1") == path


def test_what_an_interrupted_download_left_is_completed(cache, hub, parity):
    hub.repositories = {"robots/v2": parity / "ckpt" / "tiny-ldpnetv2"}
    path = locate("robots/v2")
    (path / "pytorch_model.bin").unlink()
    hub.asked.clear()
    assert locate("robots/v2") == path
    assert (path / "pytorch_model.bin").is_file()


def test_an_unusable_repository_is_said(cache, hub, checkpoint):
    with pytest.raises(
        CheckpointError, match="robots/none is not a directory here, and cannot be downloaded"
    ):
        locate("robots/none")
    (checkpoint / "tokenizer.model").unlink()
    hub.repositories["robots/text"] = checkpoint
    with pytest.raises(CheckpointError, match="robots/text is not a checkpoint: it lacks"):
        locate("robots/text")
