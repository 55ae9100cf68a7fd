# SPDX-License-Identifier: Apache-2.0
"""Time of one product with a 4- or 8-bit matrix, by block size and zero points, beside blocks of 32.

    python benchmarks/speed/matrices.py -o benchmarks/results/matrices.json

The matrix is the gate and up projection of a 1.7B model (11264 x 2048). Each kind has several copies, more
than the processor's cache holds, as a decoder's layers are; kinds take turns, one thread. Times are the
process's own processor seconds, so what else runs costs memory bandwidth but is not counted: read the ratios.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import sys
from pathlib import Path
from statistics import median
from time import process_time

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

ROWS, COLUMNS, COPIES = 11264, 2048, 8
KINDS = ((4, 32, False), (4, 64, False), (4, 64, True), (4, 128, False), (8, 32, False), (8, 64, False))
"""Bits, block size, zero points."""


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, help="JSON file to write")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 196], help="rows of the other factor")
    args = parser.parse_args()
    sessions = {kind: [product(*kind) for _ in range(COPIES)] for kind in KINDS}
    rows = []
    for tokens in args.tokens:
        x = np.random.default_rng(0).standard_normal((tokens, COLUMNS)).astype(np.float32)
        copies = COPIES if tokens == 1 else 1  # many tokens: arithmetic, not memory, is the limit
        times: dict[tuple[int, int, bool], list[float]] = {kind: [] for kind in KINDS}
        for _ in range(args.rounds if tokens == 1 else max(3, args.rounds // 4)):
            for kind, made in sessions.items():
                start = process_time()
                for session in made[:copies]:
                    session.run(None, {"x": x})
                times[kind].append((process_time() - start) / copies)
        base = median(times[KINDS[0]])
        for (bits, block, zeros), found in times.items():
            ratio = median(found) / base
            rows.append(
                {"tokens": tokens, "bits": bits, "block_size": block, "zero_points": zeros,
                 "ms": 1e3 * median(found), "ratio": ratio}
            )  # fmt: skip
            print(f"{tokens:4} tokens, {bits} bits, blocks of {block:3}{' + zeros' * zeros:8} {ratio:.2f} x")
    if args.output is not None:
        said = {"command": shlex.join(["python", *sys.argv]), "machine": platform.platform()}
        versions = {"python": platform.python_version(), "onnxruntime": onnxruntime.__version__}
        text = json.dumps({**said, "versions": versions, "rows": rows}, indent=1)
        args.output.write_text(text + "\n", encoding="utf-8")


def product(bits: int, block: int, zeros: bool) -> onnxruntime.InferenceSession:
    """MatMulNBits with random weights, computing with 8-bit activations as the decoder does."""
    rng = np.random.default_rng(0)
    blocks = COLUMNS // block
    values = {
        "packed": rng.integers(0, 256, (ROWS, blocks, block * bits // 8), dtype=np.uint8),
        "scales": rng.random(ROWS * blocks, dtype=np.float32) / 100,
    }
    if zeros:
        values["zeros"] = rng.integers(0, 256, ROWS * (blocks * bits // 8), dtype=np.uint8)
    node = helper.make_node(
        "MatMulNBits", ["x", *values], ["y"], domain="com.microsoft",
        N=ROWS, K=COLUMNS, bits=bits, block_size=block, accuracy_level=4,
    )  # fmt: skip
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["tokens", COLUMNS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["tokens", ROWS])],
        [numpy_helper.from_array(array, name) for name, array in values.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


if __name__ == "__main__":
    main()
