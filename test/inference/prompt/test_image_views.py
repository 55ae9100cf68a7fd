# SPDX-License-Identifier: Apache-2.0
import weakref
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.engine.logits import log_softmax
from mobilevlm_ros.engine.runtime import Runtime
from mobilevlm_ros.errors import OptionError
from mobilevlm_ros.inference.assistant import Assistant
from mobilevlm_ros.inference.choices.scoring import SHORT_ANSWER
from mobilevlm_ros.inference.prompt.image_views import KEPT_VIEWS, ImagePreparer
from mobilevlm_ros.inference.types import Frame, Region, Request
from mobilevlm_ros.processing.image import prepare
from mobilevlm_ros.processing.prompt_template import TEMPLATES, image_question

PART = Region(40, 30, 120, 90)
YES_NO = ("yes", "no")


@pytest.fixture
def assistant(runtime: Runtime) -> Assistant:
    return Assistant(runtime)


def cut(frame: Frame, region: Region) -> Frame:
    rows = slice(region.y, region.y + region.height)
    return Frame(frame.image[rows, region.x : region.x + region.width].copy())


def test_a_region_is_answered_as_the_picture_cut_out(assistant: Assistant, frame: Frame) -> None:
    part = assistant.ask(frame, Request("Is it red?", YES_NO, region=PART))
    alone = assistant.ask(cut(frame, PART), Request("Is it red?", YES_NO))
    assert part.choice_probabilities == alone.choice_probabilities
    assert alone.latency.encode == 0  # the same pixels are the same picture


def test_picture_and_part_are_two_images_of_one_prompt(
    assistant: Assistant, frame: Frame, from_scratch: Callable
) -> None:
    request = Request("Is it red?", YES_NO, region=PART, region_with_frame=True)
    one, both = assistant.ask(frame, Request("Is it red?", YES_NO)), assistant.ask(frame, request)
    assert both.prompt_tokens > one.prompt_tokens + assistant.runtime.vision.num_tokens
    assert both.reused_tokens >= assistant.runtime.vision.num_tokens  # the whole picture was known
    text = TEMPLATES["v1"].render([(image_question("Is it red?" + SHORT_ANSWER, 2), None)])
    logits = log_softmax(from_scratch(text, [frame.image, cut(frame, PART).image]))
    encode = assistant.runtime.tokenizer.encode
    shares = np.exp(logits[[encode(word, bos=False)[0] for word in ("yes", "Yes", "no", "No")]])
    assert both.choice_probabilities[0] == pytest.approx(shares[:2].sum() / shares.sum(), abs=1e-3)


def test_a_region_that_is_the_whole_picture_is_no_region(assistant: Assistant, frame: Frame) -> None:
    height, width = frame.image.shape[:2]
    whole = Request("Is it red?", YES_NO, region=Region(0, 0, width, height), region_with_frame=True)
    answer = assistant.ask(frame, whole)
    assert answer.prompt_tokens == assistant.ask(frame, Request("Is it red?", YES_NO)).prompt_tokens


@pytest.mark.parametrize(
    ("region", "what"),
    [
        (Region(300, 0, 21, 10), r"21x10 at \(300, 0\) leaves the 320x240 picture"),
        (Region(0, 0, 320, 241), "320x241"),
        (Region(-1, 0, 10, 10), r"at \(-1, 0\)"),
        (Region(0, 0, 0, 10), "0x10: give a width and height"),
        (Region(0, 0, 10, -1), "10x-1"),
    ],
)
def test_a_region_outside_the_picture_is_refused_with_the_numbers(
    assistant: Assistant, frame: Frame, region: Region, what: str
) -> None:
    with pytest.raises(OptionError, match=what):
        assistant.ask(frame, Request("Is it?", region=region))


def test_with_the_frame_needs_a_region(assistant: Assistant, frame: Frame) -> None:
    with pytest.raises(OptionError, match="region_with_frame is set without a region"):
        assistant.ask(frame, Request("Is it?", region_with_frame=True))


numbers = st.integers(-3, 12)


@given(st.builds(Region, numbers, numbers, numbers, numbers))
def test_any_region_is_cut_out_or_refused(region: Region) -> None:
    image = np.arange(8 * 9 * 3, dtype=np.uint8).reshape(8, 9, 3)
    image_preparer = ImagePreparer(size=4, aspect="pad", fast=True)
    inside = min(region.x, region.y) >= 0 and min(region.width, region.height) > 0
    inside = inside and region.x + region.width <= 9 and region.y + region.height <= 8
    if not inside:
        with pytest.raises(OptionError):
            image_preparer.views(Frame(image), region)
        return
    (view,) = image_preparer.views(Frame(image), region)
    assert np.array_equal(view.pixels, prepare(cut(Frame(image), region).image, 4, fast=True))


def test_only_the_latest_pictures_are_kept(frame: Frame) -> None:
    image_preparer = ImagePreparer(size=8, aspect="pad", fast=True)
    first = image_preparer.views(frame, PART)[0]
    assert image_preparer.views(frame, PART)[0] is first
    for x in range(KEPT_VIEWS):
        image_preparer.views(frame, Region(x, 0, 50, 50))
    again = image_preparer.views(frame, PART)[0]
    assert again is not first and again.digest == first.digest


def test_a_kept_view_keeps_no_frame(runtime: Runtime) -> None:
    image_preparer = ImagePreparer(32, "pad", fast=True)
    frame = Frame(np.zeros((60, 80, 3), np.uint8))
    view, gone = image_preparer.views(frame)[0], weakref.ref(frame)
    assert image_preparer.views(frame)[0] is view
    del frame
    assert gone() is None
    # Whatever takes its place in memory is another frame.
    others = [Frame(np.full((60, 80, 3), value, np.uint8)) for value in range(1, 9)]
    assert all(image_preparer.views(other)[0].digest != view.digest for other in others)
