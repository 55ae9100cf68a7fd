# SPDX-License-Identifier: Apache-2.0
"""A bundle or checkpoint inside lmms-eval (needs `lmms_eval`). Its tasks and scores are lmms-eval's own, and
differ from the papers': TextVQA without OCR tokens, POPE pooled over its three sets.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

from lmms_eval.api.model import lmms
from tqdm import tqdm

from mobilevlm_ros.engine.runtime import load_runtime
from mobilevlm_ros.errors import EvaluationError
from mobilevlm_ros.evaluation.benchmarks.types import Picture, Question
from mobilevlm_ros.evaluation.runner.model import ExaminedModel

MAX_NEW_TOKENS = 128  # where a task says none


class MobileVLMForLmms(lmms):
    """`--model mobilevlm --model_args bundle=DIR,backend=auto,threads=0`; `checkpoint=DIR` for float32.

    Greedy, one picture a question. Questions about one picture share its prefix when they come in a row.
    """

    is_simple = True

    def __init__(
        self,
        bundle: str | None = None,
        checkpoint: str | None = None,
        backend: str = "auto",
        threads: int = 0,
        batch_size: int | str = 1,
        **_: Any,
    ) -> None:
        super().__init__()
        if bundle and checkpoint:
            raise EvaluationError("bundle and checkpoint are both given: name one of them")
        self.batch_size = int(batch_size)
        runtime = load_runtime(checkpoint or bundle, "torch" if checkpoint else backend, int(threads))
        self._model = ExaminedModel(runtime)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answers in the order of the requests, cut at the task's `until` texts.

        Raises EvaluationError for a question with several pictures, or one that samples.
        """
        answers = []
        for number, request in enumerate(tqdm(requests, desc="mobilevlm", disable=None), 1):
            context, options, doc_to_visual, doc_id, task, split = request.args
            visuals = _flat(doc_to_visual(self.task_dict[task][split][doc_id]))
            question = _question(number, f"{task} {doc_id}", context, visuals, options)
            (written,) = self._model.answer([question])
            answers.append(_cut(written.text, options.get("until")))
        return answers

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Not offered: the papers' benchmarks generate."""
        raise EvaluationError("mobilevlm answers generate_until tasks only: choose such a task")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Not offered."""
        raise EvaluationError("mobilevlm answers one round only: choose a task of one round")


def _question(
    number: int, name: str, context: str, visuals: Sequence[Any], options: dict[str, Any]
) -> Question:
    if len(visuals) > 1:
        raise EvaluationError(
            f"{name} has {len(visuals)} pictures, and the model takes one: choose another task"
        )
    if options.get("do_sample") or float(options.get("temperature") or 0) > 0:
        raise EvaluationError(f"{name} samples, and scores are greedy here: set temperature to 0")
    picture = None
    if visuals:
        data = io.BytesIO()
        visuals[0].convert("RGB").save(data, "PNG")
        picture = Picture(base64=base64.b64encode(data.getvalue()).decode("ascii"))
    limit = int(options.get("max_new_tokens") or MAX_NEW_TOKENS)
    return Question(number, number, name, picture, context, context, limit, None)


def _flat(visuals: Any) -> list[Any]:
    found = visuals if isinstance(visuals, list | tuple) else [visuals]
    return [
        one
        for part in found
        for one in (part if isinstance(part, list | tuple) else [part])
        if one is not None
    ]


def _cut(text: str, until: str | Sequence[str] | None) -> str:
    for stop in [until] if isinstance(until, str) else until or []:
        if stop:
            text = text.split(stop)[0]
    return text.strip()
