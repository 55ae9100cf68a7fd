# SPDX-License-Identifier: Apache-2.0
"""The node under load for a long time, each answer held against the truth of the frame its header names.

    python benchmarks/reliability/soak.py --minutes 120 -o benchmarks/results/soak

Processes: the node with captions, eight monitors, sessions and a short history; two cameras (30 Hz and a
sixth of it, 720p, raw) whose scene changes twice a second, so that an answer about another frame is a wrong
one; and this client, which asks at random: plain, with choices, in sessions, about regions, the past and all
cameras, streamed, withdrawn, and malformed. It writes PREFIX.jsonl (what was not plainly right, and the
process over time), PREFIX.json, PREFIX.md and PREFIX.png; what is there of an earlier soak is replaced. The
first two are brought up to date every five minutes, and SIGINT or SIGTERM ends the soak early with all four.
The exit code is 0 when nothing was lost, torn, or about another frame.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from mobilevlm_ros.ros.resources import private_environment

os.environ.update(private_environment(dict(os.environ)))

import yaml
from mobilevlm_msgs.msg import Caption, MonitorState
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image
from soak_judge import Judge
from soak_load import Draw, Load, plain
from soak_report import Sample, Summary, conditions, measure, plot
from soak_scenes import HEIGHT, MONITORS, WIDTH, YES_NO, Reel
from std_msgs.msg import String

from mobilevlm_ros.client import AskImageClient
from mobilevlm_ros.demo.node_process import Child

HERE = Path(__file__).resolve().parent
CAMERAS = ("", "rear")
WAITING = 6
"""Questions on their way at once."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)

CHECKPOINT = 300.0
"""Seconds between two writings of the figures so far."""


def monitors(folder: Path) -> Path:
    """The monitors' file."""
    entries = [
        {
            "name": name,
            "question": q.text,
            "choices": list(choices),
            "raised": raised,
            "rate": rate,
            "evidence": name == "car",
        }
        for name, (q, choices, raised, rate) in MONITORS.items()
    ]
    path = folder / "monitors.yaml"
    path.write_text(yaml.safe_dump({"monitors": entries}))
    return path


def start(options: argparse.Namespace, folder: Path, stack: ExitStack) -> tuple[Child, list[Child]]:
    """The node and its cameras."""
    path = (str(HERE), str(HERE.parents[1]), os.environ.get("PYTHONPATH", ""))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}
    cameras = []
    for index, name in enumerate(CAMERAS):
        parameters = {
            "seed": options.seed + 1000 * index,
            "scenes": options.scenes,
            "scene_seconds": options.scene_seconds,
            "rate": options.rate / (6 if index else 1),
            "width": WIDTH,
            "height": HEIGHT,
            "frame_id": f"{name or 'front'}_optical_frame",
        }
        topics = [f"{topic}:=/{name}/{topic}" for topic in ("image", "image/compressed") if name]
        child = Child(
            name or "front",
            "soak_camera",
            parameters,
            environment,
            [f"__node:={name or 'front'}_camera", *topics],
        )
        cameras.append(stack.enter_context(child))
    parameters = {
        "cameras": repr(list(CAMERAS)),
        "threads": 1,
        "caption_rate": 1.0,
        "monitors_file": monitors(folder),
        "history_mb": 32,
        "history_rate": 5.0,
        "sessions_max": 8,
        "prefix_cache_mb": 64,
    }
    node = stack.enter_context(Child("node", "mobilevlm_ros.nodes.mobilevlm_node", parameters, environment))
    return node, cameras


def reels(client: AskImageClient, children: list[Child]) -> dict[str, Reel]:
    """What each camera shows, as it tells itself."""
    heard: dict[str, Reel] = {}

    def on_scene(name: str, message: Any) -> None:
        about = json.loads(message.data)
        heard[name] = Reel(about["seed"], about["scenes"], about["scene_seconds"], about["start_ns"])

    latched = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
    for name in CAMERAS:
        client.node.create_subscription(
            String, f"/{name or 'front'}_camera/scene", partial(on_scene, name), latched
        )
    end = monotonic() + 120
    while len(heard) < len(CAMERAS):
        for child in children:
            child.check()
        if monotonic() > end:
            raise SystemExit("the cameras did not tell what they show within 120 s")
        client.spin(0.1)
    return heard


def camera_rates(client: AskImageClient, seconds: float) -> dict[str, float]:
    """Images per second of each camera, counted for a while."""
    got = dict.fromkeys(CAMERAS, 0)

    def on_image(name: str, _: bytes) -> None:
        got[name] += 1

    probes = [
        client.node.create_subscription(
            Image, f"/{name}/image" if name else "/image", partial(on_image, name), 10, raw=True
        )
        for name in CAMERAS
    ]
    client.spin(1.0)
    got.update(dict.fromkeys(CAMERAS, 0))
    begin = monotonic()
    while monotonic() < begin + seconds:
        client.spin(0.05)
    span = monotonic() - begin
    for probe in probes:
        client.node.destroy_subscription(probe)
    return {name or "front": round(count / span, 1) for name, count in got.items()}


