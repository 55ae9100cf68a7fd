# SPDX-License-Identifier: Apache-2.0
"""Where `mobilevlm ask` gets its pictures: directories, videos, URLs, pipes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from mobilevlm_ros.cli import main

Captured = pytest.CaptureFixture[str]
ROAD = Path(__file__).parents[3] / "docs" / "road.png"
CONE = "Is there a cone?"
YES_NO = ["--choices", "yes", "no"]


def test_a_directory_is_asked_about_picture_by_picture(nano: Path, tmp_path: Path, capsys: Captured) -> None:
    for name in ("b.png", "a.PNG", "notes.txt"):
        shutil.copy(ROAD, tmp_path / name)
    assert main(["ask", str(tmp_path), CONE, *YES_NO]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition("  ")[0] for line in lines] == [
        f"{tmp_path}/{name}: yes" for name in ("a.PNG", "b.png")
    ]
    (tmp_path / "c.jpg").write_bytes(b"no picture")
    assert main(["ask", str(tmp_path), CONE, *YES_NO, "--json"]) == 1
    told = capsys.readouterr()
    assert [json.loads(line)["image"] for line in told.out.splitlines()] == [
        str(tmp_path / "a.PNG"),
        str(tmp_path / "b.png"),
    ]
    assert "c.jpg is not a picture" in told.err
    (tmp_path / "none").mkdir()
    assert main(["ask", str(tmp_path / "none"), CONE]) == 1
    assert "holds no pictures" in capsys.readouterr().err


def test_a_moment_of_a_video(nano: Path, tmp_path: Path, capsys: Captured) -> None:
    road, grey = cv2.imread(str(ROAD)), np.full((8, 8, 3), 128, np.uint8)
    height, width = road.shape[:2]
    video = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (width, height))
    if not video.isOpened():
        pytest.skip("this OpenCV writes no video")
    for number in range(20):
        video.write(road if number >= 10 else cv2.resize(grey, (width, height)))
    video.release()
    said = []
    for at in ([], ["--at", "0.5"], ["--at", "1.5"]):
        assert main(["ask", str(tmp_path / "v.avi"), CONE, *YES_NO, "-q", *at]) == 0
        said.append(capsys.readouterr().out.strip())
    assert said[0] == said[1] and said[2] == "yes"
    assert main(["ask", str(tmp_path / "v.avi"), CONE, "--at", "99"]) == 1
    assert "has no frame at 99 s: it is 2.0 s long" in capsys.readouterr().err
    (tmp_path / "w.mp4").write_bytes(b"no video")
    assert main(["ask", str(tmp_path / "w.mp4"), CONE]) == 1
    assert "is not a video that OpenCV can read" in capsys.readouterr().err


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """Address of a server that has road.png."""
    shutil.copy(ROAD, tmp_path / "road.png")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_url_where_it_is_allowed(nano: Path, web: str, capsys: Captured) -> None:
    assert main(["ask", f"{web}/road.png", CONE, *YES_NO, "-q", "--allow-url"]) == 0
    assert capsys.readouterr().out == "yes\n"
    assert main(["ask", f"{web}/none.png", CONE, "--allow-url"]) == 1
    assert "cannot be fetched: " in capsys.readouterr().err
    assert main(["ask", f"{web}/", CONE, "--allow-url"]) == 1  # a page
    assert "is not a picture" in capsys.readouterr().err


def command(*arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    script = "import sys; from mobilevlm_ros.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, timeout=120, **options
    )


def test_a_picture_from_a_pipe(nano: Path) -> None:
    done = command("ask", "-", CONE, *YES_NO, "-q", input=ROAD.read_bytes())
    assert done.stdout == b"yes\n", done.stderr


def test_a_terminal_that_is_not_utf8(nano: Path) -> None:
    """What it cannot show is an escape; the answer is there."""
    done = command(
        "ask", str(ROAD), "Wo …?", "--choices", "✓", "✗ é", env={**os.environ, "PYTHONIOENCODING": "ascii"}
    )
    assert done.returncode == 0, done.stderr
    assert {line.partition(b":")[0] for line in done.stdout.splitlines()[2:]} == {
        b"  \\u2713",
        b"  \\u2717 \\xe9",
    }
    wrong = command("ask", "✓.png", "What?", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert wrong.returncode == 1 and wrong.stderr.startswith(b"mobilevlm: error: \\u2713.png cannot be read")
