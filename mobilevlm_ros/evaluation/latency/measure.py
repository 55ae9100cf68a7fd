# SPDX-License-Identifier: Apache-2.0
"""The latency table of the MobileVLM paper (arXiv 2312.16886), for the machine that this runs on."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.engine.runtime import Runtime
from mobilevlm_ros.engine.splice import splice
from mobilevlm_ros.errors import ContextOverflow, OptionError
from mobilevlm_ros.inference.generation.sampling import Sampler
from mobilevlm_ros.processing.image import prepare
from mobilevlm_ros.processing.prompt_template import TEMPLATES, image_question

QUESTION = "What is in the image?"
FRAME = (480, 640, 3)
"""Shape of the picture, u8 RGB: what most cameras send by default."""


@dataclass(frozen=True)
class LatencyReport:
    """What one answer takes. Times in seconds; of repeated work the median."""

    model: str
    backend: str
    machine: str
    threads: int
    """0: one for each physical core."""
    model_bytes: int
    """Of the bundle's files, those for other backends included."""
    load: float
    encode: float
    """Preprocessing, encoder and projector, for one picture of FRAME."""
    prompt_tokens: int
    prompt: float
    """Prefill of the whole prompt, nothing reused."""
    tokens: int
    """Tokens of the answer."""
    decode: float
    """The decoder's part of them."""
    sample: float
    """Choosing them, greedily."""
    peak_bytes: int
    """Greatest resident memory of this process, the interpreter included; 0 where it is not known."""

    @property
    def prompt_rate(self) -> float:
        """Prompt tokens per second."""
        return self.prompt_tokens / self.prompt

    @property
    def decode_rate(self) -> float:
        """Answer tokens per second, less the choosing."""
        return self.tokens / self.decode

    @property
    def sample_rate(self) -> float:
        """Tokens chosen per second."""
        return self.tokens / self.sample

    @property
    def total(self) -> float:
        """From a new picture to the end of the answer."""
        return self.encode + self.prompt + self.decode + self.sample

    def as_dict(self) -> dict[str, Any]:
        """Everything for JSON, the rates and the total included."""
        rates = {name: getattr(self, name) for name in ("prompt_rate", "decode_rate", "sample_rate", "total")}
        return {**asdict(self), **rates}

    def table(self) -> str:
        """One value a line, with its unit."""
        rows = [
            ("model", self.model),
            ("backend", f"{self.backend}, {self.threads or 'as many threads as physical cores'}"),
            ("machine", self.machine),
            ("model size", f"{self.model_bytes / 1e6:.1f} MB"),
            ("load", f"{self.load:.2f} s"),
            ("encode a picture", f"{self.encode * 1e3:.1f} ms"),
            ("prompt eval", f"{self.prompt_rate:.1f} tokens/s ({self.prompt_tokens} tokens)"),
            ("decode", f"{self.decode_rate:.1f} tokens/s ({self.tokens} tokens)"),
            ("sample", f"{self.sample_rate:.0f} tokens/s"),
            (f"total for {self.tokens} tokens", f"{self.total:.2f} s"),
            ("peak memory", f"{self.peak_bytes / 2**20:.0f} MiB" if self.peak_bytes else "unknown"),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def measure(
    load: Callable[[], Runtime],
    *,
    tokens: int = 256,
    repeats: int = 3,
    threads: int = 0,
    progress: Callable[[str], object] = lambda stage: None,
) -> LatencyReport:
    """Loads a model and times each stage of an answer about a picture of noise.

    The answer goes on for `tokens` tokens whatever the model says. `threads` is only reported.
    Encoding and prefill are repeated `repeats` times after one that does not count. `progress` is called with
    each stage's name.
    Raises OptionError for counts below 1, ContextOverflow when prompt and answer do not fit the model's
    context, and what `load` raises.
    """
    if tokens < 1 or repeats < 1:
        raise OptionError(f"tokens ({tokens}) and repeats ({repeats}) must be 1 or more")
    progress("load")
    before = perf_counter()
    runtime = load()
    loaded = perf_counter() - before
    language = runtime.language

    progress("encode")
    frame = np.random.default_rng(0).integers(0, 256, FRAME, dtype=np.uint8)
    image, encode = _timed(lambda: _encode(runtime, frame), repeats)
    prompt = _prompt(runtime, image)
    if len(prompt) + tokens > language.max_length:
        raise ContextOverflow(
            f"{len(prompt)} tokens of prompt and {tokens} of answer do not fit the model's context of "
            f"{language.max_length}; measure with at most {language.max_length - len(prompt)} tokens"
        )

    progress("prompt")

    def prefill() -> NDArray[np.float32]:
        return language.forward(prompt[None], language.new_cache(capacity=len(prompt)))[0, -1]

    logits, prefilled = _timed(prefill, repeats)

    progress("decode")
    cache = language.new_cache(capacity=len(prompt) + tokens)
    logits = language.forward(prompt[None], cache)[0, -1]
    sampler, decode, sample = Sampler(), 0.0, 0.0
    for _ in range(tokens):
        start = perf_counter()
        token = sampler.pick(logits).token
        chosen = perf_counter()
        logits = language.forward(language.embed(np.array([token]))[None], cache)[0, -1]
        sample += chosen - start
        decode += perf_counter() - chosen
    return LatencyReport(
        model=runtime.bundle.manifest.name,
        backend=runtime.backend_name,
        machine=machine(),
        threads=threads,
        model_bytes=sum(entry["bytes"] for entry in runtime.bundle.manifest.files.values()),
        load=loaded,
        encode=encode,
        prompt_tokens=len(prompt),
        prompt=prefilled,
        tokens=tokens,
        decode=decode,
        sample=sample,
        peak_bytes=peak_memory(),
    )


def machine() -> str:
    """Processor, number of cores, system."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    # Arm's cpuinfo has no model name; boards have a device tree.
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    name = next(names, "") or _board() or platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"


def _board() -> str:
    try:
        return Path("/proc/device-tree/model").read_text(encoding="utf-8").strip("\0\n ")
    except (OSError, UnicodeDecodeError):
        return ""


def peak_memory() -> int:
    """Greatest resident set so far, bytes (Linux), or 0."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def _encode(runtime: Runtime, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    pixels = prepare(frame, runtime.vision.image_size, aspect=runtime.bundle.manifest.image_aspect, fast=True)
    return runtime.vision.encode(pixels[None])[0]


def _prompt(runtime: Runtime, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Embeddings f32 [T, H] of the model's own prompt about a picture."""
    text = TEMPLATES[runtime.bundle.manifest.template].render([(image_question(QUESTION), None)])
    ids = runtime.tokenizer.encode_prompt(text)
    embeddings, _ = splice(ids, image, runtime.language.embed)
    return embeddings


def _timed(work: Callable[[], NDArray[np.float32]], repeats: int) -> tuple[NDArray[np.float32], float]:
    """Result and median seconds of `work`, after a run that does not count: it allocates."""
    result = work()
    seconds = []
    for _ in range(repeats):
        before = perf_counter()
        result = work()
        seconds.append(perf_counter() - before)
    return result, median(seconds)
