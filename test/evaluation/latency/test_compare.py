# SPDX-License-Identifier: Apache-2.0
"""Ours beside the real llama.cpp, on the same tiny weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mobilevlm_ros.cli import main

pytest.importorskip("xllamacpp", reason="llama.cpp in a wheel (pip install xllamacpp) is not installed")
pytest.importorskip("gguf", reason="comes with the extra `build`")


@pytest.fixture(scope="module")
def weights(parity: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A bundle and GGUF files of one checkpoint."""
    folder = tmp_path_factory.mktemp("compare")
    checkpoint = str(parity / "ckpt" / "tiny-ldpnetv2")
    built = [
        "build",
        checkpoint,
        "-o",
        str(folder / "bundle"),
        "--quality",
        "0",
        "--vision",
        "fp16",
        "--quiet",
    ]
    assert main(built) == 0
    assert main(["export-gguf", checkpoint, "-o", str(folder / "gguf"), "--quiet"]) == 0
    return str(folder / "bundle"), str(folder / "gguf")


def test_both_engines_answer_in_turn(weights: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    bundle, gguf = weights
    words = ["--bundle", bundle, "--gguf", gguf, "--rounds", "2", "--threads", "1", "--tokens", "4"]
    capsys.readouterr()
    assert main(["bench", "--compare", "llama.cpp", *words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["felt"]) == {"ours", "llama.cpp"}
    for name, felt in told["felt"].items():
        assert all(felt[field] > 0 for field in ("load", "new_picture", "same_picture", "peak_bytes")), name
    ours, theirs = (told["felt"][name]["new_picture"] for name in ("ours", "llama.cpp"))
    assert told["ratios"]["new_picture"] == pytest.approx(ours / theirs)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--compare", "llama.cpp"], "export-gguf CHECKPOINT --type q4_0"),
        (
            ["--compare", "llama.cpp", "--gguf", "/nowhere"],
            "/nowhere must hold one language model and one mmproj",
        ),
        (["--gguf", "/nowhere"], "--gguf goes with --compare"),
        (["--busy", "1"], "--busy goes with --compare"),
    ],
)
def test_what_is_missing_is_said(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *words]) != 0
    assert says in capsys.readouterr().err


def test_an_engine_that_fails_says_why(weights: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--bundle", "/nowhere", "--gguf", weights[1], "--rounds", "1"]
    assert main(["bench", "--compare", "llama.cpp", *words]) == 1
    assert "ours ended: " in (said := capsys.readouterr().err) and "/nowhere does not exist" in said
