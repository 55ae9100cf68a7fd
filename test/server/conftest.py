# SPDX-License-Identifier: Apache-2.0
"""Real servers on sockets of their own, and what a raw client needs."""

from __future__ import annotations

import base64
import http.client
import importlib.util
import json
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import pytest

from mobilevlm_ros.engine.runtime import load_runtime
from mobilevlm_ros.simulation.render import observe
from mobilevlm_ros.simulation.scene_sampler import sample_scene

HAS_SERVER = all(importlib.util.find_spec(name) for name in ("starlette", "uvicorn", "prometheus_client"))
if HAS_SERVER:
    from mobilevlm_ros.server import run
    from mobilevlm_ros.server.http.limits import Limits
    from mobilevlm_ros.server.services.local_cameras import SimulatedCamera
    from mobilevlm_ros.server.services.local_service import LocalService
    from mobilevlm_ros.server.services.service import VisionService
else:
    collect_ignore_glob = ["test_*.py"]

SEED = 3


class Client:
    """HTTP as it is on the wire."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def send(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (lower case) and body of a response."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> tuple[int, Any]:
        """Status and JSON of a GET."""
        status, _, body = self.send("GET", path, **headers)
        return status, json.loads(body)

    def chat(self, *messages: Any, **fields: Any) -> tuple[int, Any]:
        """Status and JSON of a chat completion; a text is a user message."""
        told = [{"role": "user", "content": m} if isinstance(m, (str, list)) else m for m in messages]
        data = json.dumps({"model": "nano", "messages": told, **fields}).encode()
        status, _, body = self.send("POST", "/v1/chat/completions", data)
        return status, json.loads(body)

    def events(self, *messages: Any, **fields: Any) -> list[Any]:
        """The JSON of each event of a streamed chat completion, '[DONE]' as it is."""
        told = [{"role": "user", "content": m} if isinstance(m, (str, list)) else m for m in messages]
        data = json.dumps({"model": "nano", "messages": told, "stream": True, **fields}).encode()
        status, headers, body = self.send("POST", "/v1/chat/completions", data)
        assert status == 200, body
        assert headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") for line in body.decode().split("\n\n") if line]
        return [line if line == "[DONE]" else json.loads(line) for line in lines]

    def metric(self, name: str, labels: str = "") -> float:
        """A number of /metrics; 0 where it is not there."""
        _, _, body = self.send("GET", "/metrics")
        for line in body.decode().splitlines():
            if line.startswith(f"{name}{labels} "):
                return float(line.rpartition(" ")[2])
        return 0.0


@contextmanager
def running(service: VisionService, limits: Limits | None = None, **options: Any) -> Iterator[Client]:
    """A client of a server that runs while this is entered."""
    bound = run.listen("127.0.0.1", 0)
    server = run.make_server(service, limits or Limits(), **options)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    try:
        yield Client(bound.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def serve() -> Callable[..., Any]:
    """Runs a server: `with serve(service, limits, token=...) as client`."""
    return running


@pytest.fixture(scope="session")
def make_service() -> Callable[..., LocalService]:
    """Makes a service of a bundle."""

    def make(bundle: Path, **options: Any) -> LocalService:
        return LocalService(load_runtime(bundle, "onnxruntime-cpu", threads=1), **options)

    return make


@pytest.fixture(scope="module")
def client(nano: Path, make_service: Callable[..., LocalService]) -> Generator[Client, None, None]:
    """A client of a server over nano, with the camera 'front' that sees the scene of SEED."""
    with running(make_service(nano, cameras={"front": SimulatedCamera("front", SEED)})) as made:
        yield made


@pytest.fixture(scope="module")
def endless_client(
    endless_bundle: Path, make_service: Callable[..., LocalService]
) -> Generator[Client, None, None]:
    """A client of a server whose answers go on until they are stopped."""
    with running(make_service(endless_bundle)) as made:
        yield made


@pytest.fixture(scope="session")
def picture() -> Callable[..., dict[str, Any]]:
    """Makes the image part of a message: of the scene of a seed, or of a file's bytes."""

    def make(seed: int = SEED, data: bytes | None = None, media: str = "png") -> dict[str, Any]:
        if data is None:
            image = observe(sample_scene(seed)).image
            data = cv2.imencode(f".{media}", image[..., ::-1])[1].tobytes()
        url = f"data:image/{media};base64,{base64.b64encode(data).decode()}"
        return {"type": "image_url", "image_url": {"url": url}}

    return make


@pytest.fixture(scope="session")
def text() -> Callable[[str], dict[str, Any]]:
    """Makes the text part of a message."""
    return lambda words: {"type": "text", "text": words}
