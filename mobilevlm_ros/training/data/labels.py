# SPDX-License-Identifier: Apache-2.0
"""From a conversation to token ids and labels, as the official training code makes them.

Two rules: `plain` (captions; everything after the image is taught) and `v1` (dialogues; answers and their end
are taught). The dialogue rule counts tokens round by round and gives up a sample whose counts do not add up:
an empty answer, `</s>` inside an answer, " ASSISTANT: " inside a question, a question without answer.
Sources: `preprocess_v1` and `preprocess_plain` of MobileVLM's training code, `preprocess` of FastChat's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mobilevlm_ros.errors import DataError
from mobilevlm_ros.processing.prompt_template import IMAGE_PLACEHOLDER, TEMPLATES
from mobilevlm_ros.processing.tokenizer import Tokenizer
from mobilevlm_ros.training.data.conversations import Sample, find_problem, gather_images

IGNORE = -100
"""The label of a position that teaches nothing."""


@dataclass(frozen=True)
class Encoded:
    """Token ids (IMAGE_TOKEN where a picture goes), labels (IGNORE or the same id), and why nothing is
    taught."""

    ids: list[int]
    labels: list[int]
    warning: str | None = None


def encode(sample: Sample, template: str, tokenizer: Tokenizer, max_length: int) -> Encoded:
    """Ids and labels of a sample. `template` is "v1" or "plain".

    Text without pictures is cut to `max_length` here, samples with pictures when they become a batch, both as
    officially. Raises DataError for a sample that the template cannot take.
    """
    problem = find_problem(sample, template)
    if problem:
        raise DataError(f"sample {sample.id} {problem}")
    if template == "plain":
        return _encode_caption(sample, tokenizer)
    return _encode_dialogue(sample, tokenizer, max_length)


def _encode_caption(sample: Sample, tokenizer: Tokenizer) -> Encoded:
    ids = tokenizer.encode_prompt(IMAGE_PLACEHOLDER + sample.turns[1][1] + TEMPLATES["plain"].stop)
    opening = len(tokenizer.encode_prompt(IMAGE_PLACEHOLDER))
    return Encoded(ids, [IGNORE] * opening + ids[opening:])


def render_dialogue(turns: Sequence[tuple[str, str]]) -> str:
    """The v1 prompt of alternating turns; unlike Template.render it takes a last question without answer.

    An empty text leaves nothing behind the role's colon, not even the end of an answer.
    """
    text = TEMPLATES["v1"].system + " "
    for index, (_, message) in enumerate(turns):
        role, end = ("ASSISTANT", "</s>") if index % 2 else ("USER", " ")
        text += f"{role}: {message}{end}" if message else f"{role}:"
    return text


def _encode_dialogue(sample: Sample, tokenizer: Tokenizer, max_length: int) -> Encoded:
    turns = gather_images(sample)
    text = render_dialogue(turns[1:] if turns[0][0] == "gpt" else turns)
    count = tokenizer.encode_prompt if sample.images else tokenizer.encode
    ids = count(text)
    if not sample.images:
        ids = ids[:max_length]
    labels = [IGNORE, *ids[1:]]
    position = 1  # <s> is not taught
    for spoken_round in text.split("</s>"):
        parts = spoken_round.split(" ASSISTANT: ")
        if not spoken_round or len(parts) != 2:
            break
        # The round's own <s> stands for the </s> that the split took away; the question's part ends with
        # one more token, the bare space that belongs to the answer.
        question = len(count(parts[0] + " ASSISTANT: ")) - 2
        end = min(position + question, len(labels))
        labels[position:end] = [IGNORE] * (end - position)
        position += len(count(spoken_round))
    if position < len(labels):
        labels[position:] = [IGNORE] * (len(labels) - position)
    # A real <unk> is the padding token too, so it does not count.
    present = sum(1 for token in ids if token != tokenizer.unk_id)
    if position < max_length and position != present:
        return Encoded(
            ids,
            [IGNORE] * len(ids),
            f"teaches nothing: its rounds add up to {position} tokens of {present}. Usual causes: an empty "
            "answer, "
            "</s> inside an answer, ' ASSISTANT: ' inside a question, a question without answer",
        )
    return Encoded(ids, labels)
