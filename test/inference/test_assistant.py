# SPDX-License-Identifier: Apache-2.0
import dataclasses

import numpy as np
import pytest

from mobilevlm_ros.engine.logits import log_softmax
from mobilevlm_ros.engine.runtime import Runtime
from mobilevlm_ros.errors import ContextOverflow, ImageError, RequestCancelled
from mobilevlm_ros.inference.assistant import Assistant
from mobilevlm_ros.inference.choices.scoring import SHORT_ANSWER
from mobilevlm_ros.inference.types import Frame, Request, SamplingParams
from mobilevlm_ros.processing.image import prepare
from mobilevlm_ros.processing.prompt_template import TEMPLATES, image_question
from mobilevlm_ros.processing.tokenizer import IMAGE_TOKEN

ASKED = Request("What is on the left?", sampling=SamplingParams(max_tokens=12))


def sampled(request: Request, **params: object) -> Request:
    return dataclasses.replace(request, sampling=dataclasses.replace(request.sampling, **params))


@pytest.fixture
def assistant(runtime: Runtime) -> Assistant:
    return Assistant(runtime)


def from_scratch(runtime: Runtime, frame: Frame, request: Request) -> tuple[list[int], list[float]]:
    """Greedy ids and their probabilities, recomputing the whole prompt for each token, without cache."""
    prompt = runtime.tokenizer.encode_prompt(
        TEMPLATES["v1"].render([(image_question(request.question), None)])
    )
    at = prompt.index(IMAGE_TOKEN)
    pixels = prepare(frame.image, runtime.vision.image_size, fast=True)
    image = runtime.vision.encode(pixels[None])[0]
    language = runtime.language
    ids: list[int] = []
    odds: list[float] = []
    while len(ids) < request.sampling.max_tokens:
        before, after = (np.array(part, np.int64) for part in (prompt[:at], [*prompt[at + 1 :], *ids]))
        embeddings = np.concatenate((language.embed(before), image, language.embed(after)))
        logits = log_softmax(language.forward(embeddings[None], language.new_cache()))[0, -1]
        token = int(logits.argmax())
        if token == runtime.tokenizer.eos_id:
            break
        ids.append(token)
        odds.append(float(np.exp(logits[token])))
    return ids, odds


def test_answers_as_a_run_without_any_cache(assistant: Assistant, runtime: Runtime, frame: Frame) -> None:
    ids, odds = from_scratch(runtime, frame, ASKED)
    answer = assistant.ask(frame, ASKED)
    assert answer.text == runtime.tokenizer.decode(ids).strip()
    assert answer.generated_tokens == len(ids)
    assert answer.confidence == pytest.approx(min(odds), rel=0.02)
    assert answer.finish_reason == ("length" if len(ids) == ASKED.sampling.max_tokens else "stop")


def test_a_follow_up_reuses_the_image_and_answers_the_same(assistant: Assistant, frame: Frame) -> None:
    first = assistant.ask(frame, ASKED)
    again = assistant.ask(frame, ASKED)
    assert (again.text, again.prompt_tokens) == (first.text, first.prompt_tokens)
    assert again.confidence == pytest.approx(first.confidence, rel=0.02)
    assert first.reused_tokens == 0
    assert again.reused_tokens > assistant.runtime.vision.num_tokens
    assert again.latency.encode == 0 and first.latency.encode > 0


def test_a_new_frame_reuses_the_system_prompt_only(
    assistant: Assistant, frame: Frame, other_frame: Frame
) -> None:
    assistant.ask(frame, ASKED)
    answer = assistant.ask(other_frame, ASKED)
    assert 0 < answer.reused_tokens < answer.prompt_tokens - assistant.runtime.vision.num_tokens
    assert answer.text == Assistant(assistant.runtime).ask(other_frame, ASKED).text


