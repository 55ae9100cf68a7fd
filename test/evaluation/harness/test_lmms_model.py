# SPDX-License-Identifier: Apache-2.0
"""The lmms-eval adapter. lmms-eval takes 1.6 GB and its tasks come from the network, so a stand-in has its
base class and registry here; the calls are those that its evaluator makes.
test_lmms_eval.py runs the real one.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from mobilevlm_ros.errors import EvaluationError
from mobilevlm_ros.evaluation.nano.exam import exam


@pytest.fixture
def lmms_eval(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lmms:
        def __init__(self) -> None:
            self.task_dict: dict[str, Any] = {}

    @dataclass(frozen=True)
    class ModelManifest:
        model_id: str
        simple_class_path: str | None = None

    for name, content in {
        "lmms_eval": {},
        "lmms_eval.api": {},
        "lmms_eval.api.model": {"lmms": Lmms},
        "lmms_eval.models": {},
        "lmms_eval.models.registry_v2": {"ModelManifest": ModelManifest},
    }.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("lmms_model", "lmms_plugin"):
        monkeypatch.delitem(sys.modules, f"mobilevlm_ros.evaluation.harness.{name}", raising=False)


def test_the_manifest_names_a_class_that_answers(nano: Path, lmms_eval: None) -> None:
    from mobilevlm_ros.evaluation.harness.lmms_plugin import manifest

    module, _, name = manifest().simple_class_path.rpartition(".")
    model = getattr(importlib.import_module(module), name)(bundle=str(nano), threads="1", batch_size="1")
    assert model.is_simple
    documents = [
        {"image": Image.fromarray(image), "question": exchange.question} for image, exchange, _ in exam(4)
    ]
    model.task_dict = {"mine": {"test": documents}}

    def request(doc_id: int, **options: Any) -> Any:
        arguments = (documents[doc_id]["question"], options, lambda d: [d["image"]], doc_id, "mine", "test")
        return SimpleNamespace(args=arguments)

    given = model.generate_until([request(i, max_new_tokens=32, until=["\n"]) for i in range(4)])
    assert len(given) == 4 and all(given)
    (first,) = model.generate_until([request(0, max_new_tokens=32, until=[given[0][2:]])])
    assert first == given[0][:2].strip()
    with pytest.raises(EvaluationError, match="mine 1 samples"):
        model.generate_until([request(1, temperature=0.7, do_sample=True)])
    twice = request(1)
    twice.args = (*twice.args[:2], lambda d: [d["image"], d["image"]], *twice.args[3:])
    with pytest.raises(EvaluationError, match="2 pictures"):
        model.generate_until([twice])


def test_the_entry_point_is_declared() -> None:
    text = (Path(__file__).parents[3] / "setup.cfg").read_text()
    assert "lmms_eval.models =\n    mobilevlm = mobilevlm_ros.evaluation.harness.lmms_plugin:manifest" in text
