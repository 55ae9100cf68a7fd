# SPDX-License-Identifier: Apache-2.0
"""Token ids are those of the official tokenizer, and no text or id crashes it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mobilevlm_ros.errors import CheckpointError
from mobilevlm_ros.processing.prompt_template import TEMPLATES, image_question
from mobilevlm_ros.processing.tokenizer import IMAGE_TOKEN, StreamDecoder, Tokenizer

PARITY = Path(__file__).parents[1] / "data" / "parity"
TOKENIZER = Tokenizer(PARITY / "ckpt" / "tiny-ldpnet" / "tokenizer.model")
IMAGE_QUESTION = "Who is the author of this book?\nAnswer the question using a single word or phrase."
TEXT_QUESTION = "How many people are standing in front of the red building?"

BYTE = {value: 3 + value for value in range(256)}  # byte-fallback ids follow <unk>, <s>, </s>
SPACE, NEWLINE = 423, BYTE[0x0A]

any_id = st.integers(0, TOKENIZER.vocab_size - 1)
byte_id = st.integers(BYTE[0], BYTE[255])
odd_id = st.sampled_from([0, 1, 2, IMAGE_TOKEN, -1, TOKENIZER.vocab_size, 10**9])
ids_strategy = st.lists(st.one_of(any_id, byte_id, odd_id), max_size=24)
any_text = st.text(
    st.characters(exclude_categories=()), max_size=60
)  # control characters, lone surrogates and all


@pytest.mark.parametrize(
    ("question", "key"), [(image_question(IMAGE_QUESTION), "landscape"), (TEXT_QUESTION, "text")]
)
def test_prompt_ids_are_the_official_ones(question, key):
    prompt = TEMPLATES["v1"].render([(question, None)])
    expected = np.load(PARITY / "v1.npz")[f"{key}/input_ids"][0]
    assert TOKENIZER.encode_prompt(prompt) == expected.tolist()


@pytest.mark.parametrize(("text", "ids"), json.loads((PARITY / "tokenizer_cases.json").read_text()))
def test_ids_of_odd_strings_are_the_official_ones(text, ids):
    assert TOKENIZER.encode(text) == ids


def test_special_ids():
    assert (TOKENIZER.unk_id, TOKENIZER.bos_id, TOKENIZER.eos_id, TOKENIZER.vocab_size) == (0, 1, 2, 480)


def test_text_after_a_special_token_gets_its_own_leading_space():
    whole, after = TOKENIZER.encode("hello</s>bye"), TOKENIZER.encode("bye", bos=False)
    assert whole[-len(after) :] == after
    assert whole[-len(after) - 1] == TOKENIZER.eos_id


def test_the_chunk_after_the_image_begins_with_space_and_newline():
    ids = TOKENIZER.encode_prompt("USER: <image>\nWho")
    at = ids.index(IMAGE_TOKEN)
    assert ids[at - 1] == SPACE
    assert ids[at + 1 : at + 3] == [SPACE, NEWLINE]
    assert ids.count(TOKENIZER.bos_id) == 1


def test_every_placeholder_becomes_an_image_token():
    assert TOKENIZER.encode_prompt("<image><image>") == [TOKENIZER.bos_id, IMAGE_TOKEN, IMAGE_TOKEN]


def test_decode_skips_what_is_no_text():
    hello = TOKENIZER.encode("hello")
    assert TOKENIZER.decode([*hello, TOKENIZER.eos_id, IMAGE_TOKEN, -5, 480, 10**12]) == "hello"
    assert TOKENIZER.decode([]) == ""
    assert TOKENIZER.decode(np.array(hello)) == "hello"


@given(any_text)
@example("\x00\ud800 \U0001f600</s>\u2581 <s")
def test_any_text_encodes_and_comes_back(text):
    ids = TOKENIZER.encode(text)
    assert ids[0] == TOKENIZER.bos_id
    assert all(0 <= i < TOKENIZER.vocab_size for i in ids)
    back = TOKENIZER.decode(ids)
    back.encode("utf-8")
    if not any(mark in text for mark in ("<s>", "</s>", "<unk>")):
        readable = text.replace("\u2581", " ")  # SentencePiece's space is a space when it comes back
        assert back == "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in readable)


@given(st.text(st.sampled_from("<>/sunkimage a\n"), max_size=60))
def test_pieces_of_special_tokens_and_placeholders_never_crash(text):
    ids = TOKENIZER.encode_prompt(text)
    assert ids.count(IMAGE_TOKEN) == text.count("<image>")


@given(ids_strategy)
@example([SPACE, SPACE, BYTE[0xE2], BYTE[0x82], 300, BYTE[0xAC]])
@example([BYTE[0xF0], BYTE[0x9F], BYTE[0x99], BYTE[0x82]])
@example([BYTE[0xED], BYTE[0xA0], BYTE[0x80]])
@example([BYTE[0xC0], BYTE[0x80], BYTE[0xF5]])
def test_streamed_text_is_the_decoded_text(ids):
    stream = StreamDecoder(TOKENIZER)
    parts = [stream.push(i) for i in ids]
    for part in parts:
        part.encode("utf-8")
    assert "".join(parts) + stream.flush() == TOKENIZER.decode(ids)


def test_a_character_of_several_bytes_appears_when_it_is_whole():
    stream = StreamDecoder(TOKENIZER)
    assert [stream.push(BYTE[b]) for b in "\U0001f642".encode()] == ["", "", "", "\U0001f642"]
    assert stream.flush() == ""


def test_a_character_that_never_ends_is_replaced_at_the_end():
    stream = StreamDecoder(TOKENIZER)
    assert stream.push(BYTE[0xE2]) + stream.push(BYTE[0x82]) == ""
    assert stream.flush() == "\ufffd\ufffd"


@pytest.mark.parametrize("content", [None, b"", b"not a model", b"\x00" * 100])
def test_what_is_no_tokenizer_is_refused(tmp_path, content):
    path = tmp_path / "tokenizer.model"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"tokenizer\.model"):
        Tokenizer(path)
