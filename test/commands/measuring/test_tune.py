# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm tune` measures, keeps the best, and what loads the bundle afterwards uses it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from mobilevlm_ros.cli import main
from mobilevlm_ros.engine.bundle import Bundle
from mobilevlm_ros.engine.runtime import BACKENDS, ORT_CPU, load_runtime
from mobilevlm_ros.engine.tuning import keep_threads, tuned_threads, tuning_file
from mobilevlm_ros.errors import EngineError
from mobilevlm_ros.evaluation.latency.tune import Setting, choose


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def threads_asked_for(nano: Path, monkeypatch: pytest.MonkeyPatch, threads: int = 0) -> int:
    """What an engine is given when the bundle is loaded."""
    seen: list[int] = []

    def spy(bundle: Bundle, threads: int, spin: bool) -> None:
        seen.append(threads)
        raise EngineError("seen")

    monkeypatch.setitem(BACKENDS, ORT_CPU, spy)  # type: ignore[arg-type]
    with pytest.raises(EngineError, match="seen"):
        load_runtime(nano, ORT_CPU, threads)
    return seen[0]


def test_the_best_is_kept_and_used(
    nano: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["tune", "--bundle", str(nano), "--rounds", "1", "--threads", "1", "2"]
    assert main([*arguments, "--no-spin", "--dry-run", "--json"]) == 0
    assert not tuning_file().exists(), "a dry run keeps nothing"
    assert main([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["file"] == str(tuning_file()) and told["spinning_gain"] is not None
    times = {name: seconds for name, seconds in told["seconds"].items() if "busy" not in name}
    assert set(times) == {"1 threads", "2 threads"} and min(times.values()) > 0
    assert tuned_threads(Bundle.open(nano)) == told["threads"] in (1, 2)
    assert threads_asked_for(nano, monkeypatch) == told["threads"]
    assert threads_asked_for(nano, monkeypatch, threads=5) == 5, "what is named goes first"


def test_two_bundles_keep_their_own(nano: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in nano.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    manifest = json.loads((copy / "bundle.json").read_text())
    (copy / "bundle.json").write_text(json.dumps({**manifest, "name": "other"}))
    keep_threads(Bundle.open(nano), 3, {})
    keep_threads(Bundle.open(copy), 7, {})
    assert [tuned_threads(Bundle.open(path)) for path in (nano, copy)] == [3, 7]


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": 1}', "\x00", '{"a": {"threads": 9}}'])
def test_a_strange_file_means_the_default(content: str, nano: Path, caplog: pytest.LogCaptureFixture) -> None:
    tuning_file().parent.mkdir(parents=True)
    tuning_file().write_text(content)
    assert tuned_threads(Bundle.open(nano)) == 0
    keep_threads(Bundle.open(nano), 2, {})
    assert tuned_threads(Bundle.open(nano)) == 2


@pytest.mark.parametrize("threads", [-1, 100_000, "many", True, None, 1.5])
def test_a_strange_number_means_the_default(
    threads: object, nano: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keep_threads(Bundle.open(nano), 2, {})
    (key,) = json.loads(tuning_file().read_text())
    tuning_file().write_text(json.dumps({key: {"threads": threads}}))
    with caplog.at_level(logging.WARNING):
        assert tuned_threads(Bundle.open(nano)) == 0
    assert "names no number of threads" in caplog.text


def test_fewer_threads_win_where_more_gain_little() -> None:
    assert choose({Setting(1): 2.0, Setting(2): 1.01, Setting(4): 1.0}) == Setting(2)
    assert choose({Setting(1): 2.0, Setting(2): 1.2, Setting(4): 1.0}) == Setting(4)


@pytest.mark.parametrize(
    ("words", "says"), [(["--threads", "0"], "from 1 to 256"), (["--rounds", "0"], "at least once")]
)
def test_bad_numbers_are_refused(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", *words]) != 0
    assert says in capsys.readouterr().err
