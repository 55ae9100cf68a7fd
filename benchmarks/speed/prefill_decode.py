# SPDX-License-Identifier: Apache-2.0
"""Measures one language engine in this process: vs_llama_cpp.py starts it once per engine and round.

    python benchmarks/speed/prefill_decode.py ours BUNDLE PROMPT.npy --threads 2
    python benchmarks/speed/prefill_decode.py llama.cpp MODEL.gguf PROMPT.npy --threads 2

PROMPT.npy holds the prompt's embeddings f32 [T, H]; T-token prefill and then greedy decoding are timed, and
printed as JSON. Needs NumPy, and mobilevlm_ros or llama-cpp-python, not both.
"""

from __future__ import annotations

import argparse
import ctypes
import json
from pathlib import Path
from time import perf_counter
from typing import Protocol

import numpy as np


class Engine(Protocol):
    """A language model with one sequence."""

    def read(self, embeddings: np.ndarray) -> np.ndarray:
        """Logits f32 [V] after embeddings f32 [T, H], from an empty cache."""

    def step(self, token: int) -> np.ndarray:
        """Logits f32 [V] after one more token."""


class Ours:
    """A bundle's decoder on ONNX Runtime; the image encoder is not loaded."""

    def __init__(self, path: Path, threads: int, capacity: int, spin: bool) -> None:
        from mobilevlm_ros.engine.bundle import Bundle
        from mobilevlm_ros.engine.onnxruntime.backend import load_language

        self.engine = load_language(Bundle.open(path), threads=threads, spin=spin)
        self.capacity = capacity

    def read(self, embeddings: np.ndarray) -> np.ndarray:
        """See Engine."""
        self.cache = self.engine.new_cache(capacity=self.capacity)
        return self.engine.forward(embeddings[None], self.cache)[0, -1]

    def step(self, token: int) -> np.ndarray:
        """See Engine."""
        return self.engine.forward(self.engine.embed(np.array([token]))[None], self.cache)[0, -1]


class LlamaCpp:
    """llama.cpp through the ctypes bindings: the only ones that take embeddings."""

    def __init__(self, path: Path, threads: int, capacity: int) -> None:
        import llama_cpp

        self.lib = llama_cpp
        self._quiet = llama_cpp.llama_log_callback(lambda level, text, user: None)
        llama_cpp.llama_log_set(self._quiet, None)
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(
            str(path).encode(), llama_cpp.llama_model_default_params()
        )
        if not self.model:
            raise SystemExit(f"llama.cpp cannot load {path}")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = capacity
        params.n_threads = params.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))

    def read(self, embeddings: np.ndarray) -> np.ndarray:
        """See Engine."""
        lib, tokens = self.lib, len(embeddings)
        lib.llama_memory_clear(lib.llama_get_memory(self.context), True)
        batch = lib.llama_batch_init(tokens, embeddings.shape[1], 1)
        batch.n_tokens = tokens
        ctypes.memmove(batch.embd, np.ascontiguousarray(embeddings).ctypes.data, embeddings.nbytes)
        for i in range(tokens):
            batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = i, 1, 0
            batch.logits[i] = i == tokens - 1
        logits = self._decode(batch)
        lib.llama_batch_free(batch)
        return logits

    def step(self, token: int) -> np.ndarray:
        """See Engine."""
        return self._decode(self.lib.llama_batch_get_one((self.lib.llama_token * 1)(token), 1))

    def _decode(self, batch: object) -> np.ndarray:
        if self.lib.llama_decode(self.context, batch):
            raise SystemExit("llama_decode failed")
        row = self.lib.llama_get_logits_ith(self.context, -1)
        return np.ctypeslib.as_array(row, (self.vocab_size,)).copy()


def memory() -> dict[str, float]:
    """This process's peak and present resident memory, MiB; `anonymous` leaves mapped files out."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kib = {key: int(value.split()[0]) for key, _, value in (s.partition(":") for s in lines) if "kB" in value}
    names = {"peak": "VmHWM", "resident": "VmRSS", "anonymous": "RssAnon"}
    return {name: kib[key] / 1024 for name, key in names.items()}


def main() -> None:
    """Loads, warms up, measures, prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("engine", choices=("ours", "llama.cpp"))
    parser.add_argument("model", type=Path)
    parser.add_argument("prompt", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=64, help="to decode")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument(
        "--spin", action="store_true", help="ours: idle threads busy-wait (llama.cpp's always do)"
    )
    parser.add_argument("--logits", type=Path, help="write those after the prompt here, f32 [V]")
    args = parser.parse_args()
    prompt = np.load(args.prompt)
    capacity = len(prompt) + args.tokens

    before = perf_counter()
    engine: Engine = (
        Ours(args.model, args.threads, capacity, args.spin)
        if args.engine == "ours"
        else LlamaCpp(args.model, args.threads, capacity)
    )
    engine.read(prompt[:1])  # the first run allocates; llama.cpp also reads its file then
    load = perf_counter() - before

    engine.step(int(engine.read(prompt[:16]).argmax()))
    prefill, decode, ids = [], [], []
    for _ in range(args.repeats):
        before = perf_counter()
        logits = engine.read(prompt)
        prefill.append(perf_counter() - before)
        if args.logits is not None:
            np.save(args.logits, logits)
        ids = []
        before = perf_counter()
        for _ in range(args.tokens):
            ids.append(int(logits.argmax()))
            logits = engine.step(ids[-1])
        decode.append(perf_counter() - before)
    result = {"load": load, "prefill": prefill, "decode": decode, "ids": ids, "memory": memory()}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
