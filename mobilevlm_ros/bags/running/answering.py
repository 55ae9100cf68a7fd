# SPDX-License-Identifier: Apache-2.0
"""Puts a job's questions to the model, one frame after the other."""

from __future__ import annotations

import numpy as np

from mobilevlm_ros.bags.job.entries import Entry, entry_of
from mobilevlm_ros.bags.job.job import Job
from mobilevlm_ros.bags.selection.frames import SelectedFrame
from mobilevlm_ros.engine.runtime import Runtime
from mobilevlm_ros.inference.assistant import Assistant
from mobilevlm_ros.inference.steps import finish
from mobilevlm_ros.inference.types import Answer

_KEPT_FRAMES = 4
_PROMPT_TOKENS = 128
"""Positions of a system prompt, amply."""
_MOST_BYTES = 256 << 20
"""The assistant's own default."""


class Answerer:
    """A model at work on a job. What it says about a frame depends on that frame alone.

    Captions are written without the one before as a draft, which the node uses: the text is the same, but
    the confidence would depend, in its last digits, on which frames came before.
    """

    def __init__(self, job: Job, runtime: Runtime) -> None:
        self._job = job
        self._assistant = Assistant(runtime, prefix_budget=_prefix_budget(runtime))

    def __call__(self, selected: SelectedFrame) -> Entry:
        """Raises MobileVLMError: the model failed, or a question does not fit into its context."""
        job, frame = self._job, selected.frame
        places = job.places(frame.camera)
        if job.kind != "monitor":
            return entry_of(selected, [(p, self._assistant.ask(frame, job.requests[p])) for p in places])
        due = [places[place] for place in selected.due]
        answers: list[Answer] = finish(self._assistant.steps_many(frame, [job.requests[p] for p in due]))
        return entry_of(selected, list(zip(due, answers)))


def _prefix_budget(runtime: Runtime) -> int:
    """Bytes for the KV of a few frames: none is asked about again."""
    about = runtime.bundle.manifest
    position = 2 * about.num_layers * about.num_kv_heads * about.head_dim * np.dtype(np.float32).itemsize
    return min(_MOST_BYTES, _KEPT_FRAMES * (about.image_tokens + _PROMPT_TOKENS) * position)
