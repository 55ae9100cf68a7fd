# SPDX-License-Identifier: Apache-2.0
"""Questions as the official loops put them: the text as it is, the picture as PIL reads and resizes it."""

from __future__ import annotations

import base64
import binascii

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.engine.bundle import Aspect
from mobilevlm_ros.errors import EvaluationError, ImageError
from mobilevlm_ros.evaluation.benchmarks.types import Picture, Question
from mobilevlm_ros.processing.image import prepare
from mobilevlm_ros.processing.image_decoder import decode_image
from mobilevlm_ros.processing.image_file import read_bytes
from mobilevlm_ros.processing.prompt_template import TEMPLATES, image_question


def render(question: Question, template: str) -> str:
    """The one string the model continues. Nothing is cleaned or cut: a score depends on every blank."""
    images = len(question.pictures)
    text = image_question(question.prompt, images) if images else question.prompt
    return TEMPLATES[template].render([(text, None)])


def read(picture: Picture) -> NDArray[np.uint8]:
    """The picture as u8 [H, W, 3] RGB, its EXIF rotation ignored as in the official loops.

    Raises EvaluationError that names the file.
    """
    if picture.draw is not None:
        return picture.draw()
    name = str(picture.path) if picture.path is not None else "the picture in the question file"
    if picture.path is not None and not picture.path.exists():
        raise EvaluationError(f"{name} is missing: put the benchmark's pictures there")
    try:
        data = base64.b64decode(picture.base64) if picture.path is None else read_bytes(picture.path)
        return decode_image(data, name, as_held=False)
    except ImageError as error:
        raise EvaluationError(str(error)) from error
    except (binascii.Error, ValueError) as error:
        raise EvaluationError(f"{name} is no base64 ({error}): get the file again") from error


def pixels(picture: Picture, size: int, aspect: Aspect) -> NDArray[np.uint8]:
    """What the encoder gets: u8 [size, size, 3], by PIL's filter."""
    return prepare(read(picture), size, aspect="crop" if picture.crop else aspect)
