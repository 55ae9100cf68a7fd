# SPDX-License-Identifier: Apache-2.0
"""Holds what the node says against the truth of the frame that its header names."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, time_ns
from typing import Any

from soak_load import BUSY, Asked, Draw, plain
from soak_scenes import DESCRIBE, MONITORS, Reel, picture

from mobilevlm_ros import MobileVLM
from mobilevlm_ros.ros.stamps import to_nanoseconds
from mobilevlm_ros.ros.status import name_of

SAMPLE = 25
"""One in so many right answers is asked again in this process, too."""

PROBABILITY = 0.05
"""Greatest difference of a probability between node and model here: a batch sums in another order."""


@dataclass(frozen=True)
class Turn:
    """A question, the frame that it was about, and the front door's options."""

    question: str
    seed: int
    stamp: int
    options: dict[str, Any]


class Judge:
    """Counts, and writes one line of JSON for each thing that was not plainly right.

    A wrong answer is either the model's or the node's. The model here is asked the same about the same
    picture, rendered again from the header: if it says the same, the answer belongs to the frame
    ("model_wrong"); if not, it is "unexplained", which a soak must not have.

    Attributes:
        counts: what happened.
        latencies: seconds from arrival to answer, of those since the last look.
        found: faults, the first hundred.
    """

    def __init__(self, reels: dict[str, Reel], frames: dict[str, str], draw: Draw, path: Path) -> None:
        self.counts: Counter[str] = Counter()
        self.latencies: list[float] = []
        self.found: list[dict[str, Any]] = []
        self._reels = reels
        self._frames = frames
        self._draw = draw
        self._file = path.open("w", encoding="utf-8")
        self._model = MobileVLM(threads=1)
        self._sessions: dict[str, list[Turn]] = {}
        self._begin = monotonic()

    def write(self, kind: str, **fields: Any) -> None:
        """One line."""
        self._file.write(
            json.dumps({"t": round(monotonic() - self._begin, 1), "kind": kind, **fields}) + "\n"
        )
        self._file.flush()

    def fault(self, kind: str, **fields: Any) -> None:
        """What must not happen."""
        self.counts[kind] += 1
        if len(self.found) < 100:
            self.found.append({"kind": kind, **fields})
        self.write(kind, **fields)

    def close(self) -> None:
        self._model.close()
        self._file.close()

    # ---- answers

    def response(self, asked: Asked, response: Any) -> None:
        """Of the service or the action."""
        self._draw.done(asked)
        code = name_of(response.status.code)
        self.counts["answered"] += 1
        self.counts[f"status {code}"] += 1
        self.counts[f"kind {asked.kind}"] += 1
        told = {"asked": plain(asked.fields), "code": code, "answer": response.answer[:200]}
        if code not in asked.expected and code not in BUSY:
            self.fault("unexpected", **told, message=response.status.message[:200])
        if asked.pieces and not response.answer.strip().startswith("".join(asked.pieces).strip()):
            self.fault("torn", **told, pieces=asked.pieces)
        session = asked.fields.get("session")
        if session is not None and (code != "OK" or response.session_turn == 1):
            self._sessions.pop(session, None)
        if code != "OK" or asked.question is None:
            return
        self.latencies.append(response.latency.total)
        for part in response.answers or [response]:
            self._answer(asked, part, session, told)

    def _answer(self, asked: Asked, part: Any, session: str | None, told: dict[str, Any]) -> None:
        camera, stamp = part.camera, to_nanoseconds(part.header.stamp)
        told = {**told, "camera": camera, "stamp": stamp, "answer": part.answer[:200]}
        wanted = asked.fields.get("camera", "")
        meant = asked.fields.get("stamp")
        if (
            part.header.frame_id != self._frames.get(camera)
            or wanted not in (camera, "*")
            or (meant is not None and abs(to_nanoseconds(meant) - stamp) > 1_000_000)
            or not 0 <= time_ns() - stamp < 3600 * 10**9
        ):
            self.fault("wrong_header", **told, frame_id=part.header.frame_id)
            return
        if session is None:
            self._draw.stamps.append((camera, stamp))
            del self._draw.stamps[:-50]
        seed = self._reels[camera].seed_at(stamp)
        history = self._sessions.setdefault(session, []) if session is not None else []
        assert asked.question is not None
        right = None if asked.kind == "region" else asked.question.right(part.answer, seed)
        turn = Turn(asked.question.text, seed, stamp, _options(asked.fields))
        self._weigh(right, part.answer, told, [*history, turn])
        history.append(turn)

    def _weigh(self, right: bool | None, answer: str, told: dict[str, Any], turns: list[Turn]) -> None:
        """Count an answer; where it is not plainly right (or now and then), ask the model here."""
        self.counts["right" if right else "without truth" if right is None else "wrong"] += 1
        if right and self.counts["right"] % SAMPLE:
            return
        self.counts["asked again"] += 1
        chat, said, shown = self._model.chat(), "", 0
        for turn in turns:
            new = picture(turn.seed) if turn.stamp != shown else None
            said, shown = chat.ask(turn.question, new, **turn.options).text, turn.stamp
        if said.strip() != answer.strip():
            self.fault("unexplained", **told, here=said, right=right, turns=len(turns))
        elif right is False:
            self.counts["model_wrong"] += 1
            self.write("model_wrong", **told)

    # ---- what comes unasked

    def caption(self, message: Any) -> None:
        """Of ~/captions."""
        self.counts["captions"] += 1
        stamp = to_nanoseconds(message.header.stamp)
        seed = self._reels[message.camera].seed_at(stamp)
        told = {"caption": message.text, "camera": message.camera, "stamp": stamp}
        if message.header.frame_id != self._frames[message.camera]:
            self.fault("wrong_header", **told)
        turn = Turn(DESCRIBE.text, seed, stamp, {})
        self._weigh(DESCRIBE.right(message.text, seed), message.text, told, [turn])

    def monitor(self, message: Any) -> None:
        """Of ~/monitors."""
        code = name_of(message.status.code)
        self.counts["monitor evaluations"] += 1
        if code != "OK":
            self.counts[f"monitor {code}"] += 1
            return
        question, choices, raised, _ = MONITORS[message.name]
        stamp = to_nanoseconds(message.header.stamp)
        seed = self._reels[message.camera].seed_at(stamp)
        if message.header.frame_id != self._frames[message.camera]:
            self.fault("wrong_header", monitor=message.name, stamp=stamp)
        truth = question.right(raised, seed)
        if truth == (message.probability > 0.5):
            self.counts["monitor right"] += 1
            if self.counts["monitor right"] % SAMPLE:
                return
        else:
            self.counts["monitor wrong"] += 1
        self.counts["asked again"] += 1
        here = self._model.ask(picture(seed), question.text, choices=choices).probabilities[raised]
        if abs(here - message.probability) > PROBABILITY:
            told = {"monitor": message.name, "stamp": stamp, "seed": seed}
            self.fault("unexplained", **told, probability=message.probability, here=here)


def _options(fields: dict[str, Any]) -> dict[str, Any]:
    """A request's fields as the front door takes them."""
    kept = ("choices", "answer_format", "minimum", "maximum")
    options = {name: fields[name] for name in kept if name in fields}
    if (roi := fields.get("roi")) is not None:
        options["region"] = (roi.x_offset, roi.y_offset, roi.width, roi.height)
        options["region_with_frame"] = fields["roi_with_frame"]
    return options
