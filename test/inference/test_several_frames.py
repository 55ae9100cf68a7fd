# SPDX-License-Identifier: Apache-2.0
"""Several pictures in one question: prompt and logits of the official code, each read once, none too many."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mobilevlm_ros.engine.runtime import Runtime, load_runtime
from mobilevlm_ros.errors import ContextOverflow, ImageError, OptionError
from mobilevlm_ros.inference.assistant import Assistant
from mobilevlm_ros.inference.cache.prefill import Prefiller, PrefillResult
from mobilevlm_ros.inference.cache.sessions import Session
from mobilevlm_ros.inference.prompt.image_views import ImagePreparer
from mobilevlm_ros.inference.prompt_builder import PromptBuilder
from mobilevlm_ros.inference.stopwatch import Stopwatch
from mobilevlm_ros.inference.types import Frame, Region, Request, SamplingParams
from mobilevlm_ros.inference.validate import MAX_FRAMES
from mobilevlm_ros.processing.image import prepare
from mobilevlm_ros.processing.prompt_template import TEMPLATES
from mobilevlm_ros.processing.tokenizer import IMAGE_TOKEN

QUESTION = "Did the ball move?"
YES_NO = ("yes", "no")
PARITY = Path(__file__).parents[1] / "data" / "parity" / "ckpt"


def noise(seed: int) -> Frame:
    pixels = np.random.default_rng(seed).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    return Frame(pixels, stamp_ns=seed, camera="front")


A, B, C, D = map(noise, range(4))


class Reading:
    """Reads questions about frames, and remembers: prompts as the assistant makes them, logits at the end."""

    def __init__(self, runtime: Runtime, budget: int = 1 << 30) -> None:
        preparer = ImagePreparer(runtime.vision.image_size, "pad", fast=True)
        self._builder = PromptBuilder(runtime, preparer)
        self.prefiller = Prefiller(runtime.vision, runtime.language, budget, 72)
        self.watch = Stopwatch()

    def __call__(self, frames: Sequence[Frame], question: str = QUESTION) -> PrefillResult:
        prompt = self._builder.prompt(frames, Request(question), Session())
        self.watch = Stopwatch()
        return last(self.prefiller.read(prompt.prompt_tokens, prompt.views, 8, self.watch))


def last(steps: Generator[str, None, Any]) -> Any:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def official_ids(runtime: Runtime, pictures: int) -> list[int]:
    """As `tokenizer_image_token` (mobilevlm/utils.py) does it: chunks one by one, each later one without its
    <s>, the image's id between them.
    """
    prompt = TEMPLATES["v1"].opening + "<image>\n" * pictures + QUESTION + " ASSISTANT:"
    chunks = [runtime.tokenizer.encode(chunk) for chunk in prompt.split("<image>")]
    ids = chunks[0]
    for chunk in chunks[1:]:
        ids = [*ids, IMAGE_TOKEN, *chunk[1:]]
    return ids


@pytest.fixture
def assistant(runtime: Runtime) -> Assistant:
    return Assistant(runtime)


@pytest.mark.parametrize("frames", [(A, B), (A, B, C), (A, A)], ids=["two", "three", "one twice"])
@pytest.mark.parametrize("checkpoint", ["tiny-ldpnet", "tiny-ldpnetv2"])
def test_logits_are_those_of_the_pytorch_model(
    checkpoint: str,
    frames: tuple[Frame, ...],
    parity_bundle: Callable[[str], Path],
    model: Callable[[str], Any],
) -> None:
    torch = pytest.importorskip("torch")
    runtime = load_runtime(parity_bundle(checkpoint), backend="onnxruntime", threads=1)
    pixels = np.stack([prepare(frame.image, runtime.vision.image_size, fast=True) for frame in frames])
    reference = model(checkpoint)
    mean, std = (np.array(v, np.float32) for v in (MEAN, STD))
    normalised = torch.from_numpy((pixels / np.float32(255) - mean) / std).permute(0, 3, 1, 2)
    with torch.no_grad():
        images = reference.encode_images(normalised)
        embeddings = reference.embed_prompt(official_ids(runtime, len(frames)), images)
        expected = reference(embeddings)[0, -1].float().numpy()
    for budget in (0, 1 << 30):
        found = Reading(runtime, budget)(frames)
        assert found.tokens == embeddings.shape[1]
        np.testing.assert_allclose(found.logits, expected, atol=1e-3 * np.abs(expected).max())


MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""CLIP's, of its preprocessor_config.json."""


def test_a_growing_window_reuses_the_kv_of_its_beginning(runtime: Runtime) -> None:
    warm, n = Reading(runtime), runtime.vision.num_tokens
    reused = []
    for frames in ((A,), (A, B), (A, B, C), (A, B, C), (A, B), (A,), (B, C)):
        found = warm(frames)
        cold = Reading(runtime, budget=0)(frames)
        np.testing.assert_allclose(found.logits, cold.logits, atol=1e-3)
        assert (found.tokens, cold.reused) == (cold.tokens, 0)
        reused.append(found.reused)
    head = reused[-1]
    # Each image but the first comes after a line end, of the positions that it shares with the next.
    pictures = [round((r - head) / n) for r in reused[1:]]
    assert reused[0] == 0 and head < n
    assert pictures == [1, 2, 3, 2, 1, 0]


