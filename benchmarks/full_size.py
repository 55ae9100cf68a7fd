# SPDX-License-Identifier: Apache-2.0
"""Builds and serves a bundle of full size from random weights, and measures what it takes.

    python benchmarks/full_size.py MobileVLM_V2-1.7B MobileVLM_V2-3B -o benchmarks/results/full_size.md

Each step is a process of its own; memory is its greatest resident set. Answers mean nothing (random weights),
so quality is not measured here. Needs 6 times the checkpoint's size on disk and a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from time import monotonic

SERVE = """
import json, sys, time
import numpy as np
begin = time.monotonic()
from mobilevlm_ros.engine.runtime import load_runtime
from mobilevlm_ros.inference.assistant import Assistant
from mobilevlm_ros.inference.types import Frame, Request
assistant = Assistant(load_runtime(sys.argv[1]))
loaded = time.monotonic() - begin
frame = Frame(np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8))
asked = [assistant.ask(frame, Request(q, max_tokens=16)) for q in ("What is this?", "Is anybody there?")]
parts = [vars(a.latency) for a in asked]
tokens = asked[0].generated_tokens
print(json.dumps({"load": loaded, "first": parts[0], "second": parts[1], "tokens": tokens}))
"""


def run(*arguments: str) -> tuple[str, float, float]:
    """Standard output, wall seconds, and greatest resident set in GiB of a Python process."""
    begin = monotonic()
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(arguments[:4])} ended with status {os.waitstatus_to_exitcode(status)}")
    return output, monotonic() - begin, usage.ru_maxrss / 2**20


def measure(model: str, vision: str, work: Path) -> str:
    """One row of the table."""
    checkpoint, bundle = work / "checkpoint", work / f"bundle-{vision}"
    cli = ("-m", "mobilevlm_ros.cli")
    if not checkpoint.exists():
        run(*cli, "make-checkpoint", "--like", model, "--random", str(checkpoint))
    _, seconds, built = run(*cli, "build", str(checkpoint), "-o", str(bundle), "--vision", vision, "--quiet")
    size = sum(file.stat().st_size for file in bundle.iterdir()) / 1e9
    output, _, served = run("-c", SERVE, str(bundle))
    times = json.loads(output)
    first, second = times["first"], times["second"]
    decode = first["decode"] / max(1, times["tokens"])
    again = second["encode"] + second["prefill"]
    return (
        f"| {model} | {vision} | {seconds:.0f} | {built:.2f} | {size:.2f} "
        f"| {times['load']:.1f} | {served:.2f} "
        f"| {first['encode']:.2f} | {first['prefill']:.2f} | {again:.2f} "
        f"| {decode * 1e3:.0f} |"
    )


def main() -> None:
    """Prints the table; with -o also writes it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("models", nargs="+")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    cpu = next((s for s in Path("/proc/cpuinfo").read_text().splitlines() if s.startswith("model name")), "")
    lines = [
        f"`python {' '.join(sys.argv)}` on {cpu.partition(':')[2].strip()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}. Random weights; 4-bit language model in blocks of 32.",
        "",
        "| model | encoder | build s | build GiB | bundle GB | load s | serve GiB | encode s | prefill s "
        "| second question, to first token s | decode ms/token |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for model in args.models:
        with tempfile.TemporaryDirectory() as work:
            for vision in ("fp16", "int8"):
                lines.append(measure(model, vision, Path(work)))
                print(lines[-1], flush=True)
    if args.output is not None:
        args.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
