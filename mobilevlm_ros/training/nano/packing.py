# SPDX-License-Identifier: Apache-2.0
"""Many questions behind one picture or two, each seeing the pictures and itself alone.

The picture is paid for once, yet every question stands exactly where it stands when the robot asks it:
directly after the image, at the same positions, blind to the other questions. Some have a second turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mobilevlm_ros.model.mobilevlm import MobileVLM
from mobilevlm_ros.processing.prompt_template import TEMPLATES, image_question
from mobilevlm_ros.processing.tokenizer import IMAGE_TOKEN, Tokenizer

IGNORE = -100
Turn = tuple[str, str]


@dataclass
class Batch:
    """Right-padded ids of B packed samples of T positions; the images' own positions hold IMAGE_TOKEN.

    ids, labels, positions i64 [B, T] (labels name the token that follows, or IGNORE);
    segments i64 [B, T]: 0 the shared prefix, k the k-th conversation, -1 padding;
    unsure bool [B, T]: where an answer begins that says that one does not know.
    """

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    positions: NDArray[np.int64]
    segments: NDArray[np.int64]
    unsure: NDArray[np.bool_]

    def mask(self) -> NDArray[np.bool_]:
        """Who sees whom, bool [B, 1, T, T]: causal, within the own conversation and the shared prefix."""
        query, key = self.segments[:, :, None], self.segments[:, None, :]
        causal = np.tri(self.ids.shape[1], dtype=bool)
        return (((query == key) | (key == 0)) & causal)[:, None]  # padding sees padding: no empty rows


class Packer:
    """Turns conversations about one picture into token rows, in the prompt format of the released models."""

    def __init__(
        self, tokenizer: Tokenizer, image_tokens: int, not_knowing: frozenset[str] = frozenset()
    ) -> None:
        """`not_knowing`: the answers that `Batch.unsure` marks."""
        self.tokenizer = tokenizer
        self.image_tokens = image_tokens
        self.not_knowing = not_knowing
        self.template = TEMPLATES["v1"]

    def prefix(self, images: int = 1) -> list[int]:
        """Ids of everything up to the last of the images, each with IMAGE_TOKEN at all of its positions."""
        prompt = self.tokenizer.encode_prompt(self.template.opening + image_question("", images))
        ids: list[int] = []
        for token in prompt:
            ids += [token] * (self.image_tokens if token == IMAGE_TOKEN else 1)
        return ids[: len(ids) - ids[::-1].index(IMAGE_TOKEN)]

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

    def pack(
        self,
        samples: Sequence[Iterable[Sequence[Turn]]],
        length: int,
        images: Sequence[int] | None = None,
    ) -> Batch:
        """Rows of exactly `length` positions: each picture's conversations in order, while they fit.

        `images`: pictures of each row; None: one each.
        """
        shape = (len(samples), length)
        batch = Batch(
            ids=np.full(shape, self.tokenizer.unk_id, np.int64),
            labels=np.full(shape, IGNORE, np.int64),
            positions=np.zeros(shape, np.int64),
            segments=np.full(shape, -1, np.int64),
            unsure=np.zeros(shape, bool),
        )
        for row, conversations in enumerate(samples):
            prefix = self.prefix(1 if images is None else images[row])
            place = start = len(prefix)
            batch.ids[row, :start] = prefix
            batch.positions[row, :start] = range(start)
            batch.segments[row, :start] = 0
            for number, turns in enumerate(conversations, 1):
                ids, labels = self.conversation(turns)
                end = place + len(ids)
                if end > length:
                    break
                batch.ids[row, place:end] = ids
                batch.labels[row, place:end] = labels
                batch.positions[row, place:end] = range(start, start + len(ids))
                batch.segments[row, place:end] = number
                for at, (_, answer) in zip(_beginnings(labels), turns, strict=True):
                    batch.unsure[row, place + at] = answer in self.not_knowing
                place = end
        return batch


def _beginnings(labels: Sequence[int]) -> list[int]:
    """Where the answers begin: each taught position after one that is not."""
    return [
        at for at, label in enumerate(labels) if label != IGNORE and (at == 0 or labels[at - 1] == IGNORE)
    ]


def splice(model: MobileVLM, batch: Batch, images: Tensor) -> Tensor:
    """Embeddings [B, T, H] of a batch; its images' tokens [n, M, H], row by row, in their places."""
    ids = torch.from_numpy(batch.ids)
    embeddings = model.embed_tokens(ids.clamp(min=0))
    return embeddings.masked_scatter((ids == IMAGE_TOKEN)[..., None], images.to(embeddings.dtype))
