# SPDX-License-Identifier: Apache-2.0
"""Many questions behind one picture, each seeing the picture and itself alone.

The picture is paid for once, yet every question stands exactly where it stands when the robot asks it:
directly after the image, at the same positions, blind to the other questions. Some have a second turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.processing.prompt_template import TEMPLATES, image_question
from mobilevlm_ros.processing.tokenizer import IMAGE_TOKEN, Tokenizer

IGNORE = -100
Turn = tuple[str, str]


@dataclass
class Batch:
    """Right-padded ids of B packed samples of T positions; the image's own positions hold IMAGE_TOKEN.

    ids, labels, positions i64 [B, T] (labels name the token that follows, or IGNORE);
    segments i64 [B, T]: 0 the shared prefix, k the k-th conversation, -1 padding.
    """

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    positions: NDArray[np.int64]
    segments: NDArray[np.int64]

    def mask(self) -> NDArray[np.bool_]:
        """Who sees whom, bool [B, 1, T, T]: causal, within the own conversation and the shared prefix."""
        query, key = self.segments[:, :, None], self.segments[:, None, :]
        causal = np.tri(self.ids.shape[1], dtype=bool)
        return (((query == key) | (key == 0)) & causal)[:, None]  # padding sees padding: no empty rows


class Packer:
    """Turns conversations about one picture into token rows, in the prompt format of the released models."""

    def __init__(self, tokenizer: Tokenizer, image_tokens: int) -> None:
        self.tokenizer = tokenizer
        self.template = TEMPLATES["v1"]
        prompt = tokenizer.encode_prompt(self.template.opening + image_question(""))
        before = prompt[: prompt.index(IMAGE_TOKEN)]
        self.image_start = len(before)
        self.image_end = len(before) + image_tokens
        self.prefix = before + [IMAGE_TOKEN] * image_tokens

    def conversation(self, turns: Sequence[Turn]) -> tuple[list[int], list[int]]:
        """Ids after the image, and labels that teach each answer and its end."""
        ids: list[int] = []
        labels: list[int] = []
        for index, (question, answer) in enumerate(turns):
            asked = f"\n{question}" if index == 0 else f"{self.template.user}{question}"
            prompt = self.tokenizer.encode(asked + self.template.assistant, bos=False)
            whole = self.tokenizer.encode(
                asked + self.template.assistant + self.template.answer_start + answer, bos=False
            )
            if whole[: len(prompt)] != prompt:
                raise ValueError(f"the prompt of {question!r} is tokenised differently with its answer")
            taught = [*whole[len(prompt) :], self.tokenizer.eos_id]
            ids += prompt + taught
            labels += [IGNORE] * (len(prompt) - 1) + taught + [IGNORE]
        return ids, labels

    def pack(self, samples: Sequence[Iterable[Sequence[Turn]]], length: int) -> Batch:
        """Rows of exactly `length` positions: each picture's conversations in order, while they fit."""
        unk = self.tokenizer.unk_id
        batch = Batch(*(np.full((len(samples), length), fill, np.int64) for fill in (unk, IGNORE, 0, -1)))
        start = len(self.prefix)
        batch.ids[:, :start], batch.positions[:, :start], batch.segments[:, :start] = (
            self.prefix,
            range(start),
            0,
        )
        for row, conversations in enumerate(samples):
            place = start
            for number, turns in enumerate(conversations, 1):
                ids, labels = self.conversation(turns)
                end = place + len(ids)
                if end > length:
                    break
                batch.ids[row, place:end] = ids
                batch.labels[row, place:end] = labels
                batch.positions[row, place:end] = range(start, start + len(ids))
                batch.segments[row, place:end] = number
                place = end
        return batch
