# SPDX-License-Identifier: Apache-2.0
"""How a node's process ends; `test_node_lifecycle` sends it signals in every state."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LEAVES = """
import os, signal, sys, weakref
from mobilevlm_ros.ros import spin as running
from mobilevlm_ros.nodes.mobilevlm_node import MobileVLMNode

references = []

def make():
    node = MobileVLMNode("leaving")
    node.create_timer(0.1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    references.append(weakref.ref(node))
    return node

code = running.run(make, ["--ros-args", "-p", "threads:=1", "-p", "bundle:=" + sys.argv[1]])
print("code", code, "left", references[0]() is None)
"""


def test_nothing_of_the_node_is_left_when_the_process_ends(any_bundle: Path) -> None:
    """Else DDS does not tell the others that it goes, and they send it requests for another 20 s."""
    done = subprocess.run(
        [sys.executable, "-c", LEAVES, str(any_bundle)], capture_output=True, text=True, timeout=120
    )
    assert "code 0 left True" in done.stdout, done.stdout + done.stderr
    assert "active: ask on /ask_image" in done.stdout + done.stderr
