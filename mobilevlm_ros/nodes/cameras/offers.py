# SPDX-License-Identifier: Apache-2.0
"""What is published on a camera's topics, and why nothing arrives from it. Sentences and data, no ROS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

TYPES = {"raw": "sensor_msgs/msg/Image", "compressed": "sensor_msgs/msg/CompressedImage"}
"""What each topic carries."""

LARGE_IMAGES = (
    "large raw images get lost with the middleware's small buffers: publish image/compressed too, or start "
    "the camera AND this node with the DDS profile config/fastdds.xml (it says how)"
)


@dataclass(frozen=True)
class Offer:
    """A publisher.

    Attributes:
        node: full name of its node.
        type: of its messages.
        reliable: whether it offers reliable delivery.
        latched: whether it keeps what it sent for those who come late (durability transient local).
    """

    node: str
    type: str
    reliable: bool = True
    latched: bool = False


@dataclass(frozen=True)
class Listening:
    """How a camera listens.

    Attributes:
        names: resolved names of its topics, by 'raw' and 'compressed'.
        kind: which of them it listens to.
        reliable: whether it asks for reliable delivery.
        latched: whether it asks for what was sent before.
        lost: samples that the middleware reports as lost.
    """

    names: Mapping[str, str]
    kind: str
    reliable: bool = False
    latched: bool = False
    lost: int = 0


def usable(kind: str, offers: Sequence[Offer]) -> list[Offer]:
    """Those whose messages are of the topic's type."""
    return [offer for offer in offers if offer.type == TYPES[kind]]


def keeps_the_last(offers: Sequence[Offer]) -> bool:
    """Whether every publisher has its last picture ready for those who come late."""
    return bool(offers) and all(offer.latched and offer.reliable for offer in offers)


def why_nothing(offers: Mapping[str, Sequence[Offer]], how: Listening) -> str:
    """Why nothing arrives, and what to do about it: the first of the causes that is true.

    Args:
        offers: publishers on each topic, by 'raw' and 'compressed'.
    """
    name, here = how.names[how.kind], usable(how.kind, offers[how.kind])
    if not any(offers.values()):
        return f"nothing publishes {' or '.join(how.names.values())}: start the camera, or remap the topics"
    if not here:
        wrong = _wrong_type(offers, how)
        if wrong:
            return wrong
        other = how.names["compressed" if how.kind == "raw" else "raw"]
        return f"only {other} is published: set the parameter transport to auto, or publish {name}"
    lost = f" ({how.lost} images were lost on the way)" if how.lost else ""
    published = f"{name} is published, but nothing arrives{lost}: "
    if how.reliable and not any(offer.reliable for offer in here):
        return published + "its publisher is best effort; set the parameter reliability to best_effort"
    if any(offer.latched for offer in here) and not how.latched:
        return published + (
            "a picture that was sent before this node came is kept for it only by a publisher that is "
            "reliable and transient local, and the only one on its topic; else let it be sent again"
        )
    if how.kind == "compressed":
        return published + "wait a moment; if it stays so, check the camera's driver and the network"
    if how.lost:
        return published + LARGE_IMAGES
    return published + f"check that the camera sends; {LARGE_IMAGES}"


def who_else(name: str, offers: Sequence[Offer], mixed: bool) -> str:
    """Who publishes where only one should; empty where at most one does.

    Args:
        name: of the topic.
        mixed: whether stamps of several clocks were seen.
    """
    if len(offers) < 2 and not mixed:
        return ""
    who = f"{len(offers)} publishers send to {name} ({_nodes(offers)})"
    if len(offers) < 2:
        who = f"the stamps on {name} come from several clocks"
    return f"{who}, so its images may be of different cameras: give each camera a topic of its own"


def _wrong_type(offers: Mapping[str, Sequence[Offer]], how: Listening) -> str:
    """For a topic whose publishers send something else."""
    for kind, name in how.names.items():
        wrong = [offer for offer in offers[kind] if offer.type != TYPES[kind]]
        if not wrong or usable(kind, offers[kind]):
            continue
        sent = wrong[0].type
        if any(usable(other, offers[other]) for other in how.names if other != kind):
            continue
        remedy = "remap to a topic of a camera"
        if sent in TYPES.values():
            right, asked = ("image/compressed", "image") if kind == "raw" else ("image", "image/compressed")
            remedy = f"remap {right}:={name} instead of {asked}"
        return (
            f"{name} carries {sent} (from {_nodes(wrong)}), but this node takes {TYPES[kind]} there: {remedy}"
        )
    return ""


def _nodes(offers: Sequence[Offer]) -> str:
    return ", ".join(sorted({offer.node for offer in offers})[:4])
