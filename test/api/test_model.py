# SPDX-License-Identifier: Apache-2.0
"""The front door: what a notebook can write, and what it hears when it writes something else."""

import pickle
import threading
from collections.abc import Generator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

import mobilevlm_ros
from mobilevlm_ros import MobileVLM
from mobilevlm_ros.engine.runtime import load_runtime
from mobilevlm_ros.errors import (
    BundleError,
    EngineError,
    ImageError,
    MobileVLMError,
    OptionError,
    QuestionError,
    RequestTimeout,
)
from mobilevlm_ros.inference.assistant import Assistant
from mobilevlm_ros.inference.types import Frame, Region, Request, SamplingParams
from mobilevlm_ros.simulation.render import observe
from mobilevlm_ros.simulation.scene_sampler import sample_scene

QUESTION = "What is on the left?"


@pytest.fixture(scope="module")
def vlm(any_bundle: Path) -> Generator[MobileVLM, None, None]:
    with MobileVLM(any_bundle, threads=1) as model:
        yield model


@pytest.fixture(scope="module")
def rgb() -> NDArray[np.uint8]:
    return observe(sample_scene(3), 0.0, 320, 240).image


@pytest.fixture(scope="module")
def assistant(any_bundle: Path) -> Assistant:
    """The same model, asked without the front door."""
    return Assistant(load_runtime(any_bundle, threads=1))


def test_arrays_pil_images_and_paths_show_the_same_picture(
    vlm: MobileVLM, rgb: NDArray[np.uint8], assistant: Assistant, tmp_path: Path
) -> None:
    path = tmp_path / "door.png"
    PIL.Image.fromarray(rgb).save(path)
    expected = assistant.ask(Frame(rgb), Request(QUESTION))
    for image in (rgb, PIL.Image.fromarray(rgb), PIL.Image.open(path), path, str(path), Frame(rgb)):
        answer = vlm.ask(image, QUESTION)
        assert (answer.text, answer.confidence) == (expected.text, expected.confidence)
        assert str(answer) == expected.text


def test_choices_have_probabilities_by_name(vlm: MobileVLM, rgb: NDArray[np.uint8]) -> None:
    answer = vlm.ask(rgb, "Is there a cone?", choices=["yes", "no"])
    assert list(answer.probabilities) == ["yes", "no"]
    assert sum(answer.probabilities.values()) == pytest.approx(1)
    assert answer.probabilities[answer.text] == answer.confidence
    assert answer.latency.total > 0


def test_every_option_reaches_the_model(vlm: MobileVLM, rgb: NDArray[np.uint8], assistant: Assistant) -> None:
    options = {"max_tokens": 9, "temperature": 1.5, "top_p": 0.9, "seed": 4, "repetition_penalty": 1.2}
    request = Request(
        QUESTION,
        system_prompt="You see a road.",
        region=Region(10, 20, 90, 80),
        region_with_frame=True,
        sampling=SamplingParams(**options, stop=("zzz",)),
    )
    expected = assistant.ask(Frame(rgb), request)
    for region in ((10, 20, 90, 80), Region(10, 20, 90, 80), np.array([10, 20, 90, 80]).tolist()):
        answer = vlm.ask(
            rgb,
            QUESTION,
            **options,
            stop=["zzz"],
            system_prompt="You see a road.",
            region=region,
            region_with_frame=True,
        )
        assert (answer.text, answer.prompt_tokens) == (expected.text, expected.prompt_tokens)
    assert vlm.ask(rgb, request).text == expected.text


def test_a_schema_may_be_a_dict(vlm: MobileVLM, rgb: NDArray[np.uint8]) -> None:
    pytest.importorskip("llguidance")
    schema = {"type": "object", "properties": {"there": {"type": "boolean"}}, "required": ["there"]}
    assert vlm.ask(rgb, "Is there a cone?", json_schema=schema).text in (
        '{"there": true}',
        '{"there": false}',
    )
    assert vlm.ask(rgb, "Which side?", pattern="left|right").text in ("left", "right")
    stream = vlm.stream(rgb, "Which side?", grammar='start: " on the " ("left" | "right") " "')
    assert "".join(stream) == stream.answer.text and stream.answer.text in (" on the left ", " on the right ")
    assert 2 <= int(vlm.ask(rgb, "How many?", answer_format="integer", minimum=2, maximum=5).text) <= 5


