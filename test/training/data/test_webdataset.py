# SPDX-License-Identifier: Apache-2.0
"""WebDataset shards teach what the same samples in a JSON file and a folder teach."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mobilevlm_ros.errors import DataError
from mobilevlm_ros.training.data.dataset import Pictures, open_dataset
from mobilevlm_ros.training.data.webdataset import read_shards

PICTURES = Pictures(size=28, aspect="pad", tokens=4)
COLORS = {"a": (200, 30, 30), "b": (20, 180, 40), "c": (30, 40, 210)}


def png(color: tuple[int, int, int]) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (40, 24), color).save(data, "PNG")
    return data.getvalue()


def turns(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def write_tar(path: Path, members: Mapping[str, bytes | str]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            data = content.encode() if isinstance(content, str) else content
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


@pytest.fixture
def records(tmp_path: Path) -> list[dict[str, object]]:
    """Three conversations: with a picture, with two, and of text alone; the pictures are in a folder."""
    (tmp_path / "pictures").mkdir()
    for name, color in COLORS.items():
        (tmp_path / "pictures" / f"{name}.png").write_bytes(png(color))
    return [
        {"id": "one", "image": "a.png", "conversations": turns("<image>\nWhat is it?", "Red.")},
        {"id": "two", "image": ["b.png", "c.png"], "conversations": turns("<image>\n<image>\nSame?", "No.")},
        {"id": "text", "conversations": turns("Who are you?", "A robot.")},
    ]


@pytest.fixture
def shards(tmp_path: Path, records: list[dict[str, object]]) -> Path:
    folder = tmp_path / "shards"
    folder.mkdir()
    without = [{k: v for k, v in record.items() if k != "image"} for record in records]
    write_tar(folder / "x-000.tar", {"p/0.json": json.dumps(without[0]), "p/0.png": png(COLORS["a"])})
    write_tar(
        folder / "x-001.tar",
        {
            "1.0.png": png(COLORS["b"]),  # the record may come last
            "1.1.PNG": png(COLORS["c"]),
            "1.json": json.dumps(without[1]),
            "2.json": json.dumps(without[2]),
        },
    )
    return folder


@pytest.fixture(scope="module")
def tokenizer() -> Path:
    return Path(__file__).parents[3] / "models" / "nano" / "tokenizer.model"


def items(path: Path, tokenizer: Path, images: Path | None = None, template: str = "v1") -> list[tuple]:
    dataset = open_dataset(path, tokenizer, template, 256, 512, images=images, pictures=PICTURES)
    found = [dataset[i] for i in range(len(dataset))]
    return [(item.id, list(item.ids), list(item.labels), np.asarray(item.pixels).tobytes()) for item in found]


@pytest.mark.parametrize("name", ["", "x-{000..001}.tar"])
def test_shards_are_the_same_data(
    name: str, shards: Path, records: list[dict[str, object]], tmp_path: Path, tokenizer: Path
) -> None:
    (tmp_path / "data.json").write_text(json.dumps(records))
    expected = items(tmp_path / "data.json", tokenizer, tmp_path / "pictures")
    assert items(shards / name, tokenizer) == expected


def test_captions_are_conversations_of_the_plain_template(tmp_path: Path, tokenizer: Path) -> None:
    picture = png(COLORS["a"])
    (tmp_path / "a.png").write_bytes(picture)
    record = {"id": "c.tar/7", "image": "a.png", "conversations": turns("<image>", "a red field")}
    (tmp_path / "data.json").write_text(json.dumps([record]))
    write_tar(tmp_path / "c.tar", {"7.png": picture, "7.txt": "a red field\n"})
    found = items(tmp_path / "c.tar", tokenizer, template="plain")
    assert found == items(tmp_path / "data.json", tokenizer, tmp_path, template="plain")


def test_eleven_pictures_keep_their_order(tmp_path: Path) -> None:
    members = {f"k.{i}.png": b"x" for i in range(11)}
    write_tar(tmp_path / "m.tar", {**members, "k.json": json.dumps({"conversations": turns("q", "a")})})
    samples, _, _ = read_shards(tmp_path / "m.tar")
    assert samples[0].images == tuple(f"m.tar/k.{i}.png" for i in range(11))


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"0.png": b"x"}, "s.tar/0: has no .json and no .txt"),
        ({"0.json": "[1]"}, "s.tar/0: is a list, not an object"),
        ({"0.json": "{"}, "s.tar/0: has a text that cannot be read"),
        ({"0.json": b"\xff\xfe"}, "s.tar/0: has a text that cannot be read"),
        ({"0.json": json.dumps({"conversations": []})}, "s.tar/0: has no 'conversations'"),
    ],
)
def test_a_sample_that_is_none_is_named(
    members: dict[str, bytes | str], says: str, tmp_path: Path, tokenizer: Path
) -> None:
    good = {"9.json": json.dumps({"conversations": turns("Who?", "I.")})}
    path = write_tar(tmp_path / "s.tar", {**members, **good})
    with pytest.raises(DataError, match=says):
        open_dataset(path, tokenizer, "v1", 256, 512, pictures=PICTURES)
    told: list[str] = []
    kept = open_dataset(path, tokenizer, "v1", 256, 512, pictures=PICTURES, errors="skip", report=told.append)
    assert len(kept) == 1 and says in told[0]


def test_a_shard_cut_in_copying_is_named(tmp_path: Path, tokenizer: Path) -> None:
    record = json.dumps({"conversations": turns("<image>\nWhat is it?", "Red.")})
    path = write_tar(tmp_path / "s.tar", {"0.json": record, "0.png": png(COLORS["a"]) + bytes(5000)})
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"\x89PNG") + 40])
    with pytest.raises(DataError, match=r"s\.tar.*(ends|cannot be read as a tar file)"):
        open_dataset(path, tokenizer, "v1", 256, 512, pictures=PICTURES)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("s.tar.gz", "is compressed.*gunzip it first"),
        ("none.tar", "none.tar does not exist"),
        ("s-{000..002}.tar", "s-000.tar and 2 more does not exist"),
        ("s-{5..2}.tar", "is no range of shards"),
    ],
)
def test_a_wrong_name_says_what_to_give(name: str, says: str, tmp_path: Path, tokenizer: Path) -> None:
    with pytest.raises(DataError, match=says):
        open_dataset(tmp_path / name, tokenizer, "v1", 256, 512, pictures=PICTURES)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cut=st.integers(0, 4096), noise=st.lists(st.tuples(st.integers(0, 4095), st.integers(0, 255)), max_size=8)
)
def test_any_bytes_are_a_shard_or_a_data_error(
    cut: int, noise: list[tuple[int, int]], tmp_path: Path
) -> None:
    record = json.dumps({"conversations": turns("<image>\nWhat is it?", "Red.")})
    path = write_tar(tmp_path / "s.tar", {"0.json": record, "0.png": png(COLORS["a"])})
    data = bytearray(path.read_bytes()[:4096])
    for place, value in noise:
        data[place] = value
    path.write_bytes(data[:cut] if cut % 2 else data)
    try:
        samples, problems, pictures = read_shards(path)
    except DataError:
        return
    assert samples or problems
    for sample in samples:
        for name in sample.images:
            assert pictures.find_problem(name) is None or "ends" in str(pictures.find_problem(name))
