# SPDX-License-Identifier: Apache-2.0
"""How often nano is right where the answer has a form: numbers, lists of choices, JSON; and how sure it is.

.venv/bin/python benchmarks/quality/answer_formats.py 40
"""

from __future__ import annotations

import json
import sys

import numpy as np

from mobilevlm_ros.engine.runtime import load_runtime
from mobilevlm_ros.errors import MobileVLMError
from mobilevlm_ros.evaluation.nano.exam import exam
from mobilevlm_ros.inference.assistant import Assistant
from mobilevlm_ros.inference.types import AnswerFormat, Frame, Request
from mobilevlm_ros.simulation.questions import name
from mobilevlm_ros.simulation.render import Observation, observe
from mobilevlm_ros.simulation.scene import KINDS
from mobilevlm_ros.simulation.scene_sampler import sample_scene

FIRST_SEED = 7_500_000  # no training, examination or calibration draws from here
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {
            "light": {"enum": ["day", "dusk"]},
            "objects": {"type": "integer", "minimum": 0, "maximum": 9},
        },
        "required": ["light", "objects"],
    }
)
COUNT = "How many objects are there?"


def main() -> int:
    """One Markdown row for each form, then the confidences about scenes."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    assistant = Assistant(load_runtime(None))
    scenes = [observe(sample_scene(FIRST_SEED + number), 3.0) for number in range(count)]
    print("| form | right | asked |\n|---|---|---|")
    for form in ("integer", "number", "choice_list", "json"):
        right = sum(_right(assistant, scene, form) for scene in scenes)
        print(f"| `{form}` | {right} | {count} |")
    sure = [assistant.ask(Frame(image), Request(e.question)).confidence for image, e, _ in exam(10 * count)]
    edge = np.quantile(sure, 0.05)
    print(f"\n95 % of {len(sure)} free answers about scenes have a confidence of {edge:.3f} or more")
    return 0


def _right(assistant: Assistant, scene: Observation, form: str) -> bool:
    frame = Frame(scene.image)
    there = sorted({name(seen) for seen in scene.seen})
    try:
        if form == "choice_list":
            absent = [kind for kind in KINDS if kind not in {seen.thing.kind for seen in scene.seen}][:2]
            asked = Request(
                "Which of these do you see?", choices=(*there, *absent), answer_format=AnswerFormat(form)
            )
            return assistant.ask(frame, asked).text == (", ".join(there) or "none")
        if form == "json":
            asked = Request("Describe the scene.", answer_format=AnswerFormat(form, json_schema=SCHEMA))
            told = json.loads(assistant.ask(frame, asked).text)
            return told == {"light": scene.light, "objects": len(scene.seen)}
        asked = Request(COUNT, answer_format=AnswerFormat(form, minimum=0, maximum=9))
        return float(assistant.ask(frame, asked).text) == len(scene.seen)
    except MobileVLMError:
        return False


if __name__ == "__main__":
    raise SystemExit(main())
