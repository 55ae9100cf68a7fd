# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilevlm_ros.engine.runtime import Runtime
from mobilevlm_ros.inference.prompt.conversation import (
    Turn,
    cache_points,
    common,
    compose,
    positions,
    unmarked,
)
from mobilevlm_ros.inference.validate import RESERVED
from mobilevlm_ros.processing.prompt_template import TEMPLATES
from mobilevlm_ros.processing.tokenizer import IMAGE_TOKEN

ONE, TWO = b"first picture", b"second picture"
texts = st.lists(st.sampled_from([*"<>as/ \n", *RESERVED, "<ima", "ge>", "\u00e9"]), max_size=20).map("".join)


def test_the_images_stand_before_the_first_question(runtime: Runtime) -> None:
    prompt_tokens = compose(
        TEMPLATES["v1"], runtime.tokenizer, "", [ONE, TWO], [Turn("Is it?", "Yes")], "Why?"
    )
    # as the official code renders it
    said = "<image>\n<image>\nIs it? ASSISTANT: Yes</s>USER: Why? ASSISTANT:"
    text = TEMPLATES["v1"].opening + said
    ids = runtime.tokenizer.encode_prompt(text)
    assert [a for a in prompt_tokens if isinstance(a, bytes)] == [ONE, TWO]
    assert [IMAGE_TOKEN if isinstance(a, bytes) else a for a in prompt_tokens] == ids


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_a_system_prompt_takes_the_place_of_the_templates(name: str) -> None:
    template = TEMPLATES[name].with_system("You see a road.")
    assert template.system == "You see a road." and template.system in template.opening
    assert not TEMPLATES[name].system or TEMPLATES[name].system not in template.opening
    assert template.with_system(TEMPLATES[name].system) == TEMPLATES[name]


def test_prefixes_end_before_the_first_image_and_after_each() -> None:
    prompt_tokens = (1, 2, ONE, 3, TWO, 4)
    assert cache_points(prompt_tokens) == [2, 3, 5]
    assert positions(prompt_tokens, 100) == 204
    assert cache_points((1, 2)) == []


def test_common_prefix_ends_at_the_first_difference() -> None:
    assert [common((1, ONE, 2), other) for other in ((1, ONE, 2, 3), (1, TWO), (), (1, ONE, 2))] == [
        3,
        1,
        0,
        3,
    ]


@given(texts)
def test_an_answer_that_writes_markers_adds_no_images_and_ends_no_turn(text: str) -> None:
    clean = unmarked(text)
    assert not any(marker in clean for marker in RESERVED)
    if not any(marker in text for marker in RESERVED):
        assert clean == text


@given(texts)
def test_any_answer_leaves_the_prompt_with_its_images(runtime: Runtime, text: str) -> None:
    prompt_tokens = compose(TEMPLATES["v1"], runtime.tokenizer, "", [ONE], [Turn("Is it?", text)], "Why?")
    assert [a for a in prompt_tokens if isinstance(a, bytes)] == [ONE]
    assert prompt_tokens.count(runtime.tokenizer.eos_id) == 1
