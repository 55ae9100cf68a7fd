# SPDX-License-Identifier: Apache-2.0
"""What a compressed picture says about itself before it is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from mobilevlm_ros.errors import ImageError


@dataclass(frozen=True)
class ImageHeader:
    """Read from the picture's own structure; nothing has been decoded.

    Attributes:
        width, height: in pixels, as stored (before it is turned upright).
        end: bytes that belong to the picture; what follows is padding.
        orientation: 1 to 8, as EXIF (CIPA DC-008, tag 0x0112) counts them.
        grey: whether it has one channel, and no palette.
        zeros_are_damage: whether no encoder writes many zero bytes in a row.
        work: pixels that a decoder has to go through, each scan of a progressive JPEG counted.
    """

    width: int
    height: int
    end: int
    orientation: int = 1
    work: int = 0
    grey: bool = False
    zeros_are_damage: bool = False


def truncated(kind: str) -> NoReturn:
    """Raises ImageError for a picture that ends too early; a predicate, whose subject the caller knows."""
    raise ImageError(
        f"is not a picture that can be used: its {kind} is truncated; check the connection or the disk, "
        "and send or copy it again"
    )


def damaged(kind: str, how: str) -> NoReturn:
    """Raises ImageError for a picture with damage inside; a predicate, whose subject the caller knows."""
    raise ImageError(
        f"is not a picture that can be used: its {kind} is damaged ({how}); check the connection or the "
        "disk, and send or copy it again"
    )


def unsupported(kind: str, what: str) -> NoReturn:
    """Raises ImageError for a valid picture of a sort that is not read."""
    raise ImageError(
        f"is not a picture that can be used: its {kind} is {what}, which is not read; "
        "save it as plain JPEG or PNG"
    )
