# SPDX-License-Identifier: Apache-2.0
"""The shipped nano model: the bundle comes from the checkpoint, and the answers are what its card says."""

import json
from pathlib import Path

import numpy as np
import pytest

from mobilevlm_ros.engine.runtime import Runtime, load_runtime
from mobilevlm_ros.evaluation.nano.exam import FIRST_COMPARISON_SEED, SCENES, exam, scene_questions
from mobilevlm_ros.evaluation.runner.run import Plan, run
from mobilevlm_ros.export.builder import build_bundle
from mobilevlm_ros.export.options import BuildOptions
from mobilevlm_ros.export.quality.agreement import measure
from mobilevlm_ros.inference.assistant import Assistant
from mobilevlm_ros.inference.types import Frame, Request
from mobilevlm_ros.training.nano.recipe import nano_config

CHECKPOINT = Path(__file__).resolve().parents[2] / "models" / "nano"
MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def runtime(nano: Path) -> Runtime:
    return load_runtime(nano, "onnxruntime", threads=1)


def test_build_makes_the_shipped_bundle(nano: Path, runtime: Runtime, tmp_path: Path) -> None:
    """Same source and answers. (Not the same bytes: a CPU's summation order may move a scale.)"""
    build_bundle(CHECKPOINT, tmp_path / "bundle", BuildOptions(name="nano"))
    shipped, built = (json.loads((d / "bundle.json").read_text()) for d in (nano, tmp_path / "bundle"))
    for key in ("name", "source", "model", "precision"):
        assert shipped[key] == built[key]
    sizes = [
        {name: about["bytes"] for name, about in m["files"].items() if "data" in name}
        for m in (shipped, built)
    ]
    assert sizes[0] == sizes[1]
    rebuilt = load_runtime(tmp_path / "bundle", "onnxruntime", threads=1)
    questions = [(image, exchange.question) for image, exchange, _ in exam(40)]
    agreement = measure(runtime, rebuilt, questions)
    assert agreement.equal == agreement.samples
    assert agreement.worst_kl < 1e-3


def test_checkpoint_is_official_in_layout_and_small() -> None:
    assert (CHECKPOINT / "model.safetensors").stat().st_size <= 16 * MEGABYTE
    data = json.loads((CHECKPOINT / "config.json").read_text())
    assert data["model_type"] == "mobilevlm"
    assert data["mm_projector_type"] == "ldpnet"
    recipe = json.loads((CHECKPOINT / "recipe.json").read_text())
    assert recipe["honest"]["steps"] > 0 and len(recipe["from"]) == 64
    assert {**nano_config(data["vocab_size"]).to_json_dict(), "torch_dtype": "float32"} == data


def test_bundle_agrees_with_the_float_model(runtime: Runtime) -> None:
    """A share of the 1000 questions that the model card reports on."""
    questions = [(image, exchange.question) for image, exchange, _ in exam(200, FIRST_COMPARISON_SEED)]
    agreement = measure(load_runtime(CHECKPOINT, "torch", threads=1), runtime, questions)
    assert agreement.fraction >= 0.99, agreement.different


def test_passes_its_exam(runtime: Runtime, tmp_path: Path) -> None:
    """The first questions of the exam of `mobilevlm eval nano`."""
    summary = run(SCENES, scene_questions(300), runtime, Plan(tmp_path)).summary
    assert summary["accuracy"] >= 95, summary["details"]["failures"]


def test_a_second_question_may_follow_the_first(runtime: Runtime) -> None:
    """Asked again about the same frame, the prefix is reused and the answer is the same."""
    image, exchange, _ = next(exam(1))
    assistant, frame = Assistant(runtime), Frame(image)
    first, again = (assistant.ask(frame, Request(exchange.question)) for _ in range(2))
    assert first.text == again.text
    assert again.reused_tokens > first.reused_tokens


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee"])
def test_is_unsure_about_a_real_photograph(runtime: Runtime, name: str) -> None:
    """Nano knows simulated scenes only, and must not pretend otherwise."""
    data = pytest.importorskip("skimage.data")
    photo = np.ascontiguousarray(getattr(data, name)())
    answer = Assistant(runtime).ask(Frame(photo), Request("Describe the scene."))
    assert answer.text
    assert answer.confidence < 0.7


def test_is_sure_about_its_own_world(runtime: Runtime) -> None:
    assistant = Assistant(runtime)
    sure = [assistant.ask(Frame(image), Request(e.question)).confidence for image, e, _ in exam(60)]
    assert np.median(sure) > 0.9
