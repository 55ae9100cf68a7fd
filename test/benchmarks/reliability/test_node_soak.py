# SPDX-License-Identifier: Apache-2.0
"""benchmarks/reliability/soak.py: a short one with real processes, and what its judge must notice."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from time import time_ns
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks" / "reliability"))

import soak
from mobilevlm_msgs.msg import MonitorState, Status
from mobilevlm_msgs.srv import AskImage
from soak_judge import Judge
from soak_load import Asked, Draw
from soak_report import Sample, plot, slope
from soak_scenes import EXISTENCE, Reel, seen

from mobilevlm_ros.ros.stamps import to_message


def test_a_short_soak_loses_nothing_and_leaves_its_page(nano: Path, tmp_path: Path) -> None:
    script = Path(__file__).parents[3] / "benchmarks" / "reliability" / "soak.py"
    prefix = tmp_path / "soak"
    command = [sys.executable, str(script), "-o", str(prefix)]
    command += ["--minutes", "0.25", "--rate", "10", "--scenes", "8", "--questions", "6"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=os.environ, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(prefix.with_suffix(".json").read_text())
    counts = told["counts"]
    assert not any(told["faults"].values()) and counts["answered"] == counts["sent"] > 5
    assert counts["captions"] and counts["monitor evaluations"] > 8 and counts["asked again"]
    assert counts["right"] > counts.get("wrong", 0)
    assert all(sample["private"] > 10 and sample["threads"] > 1 for sample in told["samples"])
    assert prefix.with_suffix(".png").stat().st_size > 10_000
    assert "lost: no response at all | 0" in prefix.with_suffix(".md").read_text()
    kinds = {json.loads(line)["kind"] for line in prefix.with_suffix(".jsonl").read_text().splitlines()}
    assert "sample" in kinds


# ---- the judge: seed 507 and those after it, one second each, since ten seconds ago

REEL = Reel(seed=507, scenes=8, scene_seconds=1.0, start_ns=time_ns() - 10 * 10**9)


@pytest.fixture
def judge(nano: Path, tmp_path: Path) -> Iterator[Judge]:
    made = Judge({"": REEL}, {"": "front_optical_frame"}, Draw(1, ("",), 2), tmp_path / "soak.jsonl")
    yield made
    made.close()


def stamp_of(number: int) -> int:
    return REEL.start_ns + number * 10**9 + 5 * 10**8


def response(answer: str, stamp: int, code: int = Status.OK, frame_id: str = "front_optical_frame") -> Any:
    made = AskImage.Response(answer=answer, status=Status(code=code))
    made.header.stamp, made.header.frame_id = to_message(stamp), frame_id
    return made


def scenes(question: Any, wanted: str) -> list[int]:
    """Numbers of the scenes where that is the truth."""
    return [n for n in range(REEL.scenes) if question.truth(seen(REEL.seed + n)) == {wanted}]


def a_question() -> Any:
    return next(q for q in EXISTENCE if scenes(q, "yes") and scenes(q, "no"))


def asked(question: Any, **fields: Any) -> Asked:
    return Asked("plain", {"camera": "", "question": question.text, **fields}, question)


def test_an_answer_about_another_frame_is_unexplained(judge: Judge) -> None:
    question = a_question()
    there, absent = scenes(question, "yes")[0], scenes(question, "no")[0]
    judge.response(asked(question, choices=["yes", "no"]), response("yes", stamp_of(there)))
    assert judge.counts["right"] == 1 and not judge.found
    judge.response(asked(question, choices=["yes", "no"]), response("yes", stamp_of(absent)))
    assert judge.counts["unexplained"] == 1 and judge.found[0]["kind"] == "unexplained"


def test_headers_statuses_and_streams_are_looked_at(judge: Judge) -> None:
    question = a_question()
    there = stamp_of(scenes(question, "yes")[0])
    judge.response(asked(question), response("Yes.", there, frame_id="rear_optical_frame"))
    judge.response(asked(question, stamp=to_message(there - 10**9)), response("Yes.", there))
    assert judge.counts["wrong_header"] == 2
    judge.response(asked(question), response("", 0, Status.INTERNAL_ERROR))
    assert judge.counts["unexpected"] == 1
    torn = asked(question)
    torn.pieces = ["No", " thing"]
    judge.response(torn, response("Yes.", there))
    assert judge.counts["torn"] == 1


def test_a_monitor_of_another_frame_is_unexplained(judge: Judge) -> None:
    ball = next(q for q in EXISTENCE if "ball" in q.text)
    message = MonitorState(name="ball", status=Status(code=Status.OK))
    message.header.frame_id = "front_optical_frame"
    for number in range(REEL.scenes):
        message.header.stamp = to_message(stamp_of(number))
        truth = ball.truth(seen(REEL.seed + number)) == {"yes"}
        message.probability = 0.0 if truth else 1.0
        judge.monitor(message)
    assert judge.counts["unexplained"] == judge.counts["monitor wrong"] == REEL.scenes


def test_the_slope_is_that_of_the_late_samples_and_not_of_an_odd_one() -> None:
    def sample(minute: int) -> Sample:
        grown = 100 + (10 * minute if minute < 30 else 300 + minute / 60)  # at first quickly, then 1 MiB/h
        private = 900.0 if minute == 45 else grown
        return Sample(60.0 * minute, 0.0, private, 5, 5, 0.0, 0, None, None)

    samples = [sample(minute) for minute in range(61)]
    assert slope(samples, "private") == pytest.approx(1.0, abs=0.01)
    assert slope(samples, "threads") == 0.0


@pytest.mark.parametrize("number", soak.SIGNALS)
def test_a_signal_ends_a_soak_early_with_what_it_found(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its questions are not waited for, and the node, which Ctrl-C ended too, is no fault."""
    monkeypatch.setattr(soak, "CHECKPOINT", 0.0)

    class Quiet(soak.Soak):
        def __init__(self) -> None:
            self._options = argparse.Namespace(
                minutes=60.0, questions=1e6, output=tmp_path / "soak", note="", command="soak"
            )
            self._client, self._draw, self.judge, self._load = self, self, self, self
            self.counts: Counter[str] = Counter()
            self.waiting: set[int] = set()
            self.samples, self.latencies, self.found, self.rates = [], [0.1], [], {}
            self._period, self._spins = 0.0, 0

        def spin(self, seconds: float) -> None:
            self._spins += 1
            if self._spins == 5:
                os.kill(os.getpid(), number)

        def wait(self, rate: float) -> float:
            return 0.0

        def draw(self) -> int:
            return len(self.waiting)

        def send(self, asked: int) -> None:
            self.waiting.add(asked)

        def _look(self, seconds: float) -> bool:
            self.samples.append(Sample(60.0, 90.0, 80.0, 5, 5, 0.0, 3, None, None))
            return True

    before = [signal.getsignal(each) for each in soak.SIGNALS]
    quiet = Quiet()
    try:
        quiet.run()
    finally:
        for each, handler in zip(soak.SIGNALS, before):
            signal.signal(each, handler)
    assert quiet._spins == 5 and quiet.counts == {"sent": 5, "cut off": 5}
    assert (tmp_path / "soak.json").exists()  # a checkpoint
    quiet.summary().write(tmp_path / "soak")
    plot(tmp_path / "soak")  # the samples are of one moment, as after the machine stood still
    assert "ended by a signal | 5 |" in (tmp_path / "soak.md").read_text()
    assert (tmp_path / "soak.png").stat().st_size > 10_000
