# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm serve` and `mobilevlm mcp` as their users start them."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys

import pytest

from mobilevlm_ros.cli import main

pytest.importorskip("starlette", reason="the extra `server`")
pytest.importorskip("uvicorn", reason="the extra `server`")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_serves_until_a_signal_comes(any_bundle, sent) -> None:
    command = [sys.executable, "-m", "mobilevlm_ros.cli", "serve", "--bundle", any_bundle, "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        found = re.search(r"serving http://127.0.0.1:(\d+)", process.stderr.readline())
        connection = http.client.HTTPConnection("127.0.0.1", int(found.group(1)), timeout=60)
        connection.request("GET", "/healthz")
        assert json.loads(connection.getresponse().read())["status"] == "ok"
        connection.close()
        process.send_signal(sent)
        assert process.wait(30) in (0, 130, -sent)
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["serve", "--host", "0.0.0.0"], "set --token"),
        (["serve", "--token", ""], "--token is empty"),
        (["serve", "--port", "99999"], "from 0 to 65535"),
        (["serve", "--camera", "front"], "NAME=SOURCE"),
        (["serve", "--camera", "front=/no/such.mp4"], "cannot be opened"),
        (["serve", "--camera", "front=/no/such.jpg"], "cannot be read"),
        (["serve", "--namespace", "robot"], "add --ros"),
        (["serve", "--ros", "--camera", "front=simulation"], "do not go with --ros"),
        (["serve", "--max-body", "0"], "above 0"),
        (["serve", "--bundle", "/no/such"], "/no/such"),
    ],
)
def test_what_cannot_be_served_is_told(options, words, capfd) -> None:
    assert main([*options] if "--port" in options else [*options, "--port", "0"]) == 1
    assert words in capfd.readouterr().err


def test_a_port_in_use_is_told(capfd) -> None:
    from mobilevlm_ros.server.run import listen

    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        assert main(["serve", "--port", str(taken.getsockname()[1])]) == 1
    assert "choose another --port" in capfd.readouterr().err


def test_the_token_of_the_environment_counts(monkeypatch) -> None:
    from argparse import Namespace

    from mobilevlm_ros.commands.serving.serve import TOKEN, token_of
    from mobilevlm_ros.server.run import check_address

    monkeypatch.setitem(os.environ, TOKEN, "sesame")
    assert token_of(Namespace(token=None)) == "sesame"
    assert not check_address("0.0.0.0", "sesame")
    assert all(check_address(host, "") for host in ("localhost", "127.0.0.1", "127.8.8.8", "::1", "[::1]"))
