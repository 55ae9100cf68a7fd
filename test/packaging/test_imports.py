# SPDX-License-Identifier: Apache-2.0
"""A robot serves without torch: nothing on the way to an answer may load it, or what only building needs."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD_ONLY = {"torch", "onnx", "safetensors", "huggingface_hub", "gguf", "skimage", "scipy", "transformers"}
HEAVY = BUILD_ONLY | {"onnxruntime", "tensorrt", "cv2", "rclpy"}


def loaded_by(program: str) -> set[str]:
    """Top-level modules in sys.modules after the program."""
    report = "\nimport sys; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    result = subprocess.run(
        [sys.executable, "-c", program + report], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    return set(result.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "room",
    [
        "simulation",
        "files",
        "processing",
        "model",
        "checkpoints",
        "engine",
        "training",
        "api",
        "export",
        "inference",
        "evaluation",
        "client",
        "bags",
        "commands",
    ],
)
def test_a_room_is_light_to_enter(room: str) -> None:
    assert not loaded_by(f"import mobilevlm_ros.{room}") & HEAVY


def test_the_front_door_is_light() -> None:
    assert not loaded_by("import mobilevlm_ros") & (HEAVY | {"numpy"})
    program = "from mobilevlm_ros import MobileVLM\nassert MobileVLM.ask.__doc__"
    assert not loaded_by(program) & (HEAVY - {"cv2"})


def test_help_is_quick() -> None:
    program = "from mobilevlm_ros.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass"
    assert not loaded_by(program) & HEAVY


def test_an_answer_needs_no_torch() -> None:
    program = """
import numpy as np
from mobilevlm_ros.engine.runtime import load_runtime
from mobilevlm_ros.inference.assistant import Assistant
from mobilevlm_ros.inference.types import Frame, Request
frame = Frame(image=np.full((90, 120, 3), 128, np.uint8))
answer = Assistant(load_runtime()).ask(frame, Request(question="Is there a person?"))
assert answer.text
"""
    assert not loaded_by(program) & BUILD_ONLY


def test_the_node_needs_no_torch() -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2")
    loaded = loaded_by("import mobilevlm_ros.nodes.mobilevlm_node, mobilevlm_ros.nodes.camera_node")
    assert "rclpy" in loaded
    assert not loaded & BUILD_ONLY
