# SPDX-License-Identifier: Apache-2.0
"""MobileLLaMA in our 4-bit bundles and in llama.cpp: the same weights, each engine in a process of its own.

    python -m venv ~/llama && CMAKE_ARGS=-DGGML_NATIVE=on ~/llama/bin/pip install llama-cpp-python==0.3.36
    python benchmarks/speed/vs_llama_cpp.py --llama-python ~/llama/bin/python -o vs_llama_cpp

The engines take turns, A, B, C, A, B, C. Without --checkpoint the weights are random, in the geometry of
MobileVLM_V2-1.7B: speed, memory and equality of the outputs can be measured, quality cannot. Needs 14 GB of
disk (--work keeps the files for the next run) and a quiet machine. Writes OUTPUT.md and OUTPUT.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import monotonic, sleep
from typing import Any

import numpy as np

from mobilevlm_ros.evaluation.latency.compare import busy_processes
from mobilevlm_ros.evaluation.latency.measure import machine

WORKER = Path(__file__).with_name("prefill_decode.py")
QUANTISE = """
import ctypes, sys, llama_cpp
source, target, kind = sys.argv[1:]
params = llama_cpp.llama_model_quantize_default_params()
params.ftype = getattr(llama_cpp, "LLAMA_FTYPE_MOSTLY_" + kind)
sys.exit(llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)))
"""
INSTALL = """\
no llama-cpp-python in {python}: it needs a compiler and CMake and is no dependency of ours. Install it with
    python -m venv ~/llama
    CMAKE_ARGS=-DGGML_NATIVE=on ~/llama/bin/pip install llama-cpp-python==0.3.36
