# SPDX-License-Identifier: Apache-2.0
"""A job that is killed, or has no room, goes on later and loses nothing."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from mobilevlm_ros.bags.job.journal import SUFFIX
from mobilevlm_ros.bags.records import read_records
from mobilevlm_ros.cli import main


def run(*words: object) -> int:
    return main([*map(str, words), "--quiet", "--threads", "1"])


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "mobilevlm_ros.cli", *map(str, words), "--threads", "1"]


def test_killed_and_started_again_nothing_is_lost_or_done_twice(
    demo: Path, tmp_path: Path, nano: Path, capsys: Any
) -> None:
    words = ("caption-bag", demo, "--novelty", 0.01)
    assert run(*words, "-o", tmp_path / "whole.mcap") == 0
    output = tmp_path / "again.mcap"
    journal = output.with_name(output.name + SUFFIX)
    process = subprocess.Popen(command(*words, "-o", output, "--quiet"), stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not (journal.exists() and journal.read_bytes().count(b"\n") > 4):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not output.exists()
    before = journal.read_bytes()
    kept = before.count(b"\n") - 1
    journal.write_bytes(before + b'{"number": 99, "came')  # as if killed in the midst of a line
    capsys.readouterr()
    assert run(*words, "-o", output, "--json") == 0
    (told,) = json.loads(capsys.readouterr().out)["recordings"]
    assert told["resumed"] == kept and told["frames"] == told["records"]
    assert output.with_suffix(".jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert output.read_bytes() == (tmp_path / "whole.mcap").read_bytes()
    assert not journal.exists()
    # A third time there is nothing to do.
    assert run(*words, "-o", output) == 0
    assert "complete already" in capsys.readouterr().out


def test_killed_between_the_two_files(demo: Path, tmp_path: Path, nano: Path) -> None:
    output = tmp_path / "o.mcap"
    words = ("caption-bag", demo, "--every", 4, "-o", output)
    assert run(*words) == 0
    lines, whole = output.with_suffix(".jsonl"), output.read_bytes()
    output.unlink()  # its JSON Lines are there, and it is not
    assert run(*words) == 0
    assert output.read_bytes() == whole
    output.unlink()
    lines.write_text("a user's own\n")
    assert run(*words) == 1
    assert lines.read_text() == "a user's own\n"


def test_a_full_disk_is_said_and_work_goes_on_later(demo: Path, tmp_path: Path, nano: Path) -> None:
    output = tmp_path / "o.mcap"

    def little_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))

    ended = subprocess.run(
        command("caption-bag", demo, "-o", output, "--quiet"),
        preexec_fn=little_room,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert "cannot be written" in ended.stderr and "goes on after" in ended.stderr
    assert not output.exists()
    assert run("caption-bag", demo, "-o", output) == 0
    assert len(list(read_records(output.with_suffix(".jsonl")))) == 16
