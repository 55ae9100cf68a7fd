# SPDX-License-Identifier: Apache-2.0
"""The demo: a simulated camera, the node and a client, three processes over DDS, and answers held against
the truth.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Any

import cv2
import numpy as np
from mobilevlm_msgs.msg import Caption, Status
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from std_msgs.msg import String

from mobilevlm_ros.client.client import AskImageClient
from mobilevlm_ros.client.formatting import as_text
from mobilevlm_ros.demo.node_process import Child
from mobilevlm_ros.demo.questions import judge, pick_questions
from mobilevlm_ros.demo.table import Table, TableRow
from mobilevlm_ros.errors import MobileVLMError, RequestTimeout
from mobilevlm_ros.evaluation import drawing
from mobilevlm_ros.ros.images.annotation import GREEN, GREY, RED, Line, transcript
from mobilevlm_ros.ros.resources import private_environment
from mobilevlm_ros.ros.stamps import to_nanoseconds
from mobilevlm_ros.ros.status import name_of
from mobilevlm_ros.simulation.render import observe
from mobilevlm_ros.simulation.scene import Scene
from mobilevlm_ros.simulation.scene_sampler import sample_scene

START_TIMEOUT = 60.0
"""Seconds for everything that normally takes two: the machine may be busy."""

_HOPELESS = (Status.NOT_ACTIVE, Status.BUNDLE_ERROR, Status.ENGINE_ERROR, Status.INTERNAL_ERROR)
"""No further question would be answered either."""


class Demo:
    """The client's side: waits for the others, asks, judges, and keeps the score."""

    def __init__(self, client: AskImageClient, children: Sequence[Child]) -> None:
        self._client = client
        self._children = children
        self._scene_message: String | None = None
        self._captions: list[Caption] = []
        latched = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
        client.node.create_subscription(String, "/camera/scene", self._on_scene, latched)
        client.node.create_subscription(Caption, "/mobilevlm/captions", self._captions.append, 10)
        self.rows: list[TableRow] = []

    def _on_scene(self, message: String) -> None:
        self._scene_message = message

    def run(self, output: Path) -> None:
        """Ask everything, print as it comes, and save the annotated picture."""
        start = monotonic()
        scene, start_ns = self._wait_until_ready()
        print(f"camera and node are ready after {monotonic() - start:.1f} s: seed {scene.seed}\n", flush=True)
        table = Table()
        print(table.header(), flush=True)
        seconds = 0.0
        for question in pick_questions(scene, seconds):
            response = self._ask(question.text, question.choices)
            if response.status.code in _HOPELESS:
                raise MobileVLMError(f"the node answers {as_text(response)}")
            seconds = (to_nanoseconds(response.header.stamp) - start_ns) * 1e-9
            if response.status.code == Status.OK:
                verdict = judge(scene, question, response.answer, seconds)
                answer, truth, right = response.answer, verdict.truth, verdict.right
            else:
                answer, truth, right = (
                    f"{name_of(response.status.code)}: {response.status.message}",
                    "",
                    False,
                )
            row = TableRow(question.text, answer, truth, response.confidence, response.latency.total, right)
            self.rows.append(row)
            print(table.line(row), flush=True)
        self._show_captions()
        self._save(output, scene, seconds, self._client.last_model)

    def _wait_until_ready(self) -> tuple[Scene, int]:
        """The scene and its start in nanoseconds, once the camera tells them and the node answers."""
        self._wait("the camera", lambda: self._scene_message is not None)
        self._wait("the node", lambda: self._client.wait_for_node(0.0))
        assert self._scene_message is not None
        about: dict[str, Any] = json.loads(self._scene_message.data)
        return sample_scene(about["seed"]), about["start_ns"]

    def _wait(self, name: str, ready: Callable[[], bool]) -> None:
        print(f"waiting for {name} ", end="", flush=True)
        begin = shown = monotonic()
        while not ready():
            for child in self._children:
                child.check()
            if monotonic() - begin > START_TIMEOUT:
                tails = "\n".join(f"--- {child.name}\n{child.log(15)}" for child in self._children)
                raise RequestTimeout(f"{name} is not ready after {START_TIMEOUT:.0f} s\n{tails}")
            if monotonic() - shown > 0.5:
                shown = monotonic()
                print(".", end="", flush=True)
            self._client.spin(0.05)
        print(" ok", flush=True)

    def _ask(self, text: str, choices: Sequence[str]) -> Any:
        for child in self._children:
            child.check()
        return self._client.ask(
            text, choices=choices, timeout=START_TIMEOUT, wait_for_frame=START_TIMEOUT / 2
        )

    def _show_captions(self) -> None:
        print()
        if not self._captions and any(row.confidence for row in self.rows):
            self._wait("a caption", lambda: bool(self._captions))
        for caption in self._captions[-2:]:
            seconds = to_nanoseconds(caption.header.stamp) * 1e-9
            print(
                f"caption of {seconds:.3f} ({caption.header.frame_id}): {' '.join(caption.text.split())} "
                f"[{caption.confidence:.2f}]"
            )

    def _save(self, output: Path, scene: Scene, seconds: float, model: str) -> None:
        picture = observe(scene, seconds, 1280, 960).image  # the picture of the last answer, drawn larger
        lines = [Line(f"{model}, seed {scene.seed}: questions asked over ROS 2", GREY)]
        for row in self.rows:
            text = f"{row.question}  {row.answer}  ({row.confidence:.2f}, {row.seconds * 1000:.0f} ms)"
            lines.append(Line(text, GREEN if row.right else RED, row.right))
        lines += [Line(f"caption: {caption.text}") for caption in self._captions[-1:]]
        annotated = cv2.cvtColor(transcript(picture, lines), cv2.COLOR_RGB2BGR)
        drawing.save(np.asarray(annotated, np.uint8), output)
        print(f"annotated picture: {output.resolve()}\n", flush=True)


