# SPDX-License-Identifier: Apache-2.0
"""Every file that a command or a parameter names: no pipe and no device is waited for, no content is told."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mobilevlm_ros.engine.bundle import Bundle
from mobilevlm_ros.errors import MobileVLMError
from mobilevlm_ros.evaluation.benchmarks import files as benchmark_files
from mobilevlm_ros.evaluation.calibration.labels import from_file
from mobilevlm_ros.evaluation.exam.questions import read_exam
from mobilevlm_ros.files.json_fields import read_json
from mobilevlm_ros.files.small_file import regular
from mobilevlm_ros.inference.monitoring.monitors import load_monitors
from mobilevlm_ros.inference.prompt.presets import load_presets
from mobilevlm_ros.processing.image_file import read_bytes
from mobilevlm_ros.processing.tokenizer import Tokenizer
from mobilevlm_ros.training.data.conversations import read_conversations
from mobilevlm_ros.training.data.shards import read_documents
from mobilevlm_ros.training.recipe import read_yaml

SECRET = "root:$6$hunter2:19000:0:99999:7:::"

READERS: dict[str, Callable[[Path], Any]] = {
    "monitors": load_monitors,
    "presets": load_presets,
    "labels.jsonl": lambda path: list(from_file(path)),
    "labels.csv": lambda path: list(from_file(path)),
    "exam.json": read_exam,
    "exam.csv": read_exam,
    "answers.jsonl": lambda path: list(benchmark_files.lines(path)),
    "benchmark.json": benchmark_files.document,
    "recipe.yaml": read_yaml,
    "samples.json": lambda path: read_conversations(path),
    "samples.jsonl": lambda path: read_conversations(path),
    "texts.txt": lambda path: list(read_documents(path)),
    "config.json": read_json,
    "tokenizer.model": Tokenizer,
    "picture.jpg": read_bytes,
    "bundle": Bundle.open,
}


@pytest.mark.parametrize("kind", ["pipe", "device", "directory", "missing"])
@pytest.mark.parametrize("name", READERS)
def test_what_never_ends_is_refused_at_once(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "directory":
        path.mkdir()
    with pytest.raises(MobileVLMError) as error:
        READERS[name](path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("before", ["", "presets:\n  ", "monitors:\n- ", "{", "[", "- *", "a: b: "])
@pytest.mark.parametrize("name", ["monitors", "presets", "recipe.yaml", "config.json", "bundle"])
def test_no_line_of_a_wrong_file_is_told(tmp_path: Path, name: str, before: str) -> None:
    path = tmp_path / name
    if name == "bundle":
        path.mkdir()
        path = path / "bundle.json"
    path.write_text(f"{before}{SECRET}\nsecond: [line\n")
    with pytest.raises(MobileVLMError) as error:
        READERS[name](tmp_path / name)
    assert "hunter2" not in str(error.value) and "$6$" not in str(error.value)


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match="more than 1000 bytes"):
        regular(tmp_path / "huge", 1000)
    for name in (
        "monitors",
        "presets",
        "labels.csv",
        "exam.json",
        "benchmark.json",
        "recipe.yaml",
        "config.json",
    ):
        with pytest.raises(MobileVLMError):
            READERS[name](tmp_path / "huge")
