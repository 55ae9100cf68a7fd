# SPDX-License-Identifier: Apache-2.0
"""Teach nano a road barrier, which it has never seen: render, train adapters, merge, build, examine.

    python examples/teach_a_new_object/teach.py -o runs/barrier

Each step is the command you would type yourself, and is printed before it runs.
"""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path

from scenes import NEW, examine, write

from mobilevlm_ros import MobileVLM
from mobilevlm_ros.cli import main as mobilevlm

NANO = Path(__file__).resolve().parents[2] / "models" / "nano"


def run(*words: object) -> None:
    """Runs a command of `mobilevlm`, and ends when it fails."""
    line = [str(word) for word in words]
    print(f"$ mobilevlm {shlex.join(line)}", flush=True)
    if mobilevlm(line) != 0:
        raise SystemExit(1)


def main(argv: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Returns the shares of right answers about barriers, before and after."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/barrier"), help="folder to make")
    parser.add_argument("--pictures", type=int, default=200, help="with a barrier; as many without are added")
    parser.add_argument("--steps", type=int, default=240, help="of training, 16 questions each")
    parser.add_argument("--rate", type=float, default=5e-4, help="learning rate")
    parser.add_argument("--known", type=int, default=4, help="questions per picture that nano already knows")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--exam", type=int, default=200, help="held-out scenes to examine on")
    args = parser.parse_args(argv)

    out = args.output
    data = write(out / "data", args.pictures, families=args.known)
    settings = {
        "lora.r": 32,
        "lora.alpha": 64,
        "lora.dropout": 0,
        "optimizer.learning_rate": args.rate,
        "optimizer.clip": 1.0,
        "schedule.steps": args.steps,
        "schedule.warmup_ratio": 0.1,
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
    marks = {
        "before": examine(MobileVLM(threads=args.threads), args.exam),
        "after": examine(MobileVLM(out / "bundle", threads=args.threads), args.exam),
    }
    print(f"right about a {NEW}: {json.dumps(marks)}")
    print("load it into a running node:")
    request = f"{{bundle: {(out / 'bundle').resolve()}}}"
    print(
        f"$ ros2 service call /mobilevlm/reload_bundle mobilevlm_msgs/srv/ReloadBundle {shlex.quote(request)}"
    )
    return marks


if __name__ == "__main__":
    main()
