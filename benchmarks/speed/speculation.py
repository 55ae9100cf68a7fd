# SPDX-License-Identifier: Apache-2.0
"""What drafting captions (inference/generation/prompt_lookup.py) gains, and whether it changes anything.

    python benchmarks/speed/speculation.py cost BUNDLE > cost.json     # a run of k tokens, at any shape
    python benchmarks/speed/speculation.py moving --cost cost.json     # captions of simulated scenes
    python benchmarks/speed/speculation.py replay BUNDLE               # a draft that is right to some part

`moving` has nano caption frames one after another as the node does, three times: with the caption before as a
draft, with an empty draft, and as a plain question (one token at a time); it compares texts, confidences and
times, and says what they would be if runs cost what they do in the bundle of `--cost`.
`replay` writes an answer of 64 tokens to random pictures with drafts of which a given part is wrong: with
random weights no two pictures have captions alike, so the part is set and not found.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mobilevlm_ros.engine.interfaces import KVCache, LanguageEngine
from mobilevlm_ros.engine.runtime import Runtime, load_runtime
from mobilevlm_ros.inference.assistant import CAPTION_PROMPT, Assistant
from mobilevlm_ros.inference.cache.prefill import PrefillResult
from mobilevlm_ros.inference.generation.decoding import AnswerDecoder, Generation, decode
from mobilevlm_ros.inference.generation.prompt_lookup import DRAFT_LENGTHS, Draft, is_length_invariant
from mobilevlm_ros.inference.steps import Steps
from mobilevlm_ros.inference.stopwatch import Stopwatch
from mobilevlm_ros.inference.types import Answer, Frame, Request, SamplingParams
from mobilevlm_ros.simulation.render import clearly_visible, observe
from mobilevlm_ros.simulation.scene import Scene
from mobilevlm_ros.simulation.scene_sampler import sample_scene

FIRST_SEED = 7_500_000
PROMPT = 196
TOKENS = 64
WRONG = (0.0, 0.1, 0.2, 0.4, 1.0)
"""Parts of a draft that are replaced by other tokens."""


def frames(scenes: int, each: int, change: float) -> Iterator[Frame]:
    """Pictures, half a second apart, of scenes that change: one camera sees them all, so each scene is a cut.

    `change` is how likely, from one picture to the next, a thing gives way to another thing somewhere else.
    """
    rng = np.random.default_rng(0)
    for seed in range(FIRST_SEED, FIRST_SEED + scenes):
        scene = sample_scene(seed)
        for number in range(each):
            if number and rng.random() < change:
                scene = changed(scene, rng)
            yield Frame(observe(scene, number * 0.5, 640, 480).image, camera="front")


def changed(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene with one of its things gone and one of another scene's there instead."""
    while True:
        others = sample_scene(int(rng.integers(1 << 20)) + FIRST_SEED).things
        if others:
            new = (*scene.things[: len(scene.things) - 1], others[int(rng.integers(len(others)))])
            found = replace(scene, things=tuple(new[at] for at in rng.permutation(len(new))))
            if clearly_visible(found):
                return found


