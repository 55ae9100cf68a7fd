# SPDX-License-Identifier: Apache-2.0
"""Arguments of a wrong type are refused with what to pass instead."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

from mobilevlm_ros.errors import OptionError, QuestionError


def check_number(value: Any, name: str, kind: type[Real] | type[Integral] = Real) -> float:
    """The value itself; OptionError if it is no number, or no integer where one is needed."""
    if not isinstance(value, kind) or isinstance(value, bool):
        wanted = "an integer" if kind is Integral else "a number"
        raise OptionError(f"{name} is {value!r}: give {wanted}")
    number: float = value  # type: ignore[assignment]  # NumPy's numbers too
    return number


def text_list(values: Iterable[str] | None, name: str) -> tuple[str, ...]:
    """The texts of a list; none for None.

    Raises:
        QuestionError: it is one text, whose letters would be taken for the list, or holds what is no text.
    """
    if values is None:
        return ()
    if isinstance(values, (str, bytes)):
        raise QuestionError(f"{name} is the one text {values!r}: give a list of texts, such as ['yes', 'no']")
    try:
        texts = tuple(values)
    except TypeError as error:
        raise QuestionError(f"{name} is {values!r}: give a list of texts") from error
    for text in texts:
        if not isinstance(text, str):
            raise QuestionError(f"{name} holds {text!r}, which is no text: give a list of texts")
    return texts


def rgb_remedy(image: Any) -> str:
    """What makes an RGB picture of something that is none."""
    if image is None:
        return "check what should have read it; cv2.imread gives None for a file that it cannot read"
    if isinstance(image, (str, Path)):
        return "read the file first, or pass the path to mobilevlm_ros.MobileVLM"
    if isinstance(image, bytes):
        return "decode the file first, for example with PIL.Image.open(io.BytesIO(data))"
    if isinstance(image, (list, tuple)):
        return "pass an array for each picture"
    if not isinstance(image, np.ndarray):
        return "pass numpy.asarray(image), if that has this shape and dtype"
    shape = image.shape
    if image.ndim == 4:
        return "pass one picture, image[0], or several for one question, list(image)"
    if image.ndim == 2 or (image.ndim == 3 and shape[2] == 1):
        return "repeat the grey channel, numpy.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)"
    if image.ndim == 3 and shape[0] in (1, 3, 4) and shape[2] not in (3, 4):
        return "put the channels last, image.transpose(1, 2, 0)"
    if image.ndim == 3 and shape[2] == 4:
        return "leave the alpha channel out, image[..., :3]"
    if image.ndim == 3 and shape[2] == 3 and np.issubdtype(image.dtype, np.floating):
        return "scale values from 0 to 1 with (image * 255).round().astype(numpy.uint8)"
    if image.ndim == 3 and shape[2] == 3:
        return "scale its values to 0 to 255 and use .astype(numpy.uint8)"
    return "convert it first"
