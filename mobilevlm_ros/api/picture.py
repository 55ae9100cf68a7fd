# SPDX-License-Identifier: Apache-2.0
"""Pictures in the forms that people have them in, as frames."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mobilevlm_ros.errors import ImageError
from mobilevlm_ros.inference.types import Frame
from mobilevlm_ros.inference.validate import MAX_FRAMES, check_frame, check_frames
from mobilevlm_ros.processing.image_file import read_picture

if TYPE_CHECKING:
    from typing import TypeAlias

    from numpy.typing import NDArray
    from PIL.Image import Image as PILImage

    Picture: TypeAlias = NDArray[np.uint8] | PILImage | str | Path | Frame
    Pictures: TypeAlias = Picture | Sequence[Picture]

_EIGHT_BIT = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")
"""Modes of PIL whose conversion to RGB keeps what the picture shows; it clips pixels of 16 bits."""


def frames_of(image: Pictures) -> tuple[Frame, ...]:
    """A picture, or a list or tuple of several, as frames. Raises ImageError that says which one is wrong."""
    if not isinstance(image, (list, tuple)):
        return (frame_of(image),)  # type: ignore[arg-type]  # it says what it is, and what to pass
    if not 0 < len(image) <= MAX_FRAMES:
        return check_frames(image)
    frames = []
    for place, picture in enumerate(image, start=1):
        try:
            frames.append(frame_of(picture))
        except ImageError as error:
            raise ImageError(f"picture {place} of {len(image)}: {error}") from error
    return tuple(frames)


def frame_of(image: Picture) -> Frame:
    """A picture in any form that `MobileVLM.ask` takes, as a frame. Raises ImageError."""
    if isinstance(image, Frame):
        return check_frame(image)
    if isinstance(image, (str, Path)):
        return Frame(read_picture(Path(image).expanduser()))
    pil = sys.modules.get("PIL.Image")
    if pil is not None and isinstance(image, pil.Image):
        return Frame(_from_pil(image))
    return check_frame(Frame(image))  # type: ignore[arg-type]  # it says what it is, and what to pass


def _from_pil(image: PILImage) -> NDArray[np.uint8]:
    from PIL import ImageOps

    if image.mode not in _EIGHT_BIT:
        raise ImageError(
            f"a PIL image of mode {image.mode!r} has more than 8 bits for each pixel: stretch it to 8 bits "
            "first, as a person would want to see it"
        )
    try:
        return np.array(ImageOps.exif_transpose(image).convert("RGB"), np.uint8)
    except (OSError, SyntaxError, ValueError) as error:  # PIL reads the file only now
        raise ImageError(f"the PIL image cannot be read: {error}") from error