def moving(
    runtime: Runtime, change: float, scenes: int, each: int, rounds: int, costs: dict[str, float]
) -> dict[str, object]:
    """Texts, equality and decoding time of each way; medians of interleaved rounds."""
    request = Request(CAPTION_PROMPT)
    runtime = replace(runtime, language=_Counting(runtime.language))
    assistant = Assistant(runtime)
    pictures = list(frames(scenes, each, change))
    ways: dict[str, Callable[[Frame, str], Answer]] = {
        "drafted": lambda frame, turn: finish(assistant.caption(replace(frame, camera=turn.split(".")[0]))),
        "empty draft": lambda frame, turn: finish(assistant.caption(replace(frame, camera=turn))),
        "one by one": lambda frame, turn: assistant.ask(frame, request),
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    runs: dict[str, list[int]] = {way: [] for way in ways}
    for number in range(rounds):
        found: dict[str, list[Answer]] = {way: [] for way in ways}
        for at, frame in enumerate(pictures):
            for way, caption in ways.items():
                assistant.forget()  # so that each reads the same prompt
                runtime.language.runs.clear()
                found[way].append(caption(frame, f"{number}.{at}"))
                runs[way] += runtime.language.runs if at else []
        for way, answers in found.items():
            times[way].append(sum(answer.latency.decode for answer in answers[1:]))
    steps = sum(size == 1 for size in runs["one by one"])
    texts = [answer.text for answer in found["drafted"]]
    taken = {
        way: sum(costs[str(size)] for size in sizes if size <= DRAFT_LENGTHS[-1])
        for way, sizes in runs.items()
    }
    return {
        "chance_of_a_change": change,
        "captions": len(pictures),
        "same_as_the_one_before": np.mean([a == b for a, b in zip(texts[1:], texts, strict=False)]),
        "equal_to_those_with_an_empty_draft": [
            (a.text, a.confidence) == (b.text, b.confidence)
            for a, b in zip(found["drafted"], found["empty draft"], strict=True)
        ].count(True),
        "texts_equal_to_one_by_one": [
            a.text == b.text for a, b in zip(found["drafted"], found["one by one"], strict=True)
        ].count(True),
        "tokens_per_run": {
            way: steps / sum(size <= DRAFT_LENGTHS[-1] for size in sizes) for way, sizes in runs.items()
        },
        "speed": {way: median(times["one by one"]) / median(seconds) for way, seconds in times.items()},
        "speed_at_that_cost": {way: taken["one by one"] / seconds for way, seconds in taken.items()},
    }


def finish(steps: Steps) -> Answer:
    """The answer at the end."""
    try:
        while True:
            next(steps)
    except StopIteration as end:
        answer: Answer = end.value
        return answer


def cost(runtime: Runtime, rounds: int) -> dict[str, object]:
    """Time of a run of k tokens after a prompt, beside one; how far logits are from those of pairs."""
    language, rng = runtime.language, np.random.default_rng(0)
    cache = language.new_cache(1, PROMPT + 64)
    language.forward(rng.normal(0, 0.02, (1, PROMPT, language.hidden_size)).astype(np.float32), cache)
    sizes = (1, 2, 3, 4, 6, 8, 16)
    times: dict[int, list[float]] = {k: [] for k in sizes}
    for _ in range(rounds):
        for k in sizes:
            cache.truncate(PROMPT)
            tokens = rng.normal(0, 0.02, (1, k, language.hidden_size)).astype(np.float32)
            start = perf_counter()
            language.forward(tokens, cache, num_logits=k)
            times[k].append(perf_counter() - start)
    tokens = rng.normal(0, 0.02, (1, 48, language.hidden_size)).astype(np.float32)
    logits = {}
    for k in sizes:
        cache.truncate(PROMPT)
        parts = [tokens[:, at : at + k] for at in range(0, 48, k)]
        logits[k] = np.concatenate([language.forward(part, cache, part.shape[1])[0] for part in parts])
    return {
        "ms": median(times[1]) * 1e3,
        "times_one_token": {k: median(values) / median(times[1]) for k, values in times.items()},
        "logits_differ_from_pairs_by": {k: float(np.abs(logits[k] - logits[2]).max()) for k in sizes},
    }


def replay(runtime: Runtime, prompts: int) -> dict[str, object]:
    """Speed with drafts of which a part is wrong, beside one token at a time; what differs in the answers."""
    language, rng = runtime.language, np.random.default_rng(0)
    ways = [None, *WRONG]
    times: dict[float | None, list[float]] = {way: [] for way in ways}
    runs: dict[float | None, int] = dict.fromkeys(ways, 0)
    differ = dict.fromkeys(ways, 0)
    alike = True
    for _ in range(prompts):
        cache = language.new_cache(1, PROMPT + TOKENS + DRAFT_LENGTHS[-1])
        prompt = rng.normal(0, 0.02, (1, PROMPT, language.hidden_size)).astype(np.float32)
        read = PrefillResult((), cache, language.forward(prompt, cache)[0, -1], PROMPT, 0)
        alike = alike and is_length_invariant(language, cache)
        exact = write(runtime, read, Draft())[0]
        for way in ways:
            draft = None
            if way is not None:
                draft = Draft()
                wrong = rng.random(TOKENS) < way
                other = rng.integers(3, language.vocab_size, TOKENS)
                draft.remember(np.where(wrong, other, exact.tokens).tolist())
            written, seconds, count = write(runtime, read, draft)
            times[way].append(seconds)
            runs[way] += count
            differ[way] += written != exact
    names = {way: "one by one" if way is None else f"{way:.0%} wrong" for way in ways}
    return {
        "runs_alike": alike,
        "prompts": prompts,
        "tokens_per_run": {names[w]: prompts * (TOKENS - 1) / runs[w] for w in ways},
        "speed": {names[w]: median(times[None]) / median(times[w]) for w in ways},
        "answers_that_differ_from_those_in_pairs": {names[w]: differ[w] for w in ways},
    }


def write(runtime: Runtime, read: PrefillResult, draft: Draft | None) -> tuple[Generation, float, int]:
    """An answer of TOKENS tokens, its seconds, and the decoder's runs."""
    read.cache.truncate(PROMPT)
    writer = AnswerDecoder(SamplingParams(max_tokens=TOKENS), runtime.tokenizer, (), TOKENS)
    language = _Counting(runtime.language)
    steps = decode(read, writer, language, Stopwatch(), draft)
    start = perf_counter()
    try:
        while True:
            next(steps)
    except StopIteration as end:
        return end.value, perf_counter() - start, len(language.runs)


class _Counting:
    """An engine that takes note of how many tokens each run reads."""

    def __init__(self, language: LanguageEngine) -> None:
        self._language = language
        self.runs: list[int] = []

    def forward(self, embeddings: np.ndarray, cache: KVCache, num_logits: int = 1) -> np.ndarray:
        """See LanguageEngine."""
        self.runs.append(embeddings.shape[1])
        return self._language.forward(embeddings, cache, num_logits)

    def __getattr__(self, name: str) -> object:
        return getattr(self._language, name)


def main() -> None:
    """Prints JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["moving", "cost", "replay"])
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--scenes", type=int, default=10)
    parser.add_argument("--frames", type=int, default=8, help="of each scene")
    parser.add_argument("--change", type=float, default=0.3, help="chance that a frame shows something new")
    parser.add_argument("--prompts", type=int, default=5, help="of `replay`")
    parser.add_argument("--cost", type=Path, help="of `moving`: what `cost` has printed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    runtime = load_runtime(args.bundle, threads=args.threads)
    if args.what == "moving":
        costs = json.loads(args.cost.read_text()) if args.cost else cost(runtime, args.rounds)
        costs = {str(size): value for size, value in costs["times_one_token"].items()}
        found = moving(runtime, args.change, args.scenes, args.frames, args.rounds, costs)
    elif args.what == "cost":
        found = cost(runtime, args.rounds)
    else:
        found = replay(runtime, args.prompts)
    print(json.dumps(found, indent=1, default=float))


if __name__ == "__main__":
    main()
