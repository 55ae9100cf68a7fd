# SPDX-License-Identifier: Apache-2.0
"""Teach nano a shuttle (a small bus), which it has never seen: render, train adapters, merge, build, examine,
and give the bundle to a running node.

    python examples/teach_a_new_object/teach.py -o runs/shuttle
    python examples/teach_a_new_object/teach.py -o runs/shuttle --node /mobilevlm       # into a node of yours

Each step is the command you would type yourself, and is printed before it runs. Without --node a node is
started for the purpose, where ROS is there.
"""

from __future__ import annotations

import argparse
import json
import shlex
from importlib.util import find_spec
from pathlib import Path

from scenes import NEW, examine, write

from mobilevlm_ros import MobileVLM
from mobilevlm_ros.cli import main as mobilevlm
from mobilevlm_ros.evaluation.nano.exam import exam
from mobilevlm_ros.simulation.questions import agrees

NANO = Path(__file__).resolve().parents[2] / "models" / "nano"


def run(*words: object) -> None:
    """Runs a command of `mobilevlm`, and ends when it fails."""
    line = [str(word) for word in words]
    print(f"$ mobilevlm {shlex.join(line)}", flush=True)
    if mobilevlm(line) != 0:
        raise SystemExit(1)


def marks_of(bundle: Path | None, args: argparse.Namespace) -> dict[str, float]:
    """Shares of right answers: about the new object by kind of question, and to what nano knew."""
    with MobileVLM(bundle, threads=args.threads) as vlm:
        marks = examine(vlm, args.exam)
        known = [
            agrees(asked, vlm.ask(image, asked.question).text) for image, asked, _ in exam(args.known_exam)
        ]
        return {**marks, "known": round(sum(known) / len(known), 4)}


def main(argv: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Returns the shares of right answers, before and after; of the node too, where there is one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/shuttle"), help="folder to make")
    parser.add_argument("--pictures", type=int, default=200, help="with a shuttle")
    parser.add_argument("--others", type=int, default=200, help="pictures without")
    parser.add_argument("--steps", type=int, default=160, help="of training, 16 conversations each")
    parser.add_argument("--rate", type=float, default=1.5e-3, help="learning rate")
    parser.add_argument(
        "--known", type=int, default=5, help="questions a conversation that nano answers already"
    )
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--exam", type=int, default=200, help="held-out scenes to examine on")
    parser.add_argument("--known-exam", type=int, default=300, help="questions about what nano knew before")
    parser.add_argument("--node", help="name of a running node to load the result into, such as /mobilevlm")
    args = parser.parse_args(argv)

    out = args.output
    data = write(out / "data", args.pictures, args.others, args.known)
    settings = {
        "lora.r": 32,
        "lora.alpha": 64,
        "lora.dropout": 0,
        "optimizer.learning_rate": args.rate,
        "optimizer.clip": 1.0,
        "schedule.steps": args.steps,
        "schedule.warmup_ratio": 0.05,
        "batch.size": 16,
        "run.precision": "fp32",
        "run.save_every": 60,
        "data.workers": 0,
    }
    changes = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    where = ("--model", NANO, "--data", data, "--images", out / "data" / "pictures", "-o", out / "run")
    run("train", "lora", *where, *changes, "--threads", args.threads)
    run("merge", out / "run", "-o", out / "checkpoint")
    run("build", out / "checkpoint", "-o", out / "bundle")
    marks = {"before": marks_of(None, args), "after": marks_of(out / "bundle", args)}
    print(f"right about a {NEW}, and about what was known: {json.dumps(marks)}")
    if args.node or (find_spec("rclpy") and find_spec("mobilevlm_msgs")):
        from live import show, started_node  # needs ROS

        if args.node:
            marks["node"] = show(args.node, out / "bundle", max(4, args.exam // 10))
        else:
            with started_node(NANO / "bundle", args.threads) as name:
                marks["node"] = show(name, out / "bundle", max(4, args.exam // 10))
        print(f"right about a {NEW}, the node: {json.dumps(marks['node'])}")
    request = shlex.quote(f"{{bundle: {(out / 'bundle').resolve()}}}")
    print("load it into a node of yours:")
    print(f"$ ros2 service call /mobilevlm/reload_bundle mobilevlm_msgs/srv/ReloadBundle {request}")
    (out / "marks.json").write_text(json.dumps(marks, indent=1) + "\n")
    return marks


if __name__ == "__main__":
    main()
