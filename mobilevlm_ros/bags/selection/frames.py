# SPDX-License-Identifier: Apache-2.0
"""The frames of a recording that the model is asked about.

What is selected depends on the recording and the options only, never on answers: a run that was killed, and
workers on other machines, select the same frames under the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mobilevlm_ros.bags.reading.bag import FOR_EVER, Bag
from mobilevlm_ros.bags.reading.picture import RecordedPicture, picture_of
from mobilevlm_ros.bags.selection.cameras import BagCamera
from mobilevlm_ros.errors import ImageError
from mobilevlm_ros.inference.monitoring.hysteresis import JITTER_NS
from mobilevlm_ros.inference.monitoring.novelty import NoveltyGate
from mobilevlm_ros.inference.types import Frame
from mobilevlm_ros.ros.images.encodings import Encodings, parse_encodings

_SECOND = 1_000_000_000
_NAMED = 5
"""Bad pictures that are named; the others are counted."""


@dataclass(frozen=True)
class Selection:
    """What is selected.

    Attributes:
        cameras: in the order of their names.
        periods: seconds between questions, by camera; several where several questions have their own (of
            monitors). 0: every frame.
        novelty: least difference to the frame that was asked about before, 0 to 1; 0: none.
        start_ns, end_ns: of the recording's clock, both included.
        encodings: as the node's parameter of that name.
    """

    cameras: tuple[BagCamera, ...]
    periods: Mapping[str, tuple[float, ...]]
    novelty: float = 0.0
    start_ns: int = FOR_EVER[0]
    end_ns: int = FOR_EVER[1]
    encodings: tuple[str, ...] = ()


@dataclass(frozen=True)
class SelectedFrame:
    """A frame to ask about.

    Attributes:
        number: among those selected, from 0.
        frame: the picture with its header, its camera, and its run of time.
        topic, index: where it lies in the recording; see `Record`.
        bag_time_ns: when it was recorded.
        due: places of the camera's periods that are over.
    """

    number: int
    frame: Frame
    topic: str
    index: int
    bag_time_ns: int
    due: tuple[int, ...]


@dataclass
class Tally:
    """What became of the pictures of a recording.

    Attributes:
        pictures: in the range of time, of the cameras.
        selected: that the model is asked about.
        unchanged: that were due but showed nothing new.
        bad: that could not be read.
        bad_named: the first of them, in sentences.
        jumps: how often a camera's time went back.
        at_ns: time of the last picture, of the recording's clock.
    """

    pictures: int = 0
    selected: int = 0
    unchanged: int = 0
    bad: int = 0
    bad_named: list[str] = field(default_factory=list)
    jumps: int = 0
    at_ns: int = 0


class _Clock:
    """A camera's periods, in the time of its pictures; a step back begins another run of time."""

    def __init__(self, periods: Sequence[float]) -> None:
        self._periods = [round(period * _SECOND) for period in periods]
        self._start = 0
        self._next: list[int] = []
        self._last: int | None = None
        self.run = 0

    def jumped(self, now: int) -> bool:
        """Whether time went back further than pictures overtake each other."""
        back = self._last is not None and now < self._last - JITTER_NS
        if back:
            self.run += 1
            self._next = []
        self._last = now if back or self._last is None else max(now, self._last)
        return back

    def due(self, now: int) -> tuple[int, ...]:
        """Places of the periods that are over."""
        if not self._next:
            return tuple(range(len(self._periods)))
        return tuple(place for place, after in enumerate(self._next) if now >= after)

    def take(self, now: int, places: Sequence[int]) -> None:
        """The periods begin again. On a grid, so that a camera's jitter does not add up."""
        if not self._next:
            self._start = now
            self._next = [now] * len(self._periods)
        for place in places:
            period = self._periods[place]
            self._next[place] = self._start + ((now - self._start) // period + 1) * period if period else now


def select(bag: Bag, selection: Selection, tally: Tally) -> Iterator[SelectedFrame]:
    """The frames in recorded order; what became of the others is counted in `tally` as it goes on."""
    cameras = {camera.topic: camera for camera in selection.cameras}
    clocks = {topic: _Clock(selection.periods[camera.name]) for topic, camera in cameras.items()}
    gates = {topic: NoveltyGate() for topic in cameras}
    encodings: dict[str, Encodings] = {
        topic: parse_encodings(selection.encodings, camera.name) for topic, camera in cameras.items()
    }
    for source in bag.messages(cameras, selection.start_ns, selection.end_ns):
        tally.pictures += 1
        tally.at_ns = source.time_ns
        camera, clock, gate = cameras[source.topic], clocks[source.topic], gates[source.topic]
        try:
            picture = picture_of(source)
            now = picture.time_ns
            if clock.jumped(now):
                tally.jumps += 1
                gate.forget()
            due = clock.due(now)
            if not due:
                continue
            image = picture.decode(encodings[source.topic])
        except ImageError as error:
            tally.bad += 1
            if len(tally.bad_named) < _NAMED:
                tally.bad_named.append(f"picture {source.index} of {source.topic}: {error}")
            continue
        clock.take(now, due)
        if not gate.opens(image, selection.novelty):
            tally.unchanged += 1
            continue
        if selection.novelty > 0:
            gate.remember(image)
        frame = Frame(image, picture.stamp_ns, picture.frame_id, camera.name, clock.run)
        yield _selected(picture, frame, tally.selected, due)
        tally.selected += 1


def _selected(picture: RecordedPicture, frame: Frame, number: int, due: tuple[int, ...]) -> SelectedFrame:
    source = picture.source
    return SelectedFrame(number, frame, source.topic, source.index, source.time_ns, due)
