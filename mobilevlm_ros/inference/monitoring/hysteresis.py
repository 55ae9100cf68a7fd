# SPDX-License-Identifier: Apache-2.0
"""From a noisy probability to a state that holds still: two thresholds and a time that must be held."""

from __future__ import annotations

from enum import IntEnum


class State(IntEnum):
    """Of a monitor; the numbers are those of mobilevlm_msgs/MonitorState."""

    UNKNOWN = 0
    CLEAR = 1
    RAISED = 2


class Hysteresis:
    """Enters RAISED once the probability has been at least `up`, and CLEAR once it has been at most `down`,
    for `hold` seconds without a break. Between the two it stays what it is, and the wait begins anew.

    Time is that of the pictures: how late or slow they are evaluated changes nothing. UNKNOWN until one of
    the thresholds has been held for the first time.

    Args:
        up, down: probabilities, 0 <= down < up <= 1.
        hold: seconds, 0 or more.

    Attributes:
        state: the state in force.
        since_ns: time of the picture that began it, nanoseconds; 0 before the first.
    """

    def __init__(self, up: float, down: float, hold: float) -> None:
        if not 0 <= down < up <= 1 or not hold >= 0:
            raise ValueError(f"need 0 <= down < up <= 1 and hold >= 0, got down {down}, up {up}, hold {hold}")
        self.up, self.down = up, down
        self.state = State.UNKNOWN
        self.since_ns = 0
        self._hold_ns = round(hold * 1e9)
        self._candidate = State.UNKNOWN
        self._held_from = 0
        self._last_ns: int | None = None

    def update(self, probability: float, stamp_ns: int) -> bool:
        """Take the probability on a picture of time `stamp_ns`; True if that begins another state.

        A picture older than the one before belongs to another time (a recording that starts again), about
        which nothing is known yet: the state before is forgotten.
        """
        before = self.state
        if self._last_ns is not None and stamp_ns < self._last_ns:
            self.forget(stamp_ns)
        self._last_ns = stamp_ns
        wanted = self._wanted(probability)
        if wanted is not self._candidate:
            self._candidate, self._held_from = wanted, stamp_ns
        if wanted not in (State.UNKNOWN, self.state) and stamp_ns - self._held_from >= self._hold_ns:
            self.state, self.since_ns = wanted, stamp_ns
        return self.state is not before

    def forget(self, stamp_ns: int = 0) -> bool:
        """Nothing is known from now on; True if that is another state than before."""
        changed = self.state is not State.UNKNOWN
        self.state, self.since_ns = State.UNKNOWN, stamp_ns
        self._candidate, self._held_from, self._last_ns = State.UNKNOWN, 0, None
        return changed

    def _wanted(self, probability: float) -> State:
        if probability >= self.up:
            return State.RAISED
        return State.CLEAR if probability <= self.down else State.UNKNOWN
