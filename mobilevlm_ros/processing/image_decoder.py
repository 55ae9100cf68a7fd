# SPDX-License-Identifier: Apache-2.0
"""The one decoder of compressed pictures: files, topics and requests all come through here.

It reads the size from the picture's own structure before it allocates anything, takes three formats only,
and refuses whatever a decoder would merely warn about: a picture is whole, or it is an ImageError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.errors import ImageError
from mobilevlm_ros.processing.image import MAX_SIDE, Pixels
from mobilevlm_ros.processing.image_formats import exif, jpeg, png, webp
from mobilevlm_ros.processing.image_formats.header import ImageHeader

MAX_PIXELS = 1 << 26
"""67 megapixels, 200 MB decoded. The largest sensors of robots and phones stay below or can; the model sees
at most 336 x 336.
"""

MAX_BYTES = 128 << 20
"""Of a compressed picture."""

MAX_WORK = 16 * MAX_PIXELS
"""Pixels times scans: bounds the time that a progressive JPEG may take."""


class _Format(NamedTuple):
    read_header: Callable[[bytes], ImageHeader]
    decode: Callable[[bytes, ImageHeader], NDArray[np.uint8]]
    blue_first: bool
    decode_grey: Callable[[bytes, ImageHeader], NDArray[np.uint8] | NDArray[np.uint16]] | None = None


_FORMATS = {
    "JPEG": _Format(jpeg.read_header, jpeg.decode, False, jpeg.decode_grey),
    "PNG": _Format(png.read_header, png.decode, True, png.decode_grey),
    "WebP": _Format(webp.read_header, webp.decode, True),
}

_STRANGERS = (
    (0, b"GIF8", "a GIF"),
    (0, b"BM", "a BMP"),
    (0, b"II*\0", "a TIFF"),
    (0, b"MM\0*", "a TIFF"),
    (0, b"II+\0", "a BigTIFF"),
    (0, b"MM\0+", "a BigTIFF"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL"),
    (0, b"\xff\x0a", "a JPEG XL"),
    (4, b"ftypavi", "an AVIF"),
    (4, b"ftyphe", "a HEIC"),
    (4, b"ftypmif1", "a HEIC or AVIF"),
    (4, b"ftypmsf1", "a HEIC or AVIF"),
    (4, b"ftyp", "a video or HEIC"),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR"),
    (0, b"#?RADIANCE", "a Radiance HDR"),
    (0, b"\x59\xa6\x6a\x95", "a Sun raster"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"%PDF", "a PDF"),
    (0, b"<svg", "an SVG"),
    *((0, b"P" + kind, "a PNM") for kind in (b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"F", b"f")),
)
"""Offset, first bytes and name of what people have besides; each is refused by its name."""


def identify(head: bytes) -> str:
    """'JPEG', 'PNG' or 'WebP' from the first bytes (32 will do). Raises ImageError for anything else: a
    predicate that names what it is, as in 'is a TIFF, ...'.
    """
    if head.startswith(jpeg.SIGNATURE):
        return "JPEG"
    if head.startswith(png.SIGNATURE):
        return "PNG"
    if webp.is_webp(head):
        return "WebP"
    if not head:
        raise ImageError("is not a picture: it is empty")
    if head.startswith(b"version https://git-lfs"):
        raise ImageError("is not a picture but a Git LFS pointer: run `git lfs pull`")
    for at, signature, name in _STRANGERS:
        if head[at:].startswith(signature):
            raise ImageError(f"is {name}, which is not read: convert it to JPEG, PNG or WebP")
    raise ImageError("is not a picture that can be used: it is no JPEG, PNG or WebP; convert it to one")


def decode_image(
    data: bytes | bytearray | memoryview | Any, what: str = "the picture", *, as_held: bool = True
) -> Pixels:
    """A whole JPEG, PNG or WebP as RGB u8[H, W, 3], contiguous, turned upright as its EXIF says.

    What follows a whole picture is padding. Alpha is dropped, 16 bits keep their upper 8.

    Args:
        data: anything with the buffer protocol.
        what: names the picture in errors, e.g. 'photo.jpg'.
        as_held: turn it as its EXIF says; the official code does not.

    Raises:
        ImageError: another format, more than MAX_PIXELS or MAX_BYTES, truncated or damaged.
    """
    pixels: Pixels = _told(what, lambda: _rgb(data, as_held))
    return pixels


def decode_grey(data: Any, what: str = "the picture") -> NDArray[np.uint8] | NDArray[np.uint16] | None:
    """[H, W] of a grey JPEG or PNG as stored, 16 bits whole; None where the picture has colours.

    For numbers that are kept as a picture, as a sensor's mosaic is. Arguments and errors as `decode_image`.
    """
    return _told(what, lambda: _grey(data))


def _told(what: str, decode: Callable[[], Any]) -> Any:
    try:
        return decode()
    except ImageError as error:
        raise ImageError(f"{what} {error}") from error
    except MemoryError as error:
        raise ImageError(f"{what} needs more memory than there is: make it smaller") from error


def _checked(data: Any) -> tuple[_Format, ImageHeader, bytes]:
    """The format, the header and the picture without what follows it."""
    view = memoryview(data).cast("B")
    if len(view) > MAX_BYTES:
        raise ImageError(f"is {len(view)} bytes, more than {MAX_BYTES}: make it smaller")
    head = bytes(view[:32])
    kind = _FORMATS[identify(head)]
    body = bytes(view)
    header = kind.read_header(body)
    width, height = header.width, header.height
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise ImageError(
            f"is {width}x{height} pixels, more than {MAX_PIXELS} or longer than {MAX_SIDE}: make it smaller"
        )
    if header.work > MAX_WORK:
        raise ImageError(
            f"is {width}x{height} pixels in {header.work // (width * height)} scans: save it again"
        )
    return kind, header, body[: header.end]


def _rgb(data: Any, as_held: bool) -> Pixels:
    kind, header, body = _checked(data)
    pixels = kind.decode(body, header)
    _check_shape(pixels, header, (3,))
    if kind.blue_first:
        pixels = _swapped(pixels)
    return exif.upright(pixels, header.orientation if as_held else 1)


def _grey(data: Any) -> NDArray[np.uint8] | NDArray[np.uint16] | None:
    kind, header, body = _checked(data)
    if not header.grey or kind.decode_grey is None:
        return None
    samples = kind.decode_grey(body, header)
    _check_shape(samples, header, ())
    return samples


def _check_shape(pixels: NDArray[Any], header: ImageHeader, channels: tuple[int, ...]) -> None:
    if pixels.shape != (header.height, header.width, *channels):
        raise ImageError(
            "is not a picture that can be used: it says "
            f"{header.width}x{header.height} pixels and holds {pixels.shape[1]}x{pixels.shape[0]}"
        )


def _swapped(bgr: Pixels) -> Pixels:
    """Red first, in place: a second copy of a large picture would double what it takes."""
    rows = max(1, (1 << 20) // bgr.shape[1])
    for start in range(0, len(bgr), rows):
        strip = bgr[start : start + rows]
        strip[:] = cv2.cvtColor(strip, cv2.COLOR_BGR2RGB)
    return bgr
