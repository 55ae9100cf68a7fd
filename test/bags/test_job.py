# SPDX-License-Identifier: Apache-2.0
"""A recording through the command line: what the node would say, kept whatever happens on the way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures.recordings import SECOND, Picture, grey, image, write_ros2
from mcap.reader import make_reader
from rosbags.rosbag2 import Reader

from mobilevlm_ros import MobileVLM
from mobilevlm_ros.bags.demo_recording import START_NS, DemoOptions, record_demo
from mobilevlm_ros.bags.job.journal import SUFFIX, Journal
from mobilevlm_ros.bags.messages import typestore
from mobilevlm_ros.bags.reading.bag import Bag
from mobilevlm_ros.bags.reading.picture import picture_of
from mobilevlm_ros.bags.records import read_records
from mobilevlm_ros.cli import main
from mobilevlm_ros.simulation.render import observe
from mobilevlm_ros.simulation.scene_sequence import SceneSequence

TOPIC = "/front/image/compressed"
MONITORS = """
monitors:
  - name: person
    question: Is there a person?
    rate: 1.0
    threshold_up: 0.8
    threshold_down: 0.2
  - name: clear
    question: Is the path ahead clear?
    rate: 0.5
    raised: 'no'
"""


@pytest.fixture(scope="module")
def vlm(nano: Path) -> MobileVLM:
    return MobileVLM(nano, threads=1)


def run(*words: object) -> int:
    return main([*map(str, words), "--quiet", "--threads", "1"])


def frames(path: Path, topic: str = TOPIC) -> list[Any]:
    with Bag(path) as bag:
        return [picture_of(message).decode({}) for message in bag.messages([topic])]


def messages(path: Path) -> list[Any]:
    """As anybody reads them: with `rosbags`, by the definitions that the file holds."""
    from rosbags.highlevel import AnyReader

    with AnyReader([path]) as reader:
        return [reader.deserialize(data, c.msgtype) for c, _, data in reader.messages()]


def test_captions_are_what_the_model_says_bit_for_bit(demo: Path, vlm: MobileVLM, tmp_path: Path) -> None:
    output = tmp_path / "demo.captions.mcap"
    assert run("caption-bag", demo, "-o", output) == 0
    wanted = [vlm.ask(frame, "Describe the scene.") for frame in frames(demo)]
    found = list(read_records(output.with_suffix(".jsonl")))
    assert len(found) == 16
    assert [(r.text, r.confidence) for r in found] == [(a.text, a.confidence) for a in wanted]
    assert [r.stamp_ns for r in found] == [START_NS + i * SECOND // 2 for i in range(16)]
    assert {(r.kind, r.camera, r.topic, r.frame_id, r.bag) for r in found} == {
        ("caption", "front", TOPIC, "front_camera_optical_frame", str(demo))
    }
    said = messages(output)
    assert [(m.text, m.header.stamp.sec * SECOND + m.header.stamp.nanosec) for m in said] == [
        (r.text, r.stamp_ns) for r in found
    ]
    assert [np.float32(r.confidence) for r in found] == [m.confidence for m in said]
    assert {(m.prompt, m.model_id) for m in said} == {("Describe the scene.", found[0].model_id)}
    assert not output.with_name(output.name + SUFFIX).exists()


def test_answers_with_choices(demo: Path, vlm: MobileVLM, tmp_path: Path, capsys: Any) -> None:
    question, choices = "Is there a person?", ["yes", "no"]
    assert run("ask-bag", demo, question, "--every", 1, "--choices", *choices, "-o", tmp_path / "a.mcap") == 0
    wanted = [vlm.ask(frame, question, choices=choices) for frame in frames(demo)[::2]]
    found = list(read_records(tmp_path / "a.jsonl"))
    assert [r.probabilities for r in found] == [a.probabilities for a in wanted]
    assert [m.answer for m in messages(tmp_path / "a.mcap")] == [a.text for a in wanted]
    capsys.readouterr()
    # Without -o, each record is a line on stdout; the times leave two.
    words = ("ask-bag", demo, question, "--from", "2", "--to", "2.5", "--json", "--choices", *choices)
    assert run(*words) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [entry["index"] for entry in printed] == [4, 5]


def test_monitors_have_the_states_of_the_node(demo: Path, vlm: MobileVLM, tmp_path: Path) -> None:
    (tmp_path / "monitors.yaml").write_text(MONITORS)
    output, plot = tmp_path / "m.mcap", tmp_path / "m.png"
    words = ("monitor-bag", demo, "--monitors", tmp_path / "monitors.yaml", "-o", output, "--plot", plot)
    assert run(*words) == 0
    found = list(read_records(output.with_suffix(".jsonl")))
    person = [r for r in found if r.monitor == "person"]
    assert [r.index for r in person] == list(range(0, 16, 2))
    assert [r.index for r in found if r.monitor == "clear"] == list(range(0, 16, 4))
    state = "unknown"
    for record in person:
        assert record.probability is not None
        after = "raised" if record.probability >= 0.8 else "clear" if record.probability <= 0.2 else state
        assert (record.state, record.changed) == (after, after != state)
        state = after
    assert {r.state for r in person} == {"raised", "clear"}
    said = [m for m in messages(output) if m.name == "person"]
    assert [(m.state, m.changed) for m in said] == [(1 + (r.state == "raised"), r.changed) for r in person]
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_novelty_passes_over_what_stays_the_same(tmp_path: Path, nano: Path) -> None:
    same, other = grey([60, 160])
    made: list[Picture] = [
        (i * SECOND, i * SECOND, image(other if 4 <= i < 7 else same)) for i in range(1, 10)
    ]
    path = write_ros2(tmp_path / "bag", {"/image": made})
    assert run("caption-bag", path, "-o", tmp_path / "o.mcap", "--novelty", 0.05, "--max-tokens", 4) == 0
    assert [r.index for r in read_records(tmp_path / "o.jsonl")] == [0, 3, 6]


def test_a_bad_frame_is_counted_and_named_and_time_may_jump_back(
    tmp_path: Path, nano: Path, capsys: Any
) -> None:
    times = [10, 11, 12, 13, 3, 4, 5]
    made: list[Picture] = [
        (t * SECOND, t * SECOND, image(rgb)) for t, rgb in zip(times, grey(range(20, 90, 10)))
    ]
    made[2][2]["step"] = 7
    made[5][2]["encoding"] = "unheard_of"
    path = write_ros2(tmp_path / "bag", {"/image": made})
    words = ("caption-bag", path, "-o", tmp_path / "o.mcap", "--every", 2, "--max-tokens", 4, "--json")
    assert run(*words) == 0
    (told,) = json.loads(capsys.readouterr().out)["recordings"]
    # 10 and, as 12 is bad, 13; time goes back: 3 and 5. The bad picture at 4 was not due.
    assert [r.stamp_ns // SECOND for r in read_records(tmp_path / "o.jsonl")] == [10, 13, 3, 5]
    assert told["tally"]["jumps"] == 1 and told["tally"]["bad"] == 1
    assert "picture 2 of /image" in told["tally"]["bad_named"][0] and "step" in told["tally"]["bad_named"][0]
    assert len(messages(tmp_path / "o.mcap")) == 4


def test_what_is_refused(demo: Path, tmp_path: Path, nano: Path, capsys: Any) -> None:
    output = tmp_path / "o.mcap"

    def refused(*words: object) -> str:
        assert run(*words) == 1
        return str(capsys.readouterr().err)

    assert TOPIC in refused("caption-bag", demo, "-o", output, "--camera", "/nowhere")
    assert "/odom" in refused("caption-bag", demo, "-o", output, "--camera", "/odom")
    assert "--every" in refused("caption-bag", demo, "-o", output, "--every", -1)
    assert "--from" in refused("caption-bag", demo, "-o", output, "--from", "yesterday")
    assert "--novelty" in refused("caption-bag", demo, "-o", output, "--novelty", 2)
    (tmp_path / "none.mcap").write_text("none")
    assert "not a recording" in refused("caption-bag", tmp_path / "none.mcap", "-o", output)
    output.write_text("a user's own")
    assert "already exists" in refused("caption-bag", demo, "-o", output)
    assert output.read_text() == "a user's own"
    output.unlink()
    before = demo.read_bytes()
    assert "another output" in refused("caption-bag", demo, "-o", demo, "--overwrite")
    assert demo.read_bytes() == before
    assert ".mcap" in refused("caption-bag", demo, "-o", tmp_path / "o.jsonl")
    # Another job's work in progress, that of another release, and one that is being done.
    journal = output.with_name(output.name + SUFFIX)
    Journal(output, {"kind": "other"}).close()
    assert "begun with another" in refused("caption-bag", demo, "-o", output)
    journal.write_text('{"mobilevlm_journal": 99, "job": {}}\n')
    assert "another release" in refused("caption-bag", demo, "-o", output)
    journal.unlink()
    with Journal(output, {}):
        assert "another process" in refused("caption-bag", demo, "-o", output)


def test_several_recordings_into_a_directory(demo: Path, tmp_path: Path, nano: Path, capsys: Any) -> None:
    two = tmp_path / "two.mcap"
    record_demo(
        two, DemoOptions(seconds=2, rate=1, cameras=("front", "rear"), raw=True, width=320, height=240)
    )
    broken = tmp_path / "broken.mcap"
    broken.write_bytes(b"\0")
    out = tmp_path / "out"
    assert run("caption-bag", demo, broken, two, "-o", out, "--every", 2) == 1
    assert "broken.mcap is not a recording" in capsys.readouterr().err
    assert sorted(p.name for p in out.iterdir()) == [
        "demo.captions.jsonl", "demo.captions.mcap", "two.captions.jsonl", "two.captions.mcap",
    ]  # fmt: skip
    assert [r.camera for r in read_records(out / "two.captions.jsonl")] == ["front", "rear"]


def test_the_output_is_a_recording_of_ros2(demo: Path, tmp_path: Path, nano: Path) -> None:
    output = tmp_path / "o.mcap"
    assert run("caption-bag", demo, "-o", output, "--every", 4) == 0
    with output.open("rb") as stream:
        summary = make_reader(stream, validate_crcs=True).get_summary()
        assert summary is not None and summary.statistics is not None
        assert summary.statistics.message_count == 2
        (channel,), (schema,) = summary.channels.values(), summary.schemas.values()
    assert (channel.topic, channel.message_encoding) == ("/mobilevlm/captions", "cdr")
    assert (schema.name, schema.encoding) == ("mobilevlm_msgs/msg/Caption", "ros2msg")
    with Reader(output) as reader:
        (connection,) = reader.connections
        assert connection.msgtype == "mobilevlm_msgs/msg/Caption"


def test_the_demo_recording_is_the_simulation(tmp_path: Path) -> None:
    path = tmp_path / "raw.mcap"
    options = DemoOptions(seconds=3, rate=2, scene_seconds=1, seed=5, raw=True, width=320, height=240)
    assert record_demo(path, options) == 6
    again = tmp_path / "again.mcap"
    record_demo(again, options)
    assert path.read_bytes() == again.read_bytes()
    sequence = SceneSequence(5, 1.0)
    for number, frame in enumerate(frames(path, "/front/image")):
        np.testing.assert_array_equal(frame, observe(*sequence.at(number / 2), 320, 240).image)
    with Bag(path) as bag:
        (scene,) = bag.messages(["/front/camera/scene"])
        about: Any = typestore().deserialize_cdr(scene.data, "std_msgs/msg/String")
        assert json.loads(about.data)["seed"] == 5
        assert (
            bag.topics["/odom"].count == bag.topics["/tf"].count == 6 and bag.topics["/tf_static"].count == 1
        )


def test_no_ros_is_needed(demo: Path, tmp_path: Path, nano: Path) -> None:
    program = """
import sys

class NoRos:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in ("rclpy", "rosidl_runtime_py", "ament_index_python", "cv_bridge") or top.endswith(
            ("_msgs", "_srvs", "builtin_interfaces")
        ):
            raise ImportError(f"{name} is not here")

sys.meta_path.insert(0, NoRos())
from mobilevlm_ros.cli import main

sys.exit(main(sys.argv[1:]))
"""
    words = ("monitor-bag", demo, "--monitors", tmp_path / "monitors.yaml", "-o", tmp_path / "m.mcap")
    (tmp_path / "monitors.yaml").write_text(MONITORS)
    call = [sys.executable, "-c", program, *map(str, words), "--quiet", "--threads", "1"]
    ended = subprocess.run(call, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert len(messages(tmp_path / "m.mcap")) == 12
