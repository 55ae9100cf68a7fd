# SPDX-License-Identifier: Apache-2.0
"""The front door: what a notebook can write, and what it hears when it writes something else."""

import pickle
import threading
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

import mobilevlm_ros
from mobilevlm_ros import MobileVLM
from mobilevlm_ros.engine.runtime import load_runtime
from mobilevlm_ros.errors import (
    EngineError,
    ImageError,
    OptionError,
    QuestionError,
    RequestTimeout,
)
from mobilevlm_ros.inference.assistant import Assistant
from mobilevlm_ros.inference.types import Frame, Region, Request, SamplingParams

QUESTION = "What is on the left?"


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
