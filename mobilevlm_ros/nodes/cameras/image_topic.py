# SPDX-License-Identifier: Apache-2.0
"""The topic of one camera, raw or compressed, wherever something is published and arrives."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSDurabilityPolicy, QoSReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from mobilevlm_ros.nodes.cameras.image_reader import ImageReader, Sample
from mobilevlm_ros.nodes.cameras.offers import (
    Listening,
    Offer,
    keeps_the_last,
    usable,
    who_else,
    why_nothing,
)

SILENCE = 3.0
"""Seconds without a frame, from a topic that has publishers, after which the other transport is tried."""

LOSSY, LEAST_LOST = 0.3, 5
"""Share of the samples, and number of them, lost within ten seconds, above which the other transport is
taken."""

PROBE_AFTER, PROBE_AT_MOST, PROBE_SECONDS = 30.0, 600.0, 5.0
"""Seconds until a transport that failed is tried again beside the other one, doubled each time up to the
second number, and how long it is tried."""


class ImageTopic:
    """Listens to <name>/image or <name>/image/compressed. Not thread-safe.

    Args:
        node: gives the graph and the subscription.
        name: of the camera; the topics are relative to the node.
        transport: 'raw', 'compressed' or 'auto': raw where it is published and arrives, else compressed.
        reliable: ask for reliable delivery.
    """

    def __init__(self, node: Node, name: str, transport: str, reliable: bool) -> None:
        self._node = node
        raw = f"{name}/image" if name else "image"
        self._relative = {"raw": raw, "compressed": f"{raw}/compressed"}
        self._names = {kind: str(node.resolve_topic_name(topic)) for kind, topic in self._relative.items()}
        self._transport = transport
        self._reliable = reliable
        self._reader: ImageReader | None = None
        self._kind = ""
        self._failed = {"raw": False, "compressed": False}
        self._probe: ImageReader | None = None
        self._probe_due, self._probe_wait = 0.0, PROBE_AFTER
        self._lost_before = 0  # by readers that were closed
        self.offered = 0  # publishers on the topic it listens to, at the last look

    @property
    def name(self) -> str:
        """Resolved name of the topic it listens to; the raw one before it found any publisher."""
        return self._names[self._kind or "raw"]

    @property
    def names(self) -> tuple[str, ...]:
        """Resolved names of both topics."""
        return tuple(self._names.values())

    @property
    def publishers(self) -> int:
        """Publishers now, on both topics together."""
        return sum(int(self._node.count_publishers(name)) for name in self._names.values())

    @property
    def lost(self) -> int:
        """Samples that the middleware reports as lost on the way."""
        return self._lost_before + (self._reader.lost if self._reader is not None else 0)

    @property
    def silent_for(self) -> float:
        """Seconds since the last sample, or since it listens."""
        return monotonic() - (self._reader.since if self._reader is not None else 0.0)

    def take(self) -> Iterator[Sample]:
        """What arrived since the last call; at most the newest message, while it goes on listening."""
        if self._reader is not None:
            yield from self._reader.take()

    def follow(self) -> None:
        """Listen to the topic where something is published; to the other one when too little arrives.

        A silence longer than the node's max_age is too little: no question may be about what came before.
        """
        max_age = float(self._node.get_parameter_or("max_age", Parameter("max_age", value=SILENCE)).value)
        if self._reader is not None:
            self._reader.poll_events()
        offers = {kind: self._offers(kind) for kind in self._names}
        kind = self._choose(offers, max_age)
        good = usable(kind, offers[kind])
        self.offered = len(offers[kind])
        latched = keeps_the_last(good)
        if self._reader is None or kind != self._kind or latched != self._reader.latched:
            self._listen(kind, latched)

    def close(self) -> None:
        """Stop listening."""
        self._end_probe()
        if self._reader is not None:
            self._lost_before += self._reader.lost
            self._reader.close()
            self._reader = None

    def silence(self) -> str:
        """Why nothing more arrives; empty where something came a moment ago."""
        if self._reader is None or not self._reader.taken or not self.publishers:
            return self.diagnose()
        if self.silent_for <= 1.0:
            return ""
        return f"{self.name} is published, but sent nothing for {self.silent_for:.1f} s: check the camera"

    def diagnose(self) -> str:
        """Why nothing arrives, and what to do about it."""
        kind = self._kind or "raw"
        latched = self._reader is not None and self._reader.latched
        how = Listening(self._names, kind, self._reliable, latched, self.lost)
        return why_nothing({kind: self._offers(kind) for kind in self._names}, how)

    def rivals(self, mixed: bool) -> str:
        """Who publishes where only one should; empty where at most one does.

        Args:
            mixed: whether stamps of several clocks were seen.
        """
        return who_else(self.name, self._offers(self._kind or "raw"), mixed)

    def _listen(self, kind: str, latched: bool) -> None:
        probe = self._probe if self._probe is not None and kind != self._kind and not latched else None
        if probe is not None:
            self._probe = None
        self.close()
        self._kind = kind
        self._reader = probe or self._open(kind, latched)

    def _open(self, kind: str, latched: bool) -> ImageReader:
        message = Image if kind == "raw" else CompressedImage
        return ImageReader(self._node, message, self._relative[kind], self._reliable, latched)

    def _offers(self, kind: str) -> list[Offer]:
        infos = self._node.get_publishers_info_by_topic(self._names[kind])
        return [
            Offer(
                f"{info.node_namespace.rstrip('/')}/{info.node_name}",
                info.topic_type,
                info.qos_profile.reliability == QoSReliabilityPolicy.RELIABLE,
                info.qos_profile.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL,
            )
            for info in infos
        ]

    def _choose(self, offers: dict[str, list[Offer]], max_age: float) -> str:
        if self._transport != "auto":
            return self._transport
        published = {kind: bool(usable(kind, offers[kind])) for kind in self._names}
        if self._kind and published[self._kind]:
            other = "compressed" if self._kind == "raw" else "raw"
            wrong = self._wrong(max_age) if published[other] and not self._failed[other] else ""
            if wrong:
                self._failed[self._kind] = True
                self._wait_longer()
                self._say(f"{wrong}. Now listening to {self._names[other]}")
            elif published[other] and self._failed[other] and self._healed(other):
                self._failed[other] = False
                self._say(f"{self._names[other]} arrives again. Now listening to it")
        for kind in ("raw", "compressed"):
            if published[kind] and not self._failed[kind]:
                return kind
        return self._kind or "raw"

    def _wrong(self, max_age: float) -> str:
        """Why the transport it listens to will not do; empty when it will."""
        reader = self._reader
        if reader is None or reader.latched:
            return ""
        sent, lost = reader.meter.counts(monotonic())
        if lost >= LEAST_LOST and lost > LOSSY * sent:
            return f"{lost} of {sent} images on {self.name} were lost on the way in the last seconds"
        limit = SILENCE if max_age < 0 else min(SILENCE, max(1.0, max_age))
        if self.silent_for > limit:
            return self.silence() if reader.taken else self.diagnose()
        return ""

    def _healed(self, kind: str) -> bool:
        """Whether a transport that failed works again: it is tried for some seconds, now and then."""
        now, probe = monotonic(), self._probe
        if probe is None:
            if now >= self._probe_due:
                self._probe_due = now + PROBE_SECONDS
                self._probe = self._open(kind, False)
            return False
        probe.poll_events()
        for _sample in probe.take():
            pass
        if now < self._probe_due:
            return False
        sent, lost = probe.meter.counts(now)
        if probe.taken >= 2 and lost <= 0.05 * sent:
            return True
        self._wait_longer()
        self._end_probe()
        return False

    def _wait_longer(self) -> None:
        """Before the next trial."""
        self._probe_due = monotonic() + self._probe_wait
        self._probe_wait = min(PROBE_AT_MOST, 2 * self._probe_wait)

    def _end_probe(self) -> None:
        if self._probe is not None:
            self._probe.close()
            self._probe = None

    def _say(self, text: str) -> None:
        self._node.get_logger().warning(text)
