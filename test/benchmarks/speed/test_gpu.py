# SPDX-License-Identifier: Apache-2.0
"""gpu.sh without a GPU: it says so, its arithmetic is right, and its code runs on the CPU."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mobilevlm_ros.checkpoints.random_weights import CONFIGS
from mobilevlm_ros.engine.cuda.device import find_gpu
from mobilevlm_ros.model.mobilevlm import MobileVLM

BENCHMARKS = Path(__file__).parents[3] / "benchmarks" / "speed"


@pytest.fixture(scope="module")
def report() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_report", BENCHMARKS / "gpu_report.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable}
    command = [str(BENCHMARKS / "gpu.sh"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment, check=False)


@pytest.mark.skipif(find_gpu() is not None, reason="there is a GPU")
def test_without_a_gpu_nothing_is_measured_and_the_status_says_so():
    result = run()
    assert result.returncode == 2
    assert "no NVIDIA GPU was found on this machine: nothing was measured" in result.stderr
    assert result.stdout == ""


def test_the_same_code_runs_on_the_cpu(tmp_path):
    result = run("--device", "cpu", "--tiny", "--tokens", "4", "--repeats", "1", "-o", str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert (
        "| tiny | torch" in result.stdout and "| nano | onnxruntime-cpu | 0.0e+00 | 16/16 |" in result.stdout
    )
    assert not list(tmp_path.iterdir())  # a check of the script is no result


@pytest.mark.parametrize("name", ["MobileVLM_V2-1.7B", "MobileVLM_V2-3B"])
def test_bytes_and_operations_are_those_of_the_model(report, name):
    config = CONFIGS[name]
    with torch.device("meta"):
        model = MobileVLM(config)
    matrices = [
        p
        for n, p in model.named_parameters()
        if "_proj.weight" in n and "model.layers." in n and "vision" not in n
    ]
    weights = sum(p.numel() for p in matrices) + model.lm_head.weight.numel()
    assert report.decoder_bytes(config.language, 0, 2) == 2 * weights
    language = config.language
    cached = 100 * language.num_hidden_layers * 2 * language.hidden_size * 2
    assert report.decoder_bytes(language, 100, 2) - 2 * weights == cached
    with FlopCounterMode(display=False) as counter:
        model.encode_features(torch.empty(1, 3, 336, 336, device="meta"))
    assert report.encoder_flops(config) == pytest.approx(counter.get_total_flops(), rel=1e-3)


def test_fractions_are_of_the_cards_limits(report):
    card = report.Card("a card", bandwidth=200e9, copy_bandwidth=180e9, matrix_rate=10e12)
    row = report.Row("m", "e", 0.001, "8/8", 50.0, 20.0, 10.0, int(1.5e9), 2e11)
    row.rate(card)
    assert row.bandwidth_fraction == pytest.approx(0.75)
    assert row.matrix_fraction == pytest.approx(0.4)
    failed = report.Row("m", "tensorrt", 0, "", 0, 0, 0, 0, 0, problem="not installed")
    failed.rate(card)
    text = report.Report(card, [row, failed], ["a note"]).markdown()
    assert "| 50.00 | 40% | 20.00 | 10.000 | 100.0 | 75% |" in text
    assert "| m | tensorrt | not installed |" in text and "* a note" in text