and add --llama-python ~/llama/bin/python"""
BASELINE = "llama.cpp Q4_0"
MOST_OTHERS = 0.05
TRIES = 4


@dataclass(frozen=True)
class Contender:
    """An engine and its model."""

    name: str
    kind: str
    model: Path
    options: tuple[str, ...] = ()


def main() -> None:
    """Builds what is missing, measures, prints and writes."""
    args = _arguments()
    versions = _llama_versions(args.llama_python)
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        contenders = _prepare(args.checkpoint, work, args.llama_python)
        prompt = work / "prompt.npy"
        table = np.load(work / "block128" / "embeddings.npy", mmap_mode="r")
        ids = np.random.default_rng(0).integers(3, len(table), args.prompt)
        np.save(prompt, table[ids].astype(np.float32))
        runs: dict[str, list[dict[str, Any]]] = {one.name: [] for one in contenders}
        reference = Contender("f16", "llama.cpp", work / "gguf" / "model-f16.gguf")
        extra = ["--logits", str(work / "f16.npy"), "--repeats", "1", "--tokens", "1"]
        _measure(reference, prompt, args, extra)
        with busy_processes(args.busy):
            for number in range(args.rounds):
                for one in contenders:
                    extra = ["--logits", str(work / f"{one.name}.npy")] if not number else []
                    found = _measure(one, prompt, args, extra)
                    runs[one.name].append(found)
                    print(f"{number + 1}/{args.rounds} {one.name}: {_speeds(found, args)}", flush=True)
                alike = {
                    one.name: _agreement(work / "f16.npy", work / f"{one.name}.npy") for one in contenders
                }
                text = _write(args, versions, runs, alike)  # after each round, lest a long run be lost
    print(text)


def _write(
    args: argparse.Namespace, versions: dict[str, str], runs: dict[str, Any], agreement: dict[str, Any]
) -> str:
    result = {
        "command": shlex.join(["python", *sys.argv]),
        "machine": machine(),
        "versions": {"python": platform.python_version(), **versions},
        "threads": args.threads,
        "busy": args.busy,
        "prompt_tokens": args.prompt,
        "decoded_tokens": args.tokens,
        "note": args.note,
        "runs": runs,
        "agreement": agreement,
    }
    text = _report(result)
    if args.output is not None:
        args.output.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        args.output.with_suffix(".md").write_text(text, encoding="utf-8")
    return text


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--checkpoint", type=Path, help="directory (default: random weights)")
    parser.add_argument("--llama-python", default=sys.executable, help="interpreter that has llama_cpp")
    parser.add_argument("--work", type=Path, help="directory that keeps checkpoint, bundles and GGUF files")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=196, help="tokens to prefill (default: 196)")
    parser.add_argument("--tokens", type=int, default=64, help="to decode (default: 64)")
    parser.add_argument(
        "--busy", type=int, default=0, help="processes that compute meanwhile, as on a robot (default: 0)"
    )
    parser.add_argument("--note", default="", help="for the report, e.g. what else the machine was doing")
    parser.add_argument("-o", "--output", type=Path, help="without suffix")
    return parser.parse_args()


def _prepare(checkpoint: Path | None, work: Path, llama_python: str) -> list[Contender]:
    """Makes the models that `work` lacks."""
    cli = (sys.executable, "-m", "mobilevlm_ros.cli")
    gguf = work / "gguf"
    if checkpoint is None:
        checkpoint = work / "checkpoint"
        if not checkpoint.exists():
            _run(*cli, "make-checkpoint", "--like", "MobileVLM_V2-1.7B", "--random", str(checkpoint))
    four = ("--matrix-bits", "lm_head=4")
    bundles = {
        "default": (),
        "block32": ("--block-size", "32", *four),
        "block128": ("--block-size", "128", *four),
        "block128-prefill8": ("--block-size", "128", "--prefill", "int8", *four),
    }
    # neither the encoder nor the answers matter here, and gptq changes no size
    plain = ("--vision", "int8", "--quality", "0", "--quantize", "rtn")
    for name, options in bundles.items():
        if not (work / name).exists():
            _run(*cli, "build", str(checkpoint), "-o", str(work / name), "--quiet", *plain, *options)
    if not (gguf / "model-f16.gguf").exists():
        _run(*cli, "export-gguf", str(checkpoint), "-o", str(gguf), "--quiet")
        (gguf / f"{checkpoint.resolve().name}-f16.gguf").rename(gguf / "model-f16.gguf")
    for kind in ("Q4_0", "Q4_K_M"):
        if not (gguf / f"{kind}.gguf").exists():
            _run(llama_python, "-c", QUANTISE, str(gguf / "model-f16.gguf"), str(gguf / f"{kind}.gguf"), kind)
    return [
        Contender(BASELINE, "llama.cpp", gguf / "Q4_0.gguf"),
        Contender("ours, default", "ours", work / "default"),
        Contender("ours block 128", "ours", work / "block128"),
        Contender("ours block 128, spinning", "ours", work / "block128", ("--spin",)),
        Contender("ours block 32", "ours", work / "block32"),
        Contender("ours block 128, int8 prefill", "ours", work / "block128-prefill8"),
        Contender("llama.cpp Q4_K_M", "llama.cpp", gguf / "Q4_K_M.gguf"),
    ]


def _measure(
    one: Contender, prompt: Path, args: argparse.Namespace, extra: Sequence[str] = ()
) -> dict[str, Any]:
    """One process's findings; once more when other processes took more than 5 % of the machine meanwhile."""
    python = sys.executable if one.kind == "ours" else args.llama_python
    counts = ("--threads", str(args.threads), "--tokens", str(args.tokens))
    command = (str(WORKER), one.kind, str(one.model), str(prompt), *counts, *one.options, *extra)
    for _ in range(TRIES):
        if not args.busy:
            _wait_until_idle()
        before = _ticks()
        found: dict[str, Any] = json.loads(_run(python, *command))
        found["others"] = _share(before, _ticks())
        if args.busy or found["others"] <= MOST_OTHERS:
            break
        print(f"  {one.name}: others took {found['others']:.0%} of the machine", flush=True)
    return found


