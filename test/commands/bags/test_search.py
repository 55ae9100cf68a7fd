# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm index` and `search`, as their user runs them."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from mobilevlm_ros.bags.reading.bag import Bag
from mobilevlm_ros.bags.reading.picture import is_picture, picture_of
from mobilevlm_ros.bags.records import Record, to_line
from mobilevlm_ros.cli import main
from mobilevlm_ros.memory.record import Match, Query
from mobilevlm_ros.memory.record import Record as Remembered
from mobilevlm_ros.memory.search import Searcher
from mobilevlm_ros.memory.sheet import contact_sheet, thumbnail
from mobilevlm_ros.memory.store import MemoryStore

START = 1_772_366_400_000_000_000  # 2026-03-01 12:00 UTC


def record(second: int, text: str, kind: str = "caption", **fields: object) -> Record:
    stamp = START + second * 1_000_000_000
    given = {"question": "Describe the scene.", "camera": "front", "confidence": 0.5, **fields}
    return Record(kind=kind, stamp_ns=stamp, bag_time_ns=stamp, text=text, **given)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where caption-bag and monitor-bag have written, and the working directory."""
    (tmp_path / "out").mkdir()
    seen = ["A red ball on the left.", "The road is empty.", "A person in blue ahead."]
    lines = [to_line(record(60 * at, text)) for at, text in enumerate(seen)]
    (tmp_path / "out" / "drive.captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    events = [
        record(200, "person: raised", "monitor", question="Is there a person?", state="raised", changed=True),
        record(201, "person: raised", "monitor", question="Is there a person?", state="raised"),
        record(202, "", "answer", question="Is there a cat?", abstained=True),
    ]
    (tmp_path / "out" / "drive.monitors.jsonl").write_text("\n".join(map(to_line, events)), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_records_are_indexed_once_and_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", "out", "--quiet"]) == 0
    assert "4 new, 0 known already, 2 that say nothing new; 4 in all" in capsys.readouterr().out
    assert main(["index", "out/drive.captions.jsonl", "out", "--quiet", "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert (counts["added"], counts["known"], counts["records"], counts["bad"]) == (0, 4, 4, 0)
    assert main(["search", "where did you last see a red ball?"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("2026-03-01 12:00:00.000  front  1772366400.000000000  0.9") and not err
    assert out.rstrip().endswith("A red ball on the left.")


def test_filters_and_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", "out", "-o", "m.db", "--quiet"]) == 0
    capsys.readouterr()

    def texts(*arguments: str) -> list[str]:
        assert main(["search", "--memory", "m.db", "--json", *arguments]) == 0
        return [found["text"] for found in json.loads(capsys.readouterr().out)]

    assert texts("a person", "--kind", "monitor") == ["person: raised"]
    assert texts("--from", "2026-03-01T12:01", "--to", "2026-03-01T14:02:00+02:00", "--top", "9") == [
        "A person in blue ahead.",
        "The road is empty.",
    ]
    assert texts("--to", "1772366400.0") == ["A red ball on the left."]
    assert texts("--camera", "rear") == []
    assert texts("a red ball", "--near", "0,0") == [], "their place is not known"


def test_a_contact_sheet_shows_what_was_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    red = np.zeros((120, 160, 3), np.uint8)
    red[..., 0] = 250
    with MemoryStore(folder / "memory.db", writable=True) as store:
        store.add(
            [
                Remembered(START, "front", "caption", "A red wall.", thumbnail=thumbnail(red)),
                Remembered(START, "front", "caption", "A red wall, and much more of it than fits " * 3),
            ],
            None,
        )
    assert main(["search", "a red wall", "--sheet", "found.png"]) == 0
    sheet = cv2.imread(str(folder / "found.png"))
    assert sheet is not None
    assert np.abs(sheet[90, 60].astype(int) - (0, 0, 250)).max() < 8, "BGR, in the first place"
    assert sheet.shape[1] > 480 and (sheet < 100).any()
    assert main(["search", "a red wall", "--sheet", "found.txt"]) == 1
    assert "found.txt" in capsys.readouterr().err


def test_places_and_pictures_come_from_the_recording(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The vehicle of the demo's recording drives along x at 1 m/s."""
    pytest.importorskip("rosbags")
    recorded = ["record-demo", "-o", "drive.mcap", "--seconds", "4", "--rate", "2", "--seed", "3"]
    assert main(recorded) == 0
    with Bag("drive.mcap") as bag:
        (topic,) = [name for name, known in bag.topics.items() if is_picture(known)]
        pictures = [picture_of(message) for message in bag.messages([topic])]
        start = bag.start_ns
        frames = [picture.decode({}) for picture in pictures]
    file = folder / "drive.captions.jsonl"
    lines = [
        to_line(
            Record("caption", p.stamp_ns, p.source.time_ns, "front", f"Picture {p.source.index}.", "", 0.5,
                   p.frame_id, topic, "elsewhere/drive.mcap", p.source.index)
        )
        for p in pictures[::2]
    ]  # fmt: skip
    file.write_text("\n".join(lines))
    assert main(["index", str(file), "--odometry", "/odom", "--thumbnails", "--quiet"]) == 0
    capsys.readouterr()
    assert main(["search", "picture", "--near", "2,0", "--radius", "0.7", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (
        abs(found["position"]["x"] - (found["stamp_ns"] - start) / 1e9) < 0.3 and found["position"]["frame"]
    )
    for place in (["--near", "2", "0", "--within", "0.7", "picture"], ["--near", "2,0", "--within", "0.7"]):
        assert main(["search", "--json", *place]) == 0
        (again,) = json.loads(capsys.readouterr().out)
        assert again["stamp_ns"] == found["stamp_ns"]
    for place in (["-2", "-3.5"], ["-2,-3.5"]):
        assert main(["search", "picture", "--near", *place, "--within", "0.7", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == [], "nobody was there"
    with MemoryStore(folder / "memory.db") as store:
        (match,) = Searcher(store).search(Query("picture 4", limit=1, thumbnails=True))
    small = cv2.imdecode(np.frombuffer(match.record.thumbnail or b"", np.uint8), cv2.IMREAD_COLOR)
    expected = cv2.resize(frames[4][..., ::-1], small.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - expected).mean() < 6
    assert main(["index", str(file), "-o", "b.db", "--odometry", "/nowhere", "--quiet"]) == 1
    assert "/odom" in capsys.readouterr().err
    assert main(["index", str(file), "-o", "tf.db", "--tf", "odom", "--quiet"]) == 0
    assert main(["index", str(file), "-o", "b.db", "--tf", "map", "--quiet"]) == 1
    assert "frames there are: base_link, odom" in capsys.readouterr().err
    with MemoryStore(folder / "tf.db") as store:
        matches = Searcher(store).search(Query(limit=10))
    driven = [(match.record.stamp_ns - start) / 1e9 for match in matches]
    cameras = [(p.frame, p.x, p.y, p.z) for match in matches if (p := match.record.position)]
    assert len(driven) == 4
    np.testing.assert_allclose([place[1:] for place in cameras], [(x + 0.5, 0, 1.2) for x in driven])
    assert {place[0] for place in cameras} == {"odom"}
    (folder / "drive.mcap").rename(folder / "gone.mcap")
    assert main(["index", str(file), "-o", "b.db", "--thumbnails", "--quiet"]) == 1
    assert "elsewhere/drive.mcap, which is not there" in capsys.readouterr().err


def test_what_is_damaged_is_named_and_the_rest_is_read(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / "out" / "drive.captions.jsonl"
    good = file.read_bytes()
    file.write_bytes(b'{"version": 1, "kind"' + b"\n\xff\xfe\n" + good + good[:70])
    assert main(["index", "out", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert "4 new" in out and "3 lines that are no record" in out
    assert "drive.captions.jsonl, line 1, is not JSON" in err and "line 2, is no UTF-8" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["index", "nowhere"], "does not exist"),
        (["index", "empty"], "holds no file of records"),
        (["index", "other.jsonl"], "has no version"),
        (["index", "future.jsonl"], "version 99"),
        (["index", "out", "-o", "other.jsonl"], "another kind of file"),
        (["search", "x"], "mobilevlm index"),
        (["search", "x", "--from", "noon"], "--from is 'noon'"),
        (["search", "x", "--near", "here"], "--near is 'here'"),
        (["search", "x", "--radius", "3"], "--near X Y"),
        (["search", "x", "--top", "0"], "from 1 to 100"),
        (["search", "x", "--ros", "--memory", "m.db"], "do not go with --ros"),
    ],
)
def test_what_cannot_be_done_is_said(
    folder: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "empty").mkdir()
    (folder / "other.jsonl").write_text('{"text": "mine"}\n' * 300)
    (folder / "future.jsonl").write_text('{"version": 99}\n')
    assert main(arguments) == 1
    assert said in capsys.readouterr().err
    assert (
        not (folder / "memory.db").exists() or arguments[1] == "other.jsonl" or arguments[1] == "future.jsonl"
    )


def test_a_memory_of_another_model_is_searched_by_words(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["index", "out", "--quiet"]) == 0
    with MemoryStore(folder / "memory.db", writable=True) as store:
        store.connection.execute("UPDATE meta SET value = 'other:123'")
    capsys.readouterr()
    assert main(["search", "a red ball"]) == 0
    out, err = capsys.readouterr()
    assert "A red ball on the left." in out
    assert "searched by words only" in err and "other" in err


def test_a_contact_sheet_writes_other_alphabets_and_breaks_lines_without_spaces() -> None:
    def sheet(text: str) -> np.ndarray:
        return contact_sheet([Match(Remembered(0, "front", "caption", text), 0.5)])

    assert (sheet("Straße") != sheet("Stra?e")).any() and (sheet("дом") != sheet("???")).any()
    long = sheet("门" * 200)
    assert (long[:, -10:] == 255).all(), "nothing runs over the edge"
    assert (long != sheet("门")).any(axis=(1, 2)).sum() > 30, "on several lines"
