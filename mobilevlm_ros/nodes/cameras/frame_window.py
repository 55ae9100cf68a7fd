# SPDX-License-Identifier: Apache-2.0
"""What a question takes out of the recent past of a camera, and why it cannot. No ROS."""

from __future__ import annotations

from collections.abc import Iterable

from mobilevlm_ros.nodes.cameras.image_buffer import StampedImage


def window(
    kept: Iterable[StampedImage], end: StampedImage, count: int, interval: float = 0.0
) -> list[StampedImage]:
    """The frames of a question in the order of their stamps, ending with `end`; fewer where some are missing.

    Frames of another run of time than that of `end` are never among them.

    Args:
        kept: the recent past, in any order.
        count: of frames wanted, `end` included.
        interval: seconds between them: of each instant the nearest frame, if it is less than half an interval
            away. 0: the last ones before `end`, however far they are apart.
    """
    before = [other for other in kept if other.run == end.run and _order(other) < _order(end)]
    before.sort(key=_order)
    if not interval:
        return [*before[max(0, len(before) - count + 1) :], end]
    step = interval * 1e9
    found = [end]
    for place in range(1, count):
        due = end.stamp_ns - place * step
        near = [other for other in before if 2 * abs(other.stamp_ns - due) < step]
        if near:
            found.append(min(near, key=lambda other: abs(other.stamp_ns - due)))
    return found[::-1]


def _order(kept: StampedImage) -> tuple[int, float]:
    return kept.stamp_ns, kept.arrived


def shortage(label: str, held: int, found: list[StampedImage], count: int, interval: float) -> str:
    """Why a question about `count` frames cannot be put, and what to do: a sentence.

    Args:
        label: of the camera.
        held: how many frames are kept in all.
        found: those that would do.
    """
    if not interval:
        return (
            f"{label} keeps {len(found)} frames up to the one that is asked about, and {count} are wanted: "
            "ask about fewer, ask again later or with wait_for_frame, or raise history_mb to keep more"
        )
    return (
        f"{label} keeps {held} frames, of which {len(found)} are {interval:g} s apart, and {count} are "
        f"wanted ({(count - 1) * interval:g} s in all): ask again later or with wait_for_frame, raise "
        "history_mb to keep them for longer, or history_rate to keep more of them in a second"
    )


def not_near(label: str, stamp_ns: int, nearest: StampedImage, max_distance: float, count: int) -> str:
    """Why there is no frame of a past instant, and what to do: a sentence.

    Args:
        stamp_ns: of the instant.
        nearest: the frame that is nearest to it.
        max_distance: seconds that it may be away.
        count: of frames that are kept; 0: the newest alone, as configured.
    """
    distance = (nearest.stamp_ns - stamp_ns) * 1e-9
    kept = f"the nearest of {count} kept images" if count else "its newest image, the only one kept,"
    advice = "raise history_mb or ask sooner" if count else "set history_mb to keep earlier ones"
    return (
        f"{label} has no image within max_age {max_distance:.2f} s of stamp {stamp_ns * 1e-9:.3f}: {kept} is "
        f"{abs(distance):.2f} s {'later' if distance > 0 else 'earlier'} ({nearest.stamp_ns * 1e-9:.3f}); "
        f"allow a larger max_age, or {advice}"
    )
