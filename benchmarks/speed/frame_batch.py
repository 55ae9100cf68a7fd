# SPDX-License-Identifier: Apache-2.0
"""Many questions about one new frame, and a second question about it: what each costs.

    mobilevlm make-checkpoint --like MobileVLM_V2-1.7B --random ~/checkpoint
    mobilevlm build ~/checkpoint -o ~/bundle --block-size 128 --vision int8
    python benchmarks/speed/frame_batch.py ~/bundle -o benchmarks/results/frame_batch

Frames are noise, so nothing is known of them; weights may be random: answers are not looked at. Bundles take
turns. Writes OUTPUT.md and OUTPUT.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import sys
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime

from mobilevlm_ros.engine.runtime import load_runtime
from mobilevlm_ros.evaluation.latency.measure import machine
from mobilevlm_ros.inference.assistant import Assistant
from mobilevlm_ros.inference.types import Frame, Request, SamplingParams

CURVE = (1, 2, 4, 8, 16)
THINGS = (
    "a person on the road",
    "an open door",
    "a red traffic light",
    "a stop sign ahead",
    "a box in the way",
    "a bicycle nearby",
    "a dog on the floor",
    "a puddle of water",
)
QUESTIONS = [f"Is there {thing}{where}?" for where in ("", " on the left") for thing in THINGS]
CHOICES = [Request(question, choices=("yes", "no")) for question in QUESTIONS]
FREE = [Request(f"Where is {thing}?", sampling=SamplingParams(max_tokens=16)) for thing in THINGS]
OTHERS = ("encode", "first_token", "first_token_again", "side_by_side", "in_turn")


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="default: one per physical core")
    parser.add_argument("-o", "--output", type=Path, help="without suffix")
    args = parser.parse_args()
    contenders = {bundle.name: _Contender(bundle, args.threads) for bundle in args.bundles}
    for _ in range(args.rounds):
        for one in contenders.values():
            one.round()
    found = {name: {"questions": one.questions, **one.others} for name, one in contenders.items()}
    result = {
        "command": shlex.join(["python", *sys.argv]),
        "machine": machine(),
        "versions": {"python": platform.python_version(), "onnxruntime": onnxruntime.__version__},
        "bundles": found,
    }
    text = _report(result, args.rounds)
    print(text)
    if args.output is not None:
        args.output.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        args.output.with_suffix(".md").write_text(text, encoding="utf-8")


class _Contender:
    """A bundle and the seconds of everything, a list over the rounds."""

    def __init__(self, bundle: Path, threads: int) -> None:
        self.runtime = load_runtime(bundle, threads=threads)
        self.assistant = Assistant(self.runtime)
        self.seeds = count()
        self.questions: dict[str, list[float]] = {str(size): [] for size in CURVE}
        self.others: dict[str, list[float]] = {name: [] for name in OTHERS}
        self.many(CHOICES[:2])  # allocates, and reads the system prompt

    def frame(self) -> Frame:
        noise = np.random.default_rng(next(self.seeds)).integers(0, 256, (480, 640, 3), dtype=np.uint8)
        return Frame(noise)

    def many(self, requests: Sequence[Request]) -> float:
        """Seconds for questions about a new frame."""
        return _seconds(_finish, self.assistant.steps_many(self.frame(), requests))

    def round(self) -> None:
        for size in CURVE:
            self.questions[str(size)].append(self.many(CHOICES[:size]))
        ask, new = self.assistant.ask, self.frame()
        pixels = np.zeros((1, *(self.runtime.vision.image_size,) * 2, 3), np.uint8)
        found = {
            "encode": _seconds(self.runtime.vision.encode, pixels),
            # To the first token: encode, prefill, and one token.
            "first_token": _seconds(ask, new, Request(QUESTIONS[0], sampling=SamplingParams(max_tokens=1))),
            "first_token_again": _seconds(
                ask, new, Request(QUESTIONS[1], sampling=SamplingParams(max_tokens=1))
            ),
            "side_by_side": _seconds(_finish, self.assistant.steps_many(new, FREE)),
            "in_turn": sum(_seconds(ask, new, request) for request in FREE),
        }
        for name, seconds in found.items():
            self.others[name].append(seconds)


def _finish(steps: Any) -> Any:
    try:
        while True:
            next(steps)
    except StopIteration as end:
        return end.value


def _seconds(work: Callable[..., object], *arguments: object) -> float:
    before = perf_counter()
    work(*arguments)
    return perf_counter() - before


def _report(result: dict[str, Any], rounds: int) -> str:
    lines = [
        f"`{result['command']}` on {result['machine']}; ONNX Runtime {result['versions']['onnxruntime']}. "
        f"{rounds} rounds in turn; medians, and ratios of medians.",
        "",
        "| bundle | " + " | ".join(f"{size} yes/no, s (x one)" for size in CURVE) + " |",
        "|---" * (len(CURVE) + 1) + "|",
    ]
    for name, found in result["bundles"].items():
        times = [median(found["questions"][str(size)]) for size in CURVE]
        lines.append(f"| {name} | " + " | ".join(f"{t:.2f} ({t / times[0]:.2f})" for t in times) + " |")
    lines += [
        "",
        "| bundle | encode s | first token, new frame s | second question s | x, encoder counted "
        "| x, without the encoder | 8 answers of 16 tokens in turn s | side by side s | x |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in result["bundles"].items():
        middle = {key: median(found[key]) for key in found if key != "questions"}
        first, again, encode = middle["first_token"], middle["first_token_again"], middle["encode"]
        lines.append(
            f"| {name} | {encode:.2f} | {first:.2f} | {again:.2f} | {again / first:.2f} "
            f"| {again / (first - encode):.2f} | {middle['in_turn']:.2f} | {middle['side_by_side']:.2f} "
            f"| {middle['side_by_side'] / middle['in_turn']:.2f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
