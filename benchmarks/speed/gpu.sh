#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What this machine's GPU does with MobileVLM: PyTorch (CUDA graphs), ONNX Runtime CUDA and TensorRT, each checked
# against exact results before it is timed. Prints tables; writes benchmarks/results/gpu_<card>.md and .json.
#
#   benchmarks/speed/gpu.sh                 shapes of the 1.7B and 3B models with random weights (PyTorch), nano (engines)
#   benchmarks/speed/gpu.sh --bundle DIR    and the engines on a bundle built with --vision fp16 --backends cuda tensorrt
#   benchmarks/speed/gpu.sh --device cpu --tiny the same code on the CPU, in seconds: checks the script, measures nothing
#
# PYTHON names the interpreter (default: .venv, else python3). Exit status: 0 measured; 1 an engine gave wrong results;
# 2 nothing measured, as there is no NVIDIA GPU.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-.venv/bin/python}
command -v "$python" >/dev/null || python=python3
PYTHONPATH=.${PYTHONPATH:+:$PYTHONPATH} exec "$python" benchmarks/speed/gpu.py "$@"
