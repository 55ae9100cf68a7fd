# SPDX-License-Identifier: Apache-2.0
"""One engine in a process of its own, for comparisons: reads questions as JSON lines, answers with seconds.

    python -m mobilevlm_ros.evaluation.latency.contender ours BUNDLE THREADS
    python -m mobilevlm_ros.evaluation.latency.contender llama.cpp MODEL.gguf MMPROJ.gguf THREADS

A line is {"picture": path of a PNG, "question", "tokens"}; the reply {"seconds", "tokens", "text"}, from the
encoded picture to the last token, of which there are as many as asked for, whatever the model would say. The
first line out is {"load": seconds}, and after the end of the input comes {"peak": bytes}.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

from mobilevlm_ros.evaluation.latency.measure import peak_memory
from mobilevlm_ros.processing.prompt_template import TEMPLATES, image_question

Ask = Callable[[bytes, str, int], str]
"""Answers a question about an encoded picture with so many tokens."""

_KV_BUDGET = 256 << 20
_PATIENCE = 300.0  # seconds for llama.cpp's server to load


def ours(bundle: str, threads: str) -> Ask:
    """This package's engine, with its prefix cache, greedy."""
    from mobilevlm_ros.engine.greedy import decode_greedily
    from mobilevlm_ros.engine.runtime import load_runtime
    from mobilevlm_ros.inference.cache.prefill import Prefiller, prefill_chunk
    from mobilevlm_ros.inference.prompt.image_views import ImageInput
    from mobilevlm_ros.inference.stopwatch import Stopwatch
    from mobilevlm_ros.processing.image import prepare
    from mobilevlm_ros.processing.image_decoder import decode_image
    from mobilevlm_ros.processing.tokenizer import IMAGE_TOKEN

    runtime = load_runtime(bundle, threads=int(threads))
    manifest, language = runtime.bundle.manifest, runtime.language
    prefiller = Prefiller(runtime.vision, language, _KV_BUDGET, prefill_chunk(runtime))

    def ask(picture: bytes, question: str, tokens: int) -> str:
        frame = decode_image(picture, "the picture")
        shown = prepare(frame, manifest.image_size, aspect=manifest.image_aspect, fast=True)
        digest = hashlib.blake2b(shown.tobytes(), digest_size=16).digest()
        text = TEMPLATES[manifest.template].render([(image_question(question), None)])
        ids = runtime.tokenizer.encode_prompt(text)
        prompt = tuple(digest if i == IMAGE_TOKEN else i for i in ids)
        steps = prefiller.read(prompt, (ImageInput(shown, digest),), tokens, Stopwatch())
        try:
            while True:
                next(steps)
        except StopIteration as end:
            read = end.value
        said, _ = decode_greedily(language, read.cache, read.logits, (), tokens)
        return runtime.tokenizer.decode(said)

    return ask


def llama_cpp(model: str, mmproj: str, threads: str) -> Ask:
    """llama.cpp's server and multimodal library, from the wheel xllamacpp, greedy, its prompt cache on."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path, parameters.mmproj.path = model, mmproj
    parameters.n_ctx, parameters.n_parallel = 2048, 1
    if int(threads):
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = int(threads)
    server = xllamacpp.Server(parameters)  # it stops when nobody holds it: `ask` does
    marker = _media_marker(server.listening_address)

    def ask(picture: bytes, question: str, tokens: int) -> str:
        text = TEMPLATES["v1"].render([(image_question(question), None)])
        request = {
            "prompt": {
                "prompt_string": text.replace("<image>", marker),
                "multimodal_data": [base64.b64encode(picture).decode()],
            },
            "n_predict": tokens,
            "temperature": 0,
            "ignore_eos": True,
            "cache_prompt": True,
        }
        post = urllib.request.Request(
            f"{server.listening_address}/completion",
            json.dumps(request).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(post) as reply:  # nosec B310
            return str(json.load(reply)["content"])

    return ask


def _media_marker(address: str) -> str:
    """What stands for a picture in a prompt, once the server listens; it says where before it does."""
    end = perf_counter() + _PATIENCE
    while True:
        try:
            with urllib.request.urlopen(f"{address}/props") as answer:  # nosec B310: ours, on this machine
                return str(json.load(answer)["media_marker"])
        except urllib.error.URLError:  # HTTP 503 while it loads, too
            if perf_counter() > end:
                raise
        sleep(0.01)


def main(arguments: list[str]) -> None:
    """Serves one engine until the end of the input."""
    told = sys.stdout
    before = perf_counter()
    engine, *words = arguments
    ask = ours(*words) if engine == "ours" else llama_cpp(*words)
    _say(told, {"load": perf_counter() - before})
    for line in sys.stdin:
        request = json.loads(line)
        picture = Path(request["picture"]).read_bytes()
        start = perf_counter()
        text = ask(picture, request["question"], request["tokens"])
        _say(told, {"seconds": perf_counter() - start, "tokens": request["tokens"], "text": text})
    _say(told, {"peak": peak_memory()})
    os._exit(0)  # llama.cpp's server has no way to end


def _say(stream: Any, message: dict[str, Any]) -> None:
    stream.write(json.dumps(message) + "\n")
    stream.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
