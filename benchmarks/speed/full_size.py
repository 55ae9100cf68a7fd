# SPDX-License-Identifier: Apache-2.0
"""Builds and serves bundles of full size from random weights, and measures what it takes.

    python benchmarks/speed/full_size.py build MobileVLM_V2-1.7B MobileVLM_V2-3B --work DIRECTORY
    python benchmarks/speed/full_size.py serve MobileVLM_V2-1.7B MobileVLM_V2-3B --work DIRECTORY

`build` makes what DIRECTORY lacks of checkpoints, and the bundles anew; `serve` loads those. Each step is a
process of its own; memory is its greatest resident set. Answers mean nothing (random weights). Needs 7 times
the largest checkpoint's size on disk; `serve`, and the wall time of `build`, need a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from time import monotonic

SERVE = """
import json, sys, time
import numpy as np
begin = time.monotonic()
from mobilevlm_ros.engine.runtime import load_runtime
from mobilevlm_ros.inference.assistant import Assistant
from mobilevlm_ros.inference.types import Frame, Request, SamplingParams
assistant = Assistant(load_runtime(sys.argv[1]))
loaded = time.monotonic() - begin
frame = Frame(np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8))
short = SamplingParams(max_tokens=16)
asked = [assistant.ask(frame, Request(q, sampling=short)) for q in ("What is this?", "Is anybody there?")]
parts = [vars(a.latency) for a in asked]
tokens = asked[0].generated_tokens
print(json.dumps({"load": loaded, "first": parts[0], "second": parts[1], "tokens": tokens}))
"""


BUILDS: dict[str, tuple[str, ...]] = {
    "default": (),
    "rtn": ("--quantize", "rtn"),
    "fp16": ("--quantize", "rtn", "--vision", "fp16", "--quality", "0"),
    "int8": ("--quantize", "rtn", "--vision", "int8", "--quality", "0"),
    "gptq": ("--vision", "int8", "--quality", "0"),
}
"""Names of bundles, and the options of `mobilevlm build`."""
CLI = ("-m", "mobilevlm_ros.cli")
HEADERS = {
    "build": "| model | bundle | options | build s | processor s | build GiB | bundle GB | comparison |",
    "serve": "| model | bundle | load s | serve GiB | encode s | prefill s "
    "| second question, to first token s | decode ms/token |",
}


def run(*arguments: str) -> tuple[str, float, float, float]:
    """Standard output, wall and processor seconds, and greatest resident set in GiB of a Python process."""
    begin = monotonic()
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(arguments[:4])} ended with status {os.waitstatus_to_exitcode(status)}")
    return output, monotonic() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20


def build(model: str, name: str, work: Path) -> str:
    """One row of the first table."""
    checkpoint = work / "checkpoint"
    if not checkpoint.exists():
        run(*CLI, "make-checkpoint", "--like", model, "--random", str(checkpoint), "--quiet")
    where = ("build", str(checkpoint), "-o", str(work / name), "--force")
    output, seconds, busy, memory = run(*CLI, *where, *BUILDS[name], "--quiet", "--json")
    built = json.loads(output)
    quality = built["quality"]
    compared = f"{quality['equal']} of {quality['samples']} equal" if quality else ""
    return (
        f"| {model} | {name} (encoder {built['precision']['vision']}) | {' '.join(BUILDS[name])} "
        f"| {seconds:.0f} | {busy:.0f} | {memory:.2f} | {built['bytes'] / 1e9:.2f} | {compared} |"
    )


def serve(model: str, name: str, work: Path) -> str:
    """One row of the second table."""
    output, _, _, memory = run("-c", SERVE, str(work / name))
    times = json.loads(output)
    first, second = times["first"], times["second"]
    decode = first["decode"] / max(1, times["tokens"])
    again = second["encode"] + second["prefill"]
    return (
        f"| {model} | {name} | {times['load']:.1f} | {memory:.2f} "
        f"| {first['encode']:.2f} | {first['prefill']:.2f} | {again:.2f} | {decode * 1e3:.0f} |"
    )


def main() -> None:
    """Prints the table, a row when it is known."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("step", choices=HEADERS)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--work", type=Path, required=True, help="directory for checkpoints and bundles")
    parser.add_argument("--bundles", nargs="+", choices=BUILDS, default=list(BUILDS))
    args = parser.parse_args()
    cpu = next((s for s in Path("/proc/cpuinfo").read_text().splitlines() if s.startswith("model name")), "")
    print(
        f"`{shlex.join(['python', *sys.argv])}` on {cpu.partition(':')[2].strip()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}. Random weights.\n\n"
        f"{HEADERS[args.step]}\n{'|---' * (HEADERS[args.step].count('|') - 1)}|",
        flush=True,
    )
    for model in args.models:
        for name in args.bundles:
            (args.work / model).mkdir(parents=True, exist_ok=True)
            print((build if args.step == "build" else serve)(model, name, args.work / model), flush=True)


if __name__ == "__main__":
    main()
