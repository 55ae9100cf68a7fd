# SPDX-License-Identifier: Apache-2.0
"""Many yes/no questions about one new frame, and a second question about it: what each costs.

    mobilevlm make-checkpoint --like MobileVLM_V2-1.7B --random ~/checkpoint
    mobilevlm build ~/checkpoint -o ~/bundle --block-size 128 --vision int8
    python benchmarks/frame_batch.py ~/bundle -o benchmarks/results/frame_batch

Frames are noise, so nothing is known of them; weights may be random: answers are not looked at. Also compares
reading the questions one after the other with one run of as many tokens, the most that packing them into one
masked row could gain. Writes OUTPUT.md and OUTPUT.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime

from mobilevlm_ros.engine.runtime import load_runtime
from mobilevlm_ros.evaluation.latency import machine
from mobilevlm_ros.inference.assistant import Assistant
from mobilevlm_ros.inference.types import Frame, Request

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


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="default: one per physical core")
    parser.add_argument("-o", "--output", type=Path, help="without suffix")
    args = parser.parse_args()
    found = {bundle.name: _measure(bundle, args) for bundle in args.bundles}
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


def _measure(bundle: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Seconds of everything, a list over the rounds."""
    runtime = load_runtime(bundle, threads=args.threads)
    assistant = Assistant(runtime)
    seeds = count()

    def frame() -> Frame:
        noise = np.random.default_rng(next(seeds)).integers(0, 256, (480, 640, 3), dtype=np.uint8)
        return Frame(noise)

    requests = [Request(question, choices=("yes", "no")) for question in QUESTIONS]
    _finish(assistant.steps_many(frame(), requests[:2]))  # allocates, and reads the system prompt
    curve: dict[int, list[float]] = {size: [] for size in CURVE}
    first, again, encode, in_turn, at_once = [], [], [], [], []
    for _ in range(args.rounds):
        for size in CURVE:
            curve[size].append(_seconds(_finish, assistant.steps_many(frame(), requests[:size])))
        new = frame()
        # To the first token: encode, prefill, and one token.
        first.append(_seconds(assistant.ask, new, Request(QUESTIONS[0], max_tokens=1)))
        again.append(_seconds(assistant.ask, new, Request(QUESTIONS[1], max_tokens=1)))
        pixels = np.zeros((1, *(runtime.vision.image_size,) * 2, 3), np.uint8)
        encode.append(_seconds(runtime.vision.encode, pixels))
        one, packed = _questions_at_once(runtime, len(QUESTIONS) // 2)
        in_turn.append(one)
        at_once.append(packed)
    return {
        "questions": {str(size): seconds for size, seconds in curve.items()},
        "first_token": first,
        "first_token_again": again,
        "encode": encode,
        "in_turn": in_turn,
        "at_once": at_once,
    }


def _questions_at_once(runtime: Any, questions: int) -> tuple[float, float]:
    """Seconds for questions of 30 tokens behind 180: in turn, and as one run of as many tokens."""
    language = runtime.language
    tokens = np.random.default_rng(0).integers(3, language.vocab_size, 180 + 30 * questions)
    embeddings = language.embed(tokens)
    cache = language.new_cache(capacity=len(tokens))
    language.forward(embeddings[None, :180], cache, 0)
    parts = np.split(embeddings[180:], questions)
    in_turn = _seconds(language.branch, parts, cache)
    return in_turn, _seconds(language.forward, embeddings[None, 180:], cache, questions)


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
        "| bundle | " + " | ".join(f"{size} questions, s (x one)" for size in CURVE) + " |",
        "|---" * (len(CURVE) + 1) + "|",
    ]
    for name, found in result["bundles"].items():
        times = [median(found["questions"][str(size)]) for size in CURVE]
        lines.append(f"| {name} | " + " | ".join(f"{t:.2f} ({t / times[0]:.2f})" for t in times) + " |")
    lines += [
        "",
        "| bundle | encode s | first token, new frame s | second question s | x, encoder counted "
        "| x, without the encoder | 8 x 30 tokens in turn s | as one run of 240 s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, found in result["bundles"].items():
        middle = {key: median(found[key]) for key in found if key != "questions"}
        first, again, encode = middle["first_token"], middle["first_token_again"], middle["encode"]
        lines.append(
            f"| {name} | {encode:.2f} | {first:.2f} | {again:.2f} | {again / first:.2f} "
            f"| {again / (first - encode):.2f} | {middle['in_turn']:.2f} | {middle['at_once']:.2f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