def test_a_sliding_window_encodes_only_what_is_new(runtime: Runtime) -> None:
    reading = Reading(runtime)
    encoded = []
    encode = runtime.vision.encode

    class Counting:
        num_tokens, image_size = runtime.vision.num_tokens, runtime.vision.image_size

        def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
            encoded.append(len(pixels))
            return encode(pixels)

    reading.prefiller.vision = Counting()  # type: ignore[assignment]
    for frames in ((A, B), (B, C), (C, D), (D, D)):
        reading(frames)
    assert encoded == [1] * 4


def test_what_is_kept_of_a_window_counts_once(runtime: Runtime) -> None:
    reading = Reading(runtime)
    reading((A, B, C))
    whole = reading.prefiller.nbytes
    fresh = Reading(runtime)
    for frames in ((A,), (A, B), (A, B, C)):
        fresh(frames)
    assert fresh.prefiller.nbytes == whole
    small = Reading(runtime, budget=whole // 2)
    for frames in ((A, B, C), (B, C, D), (A, B, C)):
        small(frames)
        assert small.prefiller.nbytes <= whole // 2


def test_one_by_one_and_together(assistant: Assistant) -> None:
    """Choices read as one tree, free answers side by side, lists of choices: as alone."""
    requests = [
        Request(QUESTION, YES_NO),
        Request("Is there a cone?", YES_NO),
        Request("What appeared?", sampling=SamplingParams(max_tokens=6)),
        Request("What is left?", sampling=SamplingParams(max_tokens=6)),
    ]
    together = last(assistant.steps_many((A, B), requests))
    alone = [Assistant(assistant.runtime).ask((A, B), request) for request in requests]
    for one, expected in zip(together, alone, strict=True):
        assert (one.text, one.prompt_tokens) == (expected.text, expected.prompt_tokens)
        assert one.choice_probabilities == pytest.approx(
            expected.choice_probabilities, abs=1e-3
        )  # 8-bit sums
    assert together[1].reused_tokens > 2 * assistant.runtime.vision.num_tokens


def test_the_order_and_each_picture_count(assistant: Assistant) -> None:
    def odds(*frames: Frame) -> tuple[float, ...]:
        return assistant.ask(frames, Request(QUESTION, YES_NO)).choice_probabilities

    found = [odds(A), odds(A, B), odds(B, A), odds(A, B, C)]
    assert len({round(o[0], 6) for o in found}) == 4
    assert odds(A) == pytest.approx(odds(*[A]), abs=0)
    assert assistant.ask([A], Request(QUESTION, YES_NO)).choice_probabilities == odds(A)


def test_a_conversation_stays_about_its_pictures(assistant: Assistant) -> None:
    session = Session(token_budget=assistant.runtime.language.max_length)
    first = assistant.ask((A, B), Request(QUESTION), session)
    assert session.frames == (A, B) and session.frame is B
    second = assistant.ask(session.frames, Request("Why?"), session)
    assert second.reused_tokens >= first.prompt_tokens - 1
    said = Session.after(session.turns[:1], assistant.runtime.language.max_length)
    again = Assistant(assistant.runtime).ask((A, B), Request("Why?"), said)
    assert (again.text, again.prompt_tokens, again.session_turn) == (second.text, second.prompt_tokens, 2)


def test_too_many_for_the_context_are_refused_with_the_numbers(runtime: Runtime) -> None:
    n = runtime.vision.num_tokens
    answered = Assistant(runtime).ask((A, B), Request(QUESTION, YES_NO))
    context = answered.prompt_tokens + 4
    fits = replace_context(runtime, context)
    assert Assistant(fits).ask((A, B), Request(QUESTION, YES_NO)).text == answered.text
    with pytest.raises(ContextOverflow) as refused:
        Assistant(fits).ask((A, B, C), Request(QUESTION, YES_NO))
    text = str(refused.value)
    taken = answered.prompt_tokens + n + 2  # and a line end, which is a space and itself
    assert text.startswith(
        f"the prompt takes {taken} of {context} positions (3 pictures of {n} positions each"
    )
    assert f"and {taken - 3 * n} for its text)" in text and "fewer pictures" in text


def replace_context(runtime: Runtime, length: int) -> Runtime:
    """The same model with a shorter context."""
    language = runtime.language

    class Short:
        max_length = length

        def __getattr__(self, name: str) -> Any:
            return getattr(language, name)

    return replace(runtime, language=Short())


def test_what_cannot_be_asked(assistant: Assistant) -> None:
    with pytest.raises(OptionError, match="a region was given with 2 pictures"):
        assistant.ask((A, B), Request(QUESTION, region=Region(0, 0, 5, 5)))
    with pytest.raises(ImageError, match=f"at most {MAX_FRAMES}"):
        assistant.ask((A,) * (MAX_FRAMES + 1), Request(QUESTION))
    with pytest.raises(ImageError, match="list of pictures is empty"):
        assistant.ask((), Request(QUESTION))
    with pytest.raises(ImageError, match="the frame is a ndarray"):
        assistant.ask((A, B.image), Request(QUESTION))  # type: ignore[arg-type]