def _ticks() -> tuple[float, float, float]:
    """Seconds: of all processors, of those the busy ones, and of them our children's."""
    values = [int(text) for text in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    tick = os.sysconf("SC_CLK_TCK")
    times = os.times()
    return sum(values) / tick, (sum(values) - values[3] - values[4]) / tick, times[2] + times[3]


def _share(before: tuple[float, float, float], after: tuple[float, float, float]) -> float:
    """Part of the machine that processes other than our children had, 0 to 1."""
    total, busy, ours = (late - early for early, late in zip(before, after, strict=True))
    return max(0.0, busy - ours) / max(total, 1e-9)


def _wait_until_idle(seconds: float = 60.0) -> None:
    """Returns when the machine has nothing to do, or after so long."""
    end = monotonic() + seconds
    while monotonic() < end:
        before = _ticks()
        sleep(0.5)
        if _share(before, _ticks()) <= MOST_OTHERS:
            return


def _run(*command: str) -> str:
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:
        raise SystemExit(f"{shlex.join(command)[:300]} failed:\n{process.stderr[-2000:]}")
    return process.stdout


def _llama_versions(python: str) -> dict[str, str]:
    code = "import llama_cpp; print(llama_cpp.__version__, llama_cpp.llama_print_system_info().decode())"
    process = subprocess.run([python, "-c", code], capture_output=True, text=True)
    if process.returncode:
        raise SystemExit(INSTALL.format(python=python))
    version, _, build = process.stdout.strip().partition(" ")
    import onnxruntime

    return {"llama-cpp-python": version, "llama.cpp": build, "onnxruntime": onnxruntime.__version__}


def _agreement(reference: Path, candidate: Path) -> dict[str, float | bool]:
    """How alike the logits after the prompt are to llama.cpp's with the 16-bit weights."""
    exact, given = np.load(reference), np.load(candidate)
    return {
        "correlation": float(np.corrcoef(exact, given)[0, 1]),
        "same_argmax": bool(exact.argmax() == given.argmax()),
    }


def _speeds(found: dict[str, Any], args: argparse.Namespace) -> str:
    prefill, decode = args.prompt / min(found["prefill"]), args.tokens / min(found["decode"])
    return f"prefill {prefill:.1f} tok/s, decode {decode:.1f} tok/s, peak {found['memory']['peak']:.0f} MiB"


def _report(result: dict[str, Any]) -> str:
    versions = result["versions"]
    rounds = len(result["runs"][BASELINE])
    others = max(run["others"] for runs in result["runs"].values() for run in runs)
    beside = f"when other processes took at most {others:.0%} of the machine"
    if result["busy"]:
        beside = f"beside {result['busy']} other process(es) that computed all the time"
    lines = [
        f"`{result['command']}` on {result['machine']}, {result['threads']} threads. ONNX Runtime "
        f"{versions['onnxruntime']}, llama-cpp-python {versions['llama-cpp-python']} "
        f"({versions['llama.cpp']}). {result['note']}".rstrip(),
        "",
        f"{result['prompt_tokens']} tokens of prompt (embeddings), {result['decoded_tokens']} decoded; "
        f"{rounds} rounds in turn, a new process each time, two measurements in each, "
        f"{beside}. Median "
        "[least .. greatest]; ratios are of medians. The last two columns compare the logits after the "
        "prompt with those of llama.cpp on the 16-bit weights; with random weights the best tokens are near "
        "ties.",
        "",
        f"| engine | prefill tok/s | x {BASELINE} | decode tok/s | x | load s | peak MiB | x "
        "| of which anonymous | logits' correlation | same best token |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    base: tuple[float, ...] = ()
    for name, runs in result["runs"].items():
        prefill = [result["prompt_tokens"] / t for run in runs for t in run["prefill"]]
        decode = [result["decoded_tokens"] / t for run in runs for t in run["decode"]]
        peak = max(run["memory"]["peak"] for run in runs)
        anonymous = median(run["memory"]["anonymous"] for run in runs)
        medians = median(prefill), median(decode), peak
        base = base or medians  # the baseline comes first
        ratios = [value / reference for value, reference in zip(medians, base, strict=True)]
        alike = result["agreement"][name]
        lines.append(
            f"| {name} | {_range(prefill)} | {ratios[0]:.2f} | {_range(decode)} | {ratios[1]:.2f} "
            f"| {median(run['load'] for run in runs):.1f} | {peak:.0f} | {ratios[2]:.2f} | {anonymous:.0f} "
            f"| {alike['correlation']:.3f} | {'yes' if alike['same_argmax'] else 'no'} |"
        )
    return "\n".join(lines) + "\n"


def _range(values: Sequence[float]) -> str:
    return f"{median(values):.1f} [{min(values):.1f} .. {max(values):.1f}]"


if __name__ == "__main__":
    main()
