# SPDX-License-Identifier: Apache-2.0
"""What the node adds to inference, over DDS and between processes: latency, idle cost, bursts, pre-emption.

    python benchmarks/speed/node.py -o benchmarks/results/node.md [--slow-bundle DIRECTORY]

Run it on a quiet machine. Processes: the node, the cameras (photographs, so that they cost little), and this.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import cv2
import numpy as np

from mobilevlm_ros.ros.resources import private_environment

os.environ.update(private_environment(dict(os.environ)))

from mobilevlm_msgs.msg import Caption, Status
from mobilevlm_msgs.srv import AskImage
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from mobilevlm_ros.client import AskImageClient
from mobilevlm_ros.client.exchange import QUEUE
from mobilevlm_ros.demo.node_process import Child
from mobilevlm_ros.engine.runtime import shipped_bundle
from mobilevlm_ros.ros.status import name_of

TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def processes(cameras: int, rate: float, photo: Path, **parameters: object) -> Iterator[Child]:
    """The node with some 720p cameras that publish raw images."""
    names = [f"camera{index}" for index in range(cameras)] or [""]
    started: list[Child] = []
    try:
        for name in names[:cameras]:
            remappings = [f"__node:={name}", *(f"{t}:={name}/{t}" for t in ("image", "image/compressed"))]
            arguments = {"photo": photo, "rate": rate}
            started.append(Child(name, "mobilevlm_ros.nodes.camera_node", arguments, os.environ, remappings))
        node = Child(
            "node", "mobilevlm_ros.nodes.mobilevlm_node", {"cameras": repr(names), **parameters}, os.environ
        )
        started.append(node)
        yield node
    finally:
        for child in started:
            child.stop()


def cpu_seconds(child: Child) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{child.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def settle(client: AskImageClient, seconds: float) -> None:
    """Serve our subscriptions for a while."""
    end = monotonic() + seconds
    while monotonic() < end:
        client.spin(0.1)


def ready(client: AskImageClient, node: Child, **fields: Any) -> Any:
    """The response to the first question that is answered."""
    response = client.ask(
        "Is it?", choices=["yes", "no"], timeout=120.0, wait_for_frame=60.0, max_age=-1.0, **fields
    )
    if response.status.code != Status.OK:
        raise SystemExit(f"{response.status.message}\n{node.log(30)}")
    return response


def round_trip(photo: Path, count: int) -> list[str]:
    """Service round trip minus what the node reports for queueing and inference."""
    overheads, totals = [], []
    with processes(1, 10.0, photo, threads=1) as node, AskImageClient() as client:
        ready(client, node)
        settle(client, 3.0)
        for index in range(count):
            begin = monotonic()
            response = client.ask(f"Is there a ball {index}?", choices=["yes", "no"], timeout=60.0)
            total = monotonic() - begin
            assert response.status.code == Status.OK, response.status.message
            parts = response.latency
            overheads.append((total - parts.encode - parts.prefill - parts.decode) * 1e3)
            totals.append(total * 1e3)
            settle(client, 0.03)
    low, high = np.percentile(overheads, [50, 95])
    return [
        f"| service round trip minus inference, 720p camera, {count} questions | <= 5 ms median "
        f"| **{low:.1f} ms** median, {high:.1f} ms p95 (in all {statistics.median(totals):.1f} ms) |"
    ]


def idle(photo: Path, seconds: float) -> list[str]:
    """CPU of the node while four cameras publish and nobody asks."""
    with processes(4, 30.0, photo, threads=1) as node, AskImageClient() as client:
        for index in range(4):
            ready(client, node, camera=f"camera{index}")
        received = [0]

        def count(_: Any) -> None:
            received[0] += 1

        settle(client, 5.0)
        before, begin = cpu_seconds(node), monotonic()
        settle(client, seconds)
        share = (cpu_seconds(node) - before) / (monotonic() - begin)
        # What the cameras really sent, counted afterwards so that counting costs nothing in between.
        probe = client.node.create_subscription(Image, "camera0/image", count, QoSProfile(depth=5), raw=True)
        settle(client, 1.0)
        received[0], begin = 0, monotonic()
        settle(client, 4.0)
        rate = received[0] / (monotonic() - begin)
        client.node.destroy_subscription(probe)
    with processes(0, 30.0, photo, threads=1) as node, AskImageClient() as client:
        client.wait_for_node(60.0)
        settle(client, 5.0)
        before, begin = cpu_seconds(node), monotonic()
        settle(client, seconds)
        alone = (cpu_seconds(node) - before) / (monotonic() - begin)
    return [
        f"| node process, 4 cameras 1280x720 raw at 30 Hz (a probe received {rate:.0f} Hz of one), nobody "
        f"asks, {seconds:.0f} s | <= 10 % of a core | **{share:.1%}** (without cameras {alone:.1%}) |"
    ]


def burst(photo: Path, clients: int, each: int) -> list[str]:
    """Many clients at once: every request gets exactly one response."""
    with processes(1, 10.0, photo, threads=1) as node, AskImageClient() as client:
        ready(client, node)
        callers = [
            client.node.create_client(AskImage, "ask_image", qos_profile=QUEUE) for _ in range(clients)
        ]
        for caller in callers:
            caller.wait_for_service(30.0)
        settle(client, 5.0)
        begin = monotonic()
        futures = [
            caller.call_async(AskImage.Request(question=f"What is on the left {turn}?", timeout=20.0))
            for turn in range(each)
            for caller in callers
        ]
        while not all(future.done() for future in futures) and monotonic() - begin < 90:
            client.spin(0.05)
        seconds = monotonic() - begin
    codes = Counter(name_of(future.result().status.code) for future in futures if future.done())
    lost = sum(not future.done() for future in futures)
    told = ", ".join(f"{count} {name}" for name, count in codes.most_common())
    return [
        f"| {clients} concurrent clients, {each} requests each at once, queue of 16 | none lost "
        f"| **{lost} lost**; {told}; all within {seconds:.1f} s |"
    ]


def preemption(photo: Path, name: str, bundle: str, count: int, **more: object) -> list[str]:
    """How long a question waits for its turn while captions are being made all the time."""
    waits, paces = [], []
    with (
        processes(1, 10.0, photo, bundle=bundle, caption_rate=20.0, caption_max_tokens=400, **more) as node,
        AskImageClient() as client,
    ):
        ready(client, node)
        captions: list[Caption] = []
        client.node.create_subscription(Caption, "mobilevlm/captions", captions.append, 10)
        settle(client, 3.0)
        for _ in range(count):
            settle(client, 0.5)  # a caption is under way by now
            response = client.ask("Is there a ball?", choices=["yes", "no"], timeout=60.0, max_age=-1.0)
            assert response.status.code == Status.OK, response.status.message
            waits.append(response.latency.queue * 1e3)
        for _ in range(3):
            response = client.ask("Tell me all.", max_tokens=40, timeout=60.0, max_age=-1.0)
            if response.generated_tokens:
                paces.append(response.latency.decode / response.generated_tokens * 1e3)
        encode = response.latency.encode * 1e3
    wait, worst, pace = statistics.median(waits), max(waits), statistics.median(paces)
    return [
        f"| a question during a caption, {name}, {count} times | starts within one token "
        f"| waits **{wait:.1f} ms** median, {worst:.1f} ms at most; a token takes {pace:.1f} ms"
        f"{f', an encoding {encode:.0f} ms' if encode else ''} |"
    ]


def main() -> None:
    """Print the table; with -o also write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--only", nargs="+", choices=["round_trip", "idle", "burst", "preemption"])
    parser.add_argument("--slow-bundle", type=Path, help="of a larger model, for the pre-emption")
    parser.add_argument("--count", type=int, default=100, help="questions per measurement")
    parser.add_argument("--seconds", type=float, default=20.0, help="of the idle measurement")
    args = parser.parse_args()
    rows: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder, "photo.png")
        noise = np.random.default_rng(0).integers(0, 256, (45, 80, 3), dtype=np.uint8)
        cv2.imwrite(str(photo), cv2.resize(noise, (1280, 720)))
        endless = _endless(Path(folder, "endless"))
        parts: dict[str, Callable[[], list[str]]] = {
            "round_trip": lambda: round_trip(photo, args.count),
            "idle": lambda: idle(photo, args.seconds),
            "burst": lambda: burst(photo, 50, 4),
            "preemption": lambda: [
                *preemption(photo, "nano that never stops", str(endless), args.count // 4),
                *(
                    preemption(photo, args.slow_bundle.name, str(args.slow_bundle), 12, self_test=False)
                    if args.slow_bundle
                    else ()
                ),
            ],
        }
        for name in args.only or parts:
            made = parts[name]()
            rows += made
            print("\n".join(made), flush=True)
    cpu = next((s for s in Path("/proc/cpuinfo").read_text().splitlines() if s.startswith("model name")), "")
    text = "\n".join(
        [
            "# The node over DDS",
            "",
            f"`python {' '.join(sys.argv)}` on {cpu.partition(':')[2].strip()}, {os.cpu_count()} cores,",
            f"Python {platform.python_version()}, {os.environ.get('ROS_DISTRO', 'ROS')}; nano unless named, "
            "one engine thread, Fast DDS with config/fastdds.xml, cameras, node and client in processes of "
            "their own.",
            "",
            "| what | target | measured |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )
    if args.output:
        args.output.write_text(text)


def _endless(path: Path) -> Path:
    """The shipped bundle, without the tokens that end an answer."""
    shutil.copytree(shipped_bundle(), path)
    manifest = json.loads((path / "bundle.json").read_text())
    (path / "bundle.json").write_text(json.dumps({**manifest, "stop_ids": []}))
    return path


if __name__ == "__main__":
    main()
