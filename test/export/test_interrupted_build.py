# SPDX-License-Identifier: Apache-2.0
"""A build that cannot finish leaves nothing behind, in a process of its own as users have it."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep

import pytest

from mobilevlm_ros.engine.bundle import Bundle

ROOT = Path(__file__).parents[2]


def build(checkpoint: Path, out: Path, *options: str, before: Callable[[], None] | None = None):
    """The command, begun."""
    command = [sys.executable, "-m", "mobilevlm_ros.cli", "build", str(checkpoint), "-o", str(out), "--quiet"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, *options], stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT, preexec_fn=before
    )


@pytest.mark.parametrize("kilobytes", [40, 80])  # in vision.onnx, in decoder.onnx.data
def test_a_full_disk_leaves_nothing(tiny_checkpoint, tmp_path, kilobytes):
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1000, kilobytes * 1000))

    process = build(tiny_checkpoint, tmp_path / "bundle", "--quality", "0", "--quantize", "rtn", before=limit)
    _, said = process.communicate(timeout=200)
    assert process.returncode == 1
    assert said.startswith(f"mobilevlm: error: cannot write {tmp_path / 'bundle'}: ")
    assert said.endswith("free space there, or choose another place\n")
    assert len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "replaced"), [("SIGINT", True), ("SIGTERM", False)])
def test_an_interrupted_build_leaves_what_was_there(tiny_checkpoint, tiny_bundle, tmp_path, name, replaced):
    out = tmp_path / "bundle"
    if replaced:
        shutil.copytree(tiny_bundle, out)
    # Thousands of conversations: it cannot be finished before the signal comes.
    process = build(
        tiny_checkpoint, out, "--force", "--quality", "0", "--quantize", "gptq", "--samples", "9999"
    )
    end = monotonic() + 200
    while not list(tmp_path.glob(".bundle-*/vision.onnx")):
        assert process.poll() is None, process.communicate()[1]
        assert monotonic() < end
        sleep(0.02)
    process.send_signal(getattr(signal, name))
    _, said = process.communicate(timeout=200)
    assert (process.returncode, said) == (130, "mobilevlm: error: interrupted\n")
    assert [path.name for path in tmp_path.iterdir()] == (["bundle"] if replaced else [])
    if replaced:
        Bundle.open(out)
