# SPDX-License-Identifier: Apache-2.0
"""The exported GGUF files in llama.cpp itself, beside the PyTorch definition."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from mobilevlm_ros.engine.interfaces import LanguageEngine
from mobilevlm_ros.engine.runtime import load_runtime
from mobilevlm_ros.processing.prompt_template import TEMPLATES, image_question
from mobilevlm_ros.processing.tokenizer import IMAGE_TOKEN

pytest.importorskip("xllamacpp", reason="llama.cpp in a wheel (pip install xllamacpp) is not installed")
pytest.importorskip("gguf", reason="comes with the extra `build`")

from mobilevlm_ros.checkpoints.gguf.writer import export_gguf

# A process of its own: the server has no way to end.
SERVER = """
import json, os, sys, urllib.request
import xllamacpp
request = json.load(sys.stdin)
parameters = xllamacpp.CommonParams()
parameters.model.path, parameters.mmproj.path = sys.argv[1:3]
parameters.n_ctx, parameters.n_parallel, parameters.warmup = 1024, 1, False
parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(parameters)
with urllib.request.urlopen(server.listening_address + "/props") as answer:
    marker = json.load(answer)["media_marker"]
request["prompt"]["prompt_string"] = request["prompt"]["prompt_string"].replace("<image>", marker)
data = json.dumps(request).encode()
headers = {"Content-Type": "application/json"}
post = urllib.request.Request(server.listening_address + "/completion", data, headers)
with urllib.request.urlopen(post) as answer:
    sys.stdout.write(answer.read().decode())
sys.stdout.flush()
os._exit(0)
"""


def greedy(language: LanguageEngine, prompt: np.ndarray, count: int) -> list[int]:
    cache = language.new_cache()
    row = language.forward(prompt[None], cache)[0, -1]
    ids: list[int] = []
    for _ in range(count):
        ids.append(int(row.argmax()))
        row = language.forward(language.embed(np.array(ids[-1:]))[None], cache)[0, -1]
    return ids


@pytest.mark.parametrize("checkpoint", ["tiny-ldpnet", "tiny-ldpnetv2"])
def test_llama_cpp_gives_the_same_greedy_ids(parity: Path, tmp_path: Path, checkpoint: str):
    files = export_gguf(parity / "ckpt" / checkpoint, tmp_path, type_name="f16")
    # Already square and of the model's size, so that the two resizing filters play no part.
    noise = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    picture = cv2.resize(noise, (336, 336), interpolation=cv2.INTER_CUBIC)
    text = TEMPLATES["v1"].render([(image_question("Who is the author?"), None)])

    runtime = load_runtime(parity / "ckpt" / checkpoint, "torch", threads=1)
    ids = runtime.tokenizer.encode_prompt(text)
    at = ids.index(IMAGE_TOKEN)
    parts = [
        runtime.language.embed(np.array(ids[:at])),
        runtime.vision.encode(picture[None])[0],
        runtime.language.embed(np.array(ids[at + 1 :])),
    ]
    prompt = np.concatenate(parts)

    png = cv2.imencode(".png", picture[..., ::-1])[1].tobytes()
    request = {
        "prompt": {"prompt_string": text, "multimodal_data": [base64.b64encode(png).decode()]},
        "n_predict": 10,
        "temperature": 0,
        "return_tokens": True,
    }
    command = [sys.executable, "-c", SERVER, *map(str, files)]
    result = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stderr[-2000:]
    answer = json.loads(result.stdout)
    assert answer["tokens_evaluated"] == len(prompt)
    assert answer["tokens"] == greedy(runtime.language, prompt, 10)