def test_frames_are_told_apart_by_content_not_by_stamp(
    assistant: Assistant, frame: Frame, other_frame: Frame
) -> None:
    assert (frame.stamp_ns, frame.camera) == (other_frame.stamp_ns, other_frame.camera)
    assistant.ask(frame, ASKED)
    assert assistant.ask(other_frame, ASKED).latency.encode > 0
    copy = dataclasses.replace(frame, image=frame.image.copy(), stamp_ns=99)
    assert assistant.ask(copy, ASKED).latency.encode == 0


def test_questions_that_interleave_do_not_disturb_each_other(
    assistant: Assistant, frame: Frame, other_frame: Frame
) -> None:
    requests = [
        ASKED,
        Request("Is there a cone?", sampling=SamplingParams(max_tokens=12)),
        Request("How many?", sampling=SamplingParams(max_tokens=12)),
    ]
    jobs = [(f, r) for r in requests for f in (frame, other_frame)]
    expected = [Assistant(assistant.runtime).ask(f, r).text for f, r in jobs]
    running = [assistant.steps(f, r) for f, r in jobs]
    texts: dict[int, str] = {}
    while len(texts) < len(running):
        for index, steps in enumerate(running):
            if index not in texts:
                try:
                    next(steps)
                except StopIteration as end:
                    texts[index] = end.value.text
    assert [texts[i] for i in range(len(jobs))] == expected


def test_streamed_text_is_the_answer(assistant: Assistant, frame: Frame) -> None:
    deltas: list[str] = []
    answer = assistant.ask(frame, ASKED, on_text=deltas.append)
    assert answer.text.startswith(
        "".join(deltas).strip()
    )  # an unfinished character at the end is not streamed
    assert len("".join(deltas).strip()) >= len(answer.text) - 3


