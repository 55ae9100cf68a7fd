# SPDX-License-Identifier: Apache-2.0
"""What `mobilevlm ask` is asked about: a file, a directory, standard input, a URL, a moment of a video."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import numpy as np
from numpy.typing import NDArray

from mobilevlm_ros.errors import ImageError, OptionError

PICTURES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic"))
VIDEOS = frozenset((".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".mjpeg"))
STDIN = "-"

URL_TIMEOUT = 20.0
"""Seconds without a byte from a server."""


def is_url(word: str) -> bool:
    """Whether a word is the address of a picture on the web."""
    return word.lower().startswith(("http://", "https://"))


def is_source(word: str) -> bool:
    """Whether a word of the command line names pictures, rather than being a question."""
    try:
        exists = Path(word).exists()
    except (OSError, ValueError):  # too long for a path, or a NUL
        exists = False
    suffix = Path(word).suffix.lower() if "\n" not in word else ""
    return word == STDIN or is_url(word) or exists or suffix in PICTURES | VIDEOS


def split_frames(words: list[str], frames: list[str], choices: list[str]) -> tuple[list[str], list[str]]:
    """(words, frames): `--frames` takes all words that follow it; those that name no picture go back.

    Raises OptionError where pictures were named elsewhere too.
    """
    named = [word for word in (*words, *choices[2:]) if is_source(word)]
    if frames and named:
        raise OptionError(f"{named[0]} was given beside --frames: name all pictures with --frames")
    strays = [word for word in frames if not is_source(word)]
    return [*words, *strays], [word for word in frames if word not in strays]


def frame_count(words: list[str], frames: list[str]) -> tuple[list[str], int]:
    """(words, count) of `--frames N` with a node, whose following words go back; 0 where it is not given."""
    if not frames:
        return words, 0
    count, *others = frames
    if not count.isascii() or not count.isdigit():
        raise OptionError(
            f"--frames is {count!r}: with --ros give a number, how many frames of the camera the question is "
            "about; a node takes one picture at a time"
        )
    return [*words, *others], int(count)


def split_words(
    words: list[str], choices: list[str], pictured: bool = False
) -> tuple[str | None, str | None, list[str]]:
    """(picture, question, choices) of the words that stand between the options, in any order.

    `--choices` takes all words that follow it: the last of them are the question and the picture where
    these are missing. Raises OptionError for more words than that.

    Args:
        pictured: the pictures are known already.
    """
    sources = [] if pictured else [word for word in words if is_source(word)]
    texts = [word for word in words if word not in sources]
    if len(words) == 2 and len(sources) != 1 and not pictured:
        sources, texts = words[:1], words[1:]
    if len(texts) > 1:
        raise OptionError(
            f"two questions were given: {texts[0]!r} and {texts[1]!r}; quote a question that has spaces"
        )
    if len(sources) > 1:
        raise OptionError(
            f"two pictures were given: {sources[0]!r} and {sources[1]!r}; ask about one, or a directory, or "
            "about several at once with --frames"
        )
    choices = list(choices)
    while len(choices) > 2 and not ((sources or pictured) and texts):
        if is_source(choices[-1]) and not (sources or pictured):
            sources = [choices.pop()]
        elif not texts:
            texts = [choices.pop()]
        else:
            break
    return next(iter(sources), None), next(iter(texts), None), choices


@dataclass(frozen=True)
class Found:
    """A picture to ask about: the bytes of a file, or pixels u8 [H, W, 3] RGB of a video."""

    name: str
    content: bytes | NDArray[np.uint8]


def pictures(source: str, *, allow_url: bool = False, at: float | None = None) -> Iterator[Found]:
    """What a source holds; one picture, or all of a directory in the order of their names.

    Args:
        allow_url: whether it may be fetched from the web.
        at: seconds from the beginning of a video; None is its first frame.

    Raises:
        ImageError: it cannot be read, or holds no picture.
        OptionError: a URL that was not allowed, or a time where there is no video.
    """
    from mobilevlm_ros.processing.image_file import read_bytes

    path = Path(source)
    video = source != STDIN and not is_url(source) and path.suffix.lower() in VIDEOS
    if at is not None and not (video and math.isfinite(at) and at >= 0):
        raise OptionError(f"--at is {at:g}: it is for a video, in seconds from its beginning")
    if is_url(source):
        if not allow_url:
            raise OptionError(f"{source} is fetched with --allow-url only")
        yield Found(source, _fetch(source))
    elif video:
        yield Found(source, _video_frame(path, at or 0.0))
    elif source != STDIN and path.is_dir():
        for file in _directory(path):
            yield Found(str(file), read_bytes(file))
    else:
        yield Found(source, read_bytes(source))


def _directory(path: Path) -> list[Path]:
    try:
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURES)
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror or error}") from error
    if not found:
        raise ImageError(f"{path} holds no pictures (.jpg .jpeg .png .webp)")
    return found


def _fetch(url: str) -> bytes:
    from mobilevlm_ros.processing.image_decoder import MAX_BYTES

    try:
        if not urlsplit(url).hostname:
            raise ValueError("it names no host")
        asked = Request(url, headers={"User-Agent": "mobilevlm"})
        with urlopen(asked, timeout=URL_TIMEOUT) as response:  # nosec B310
            data: bytes = response.read(MAX_BYTES + 1)
    except (URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise ImageError(f"{url} cannot be fetched: {reason}") from error
    if len(data) > MAX_BYTES:
        raise ImageError(f"{url} is larger than {MAX_BYTES} bytes")
    return data


def _video_frame(path: Path, at: float) -> NDArray[np.uint8]:
    import cv2

    if not path.is_file():
        raise ImageError(f"{path} cannot be read: {'no such file' if not path.exists() else 'it is no file'}")
    video = cv2.VideoCapture(str(path))
    try:
        if not video.isOpened():
            raise ImageError(f"{path} is not a video that OpenCV can read")
        if at:
            video.set(cv2.CAP_PROP_POS_MSEC, 1000 * at)
        good, bgr = video.read()
        seconds = video.get(cv2.CAP_PROP_FRAME_COUNT) / (video.get(cv2.CAP_PROP_FPS) or 1.0)
    except cv2.error as error:
        raise ImageError(f"{path} is not a video that OpenCV can read: {error.err}") from error
    finally:
        video.release()
    if not good or bgr is None:
        length = f": it is {seconds:.1f} s long" if seconds > 0 else ""
        raise ImageError(f"{path} has no frame at {at:g} s{length}")
    return np.ascontiguousarray(bgr[..., ::-1], np.uint8)
