# SPDX-License-Identifier: Apache-2.0
"""From a noisy probability to a state that holds still: two thresholds and a time that must be held."""

from __future__ import annotations

from enum import IntEnum

JITTER_NS = 1_000_000_000
"""Pictures may overtake each other by so much; a stamp that lies further back belongs to another run of time,
unless whoever gives it knows better.
"""


class State(IntEnum):
    """Of a monitor; the numbers are those of mobilevlm_msgs/MonitorState."""

    UNKNOWN = 0
    CLEAR = 1
    RAISED = 2


class Hysteresis:
    """Enters RAISED once the probability has been at least `up`, and CLEAR once it has been at most `down`,
    for `hold` seconds without a break. Between the two it stays what it is, and the wait begins anew.

    Time is that of the pictures: how late or slow they are evaluated changes nothing. A picture that is a
    little older than the one before adds none, and the state stays in force. UNKNOWN until one of the
    thresholds has been held for the first time.

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
        self._elapsed = 0  # nanoseconds of the pictures' time
        self._last_ns: int | None = None
        self._run: int | None = None
        self._peak_ns = 0  # latest stamp seen

    def update(self, probability: float, stamp_ns: int, run: int | None = None) -> bool:
        """Take the probability on a picture of time `stamp_ns`; True if that begins another state.

        A picture of another run of time (a recording that starts again, a simulation that was reset) begins
        anew: about that time nothing is known yet.

        Args:
            probability: 0 to 1.
            stamp_ns: of the picture, nanoseconds.
            run: number of the run of time, where it is known; None: a step back of more than JITTER_NS begins
                another one.

        """
        before = self.state
        far_back = run is None and self._last_ns is not None and stamp_ns < self._last_ns - JITTER_NS
        if far_back or (self._last_ns is not None and run != self._run):
            self.forget(stamp_ns)
        self._run = run
        if self._last_ns is None:
            self._last_ns = self._peak_ns = stamp_ns
        # Where pictures of two clocks alternate, the steps between them are no time that passes.
        start = self._last_ns if stamp_ns <= self._peak_ns else self._peak_ns
        self._elapsed += max(0, stamp_ns - start)
        self._last_ns, self._peak_ns = stamp_ns, max(self._peak_ns, stamp_ns)
        wanted = self._wanted(probability)
        if wanted is not self._candidate:
            self._candidate, self._held_from = wanted, self._elapsed
        if wanted not in (State.UNKNOWN, self.state) and self._elapsed - self._held_from >= self._hold_ns:
            self.state, self.since_ns = wanted, stamp_ns
        return self.state is not before

    def forget(self, stamp_ns: int = 0) -> bool:
        """Nothing is known from the picture of time `stamp_ns` on, nor was a threshold held until then; True
        if that is another state than before. `since_ns` stays where the state was UNKNOWN already.
        """
        changed = self.state is not State.UNKNOWN
        if changed or stamp_ns < self.since_ns:
            self.since_ns = stamp_ns
        self.state = State.UNKNOWN
        self._candidate, self._held_from, self._last_ns = State.UNKNOWN, 0, None
        return changed

    def _wanted(self, probability: float) -> State:
        if probability >= self.up:
            return State.RAISED
        return State.CLEAR if probability <= self.down else State.UNKNOWN
