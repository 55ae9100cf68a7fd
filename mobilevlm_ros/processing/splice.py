# SPDX-License-Identifier: Apache-2.0
"""Pictures in the places that a prompt keeps for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from mobilevlm_ros.errors import QuestionError
from mobilevlm_ros.processing.tokenizer import IMAGE_TOKEN

Part = TypeVar("Part")


def splice_parts(ids: Sequence[int], images: Sequence[Part], text: Callable[[slice], Part]) -> list[Part]:
    """The parts of a prompt in order: what `text` makes of the ids between pictures, and the pictures.

    Each of `images` takes the place of one IMAGE_TOKEN (`prepare_inputs_labels_for_multimodal` of the
    official mobilevlm/model/mobilevlm.py); `text` is called with slices of `ids`, also with empty ones.
    Raises QuestionError when the prompt does not have one IMAGE_TOKEN for each image.
    """
    places = [at for at, token in enumerate(ids) if token == IMAGE_TOKEN]
    if len(places) != len(images):
        raise QuestionError(
            f"the prompt has {len(places)} image placeholders for {len(images)} images; they must match"
        )
    parts: list[Part] = []
    start = 0
    for place, image in zip(places, images, strict=True):
        parts += [text(slice(start, place)), image]
        start = place + 1
    return [*parts, text(slice(start, len(ids)))]
