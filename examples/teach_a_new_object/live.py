# SPDX-License-Identifier: Apache-2.0
"""A running node is given the new bundle, and is asked about pictures before and after."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from mobilevlm_msgs.srv import ReloadBundle
from scenes import FIRST_HELD_OUT_SEED, about_new, scenes, states

from mobilevlm_ros.client import AskImageClient
from mobilevlm_ros.ros.resources import private_environment

PATIENCE = 120.0
"""Seconds to wait for a node, an answer, or a bundle that loads."""


@contextmanager
def started_node(bundle: Path, threads: int) -> Iterator[str]:
    """A node that answers from `bundle` while the block runs, in a ROS domain of its own; gives its name."""
    os.environ.update(private_environment(dict(os.environ)))  # before a client of this process joins
    options = ["--ros-args", "-p", f"bundle:={bundle}", "-p", f"threads:={threads}"]
    child = subprocess.Popen([sys.executable, "-m", "mobilevlm_ros.nodes.mobilevlm_node", *options])
    try:
        yield "/mobilevlm"
    finally:
        child.terminate()
        child.wait(PATIENCE)


def reload(client: AskImageClient, node: str, bundle: Path) -> str:
    """Loads a bundle into the running node; returns the id of the model that answers from now on."""
    service = client.node.create_client(ReloadBundle, f"{node}/reload_bundle")
    if not service.wait_for_service(PATIENCE):
        raise SystemExit(f"{node} offers no reload_bundle; is it running?")
    for _ in range(3):  # ROS may drop a response to a client it has just met; loading twice does no harm
        response = service.call_async(ReloadBundle.Request(bundle=str(bundle.resolve())))
        for _ in range(int(PATIENCE)):
            if response.done():
                answer = response.result()
                if not answer.status.ok:
                    raise SystemExit(f"{node} could not load {bundle}: {answer.status.message}")
                return str(answer.model_id)
            client.spin(1.0)
    raise SystemExit(f"{node} did not say whether it loaded {bundle}")


def ask(client: AskImageClient, count: int) -> float:
    """Share of right answers of the node to questions about the new object, in `count` held-out scenes."""
    rng = np.random.default_rng(13)
    marks = []
    for with_new in (True, False):
        for observation in scenes(FIRST_HELD_OUT_SEED + 50_000, count // 2, with_new, 640, 480):
            for question, _, truth in about_new(observation, rng):
                response = client.ask(question, image=observation.image, timeout=PATIENCE)
                if not response.status.ok:
                    raise SystemExit(f"the node could not answer: {response.status.message}")
                marks.append(states(response.answer, truth))
                print(f"  {question.splitlines()[0]} {response.answer} ({truth})")
    return round(sum(marks) / len(marks), 3)


def show(node: str, bundle: Path, count: int) -> dict[str, float]:
    """Shares of right answers of a running node, before and after it was given the bundle."""
    service = f"{node.rpartition('/')[0]}/ask_image"
    with AskImageClient(service) as client:
        print(f"{node} before:")
        before = ask(client, count)
        print(f"{node} after {reload(client, node, bundle)} was loaded:")
        return {"before": before, "after": ask(client, count)}
