# SPDX-License-Identifier: Apache-2.0
"""A cluster does the same job, and loses nothing when a worker dies."""

from __future__ import annotations

import importlib.util
import os
import signal
import threading
from pathlib import Path

import pytest

from mobilevlm_ros.bags.demo_recording import DemoOptions, record_demo
from mobilevlm_ros.bags.job.journal import SUFFIX
from mobilevlm_ros.cli import main

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="the extra `fleet` is missing"
)


def below(parent: int) -> list[tuple[int, str]]:
    """(pid, command) of the processes below one."""
    parents: dict[int, tuple[int, str]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                after = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(after[1]), (entry / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
    found: list[tuple[int, str]] = []
    wanted = {parent}
    while wanted:
        wanted = {pid for pid, (up, _) in parents.items() if up in wanted}
        found += [(pid, parents[pid][1]) for pid in wanted]
    return found


@pytest.mark.timeout(600)
def test_a_killed_worker_loses_nothing(nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    demo = tmp_path / "demo.mcap"
    record_demo(demo, DemoOptions(seconds=12, rate=2, scene_seconds=2))
    words = ["caption-bag", str(demo), "--quiet", "--threads", "1", "--novelty", "0.01"]
    assert main([*words, "-o", str(tmp_path / "alone.mcap")]) == 0
    output = tmp_path / "ray.mcap"
    journal = output.with_name(output.name + SUFFIX)
    over, killed = threading.Event(), []

    def kill_one() -> None:
        while not over.wait(0.02):
            if journal.exists() and journal.read_bytes().count(b"\n") > 1:
                for pid, command in below(os.getpid()):
                    if command.startswith("ray::MapWorker"):
                        os.kill(pid, signal.SIGKILL)
                        killed.append(pid)
                        return

    watcher = threading.Thread(target=kill_one)
    watcher.start()
    try:
        assert main([*words, "-o", str(output), "--ray", "local", "--workers", "1"]) == 0
    finally:
        over.set()
        watcher.join()
    assert killed
    assert output.read_bytes() == (tmp_path / "alone.mcap").read_bytes()
    assert output.with_suffix(".jsonl").read_bytes() == (tmp_path / "alone.jsonl").read_bytes()
