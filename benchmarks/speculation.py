# SPDX-License-Identifier: Apache-2.0
"""Would guessing ahead speed captions up? The previous caption of the camera, or n-grams of it, as draft.

    python benchmarks/speculation.py nano --scenes 8 --frames 10
    python benchmarks/speculation.py cost BUNDLE          # what verifying k tokens costs, at any shape

A draft is verified in one run of the decoder: the tokens that greedy decoding would have chosen anyway are
kept, so the text is the same as without. `nano` captions moving scenes one frame after another, counts runs
and kept tokens, and compares texts and time; `cost` times runs of 1 to 32 tokens after a prompt of 196, and
says whether their logits are those of one token at a time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mobilevlm_ros.engine.base import KVCache, LanguageEngine
from mobilevlm_ros.engine.runtime import Runtime, load_runtime
from mobilevlm_ros.processing.image import prepare
from mobilevlm_ros.processing.prompt import TEMPLATES, image_question
from mobilevlm_ros.processing.tokenizer import IMAGE_TOKEN
from mobilevlm_ros.simulation.render import observe
from mobilevlm_ros.simulation.scene import Scene

FIRST_SEED = 7_500_000
Draft = Callable[[list[int], Sequence[int]], list[int]]
"""From the tokens so far and the previous caption's to those that may follow."""


def same_place(said: list[int], previous: Sequence[int], k: int) -> list[int]:
    """The previous caption's tokens from the same position on, as long as all before were the same."""
    return list(previous[len(said) : len(said) + k]) if list(previous[: len(said)]) == said else []


def lookup(said: list[int], previous: Sequence[int], k: int) -> list[int]:
    """What followed the last two tokens in the previous caption (prompt lookup); at the start its opening."""
    if not said:
        return list(previous[:k])
    for width in (2, 1):
        tail = said[-width:]
        for at in range(len(previous) - width, -1, -1):
            if list(previous[at : at + width]) == tail and len(tail) == width:
                return list(previous[at + width : at + width + k])
    return []


def greedy(
    language: LanguageEngine,
    cache: KVCache,
    logits: np.ndarray,
    stop: int,
    draft: Draft | None,
    previous: Sequence[int],
    limit: int = 64,
) -> tuple[list[int], int, int]:
    """Tokens (the stop token last), runs of the decoder, drafted tokens that were kept."""
    said, runs, kept = [int(logits.argmax())], 0, 0
    while said[-1] != stop and len(said) < limit:
        guess = [] if draft is None else draft(said, previous)
        tokens = np.array([said[-1], *guess], np.int64)
        start = cache.length
        rows = language.forward(language.embed(tokens)[None], cache, num_logits=len(tokens))[0]
        runs += 1
        for at, row in enumerate(rows):
            said.append(int(row.argmax()))
            if said[-1] == stop or at == len(guess) or said[-1] != guess[at]:
                kept += at
                cache.truncate(start + at + 1)
                break
    return said, runs, kept


def captions(runtime: Runtime, scenes: int, frames: int, step: float, rounds: int) -> dict[str, object]:
    """Runs, acceptance, equality and time of each way to draft."""
    language, stop = runtime.language, runtime.tokenizer.eos_id
    template = TEMPLATES[runtime.bundle.manifest.template]
    ids = runtime.tokenizer.encode_prompt(template.render([(image_question("Describe the scene."), None)]))
    at = ids.index(IMAGE_TOKEN)
    read = []
    for seed in range(FIRST_SEED, FIRST_SEED + scenes):
        for number in range(frames):
            image = observe(Scene.sample(seed), number * step, 640, 480).image
            pixels = prepare(image, runtime.vision.image_size, aspect=runtime.bundle.manifest.image_aspect)
            parts = [language.embed(np.array(part, np.int64)) for part in (ids[:at], ids[at + 1 :])]
            prompt = np.concatenate([parts[0], runtime.vision.encode(pixels[None])[0], parts[1]])
            cache = language.new_cache(1, len(prompt) + 80)
            read.append((number == 0, cache, language.forward(prompt[None], cache)[0, -1], len(prompt)))
    ways: dict[str, Draft | None] = {"one by one": None}
    for k in (1, 2, 3, 5, 31):
        ways[f"previous caption, {k} ahead"] = lambda said, old, k=k: same_place(said, old, k)
        ways[f"n-gram of it, {k} ahead"] = lambda said, old, k=k: lookup(said, old, k)
    texts: dict[str, list[list[int]]] = {}
    times: dict[str, list[float]] = {way: [] for way in ways}
    counts: dict[str, tuple[int, int]] = {}
    for _ in range(rounds):
        for way, draft in ways.items():
            texts[way], previous, runs, kept = [], [], 0, 0
            start = perf_counter()
            for first, cache, logits, length in read:
                cache.truncate(length)
                previous = [] if first else previous
                said, ran, hit = greedy(language, cache, logits, stop, draft, previous)
                texts[way].append(said)
                previous, runs, kept = said, runs + ran, kept + hit
            times[way].append(perf_counter() - start)
            counts[way] = (runs, kept)
    plain = texts["one by one"]
    tokens = sum(map(len, plain))
    same = sum(
        a == b for i, (a, b) in enumerate(zip(plain[1:], plain, strict=False), 1) if not read[i][0]
    ) / max(1, len(plain) - scenes)
    base = statistics.median(times["one by one"])
    return {
        "captions": len(plain),
        "tokens": tokens,
        "same_as_previous": same,
        "ways": {
            way: {
                "tokens_per_run": (tokens - len(plain)) / counts[way][0],
                "equal": texts[way] == plain,
                "speed": base / statistics.median(times[way]),
            }
            for way in ways
        },
    }


def cost(runtime: Runtime, rounds: int) -> dict[str, float]:
    """Seconds of a run of k tokens after 196, relative to k = 1; medians of interleaved rounds."""
    language, rng = runtime.language, np.random.default_rng(0)
    cache = language.new_cache(1, 256)
    language.forward(rng.normal(0, 0.02, (1, 196, language.hidden_size)).astype(np.float32), cache)
    sizes = (1, 2, 3, 4, 6, 8, 16, 32)
    times: dict[int, list[float]] = {k: [] for k in sizes}
    for _ in range(rounds):
        for k in sizes:
            cache.truncate(196)
            tokens = rng.normal(0, 0.02, (1, k, language.hidden_size)).astype(np.float32)
            start = perf_counter()
            language.forward(tokens, cache, num_logits=k)
            times[k].append(perf_counter() - start)
    medians = {k: statistics.median(values) for k, values in times.items()}
    tokens = rng.normal(0, 0.02, (1, 4, language.hidden_size)).astype(np.float32)
    cache.truncate(196)
    together = language.forward(tokens, cache, num_logits=4)[0]
    cache.truncate(196)
    alone = np.stack([language.forward(tokens[:, i : i + 1], cache)[0, 0] for i in range(4)])
    return {
        "ms": medians[1] * 1e3,
        **{str(k): medians[k] / medians[1] for k in sizes},
        "logits_differ_by": float(np.abs(together - alone).max()),
    }


def main() -> None:
    """Prints JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["nano", "cost"])
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--frames", type=int, default=10)
    parser.add_argument("--step", type=float, default=0.5, help="seconds of the scene between two frames")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    runtime = load_runtime(args.bundle, threads=args.threads)
    if args.what == "nano":
        found = captions(runtime, args.scenes, args.frames, args.step, args.rounds)
    else:
        found = dict(cost(runtime, args.rounds))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
