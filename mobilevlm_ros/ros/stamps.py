# SPDX-License-Identifier: Apache-2.0
"""Stamps as one number. Needs no clock: what a camera writes into a header is carried through as it is."""

from __future__ import annotations

from builtin_interfaces.msg import Time

_SECOND = 1_000_000_000


def to_nanoseconds(stamp: Time) -> int:
    """Nanoseconds of a builtin_interfaces/Time; negative where its seconds are."""
    return int(stamp.sec * _SECOND + stamp.nanosec)


def to_message(stamp_ns: int) -> Time:
    """builtin_interfaces/Time of nanoseconds. Not by rclpy's own Time, which raises for negative ones."""
    seconds, nanoseconds = divmod(stamp_ns, _SECOND)
    return Time(sec=seconds, nanosec=nanoseconds)
