# SPDX-License-Identifier: Apache-2.0
"""From raw answers to records: monitors get their states here, in the order of the recording."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mobilevlm_ros.bags.job.entries import Entry, Said
from mobilevlm_ros.bags.job.job import Job
from mobilevlm_ros.bags.records import Record
from mobilevlm_ros.inference.monitoring.hysteresis import Hysteresis, State


def records(job: Job, entries: Iterable[Entry]) -> Iterator[Record]:
    """The records of entries that are sorted by their numbers."""
    gates = [Hysteresis(m.threshold_up, m.threshold_down, m.hold_time) for m in job.monitors]
    for entry in entries:
        for said in entry.said:
            if gates:
                yield _monitor(job, entry, said, gates[said.place])
            elif said.text or job.kind != "caption":  # the node publishes no empty caption either
                yield _record(job, entry, said)


def _record(job: Job, entry: Entry, said: Said) -> Record:
    request = job.requests[said.place]
    return Record(
        kind=job.kind,
        stamp_ns=entry.stamp_ns,
        bag_time_ns=entry.bag_time_ns,
        camera=entry.camera,
        text=said.text,
        question=request.question,
        confidence=said.confidence,
        frame_id=entry.frame_id,
        topic=entry.topic,
        bag=job.bag,
        index=entry.index,
        model_id=job.model_id,
        probabilities=dict(zip(request.choices, said.odds)),
        finish_reason=said.finish_reason,
        generated_tokens=said.generated_tokens,
        calibrated=said.calibrated,
        abstained=said.abstained,
    )


def _monitor(job: Job, entry: Entry, said: Said, gate: Hysteresis) -> Record:
    monitor, plain = job.monitors[said.place], _record(job, entry, said)
    probability = monitor.probability(said.odds)
    changed = gate.update(probability, plain.time_ns, entry.run)
    sure = {State.RAISED: probability, State.CLEAR: 1.0 - probability, State.UNKNOWN: 0.0}[gate.state]
    state = gate.state.name.lower()
    return Record(
        **{
            **plain.__dict__,
            "text": f"{monitor.name}: {state}",
            "confidence": sure,
            "monitor": monitor.name,
            "probability": probability,
            "state": state,
            "changed": changed,
            "since_ns": gate.since_ns,
        }
    )