def _parse(args: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="mobilevlm_demo", description=__doc__)
    parser.add_argument("--seed", type=int, default=14, help="of the scene (default: %(default)s)")
    parser.add_argument("--bundle", default="", help="model bundle (default: the nano model of the package)")
    parser.add_argument("--rate", type=float, default=30.0, help="images per second (default: %(default)s)")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("demo.png"),
        help="picture; that of an earlier demo is replaced (default: %(default)s)",
    )
    return parser.parse_args(args)


def main(args: Sequence[str] | None = None) -> int:
    """Entry point of the executable `mobilevlm_demo`; 0 when every answer matches the truth."""
    options = _parse(args)
    os.environ.update(private_environment(dict(os.environ)))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the children are ended on the way out
    node_parameters: dict[str, object] = {"caption_rate": 1.0}
    if options.bundle:
        node_parameters["bundle"] = options.bundle
    rows: list[TableRow] = []
    try:
        drawing.check(options.output)
        with ExitStack() as stack:
            package = "mobilevlm_ros.nodes"
            camera = Child(
                "camera", f"{package}.camera_node", {"seed": options.seed, "rate": options.rate}, os.environ
            )
            stack.enter_context(camera)
            node = stack.enter_context(
                Child("node", f"{package}.mobilevlm_node", node_parameters, os.environ)
            )
            client = stack.enter_context(AskImageClient())
            print(
                f"three processes on ROS domain {os.environ['ROS_DOMAIN_ID']}: "
                f"camera (pid {camera.process.pid}), node (pid {node.process.pid}), "
                f"client (pid {os.getpid()})"
            )
            demo = Demo(client, (camera, node))
            rows = demo.rows
            demo.run(options.output)
    except KeyboardInterrupt:
        return 130
    except MobileVLMError as error:
        print(f"\ndemo: error: {error}", file=sys.stderr)
        return 1
    matched = sum(row.right for row in rows)
    print(f"demo: {matched} of {len(rows)} answers match the truth", flush=True)
    return 0 if matched == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
