# SPDX-License-Identifier: Apache-2.0
"""Parity and speed on a GPU; see gpu.sh."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import platform
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from gpu_report import PROMPT_TOKENS, Card, Report, Row, decoder_bytes, encoder_flops

from mobilevlm_ros.engine.bundle import DECODER, Manifest
from mobilevlm_ros.engine.cuda.device import DRIVER, find_gpu
from mobilevlm_ros.engine.interfaces import LanguageEngine
from mobilevlm_ros.engine.runtime import ORT_CPU, ORT_CUDA, TENSORRT, Runtime, load_runtime, shipped_bundle
from mobilevlm_ros.engine.tensorrt import names
from mobilevlm_ros.errors import MobileVLMError
from mobilevlm_ros.model.config import MobileVLMConfig

_TOLERANCE = 0.05
"""Greatest difference of logits, of their greatest: 16 bits here, 8-bit activations in the CPU's engine."""


def median_ms(work: Callable[[], object], wait: Callable[[], object], repeats: int) -> float:
    """Median time of `work` with what it started on the device, after two runs that do not count."""
    times = []
    for index in range(repeats + 2):
        wait()
        started = time.perf_counter()
        work()
        wait()
        if index >= 2:
            times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times)


def memory_bandwidth() -> float:
    """Bytes per second by the driver's clock and width, two transfers per clock; 0 if it does not tell."""
    try:
        cuda = ctypes.CDLL(DRIVER)
        values = []
        for attribute in (
            36,
            37,
        ):  # CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE (kHz), GLOBAL_MEMORY_BUS_WIDTH (bits)
            value = ctypes.c_int()
            if cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, 0):
                return 0.0
            values.append(value.value)
        return 2.0 * values[0] * 1e3 * values[1] / 8
    except (OSError, AttributeError):
        return 0.0


