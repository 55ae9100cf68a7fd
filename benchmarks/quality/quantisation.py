# SPDX-License-Identifier: Apache-2.0
"""Compares ways of quantising a checkpoint's language model by the answers they change.

    python benchmarks/quality/quantisation.py models/nano -o benchmarks/results/quantisation.json

The reference is the same bundle with the language model in 32-bit floats; questions are those of an
examination on simulated scenes that neither training nor calibration has seen. Prints a Markdown table.

--levels 8 keeps 8 of the 16 levels of 4 bits: a stress test, for a model that 16 do not hurt.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tqdm import tqdm

from mobilevlm_ros.engine.bundle import DECODER
from mobilevlm_ros.engine.runtime import Runtime, load_runtime
from mobilevlm_ros.evaluation.nano.exam import exam
from mobilevlm_ros.export.builder import build_bundle
from mobilevlm_ros.export.options import BuildOptions
from mobilevlm_ros.export.quality.agreement import Sample, measure
from mobilevlm_ros.export.quantization import gptq
from mobilevlm_ros.export.quantization import round_to_nearest as quantize
from mobilevlm_ros.export.quantization.calibration_set import CalibrationSet
from mobilevlm_ros.export.quantization.precision import DecoderPrecision

FIRST_SEED = 6_000_000
"""Of the questions' scenes: training and the examination proper begin at 1 000 000 and 5 000 000."""


@dataclass(frozen=True)
class Row:
    """What one way of quantising costs."""

    method: str
    block_size: int
    levels: int
    samples: int
    """Conversations that GPTQ read; 0 for rtn."""
    decoder_bytes: int
    equal: int
    questions: int
    mean_kl: float
    worst_kl: float

    def __str__(self) -> str:
        share = self.equal / self.questions
        return (
            f"| {self.method} | {self.samples} | {self.block_size} | {self.levels}"
            f" | {self.decoder_bytes / 1e6:.2f}"
            f" | {self.equal}/{self.questions} ({share:.1%}) | {self.mean_kl:.5f} | {self.worst_kl:.3f} |"
        )


HEADER = """\
| method | samples | block | levels | decoder, MB | equal answers | mean KL, nats | worst KL, nats |
|---|---|---|---|---|---|---|---|"""


def main() -> int:
    """Builds, measures, prints and writes."""
    args = _arguments()
    samples = [(image, exchange.question) for image, exchange, _ in exam(args.questions, FIRST_SEED)]
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        build_bundle(args.checkpoint, work / "reference", BuildOptions(precision=DecoderPrecision(bits=32)))
        reference = load_runtime(work / "reference", threads=args.threads)
        print(HEADER, flush=True)
        for method, block_size, levels in product(args.methods, args.block_sizes, args.levels):
            for count in args.samples if method == "gptq" else [0]:
                with _coarser(levels):
                    bundle = build_bundle(
                        args.checkpoint,
                        work / "candidate",
                        BuildOptions(
                            precision=DecoderPrecision(block_size=block_size),
                            calibration=CalibrationSet(args.calibration, count, args.seed) if count else None,
                        ),
                        force=True,
                    )
                candidate = load_runtime(bundle.path, threads=args.threads)
                rows.append(_compare(reference, candidate, samples, method, block_size, levels, count))
                print(rows[-1], flush=True)
    if args.output is not None:
        _write(args, rows)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("checkpoint", help="directory or hub id")
    parser.add_argument("-o", "--output", type=Path, help="JSON file to write")
    parser.add_argument("--questions", type=int, default=200, help="to compare answers on (default: 200)")
    parser.add_argument("--methods", nargs="+", choices=("rtn", "gptq"), default=["rtn", "gptq"])
    parser.add_argument("--block-sizes", nargs="+", type=int, default=[32, 128], metavar="N")
    parser.add_argument(
        "--calibration", type=Path, metavar="DIR", help="pictures (default: simulated scenes)"
    )
    parser.add_argument(
        "--samples", nargs="+", type=int, default=[64], metavar="N", help="that GPTQ reads (default: 64)"
    )
    parser.add_argument("--levels", nargs="+", type=int, choices=(16, 8, 4), default=[16])
    parser.add_argument("--seed", type=int, default=0, help="of those samples (default: 0)")
    parser.add_argument("--threads", type=int, default=0, help="default: one per physical core")
    return parser.parse_args()


@contextmanager
def _coarser(levels: int) -> Iterator[None]:
    """Meanwhile 4-bit matrices take only the middle `levels` of their 16."""
    bits = levels.bit_length() - 1

    best_scales, nearest_levels = quantize.best_scales, quantize.nearest_levels
    round_columns = gptq.round_columns

    def scales(
        blocks: NDArray[np.float32], _: int, importance: NDArray[np.float32] | None = None
    ) -> NDArray[np.float16]:
        return best_scales(blocks, bits, importance)

    def nearest(blocks: NDArray[np.float32], chosen: NDArray[np.float32], _: int) -> NDArray[np.float32]:
        return nearest_levels(blocks, chosen, bits)

    def columns(*arguments: Any) -> NDArray[np.float32]:
        *others, _, block_size = arguments
        return round_columns(*others, bits, block_size)

    with ExitStack() as stack:
        for module in (quantize, gptq):
            stack.enter_context(patch.object(module, "best_scales", scales))
        stack.enter_context(patch.object(quantize, "nearest_levels", nearest))
        stack.enter_context(patch.object(gptq, "round_columns", columns))
        yield


def _compare(
    reference: Runtime,
    candidate: Runtime,
    samples: list[Sample],
    method: str,
    block_size: int,
    levels: int,
    count: int,
) -> Row:
    with tqdm(total=len(samples), desc=f"{method} {block_size}", leave=False, disable=None) as bar:
        found = measure(reference, candidate, samples, progress=lambda done: bar.update(done - bar.n))
    files = candidate.bundle.manifest.files
    size = sum(entry["bytes"] for name, entry in files.items() if name.startswith(DECODER))
    return Row(
        method, block_size, levels, count, size, found.equal, found.samples, found.mean_kl, found.worst_kl
    )


def _write(args: argparse.Namespace, rows: list[Row]) -> None:
    result = {
        "command": shlex.join(["python", *sys.argv]),
        "machine": {"processor": _processor(), "system": platform.platform()},
        "versions": {"python": platform.python_version(), "onnxruntime": onnxruntime.__version__},
        "rows": [asdict(row) for row in rows],
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )


if __name__ == "__main__":
    sys.exit(main())
