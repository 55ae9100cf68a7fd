# SPDX-License-Identifier: Apache-2.0
"""How cost grows: decoding with the context, prefill with the prompt, memory with the sessions.

    python benchmarks/speed/growth.py -o benchmarks/results/growth      # a small model, context 8192
    python benchmarks/speed/growth.py --bundle ~/bundle -o growth

One thread; times are the process's own processor seconds, so a busy machine stretches them less than wall
time would. Embeddings are random: what is said does not change what it costs. Writes
OUTPUT.json and OUTPUT.png.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tqdm import tqdm

from mobilevlm_ros.checkpoints.random_weights import CONFIGS, write_random_checkpoint
from mobilevlm_ros.engine.interfaces import KVCache, LanguageEngine
from mobilevlm_ros.engine.runtime import load_runtime, shipped_bundle
from mobilevlm_ros.evaluation.latency.measure import machine
from mobilevlm_ros.export.builder import build_bundle
from mobilevlm_ros.inference.cache.prefill import PREFILL_CHUNK
from mobilevlm_ros.model.config import LanguageConfig
from mobilevlm_ros.processing.tokenizer import TOKENIZER

CONTEXTS = (128, 256, 512, 1024, 2048, 4096, 6144, 8160)
PROMPTS = (64, 128, 256, 512, 1024, 2048, 4096)
SESSIONS = (0, 1, 2, 4, 8, 16, 32)
SESSION_LENGTH = 512
SMALL = LanguageConfig(
    hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8,
    num_key_value_heads=8, vocab_size=704, max_position_embeddings=8192,
)  # fmt: skip


def main() -> None:
    """Measures, prints, writes and draws."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bundle", type=Path, help="default: a small one of random weights, context 8192")
    parser.add_argument("--repeats", type=int, default=12, help="tokens decoded at each length (default: 12)")
    parser.add_argument("-o", "--output", type=Path, help="without suffix")
    args = parser.parse_args()
    with _bundle(args.bundle) as path:
        runtime = load_runtime(path, threads=1)
        language, manifest = runtime.language, runtime.bundle.manifest
        memory = _memory(language)  # first: what other measurements leave behind would hide it
        decode = _decode(language, args.repeats)
        result = {
            "command": shlex.join(["python", *sys.argv]),
            "machine": machine(),
            "versions": {"python": platform.python_version(), "onnxruntime": onnxruntime.__version__},
            "model": {"layers": manifest.num_layers, "hidden_size": manifest.hidden_size,
                      "kv_bytes_per_token": _kv_bytes(language)},
            "decode": decode,
            "prefill": _prefill(language),
            "memory": memory,
        }  # fmt: skip
    print(json.dumps({key: result[key] for key in ("model", "decode", "prefill", "memory")}, indent=1))
    if args.output is not None:
        args.output.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        _draw(result, args.output.with_suffix(".png"))


@contextmanager
def _bundle(path: Path | None) -> Iterator[Path]:
    if path is not None:
        yield path
        return
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        config = replace(CONFIGS["tiny"], language=SMALL)
        write_random_checkpoint(config, work / "checkpoint", shipped_bundle() / TOKENIZER)
        yield build_bundle(work / "checkpoint", work / "bundle").path


def _decode(language: LanguageEngine, repeats: int) -> list[dict[str, float]]:
    """Milliseconds of one token behind each context."""
    cache, rows = language.new_cache(), []
    for length in tqdm(
        [n for n in CONTEXTS if n + repeats <= language.max_length], desc="decode", disable=None
    ):
        _read(language, cache, length - cache.length)
        times = []
        for token in _random(language, repeats):
            start = process_time()
            language.forward(token[None, None], cache)
            times.append(process_time() - start)
        cache.truncate(length)
        rows.append({"context": length, "ms": 1e3 * median(times)})
    return rows


def _prefill(language: LanguageEngine) -> list[dict[str, float]]:
    """Seconds of a prompt of each length, the lesser of two."""
    rows = []
    for length in tqdm([n for n in PROMPTS if n <= language.max_length], desc="prefill", disable=None):
        times = []
        for _ in range(2):
            cache = language.new_cache(capacity=length)
            start = process_time()
            _read(language, cache, length)
            times.append(process_time() - start)
        rows.append({"prompt": length, "seconds": min(times)})
    return rows


def _memory(language: LanguageEngine) -> list[dict[str, float]]:
    """Resident MiB with so many conversations of SESSION_LENGTH tokens kept, beside what their caches say."""
    first = language.new_cache(capacity=SESSION_LENGTH)
    _read(language, first, SESSION_LENGTH)
    kept: list[KVCache] = []
    rows = []
    for count in SESSIONS:
        while len(kept) < count:
            kept.append(first.copy())
        said = sum(cache.nbytes for cache in kept)
        rows.append({"sessions": count, "resident_mib": _resident(), "caches_mib": said / 2**20})
    return rows


def _read(language: LanguageEngine, cache: KVCache, count: int) -> None:
    for start in range(0, count, PREFILL_CHUNK):
        language.forward(_random(language, min(PREFILL_CHUNK, count - start))[None], cache, num_logits=0)


def _random(language: LanguageEngine, count: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((count, language.hidden_size)).astype(np.float32) / 50


def _kv_bytes(language: LanguageEngine) -> int:
    return language.new_cache(capacity=1024).nbytes // 1024


def _resident() -> float:
    text = Path("/proc/self/statm").read_text(encoding="ascii")
    return int(text.split()[1]) * 4096 / 2**20


def _draw(result: dict[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    panels = figure.subplots(1, 3)
    for axes, rows, x, y, title in (
        (panels[0], result["decode"], "context", "ms", "one token, ms"),
        (panels[1], result["prefill"], "prompt", "seconds", "prompt, s"),
        (panels[2], result["memory"], "sessions", "resident_mib", "resident memory, MiB"),
    ):
        axes.plot([row[x] for row in rows], [row[y] for row in rows], marker="o")
        axes.set(xlabel=f"{x}, tokens" if x != "sessions" else "sessions kept", title=title)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