class Soak:
    """One run."""

    def __init__(
        self, options: argparse.Namespace, client: AskImageClient, node: Child, cameras: list[Child]
    ) -> None:
        self._options, self._client, self._node, self._cameras = options, client, node, cameras
        self._draw = Draw(options.seed, CAMERAS, 20)
        known = reels(client, [node, *cameras])
        frames = {name: f"{name or 'front'}_optical_frame" for name in CAMERAS}
        self.judge = Judge(known, frames, self._draw, options.output.with_suffix(".jsonl"))
        self._load = Load(client, self.judge.response)
        self.samples: list[Sample] = []
        self.latencies: list[float] = []
        self._period = max(2.0, options.minutes * 60 / 400)
        self.rates: dict[str, float] = {}

    def warm_up(self) -> None:
        """Until the node answers about both cameras; then what comes unasked counts, too. The cameras' rates
        are counted.
        """
        for name in CAMERAS:
            asked = {"camera": name, "choices": list(YES_NO), "timeout": 120.0, "wait_for_frame": 60.0}
            tries = (self._client.ask("Is it?", **asked) for _ in range(5))  # a busy machine takes minutes
            if not any(response.status.ok for response in tries):
                raise SystemExit(f"no answer about camera {name!r}\n{self._node.log(30)}")
        self._client.node.create_subscription(Caption, "/mobilevlm/captions", self.judge.caption, 50)
        self._client.node.create_subscription(MonitorState, "/mobilevlm/monitors", self.judge.monitor, 200)
        end = monotonic() + 60
        while not self._load.ready() and monotonic() < end:
            self._client.spin(0.1)
        # What is sent before the node knows this client may be lost, as DDS promises no more.
        begin = monotonic()
        while monotonic() < begin + 3:
            self._client.spin(0.1)
        self.rates = camera_rates(self._client, min(5.0, self._options.minutes * 6))

    def run(self) -> None:
        """Ask until the time is over, and wait for the last answers; a signal ends both at once."""
        counts, load = self.judge.counts, self._load
        stopped: list[int] = []
        for number in SIGNALS:
            signal.signal(number, lambda got, _: stopped.append(got))
        begin = monotonic()
        end, send_at, look_at = begin + self._options.minutes * 60, begin, begin
        write_at = begin + CHECKPOINT
        while not stopped and ((now := monotonic()) < end or load.waiting):
            self._client.spin(0.02)
            if send_at <= now < end and len(load.waiting) < WAITING:
                send_at = now + self._draw.wait(self._options.questions)
                counts["sent"] += 1
                load.send(self._draw.draw())
            if now >= look_at and not stopped:  # Ctrl-C ends the node too, which is no fault then
                look_at = max(now + 0.5 * self._period, look_at + self._period)  # the machine may stand still
                if not self._look(now - begin):
                    return
            if now >= write_at:
                write_at = now + CHECKPOINT
                self.summary().write(self._options.output)
        counts["cut off"] = len(load.waiting)
        if not stopped and monotonic() - begin > self.samples[-1].seconds + 1:
            self._look(monotonic() - begin)

    def summary(self) -> Summary:
        """What was found so far."""
        judge, minutes = self.judge, self.samples[-1].seconds / 60
        told = " ".join(filter(None, (conditions(), self._options.note)))
        command = self._options.command
        return Summary(
            command, told, minutes, judge.counts, self.samples, self.latencies, judge.found, self.rates
        )

    def _look(self, seconds: float) -> bool:
        """Take a sample; False when a process has ended."""
        for child in (self._node, *self._cameras):
            if child.process.poll() is not None:
                self.judge.fault("died", process=child.name, log=child.log(40))
                return False
        self._load.look()
        while self._load.lost:
            self.judge.fault("lost", asked=plain(self._load.lost.pop().fields))
        answered = self.judge.counts["answered"]
        self.samples.append(measure(self._node.process.pid, seconds, answered, self.judge.latencies))
        self.latencies += self.judge.latencies
        self.judge.latencies.clear()
        self.judge.write("sample", **asdict(self.samples[-1]))
        return True


def parse(args: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--minutes", type=float, default=120.0)
    add(
        "--rate",
        type=float,
        default=30.0,
        help="images per second of the front camera (default: %(default)s)",
    )
    add("--questions", type=float, default=4.0, help="a second, on average (default: %(default)s)")
    add("--scenes", type=int, default=48, help="that each camera repeats (default: %(default)s)")
    add("--scene-seconds", type=float, default=0.5, help="for which each is shown (default: %(default)s)")
    add("--seed", type=int, default=500)
    add("-o", "--output", type=Path, default=Path("soak"), metavar="PREFIX")
    add("--note", default="", help="what else the page should say about the machine")
    options = parser.parse_args(args)
    given = sys.argv[1:] if args is None else args
    options.command = shlex.join(["python", "benchmarks/reliability/soak.py", *given])
    return options


def main(args: list[str] | None = None) -> int:
    options = parse(args)
    for number in SIGNALS:  # a job in the background begins with SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        node, cameras = start(options, folder, stack)
        client = stack.enter_context(AskImageClient())
        soak = Soak(options, client, node, cameras)
        stack.callback(soak.judge.close)
        soak.warm_up()
        soak.run()
        if not soak.samples:
            raise SystemExit("ended by a signal before the first question")
        (options.output.with_suffix(".node.log")).write_text(node.log(400))
        summary = soak.summary()
        summary.write(options.output)
        plot(options.output)
    print(summary.page(f"{options.output.name}.png"))
    return 1 if summary.faults else 0


if __name__ == "__main__":
    sys.exit(main())