def test_a_stream_is_the_answer_in_pieces(vlm: MobileVLM, rgb: NDArray[np.uint8]) -> None:
    whole = vlm.ask(rgb, "Describe the scene.", max_tokens=20)
    stream = vlm.stream(rgb, "Describe the scene.", max_tokens=20)
    pieces = list(stream)
    assert len(pieces) > 1 and "".join(pieces) == whole.text == stream.answer.text


@pytest.mark.parametrize("options", [{"choices": ["yes", "no"]}, {"abstain_threshold": 0.001}])
def test_what_is_known_at_the_end_streams_as_one_piece(
    vlm: MobileVLM, rgb: NDArray[np.uint8], options: dict
) -> None:
    stream = vlm.stream(rgb, "Is there a cone?", **options)
    assert list(stream) == [stream.answer.text]


def test_a_withheld_answer_streams_nothing_and_says_so(vlm: MobileVLM, rgb: NDArray[np.uint8]) -> None:
    stream = vlm.stream(rgb, "Is there a cone?", choices=["yes", "no"], abstain_threshold=1.0)
    assert list(stream) == []
    assert stream.answer.abstained and stream.answer.best_guess in str(stream.answer)


def test_a_stream_that_is_left_has_no_answer(vlm: MobileVLM, rgb: NDArray[np.uint8]) -> None:
    stream = vlm.stream(rgb, "Describe the scene.")
    next(stream)
    stream.close()
    with pytest.raises(QuestionError, match="ask again"):
        _ = stream.answer


def test_questions_about_one_picture_encode_it_once(
    any_bundle: Path, rgb: NDArray[np.uint8], assistant: Assistant
) -> None:
    questions = ["Is it day?", "How many objects do you see?", Request("Is there a cone?", ("yes", "no"))]
    with MobileVLM(any_bundle, threads=1) as fresh:
        answers = fresh.ask_many(rgb, questions, max_tokens=12)
        assert fresh.ask_many(rgb, []) == []
    alone = [assistant.ask(Frame(rgb), q if isinstance(q, Request) else Request(q)) for q in questions]
    assert [answer.text for answer in answers] == [answer.text for answer in alone]
    assert answers[1].reused_tokens >= assistant.runtime.vision.num_tokens


def test_a_chat_remembers(vlm: MobileVLM, rgb: NDArray[np.uint8]) -> None:
    chat = vlm.chat(rgb, system_prompt="You see a road.")
    first = chat.ask(QUESTION)
    second = chat.ask("What colour is it?", max_tokens=5)
    assert (first.session_turn, second.session_turn) == (1, 2)
    assert second.reused_tokens > first.prompt_tokens - 10
    assert chat.turns == [(QUESTION, first.text), ("What colour is it?", second.text)]
    alone = vlm.ask(rgb, "What colour is it?", system_prompt="You see a road.")
    assert second.prompt_tokens > alone.prompt_tokens
    other = np.zeros_like(rgb)
    assert chat.ask(QUESTION, other).reused_tokens < second.reused_tokens
    assert chat.ask("And now?").session_turn == 4


def test_several_pictures_are_one_question(
    vlm: MobileVLM, rgb: NDArray[np.uint8], assistant: Assistant, tmp_path: Path
) -> None:
    path, dark = tmp_path / "a.png", np.zeros_like(rgb)
    PIL.Image.fromarray(rgb).save(path)
    frames = Frame(rgb), Frame(dark)
    expected = assistant.ask(frames, Request(QUESTION))
    pictures = [str(path), PIL.Image.fromarray(dark)]
    for image in (pictures, tuple(pictures), frames):
        assert vlm.ask(image, QUESTION).text == expected.text
        assert "".join(vlm.stream(image, QUESTION)) == expected.text
    assert vlm.ask_many(pictures, [QUESTION])[0].prompt_tokens == expected.prompt_tokens
    chat = vlm.chat(pictures)
    assert chat.ask(QUESTION).text == expected.text
    assert chat.ask("Why?").reused_tokens > 2 * assistant.runtime.vision.num_tokens
    with pytest.raises(OptionError, match="a region was given with 2 pictures"):
        vlm.ask(pictures, QUESTION, region=(0, 0, 5, 5))


