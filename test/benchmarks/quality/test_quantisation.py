# SPDX-License-Identifier: Apache-2.0
"""The stress test of quantisation.py: fewer levels than 4 bits have, for both ways of rounding."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from mobilevlm_ros.export.quantization.gptq import gptq
from mobilevlm_ros.export.quantization.round_to_nearest import quantize

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "quality" / "quantisation.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("quantisation", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("levels", [16, 8, 4])
@pytest.mark.parametrize("method", ["rtn", "gptq"])
def test_only_the_middle_levels_are_used(script: ModuleType, method: str, levels: int) -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(24, 64)).astype(np.float32)
    inputs = rng.normal(size=(200, 64)).astype(np.float32)
    with script._coarser(levels):
        made = quantize(weight) if method == "rtn" else gptq(weight, inputs.T @ inputs)
    stored = np.concatenate([made.packed & 15, made.packed >> 4])
    assert (stored.min(), stored.max()) == (8 - levels // 2, 7 + levels // 2)
