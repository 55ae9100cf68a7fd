# SPDX-License-Identifier: Apache-2.0
"""Cameras of a recording: which image topics are meant, and how they are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mobilevlm_ros.bags.reading.bag import Bag
from mobilevlm_ros.bags.reading.picture import COMPRESSED, is_picture
from mobilevlm_ros.bags.reading.recorded import Topic
from mobilevlm_ros.errors import BagError, OptionError

_TRANSPORT = "/compressed"
_NUMBERS = ("depth", "disparity", "infra", "label")
"""In the names of image topics that hold no colour pictures, as drivers call them."""
_IMAGE_NAMES = ("image", "image_raw", "image_rect", "image_color", "image_rect_color", "image_mono", "color")


@dataclass(frozen=True)
class BagCamera:
    """An image topic, and the name of the camera behind it."""

    name: str
    topic: str


def find_cameras(bag: Bag, wanted: Sequence[str] = ()) -> list[BagCamera]:
    """The cameras that are meant.

    Args:
        wanted: each a topic ('/front/image_raw'), a camera's name ('front'), or both ('front=/cam0/image').
            None: every colour camera; where one is recorded raw and compressed, raw.

    Raises:
        BagError: the recording holds no images, or not the topic; the message lists the image topics.
        OptionError: two of them have one name or one topic.
    """
    topics = [topic for topic in bag.topics.values() if is_picture(topic)]
    if not topics:
        held = ", ".join(f"{topic.name} ({topic.type})" for topic in list(bag.topics.values())[:10])
        raise BagError(f"{bag.path} holds no image topic; it holds {held or 'no messages at all'}")
    if wanted:
        cameras = [_meant(bag, entry, topics) for entry in wanted]
    else:
        cameras = [BagCamera(_name(topic.name), topic.name) for topic in _colour(topics)]
        if not cameras:
            raise BagError(
                f"{bag.path} seems to hold depth images only; if one is a picture, name it with --camera: "
                f"{_list(topics)}"
            )
    names = Counter(camera.name for camera in cameras)
    if not wanted:  # two topics below one name: each is called by its topic
        cameras = [BagCamera(c.topic, c.topic) if names[c.name] > 1 else c for c in cameras]
    for what, counted in (("name", names), ("topic", Counter(camera.topic for camera in cameras))):
        twice = [entry for entry, count in counted.items() if count > 1]
        if wanted and twice:
            raise OptionError(f"two cameras have the {what} {twice[0]!r}: write --camera NAME=TOPIC for each")
    return cameras


def _meant(bag: Bag, entry: str, topics: Sequence[Topic]) -> BagCamera:
    name, mark, topic = entry.partition("=")
    if not mark:
        name, topic = "", entry
    by_name = {known.name: known for known in topics}
    for candidate in (topic, f"/{topic}"):
        if candidate in by_name:
            return BagCamera(name or _name(candidate), candidate)
    if candidate in bag.topics or topic in bag.topics:
        kind = bag.topics.get(topic, bag.topics.get(candidate))
        raise BagError(
            f"{topic!r} of {bag.path} holds {kind.type if kind else '?'}, not images; its image topics are "
            f"{_list(topics)}"
        )
    called = [known for known in _colour(topics) if _name(known.name) == topic]
    if len(called) == 1:
        return BagCamera(name or topic, called[0].name)
    what = f"{len(called)} cameras called" if called else "no image topic"
    raise BagError(f"{bag.path} has {what} {topic!r}; its image topics are {_list(topics)}")


def _list(topics: Sequence[Topic]) -> str:
    counted = (f"{t.name} ({'?' if t.count is None else t.count} images)" for t in topics)
    return ", ".join(counted)


def _colour(topics: Sequence[Topic]) -> list[Topic]:
    """Those that hold pictures, by their names; raw ones where there are both."""
    names = {topic.name for topic in topics}
    raw = {topic.name for topic in topics if topic.type != COMPRESSED and topic.count != 0}
    return [
        topic
        for topic in topics
        if not any(word in topic.name.lower() for word in _NUMBERS)
        and not (topic.type == COMPRESSED and topic.name.removesuffix(_TRANSPORT) in raw)
        and not (topic.count == 0 and f"{topic.name}{_TRANSPORT}" in names)
    ]


def _name(topic: str) -> str:
    """'front' of /front/image_raw/compressed, as the node would call the camera; '' of /image."""
    parts = [part for part in topic.removesuffix(_TRANSPORT).split("/") if part]
    while parts and parts[-1] in _IMAGE_NAMES:
        parts.pop()
    return "/".join(parts)