def test_a_chat_needs_a_picture(vlm: MobileVLM, rgb: NDArray[np.uint8]) -> None:
    chat = vlm.chat()
    with pytest.raises(ImageError, match=r"ask\(question, image\)"):
        chat.ask(QUESTION)
    assert "".join(chat.stream(QUESTION, rgb)) == chat.turns[0][1]


def test_threads_share_a_model(vlm: MobileVLM, rgb: NDArray[np.uint8]) -> None:
    questions = ["What is on the left?", "Describe the scene.", "Is it day?", "What is on the right?"]
    expected = [vlm.ask(rgb, question).text for question in questions]
    found: dict[int, str] = {}
    threads = [
        threading.Thread(target=lambda i=i, q=q: found.update({i: vlm.ask(rgb, q).text}))
        for i, q in enumerate(questions)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(len(questions))] == expected


def test_a_timeout_ends_an_answer(endless_bundle: Path, rgb: NDArray[np.uint8]) -> None:
    with MobileVLM(endless_bundle, threads=1) as endless:
        with pytest.raises(RequestTimeout, match="allow more time"):
            endless.ask(rgb, QUESTION, max_tokens=4096, timeout=0.0)
        assert endless.ask(rgb, QUESTION, max_tokens=3).finish_reason == "length"


def test_closed_means_closed(any_bundle: Path, rgb: NDArray[np.uint8]) -> None:
    with MobileVLM(any_bundle, threads=1) as model:
        stream = model.stream(rgb, "Describe the scene.")
        next(stream)
    for put in (
        lambda: model.ask(rgb, QUESTION),
        lambda: next(stream),
        lambda: model.ask_many(rgb, ["Is it?"]),
    ):
        with pytest.raises(EngineError, match="closed"):
            put()
    model.close()
    assert repr(model).endswith("closed)")


def test_a_checkpoint_runs_through_pytorch(rgb: NDArray[np.uint8]) -> None:
    pytest.importorskip("torch")
    checkpoint = Path(__file__).parents[1] / "data" / "parity" / "ckpt" / "tiny-ldpnetv2"
    with MobileVLM(checkpoint) as model:
        assert repr(model) == "MobileVLM('tiny-ldpnetv2', torch)"
        assert model.ask(rgb, QUESTION, max_tokens=3).generated_tokens <= 3


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch, any_bundle: Path, rgb: NDArray[np.uint8]) -> None:
    monkeypatch.setenv("HOME", str(any_bundle.parent))
    assert MobileVLM(f"~/{any_bundle.name}", threads=1).ask(rgb, QUESTION, max_tokens=2).text
    assert load_runtime(f"~/{any_bundle.name}", threads=1).bundle.path == any_bundle


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


def test_reprs_are_short(vlm: MobileVLM, rgb: NDArray[np.uint8], assistant: Assistant) -> None:
    answer = vlm.ask(rgb, "Is there a cone?", choices=["yes", "no"])
    chat = vlm.chat(rgb)
    stream = vlm.stream(rgb, "why " * 50)
    for thing in (vlm, answer, chat, stream, Frame(rgb), assistant, assistant.runtime):
        assert len(repr(thing)) < 100 and "object at" not in repr(thing)
    assert pickle.loads(pickle.dumps(answer)) == answer


def test_the_package_offers_it() -> None:
    assert "MobileVLM" in dir(mobilevlm_ros)
    with pytest.raises(AttributeError, match="Mobile"):
        _ = mobilevlm_ros.Mobile
