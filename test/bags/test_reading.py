# SPDX-License-Identifier: Apache-2.0
"""Every format gives the same pictures in recorded order; damaged ones as far as they go."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from fixtures.recordings import (
    ROS2,
    SECOND,
    Picture,
    cut,
    grey,
    image,
    storage_file,
    write_ros1,
    write_ros2,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from rosbags.highlevel import AnyReader
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionMode, StoragePlugin

from mobilevlm_ros.bags.reading.bag import Bag
from mobilevlm_ros.bags.reading.picture import RecordedPicture, is_picture, picture_of
from mobilevlm_ros.errors import BagError, ImageError

COUNT = 150
START = 100 * SECOND
TOPIC = "/front/image_raw"
Write = Callable[[Path, dict[str, list[Picture]]], Path]

WRITERS: dict[str, Write] = {
    "mcap": lambda path, topics: write_ros2(path, topics),
    "mcap file": lambda path, topics: storage_file(write_ros2(path, topics)),
    "mcap zstd": lambda path, topics: write_ros2(path, topics, compression=CompressionMode.STORAGE),
    "mcap messages": lambda path, topics: write_ros2(path, topics, compression=CompressionMode.MESSAGE),
    "sqlite3": lambda path, topics: write_ros2(path, topics, StoragePlugin.SQLITE3),
    "sqlite3 file": lambda path, topics: storage_file(write_ros2(path, topics, StoragePlugin.SQLITE3)),
    "sqlite3 packed": lambda path, topics: write_ros2(
        path, topics, StoragePlugin.SQLITE3, CompressionMode.FILE
    ),
    "ros1": lambda path, topics: write_ros1(path.with_suffix(".bag"), topics),
    "ros1 bz2": lambda path, topics: write_ros1(
        path.with_suffix(".bag"), topics, Writer1.CompressionFormat.BZ2
    ),
    "ros1 lz4": lambda path, topics: write_ros1(
        path.with_suffix(".bag"), topics, Writer1.CompressionFormat.LZ4
    ),
}


def pictures(count: int = COUNT) -> list[Picture]:
    rng = np.random.default_rng(0)
    made = [rng.integers(0, 256, (24, 32, 3), np.uint8) for _ in range(count)]
    return [(START + i * SECOND, START + i * SECOND + 7, image(rgb)) for i, rgb in enumerate(made)]


def read(path: Path, topic: str = TOPIC, **bounds: int) -> tuple[list[RecordedPicture], list[str]]:
    with Bag(path) as bag:
        found = [picture_of(message) for message in bag.messages([topic], **bounds)]
        return found, bag.damage


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_pictures(name: str, tmp_path: Path) -> None:
    wanted = pictures()
    path = WRITERS[name](tmp_path / "drive", {TOPIC: wanted})
    found, damage = read(path)
    assert damage == []
    assert [p.stamp_ns for p in found] == [stamp for _, stamp, _ in wanted]
    assert [p.source.time_ns for p in found] == [time for time, _, _ in wanted]
    assert [p.source.index for p in found] == list(range(COUNT))
    assert {p.frame_id for p in found} == {"lens"}
    for picture, (_, _, fields) in zip(found, wanted):
        np.testing.assert_array_equal(picture.decode({}).reshape(-1), fields["data"])
    with Bag(path) as bag:
        assert (bag.start_ns, bag.end_ns) == (wanted[0][0], wanted[-1][0])
        assert bag.topics[TOPIC].count == COUNT and is_picture(bag.topics[TOPIC])
    # Indexes count on over what lies outside the time.
    some, _ = read(path, start_ns=START + 40 * SECOND, end_ns=START + 120 * SECOND)
    assert [p.source.index for p in some] == list(range(40, 121))


@pytest.mark.parametrize("name", ["mcap file", "sqlite3 file", "ros1"])
def test_rosbags_reads_the_same(name: str, tmp_path: Path) -> None:
    path = WRITERS[name](tmp_path / "drive", {TOPIC: pictures(20), "/rear/image": pictures(20)})
    with AnyReader([path]) as reader, Bag(path) as bag:
        theirs = [(c.topic, time, bytes(data)) for c, time, data in reader.messages()]
        ours = [(m.topic, m.time_ns, bytes(m.data)) for m in bag.messages([TOPIC, "/rear/image"])]
    assert sorted(ours) == sorted(theirs) and len(ours) == 40


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.995])
@pytest.mark.parametrize(
    "name", ["mcap file", "mcap zstd", "sqlite3 file", "sqlite3 packed", "ros1", "ros1 lz4"]
)
def test_a_truncated_recording_is_read_as_far_as_it_goes(name: str, share: float, tmp_path: Path) -> None:
    whole = WRITERS[name](tmp_path / "drive", {TOPIC: pictures()})
    path = cut(whole if whole.is_file() else storage_file(whole), share)
    found, damage = read(path)
    indexes = [p.source.index for p in found]
    assert indexes == list(range(len(indexes)))
    # A block of a compressor, or a page of the database, may be lost beside what is missing.
    least = share * COUNT - (60 if "lz4" in name or "packed" in name or "zstd" in name else 8)
    assert least <= len(indexes) <= COUNT
    assert damage and str(path.name).removesuffix(".zstd") in damage[0]
    assert [p.stamp_ns for p in found] == [START + i * SECOND + 7 for i in indexes]


def test_a_recorder_that_was_killed_left_no_metadata(tmp_path: Path) -> None:
    for storage in (StoragePlugin.MCAP, StoragePlugin.SQLITE3):
        path = write_ros2(tmp_path / storage.name, {TOPIC: pictures(5)}, storage)
        # Split files: their order is that of the numbers in their names.
        file = storage_file(path)
        for number in (10, 2):
            shutil.copy(file, path / f"drive_{number}{file.suffix}")
        file.rename(path / f"drive_0{file.suffix}")
        (path / "metadata.yaml").unlink()
        found, damage = read(path)
        assert [p.source.index for p in found] == list(range(15))
        assert "metadata.yaml" in damage[0]


def test_time_that_jumps_back_keeps_the_recorded_order(tmp_path: Path) -> None:
    times = [5, 6, 7, 1, 2, 3]
    made = [(t * SECOND, t * SECOND, image(rgb)) for t, rgb in zip(times, grey(times))]
    for storage in (StoragePlugin.MCAP, StoragePlugin.SQLITE3):
        path = write_ros2(tmp_path / storage.name, {TOPIC: made}, storage)
        assert [p.stamp_ns // SECOND for p in read(path)[0]] == times
    path = write_ros1(tmp_path / "jump.bag", {TOPIC: made})
    assert [p.stamp_ns // SECOND for p in read(path)[0]] == times


@pytest.mark.parametrize("chunked", [True, False])
def test_mcap_of_ros1_without_an_index(tmp_path: Path, chunked: bool) -> None:
    """As `mcap convert` and minimal loggers write it."""
    from fixtures.recordings import ROS1, message

    path = tmp_path / "plain.mcap"
    with path.open("wb") as stream:
        writer = McapWriter(
            stream, use_chunking=chunked, use_statistics=False, compression=CompressionType.LZ4
        )
        writer.start(profile="ros1", library="test")
        schema = writer.register_schema("sensor_msgs/Image", "ros1msg", b"uint32 seq")
        channel = writer.register_channel(TOPIC, "ros1", schema)
        for time, stamp, fields in pictures(9):
            data = bytes(ROS1.serialize_ros1(message(ROS1, stamp, fields), "sensor_msgs/msg/Image"))
            writer.add_message(channel, time, data, time)
        writer.finish()
    found, damage = read(path)
    assert [p.stamp_ns for p in found] == [stamp for _, stamp, _ in pictures(9)] and damage == []


def test_a_damaged_chunk_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "drive.mcap"
    with path.open("wb") as stream:
        writer = McapWriter(stream, chunk_size=2000, compression=CompressionType.ZSTD)
        writer.start(profile="ros2", library="test")
        schema = writer.register_schema("sensor_msgs/msg/Image", "ros2msg", b"")
        channel = writer.register_channel(TOPIC, "cdr", schema)
        from fixtures.recordings import message

        for time, stamp, fields in pictures(30):
            data = bytes(ROS2.serialize_cdr(message(ROS2, stamp, fields), "sensor_msgs/msg/Image"))
            writer.add_message(channel, time, data, time)
        writer.finish()
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(40)
    path.write_bytes(data)
    found, damage = read(path)
    assert 20 < len(found) < 30 and "damaged at byte" in damage[0]


@pytest.mark.parametrize("name", ["mcap file", "sqlite3 file", "ros1"])
def test_compressed_pictures_and_bad_ones(name: str, tmp_path: Path) -> None:
    rgb = grey([90])[0]
    good = cv2.imencode(".jpg", rgb)[1].reshape(-1)
    made = [
        (SECOND, SECOND, {"format": "jpeg", "data": good}),
        (2 * SECOND, 2 * SECOND, {"format": "jpeg", "data": good[: len(good) // 2]}),
    ]
    topic = f"{TOPIC}/compressed"
    (first, second), _ = read(WRITERS[name](tmp_path / "drive", {topic: made}), topic)
    assert abs(int(first.decode({}).mean()) - 90) <= 1
    with pytest.raises(ImageError):
        second.decode({})


@pytest.mark.parametrize(
    ("name", "content"),
    [("drive.mcap", b""), ("drive.mcap", b"not a bag"), ("drive.db3", b"SQLite format 3\0" + bytes(84))],
)
def test_what_is_no_recording_is_named(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BagError, match=name):
        Bag(tmp_path / name)
    with pytest.raises(BagError, match="does not exist"):
        Bag(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BagError, match="holds no recording"):
        Bag(tmp_path / "empty")


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("originals")
    found = {}
    for name in ("mcap file", "mcap zstd", "sqlite3 file", "ros1", "ros1 lz4"):
        path = WRITERS[name](folder / name.replace(" ", "_"), {TOPIC: pictures(4)})
        found[name] = (path if path.is_file() else storage_file(path)).read_bytes()
    return found


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_bytes_come_there_is_a_named_error_or_pictures(
    data: st.DataObject, originals: dict[str, bytes], tmp_path: Path
) -> None:
    content = bytearray(originals[data.draw(st.sampled_from(sorted(originals)))])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + 4] = data.draw(st.binary(min_size=1, max_size=8))
    path = tmp_path / "drive.mcap"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        with Bag(path) as bag:
            topics = [topic.name for topic in bag.topics.values() if is_picture(topic)]
            for message in bag.messages(topics):
                with contextlib.suppress(ImageError):
                    picture_of(message).decode({})
    except BagError:
        pass