def torch_card(name: str, device: str, tiny: bool) -> Card:
    """Measures the device's own limits with PyTorch."""
    import torch

    card = Card(name, memory_bandwidth() if device == "cuda" else 0.0)
    dtype = torch.float16 if device == "cuda" else torch.float32
    side = 256 if tiny else 8192
    a = torch.randn(side, side, device=device, dtype=dtype)
    milliseconds = median_ms(lambda: a @ a, _waiter(device), 10)
    card.matrix_rate = 2.0 * side**3 / (milliseconds / 1e3)
    source = torch.zeros(1 << (20 if tiny else 30), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    milliseconds = median_ms(lambda: target.copy_(source), _waiter(device), 10)
    card.copy_bandwidth = 2.0 * source.nbytes / (milliseconds / 1e3)
    if not card.bandwidth:
        card.bandwidth = card.copy_bandwidth
    return card


def _waiter(device: str) -> Callable[[], object]:
    import torch

    return torch.cuda.synchronize if device == "cuda" else lambda: None


def torch_row(name: str, config: MobileVLMConfig, device: str, tokens: int, repeats: int) -> Row:
    """PyTorch in 16 bits (32 on a CPU), with random weights; compared with the model read from scratch."""
    import torch

    from mobilevlm_ros.engine.torch.cuda_graph import GraphedDecoder
    from mobilevlm_ros.model.mobilevlm import MobileVLM

    dtype = torch.float16 if device == "cuda" else torch.float32
    torch.manual_seed(0)
    with torch.device(device):
        model = MobileVLM(config).to(dtype).eval()
        model.initialize()
    wait, language = _waiter(device), config.language
    prompt_tokens = min(PROMPT_TOKENS, language.context_length // 4)
    capacity = min(512, language.context_length)
    decoder = GraphedDecoder(model, capacity)
    with torch.inference_mode():
        prompt = torch.randn(1, prompt_tokens, language.hidden_size, device=device, dtype=dtype) * 0.02
        logits, ids, worst = decoder.prefill(prompt), [], 0.0
        for _ in range(8):
            token = int(logits.argmax())
            ids.append(token)
            logits = decoder.step(model.embed_tokens(torch.tensor([[token]], device=device)))
        # From scratch, in one piece: no fixed cache, no graph.
        whole = torch.cat([prompt, model.embed_tokens(torch.tensor([ids], device=device))], 1)
        exact = model.lm_head(model.hidden_states(whole)[0, prompt_tokens - 1 :]).float()
        worst = float((logits.float() - exact[-1]).abs().max() / exact[-1].abs().max())
        same = sum(int(a == b) for a, b in zip(ids, exact[:-1].argmax(-1).tolist()))
        size = config.vision.image_size
        pixels = torch.randn(1, 3, size, size, device=device, dtype=dtype)
        encode = median_ms(lambda: model.encode_images(pixels), wait, repeats)
        prefill = median_ms(lambda: decoder.prefill(prompt), wait, repeats)
        one = prompt[:, :1]
        decoder.prefill(prompt)
        wait()
        started = time.perf_counter()
        for _ in range(tokens):
            decoder.step(one)
        wait()
        decode = (time.perf_counter() - started) * 1e3 / tokens
    weight = torch.finfo(dtype).bits / 8
    return Row(
        name, f"torch {torch.__version__}", worst, f"{same}/{len(ids)}", encode, prefill, decode,
        decoder_bytes(language, capacity, weight), encoder_flops(config),
    )  # fmt: skip


def bundle_rows(path: Path, backends: list[str], tokens: int, repeats: int) -> list[Row]:
    """Each backend on one bundle, compared with ONNX Runtime on the CPU."""
    reference = load_runtime(path, ORT_CPU)
    return [_bundle_row(path, name, reference, tokens, repeats) for name in backends]


def _bundle_row(path: Path, backend: str, reference: Runtime, tokens: int, repeats: int) -> Row:
    manifest = reference.bundle.manifest
    row = Row(manifest.name, backend, 0, "", 0, 0, 0, 0, encoder_flops(_config(manifest)))
    try:
        runtime = load_runtime(path, backend)
    except MobileVLMError as error:
        row.problem = " ".join(str(error).split()).replace("|", "/")
        return row
    generator = np.random.default_rng(0)
    size = manifest.image_size
    pixels = generator.integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    prompt = reference.vision.encode(pixels)
    difference = _difference(runtime.vision.encode(pixels), prompt)
    exact, ids = greedy(reference.language, prompt, None, 16)
    given, own = greedy(runtime.language, prompt, ids, 16)
    row.difference = max(difference, _difference(given, exact))
    row.same_tokens = f"{sum(a == b for a, b in zip(ids, own))}/{len(ids)}"
    row.encode_ms = median_ms(lambda: runtime.vision.encode(pixels), lambda: None, repeats)
    language = runtime.language

    def prefill() -> None:
        language.forward(prompt, language.new_cache())

    row.prefill_ms = median_ms(prefill, lambda: None, repeats)
    cache = language.new_cache()
    language.forward(prompt, cache)
    token = prompt[:, :1]
    steps = min(tokens, language.max_length - cache.length - 4)
    for _ in range(3):
        language.forward(token, cache)
    started = time.perf_counter()
    for _ in range(steps):
        language.forward(token, cache)
    row.decode_ms = (time.perf_counter() - started) * 1e3 / steps
    # The 16-bit graph of ONNX Runtime shares the CPU decoder's weights.
    stored = {TENSORRT: (names.DECODER, names.DECODER_8), ORT_CUDA: (DECODER,), ORT_CPU: (DECODER,)}[backend]
    weights = next(
        manifest.files[f"{name}.data"]["bytes"] for name in stored if f"{name}.data" in manifest.files
    )
    cached = 2 * 2 * manifest.num_layers * manifest.num_kv_heads * manifest.head_dim * cache.length
    row.decode_bytes = weights + cached
    return row


def greedy(
    language: LanguageEngine, prompt: np.ndarray, follow: list[int] | None, count: int
) -> tuple[np.ndarray, list[int]]:
    """Logits [count, V] and best ids after a prompt [1, T, H]; `follow` are the ids to go on with."""
    cache, rows, ids = language.new_cache(), [], []
    logits = language.forward(prompt, cache)[0, -1]
    for index in range(count):
        rows.append(logits)
        ids.append(int(logits.argmax()))
        token = follow[index] if follow else ids[-1]
        logits = language.forward(language.embed(np.array([token]))[None], cache)[0, -1]
    return np.stack(rows), ids


def _difference(actual: np.ndarray, exact: np.ndarray) -> float:
    return float(np.abs(actual - exact).max() / np.abs(exact).max())


def _config(manifest: Manifest) -> MobileVLMConfig:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(manifest.model), encoding="utf-8")
        return MobileVLMConfig.from_directory(folder)


def nano_for_gpus(folder: Path) -> Path:
    """The shipped model, built once more with what GPUs need; as it is where that cannot be done."""
    checkpoint = Path(__file__).resolve().parents[2] / "models" / "nano"
    try:
        from mobilevlm_ros.export.builder import build_bundle
        from mobilevlm_ros.export.options import BuildOptions

        return build_bundle(
            checkpoint,
            folder / "nano",
            BuildOptions(vision_store="fp16", backends=("cuda", "tensorrt", "tensorrt8")),
        ).path
    except (ImportError, MobileVLMError) as error:
        print(f"the shipped bundle as it is, without TensorRT's decoder: {error}", file=sys.stderr)
        return shipped_bundle()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes: checks this script")
    parser.add_argument("--models", nargs="*", default=["MobileVLM_V2-1.7B", "MobileVLM_V2-3B"])
    parser.add_argument("--bundle", type=Path, action="append", default=[], help="may be repeated")
    parser.add_argument("--tokens", type=int, default=128, help="decoded for the timing")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parents[1] / "results")
    args = parser.parse_args()
    gpu = find_gpu()
    if args.device == "cuda" and gpu is None:
        print("gpu.sh: no NVIDIA GPU was found on this machine: nothing was measured", file=sys.stderr)
        return 2
    name = str(gpu) if args.device == "cuda" else f"CPU ({platform.machine()}), a check of the script"
    report = Report(Card(name, memory_bandwidth() if args.device == "cuda" else 0.0))
    _measure(report, args)
    for row in report.rows:
        row.rate(report.card)
    print(report.markdown())
    if not args.tiny:
        stem = args.output / f"gpu_{re.sub(r'[^a-z0-9]+', '_', name.lower()).strip('_')}"
        stem.parent.mkdir(parents=True, exist_ok=True)
        stem.with_suffix(".md").write_text(report.markdown(), encoding="utf-8")
        stem.with_suffix(".json").write_text(json.dumps(asdict(report), indent=1) + "\n", encoding="utf-8")
        print(f"written: {stem}.md, {stem}.json", file=sys.stderr)
    wrong = [row for row in report.rows if not row.problem and not row.difference < _TOLERANCE]
    for row in wrong:
        print(f"gpu.sh: {row.engine} on {row.model} is off by {row.difference:.1e}", file=sys.stderr)
    return 1 if wrong else 0


def _measure(report: Report, args: argparse.Namespace) -> None:
    from mobilevlm_ros.checkpoints.random_weights import CONFIGS

    models = ["tiny"] if args.tiny else args.models
    try:
        import torch

        ready = args.device == "cpu" or torch.cuda.is_available()
    except ImportError:
        ready = False
    if ready:
        report.card = torch_card(report.card.name, args.device, args.tiny)
        for model in models:
            report.rows.append(torch_row(model, CONFIGS[model], args.device, args.tokens, args.repeats))
            with contextlib.suppress(ImportError, AssertionError):
                torch.cuda.empty_cache()
    else:
        report.notes.append("PyTorch has no CUDA here: its rows and the card's measured limits are missing.")
    backends = [TENSORRT, ORT_CUDA, ORT_CPU] if args.device == "cuda" else [ORT_CPU]
    with tempfile.TemporaryDirectory() as folder:
        nano = shipped_bundle() if args.tiny else nano_for_gpus(Path(folder))
        for path in [nano, *args.bundle]:
            report.rows += bundle_rows(path, backends, args.tokens, args.repeats)
    report.notes.append(f"Python {platform.python_version()}; times are of one process alone on the machine.")


if __name__ == "__main__":
    sys.exit(main())