def test_a_stop_text_ends_the_answer_and_is_not_shown(assistant: Assistant, frame: Frame) -> None:
    whole = assistant.ask(frame, ASKED).text
    stop = whole[len(whole) // 2 :][:2]
    deltas: list[str] = []
    answer = assistant.ask(frame, sampled(ASKED, stop=(stop,)), on_text=deltas.append)
    assert answer.text == whole[: whole.index(stop)].strip()
    assert stop not in "".join(deltas)
    assert answer.finish_reason == "stop"


def test_cancelling_stops_at_the_next_token(assistant: Assistant, frame: Frame) -> None:
    deltas: list[str] = []
    with pytest.raises(RequestCancelled):
        assistant.ask(
            frame,
            sampled(ASKED, stop=("never",)),
            should_stop=lambda: len(deltas) >= 2,
            on_text=deltas.append,
        )
    assert len(deltas) == 2
    assert assistant.ask(frame, ASKED).text == Assistant(assistant.runtime).ask(frame, ASKED).text


def test_choices_sum_to_one_and_the_best_one_is_the_answer(assistant: Assistant, frame: Frame) -> None:
    choices = ("red", "green", "traffic light", "red car")
    answer = assistant.ask(frame, Request("Which is it?", choices=choices))
    assert sum(answer.choice_probabilities) == pytest.approx(1)
    assert answer.text == choices[int(np.argmax(answer.choice_probabilities))]
    assert answer.confidence == max(answer.choice_probabilities)
    assert (answer.finish_reason, answer.generated_tokens) == ("choice", 0)


def test_order_of_choices_does_not_matter(assistant: Assistant, frame: Frame) -> None:
    choices = ("yes", "no", "maybe so", "maybe")
    forward = assistant.ask(frame, Request("Is it?", choices=choices)).choice_probabilities
    backward = assistant.ask(frame, Request("Is it?", choices=choices[::-1])).choice_probabilities
    assert backward[::-1] == pytest.approx(forward, rel=1e-3)


def test_choices_ask_for_a_short_answer_once(assistant: Assistant, frame: Frame) -> None:
    plain = assistant.ask(frame, Request("Is it?", choices=("yes", "no")))
    spelled = assistant.ask(frame, Request("Is it?" + SHORT_ANSWER, choices=("yes", "no")))
    assert spelled.prompt_tokens == plain.prompt_tokens
    assert spelled.choice_probabilities == pytest.approx(plain.choice_probabilities, rel=1e-3)


@pytest.mark.parametrize("params", [{}, {"temperature": 1.5, "seed": 3}, {"stop": ("on",)}])
def test_logprobs_are_the_tokens_of_the_answer(assistant: Assistant, frame: Frame, params: dict) -> None:
    plain = assistant.ask(frame, sampled(ASKED, **params))
    answer = assistant.ask(frame, sampled(ASKED, **params, logprobs=True, top_logprobs=3))
    assert plain.logprobs == () and answer.text == plain.text
    assert len(answer.logprobs) == answer.generated_tokens
    whole = b"".join(token.content for token in answer.logprobs).decode()
    assert "".join(token.text for token in answer.logprobs) == whole
    assert whole.strip().startswith(answer.text)
    assert min(np.exp([token.logprob for token in answer.logprobs])) == pytest.approx(answer.confidence)
    for token in answer.logprobs:
        top = [other.logprob for other in token.top]
        assert len(top) == 3 and top == sorted(top, reverse=True) and top[0] >= token.logprob
        if "temperature" not in params:
            assert (token.top[0].token_id, top[0]) == (token.token_id, token.logprob)


def test_questions_asked_together_have_logprobs_too(assistant: Assistant, frame: Frame) -> None:
    request = sampled(ASKED, logprobs=True, top_logprobs=2)
    steps = assistant.steps_many(frame, [request, request, Request("Is it day?", ("yes", "no"))])
    with pytest.raises(StopIteration) as end:
        while True:
            next(steps)
    alone = assistant.ask(frame, request)
    for answer in end.value.value[:2]:
        assert [t.token_id for t in answer.logprobs] == [t.token_id for t in alone.logprobs]
        assert [t.logprob for t in answer.logprobs] == pytest.approx(
            [t.logprob for t in alone.logprobs], abs=0.1
        )
    assert end.value.value[2].logprobs == ()


def test_the_same_seed_samples_the_same_answer(assistant: Assistant, frame: Frame) -> None:
    request = sampled(ASKED, temperature=1.5, seed=7)
    assert assistant.ask(frame, request).text == assistant.ask(frame, request).text


def test_a_tiny_budget_keeps_no_frame_but_answers_the_same(runtime: Runtime, frame: Frame) -> None:
    frugal = Assistant(runtime, prefix_budget=0)
    first, second = frugal.ask(frame, ASKED), frugal.ask(frame, ASKED)
    assert second.text == first.text == Assistant(runtime).ask(frame, ASKED).text
    assert second.latency.encode > 0


def test_a_prompt_longer_than_the_context_is_refused(assistant: Assistant, frame: Frame) -> None:
    assistant.max_question = 10**6
    with pytest.raises(ContextOverflow, match="shorten the question"):
        assistant.ask(frame, Request("why " * assistant.runtime.language.max_length))
    assert assistant.ask(frame, ASKED).text


def test_an_answer_ends_where_the_context_does(assistant: Assistant, frame: Frame) -> None:
    assistant.max_question = 10**6
    words = assistant.runtime.language.max_length
    while True:  # the longest question that still fits, give or take
        try:
            answer = assistant.ask(frame, Request("a " * words, sampling=SamplingParams(max_tokens=4096)))
            break
        except ContextOverflow:
            words -= 5
    assert answer.prompt_tokens + answer.generated_tokens <= assistant.runtime.language.max_length


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((0, 0, 3), np.uint8),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
    ],
)
def test_an_array_that_is_no_picture_is_refused(assistant: Assistant, image: np.ndarray) -> None:
    with pytest.raises(ImageError):
        assistant.ask(Frame(image), ASKED)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2000), (3000, 2)])
def test_odd_shapes_are_answered(assistant: Assistant, shape: tuple[int, int]) -> None:
    answer = assistant.ask(
        Frame(np.full((*shape, 3), 90, np.uint8)),
        Request("What is it?", sampling=SamplingParams(max_tokens=2)),
    )
    assert answer.prompt_tokens > assistant.runtime.vision.num_tokens
