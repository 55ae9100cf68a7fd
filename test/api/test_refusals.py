# SPDX-License-Identifier: Apache-2.0
"""What the front door refuses, and what it says to pass instead."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from mobilevlm_ros import MobileVLM
from mobilevlm_ros.errors import (
    BundleError,
    ImageError,
    MobileVLMError,
    OptionError,
    QuestionError,
)
from mobilevlm_ros.inference.assistant import Assistant
from mobilevlm_ros.inference.types import Frame, Request

QUESTION = "What is on the left?"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("~/no-such-bundle", "does not exist"),
        ("{tmp}", r"no bundle\.json.*no config\.json"),
        ("weights.gguf", "mobilevlm build weights.gguf"),
        ("{tmp}/file", "is a file"),
        (3, "model is a int"),
    ],
)
def test_what_is_no_model_is_refused_with_what_to_give(model: object, said: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match=said):
        MobileVLM(model.format(tmp=tmp_path) if isinstance(model, str) else model)  # type: ignore[arg-type]


WRONG_PICTURES = {
    "image\\[0\\]": np.zeros((1, 8, 8, 3), np.uint8),
    "numpy.repeat": np.zeros((8, 8), np.uint8),
    "transpose": np.zeros((3, 8, 8), np.uint8),
    "\\[..., :3\\]": np.zeros((8, 8, 4), np.uint8),
    "255": np.zeros((8, 8, 3), np.float32),
    "astype": np.zeros((8, 8, 3), np.uint16),
    "io.BytesIO": b"\x89PNG",
    "list of pictures is empty": [],
    "17 pictures": [np.zeros((8, 8, 3), np.uint8)] * 17,
    "picture 2 of 2: .* an array for each": [np.zeros((8, 8, 3), np.uint8), [1, 2]],
    r"list\(image\)": np.zeros((2, 8, 8, 3), np.uint8),
    "cv2.imread": None,
    "cannot be read": "no-such-file.jpg",
    "8 bits": PIL.Image.new("I;16", (8, 8)),
    "empty": np.zeros((0, 8, 3), np.uint8),
}


@pytest.mark.parametrize("said", WRONG_PICTURES)
def test_what_is_no_picture_is_refused_with_what_to_pass(vlm: MobileVLM, said: str) -> None:
    for put in (vlm.ask, vlm.stream, lambda image, question: vlm.ask_many(image, [question])):
        with pytest.raises(ImageError, match=said):
            put(WRONG_PICTURES[said], QUESTION)  # type: ignore[operator]


WRONG_OPTIONS = {
    "'car': give a list": {"choices": "car"},
    "b'car'": {"choices": b"car"},
    "choices is 7": {"choices": 7},
    "holds True": {"choices": [True, False]},
    "only one choice": {"choices": ["yes"]},
    "stop is the one text": {"stop": "."},
    "max_tokens is '9': give an integer": {"max_tokens": "9"},
    "max_tokens is 2.5": {"max_tokens": 2.5},
    "max_tokens is None": {"max_tokens": None},
    "temperature is 'hot'": {"temperature": "hot"},
    "top_p is True": {"top_p": True},
    "seed is -1": {"seed": -1},
    "abstain_threshold is 'low'": {"abstain_threshold": "low"},
    "x, y, width, height": {"region": (1, 2)},
    "whole pixels": {"region": (0, 0, 0.5, 0.5)},
    "leaves the": {"region": (0, 0, 9000, 1)},
    "answer_format is 'xml'": {"answer_format": "xml"},
    "system prompt is a int": {"system_prompt": 3},
    "maximum is 'many'": {"answer_format": "integer", "maximum": "many"},
    "json_schema is a JSON list": {"json_schema": ["a"]},
    "cannot be written as JSON": {"json_schema": {"type": object}},
}


@pytest.mark.parametrize("said", WRONG_OPTIONS)
def test_a_wrong_option_is_refused_with_what_to_give(
    vlm: MobileVLM, rgb: NDArray[np.uint8], said: str
) -> None:
    for put in (vlm.ask, vlm.chat(rgb).ask):
        with pytest.raises(QuestionError, match=said):
            args = (rgb, QUESTION) if put == vlm.ask else (QUESTION,)
            put(*args, **WRONG_OPTIONS[said])


def test_other_mistakes_are_explained(vlm: MobileVLM, rgb: NDArray[np.uint8]) -> None:
    with pytest.raises(TypeError, match="did you mean 'max_tokens'"):
        vlm.ask(rgb, QUESTION, max_token=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="use choices, "):
        vlm.ask(rgb, QUESTION, nonsense=3)  # type: ignore[call-arg]
    with pytest.raises(QuestionError, match="the question is a ndarray"):
        vlm.ask(QUESTION, rgb)  # type: ignore[arg-type]
    with pytest.raises(QuestionError, match=r"\['Is it\?'\]"):
        vlm.ask_many(rgb, "Is it?")
    with pytest.raises(OptionError, match="put it into the Request"):
        vlm.ask(rgb, Request(QUESTION), max_tokens=3)


GREY = Frame(np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize(
    ("frame", "request_", "said"),
    [
        (GREY.image, Request("Is it?"), "mobilevlm_ros.MobileVLM"),
        (GREY, "Is it?", r"give Request\('What is it\?'\)"),
        (GREY, Request("Is it?", "car"), "'car': give a list"),
        (
            Frame(np.zeros((8, 8, 3), np.uint8)),
            Request("Is it?", sampling={"max_tokens": 3}),
            "SamplingParams",
        ),
        (GREY, Request("Is it?", answer_format="json"), "AnswerFormat"),
    ],
)
def test_the_assistant_itself_says_what_to_pass(
    assistant: Assistant, frame: Frame, request_: Request, said: str
) -> None:
    for put in (assistant.ask, lambda f, r: next(assistant.steps_many(f, [r]))):
        with pytest.raises(MobileVLMError, match=said):
            put(frame, request_)
