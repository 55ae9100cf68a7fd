# SPDX-License-Identifier: Apache-2.0
"""The decoder's graphs once more, over the same weights, for continuations that grow side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper

_INPUTS = 9  # of GroupQueryAttention without those two


def write_tree(path: Path) -> str:
    """Writes the graph `path` of export_decoder or export_prefill once more, with two more inputs.

    `position_ids` i64 [B, T] are the tokens' places in their own sequence, and `attention_bias` f32
    [1, 1, T, total] is added to the attention's scores over the cache after this call, which is causal in
    the order of its rows as well. ONNX Runtime takes them from 1.22 on. Returns the file's name: that of
    `path`, whose weights it uses, with `.tree` before the suffix.
    """
    model = onnx.load(path, load_external_data=False)
    graph = model.graph
    float32, int64 = (helper.np_dtype_to_tensor_dtype(np.dtype(kind)) for kind in (np.float32, np.int64))
    graph.input.append(helper.make_tensor_value_info("position_ids", int64, ["batch", "tokens"]))
    graph.input.append(helper.make_tensor_value_info("attention_bias", float32, [1, 1, "tokens", "total"]))
    for node in graph.node:
        if node.op_type == "GroupQueryAttention":
            assert len(node.input) == _INPUTS
            node.input.extend(["position_ids", "attention_bias"])
    tree = path.with_suffix(f".tree{path.suffix}")
    tree.write_bytes(model.SerializeToString(deterministic=True))
    return tree.name
