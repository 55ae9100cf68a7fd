# SPDX-License-Identifier: Apache-2.0
"""Clients that may not ask, ask too often, hang up, or are too many."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from time import monotonic, sleep

import pytest
from fixtures.openai_errors import is_error

from mobilevlm_ros.server.http.limits import Limits

PATH = "/v1/chat/completions"


def test_only_this_machines_names_and_no_other_sites(serve, make_service, nano) -> None:
    with serve(make_service(nano), local=True) as client:
        assert client.get("/v1/models", Host="localhost:1")[0] == 200
        assert is_error(*client.get("/v1/models", Host="evil.example"), "host_refused")
        assert is_error(*client.get("/v1/models", Origin="http://evil.example"), "origin_refused")
        assert client.get("/v1/models", Origin=client.url)[0] == 200
        _, headers, _ = client.send("GET", "/v1/models")
        assert "access-control-allow-origin" not in headers


def test_a_token_is_asked_for(serve, make_service, nano) -> None:
    with serve(make_service(nano), token="sesame", local=False) as client:
        for header in ({}, {"Authorization": "sesame"}, {"Authorization": "Bearer sesam"},
                       {"Authorization": "Bearer \xe4"}):  # fmt: skip
            for path in ("/v1/models", "/metrics", "/api/state", "/api/frame", "/api/events"):
                status, told = client.get(path, **header)
                assert status == 401
                assert is_error(status, told, "invalid_api_key")
        assert client.get("/v1/models", Authorization="Bearer sesame", Host="robot.local")[0] == 200
        assert client.get("/healthz")[0] == 200
        assert client.send("GET", "/")[0] == 200


def test_a_client_that_asks_too_often(serve, make_service, nano) -> None:
    with serve(make_service(nano), Limits(rate=0.001)) as client:
        assert client.get("/v1/models")[0] == 200
        status, headers, told = client.send("GET", "/v1/models")
        assert status == 429
        assert is_error(status, json.loads(told), "rate_limit_exceeded")
        assert int(headers["retry-after"]) > 1


def until(condition) -> None:
    """Wait for what must happen."""
    end = monotonic() + 60
    while not condition():
        assert monotonic() < end
        sleep(0.02)


@pytest.mark.parametrize("stream", [True, False])
def test_who_hangs_up_stops_the_model(endless_client, picture, text, stream) -> None:
    client = endless_client
    body = {
        "model": "nano",
        "messages": [{"role": "user", "content": [picture(), text("Describe the scene.")]}],
        "max_tokens": 4096,
        "stream": stream,
    }
    data = json.dumps(body).encode()
    before = client.metric("mobilevlm_questions_total", '{outcome="hung_up"}')
    head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(data)}\r\n\r\n".encode()
    sockets = []
    for _ in range(3):  # the first is answered, the others wait
        raw = socket.create_connection(("127.0.0.1", client.port), timeout=60)
        raw.sendall(head + data)
        sockets.append(raw)
    for raw in sockets:
        raw.close()
    until(lambda: client.metric("mobilevlm_questions_total", '{outcome="hung_up"}') == before + 3)
    until(lambda: client.metric("mobilevlm_load", '{what="queue_length"}') == 0)


def test_two_hundred_clients_at_once(client, picture, text) -> None:
    content = [picture(), text("Is there a person?")]

    def ask(_: int) -> str:
        status, told = client.chat(content)
        assert status == 200, told
        return told["choices"][0]["message"]["content"]

    with ThreadPoolExecutor(200) as pool:
        assert set(pool.map(ask, range(200))) == {"No, there is no person."}


def test_too_many_at_once_are_told_to_come_back(serve, make_service, endless_bundle, picture, text) -> None:
    content = [picture(), text("Describe the scene.")]
    with serve(make_service(endless_bundle), Limits(questions=2, timeout=2.0)) as client:

        def ask(_: int) -> int:
            status, told = client.chat(content, max_tokens=4096)
            assert status == 200 or is_error(status, told)
            return status

        with ThreadPoolExecutor(12) as pool:
            statuses = set(pool.map(ask, range(12)))
        assert 503 in statuses
        assert statuses <= {200, 503, 504}
        assert client.get("/healthz")[0] == 200


def test_nothing_of_what_is_asked_reaches_the_log(client, picture, text, capfd, caplog) -> None:
    client.chat([picture(), text("zebracrossing?")])
    client.chat([{"type": "image_url", "image_url": {"url": "data:zebra"}}, text("zebracrossing?")])
    client.send("POST", PATH, b'{"zebra')
    written = capfd.readouterr()
    assert "zebra" not in written.out + written.err + caplog.text
