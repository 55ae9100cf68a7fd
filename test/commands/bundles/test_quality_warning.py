# SPDX-License-Identifier: Apache-2.0
"""A bundle whose answers are not the checkpoint's is warned of, with what to try."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mobilevlm_ros.cli import main
from mobilevlm_ros.commands.bundles.build import quality_warning
from mobilevlm_ros.commands.verbs import parser_of


@pytest.mark.parametrize(
    ("options", "quality", "tried"),
    [
        ((), {}, None),
        ((), {"samples": 10, "equal": 9, "image_cosine": 0.9}, None),
        ((), {"samples": 10, "equal": 8, "image_cosine": 0.999}, ["gptq", "--bits 8", "--quality 64"]),
        (
            ("--quantize", "gptq"),
            {"samples": 64, "equal": 0, "image_cosine": 0.9},
            ["--vision fp16", "--bits 8"],
        ),
        (("--bits", "8"), {"samples": 64, "equal": 57, "image_cosine": 0.999}, ["--accuracy-level 0"]),
        (("--bits", "32", "--accuracy-level", "0"), {"samples": 64, "equal": 1, "image_cosine": 1.0}, []),
    ],
)
def test_what_to_try(options: tuple[str, ...], quality: dict[str, Any], tried: list[str] | None) -> None:
    args = parser_of("build").parse_args(["checkpoint", "-o", "bundle", *options])
    said = quality_warning(quality, args)
    if tried is None:
        assert said == ""
        return
    assert f"{quality['equal']} of {quality['samples']} answers" in said and "fewer than 90%" in said
    assert all(one in said for one in tried) and (": try" in said) == bool(tried)
    assert not [one for one in options if one.startswith("--") and f"try {one} " in said]


def test_build_warns_of_what_it_measured(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Random weights: rounding them to 4 bits changes many answers, and the warning goes by the count."""
    command = [
        "build",
        str(tiny_checkpoint),
        "-o",
        str(tmp_path / "b"),
        "--quality",
        "4",
        "--quiet",
        "--json",
    ]
    assert main(command) == 0
    out, err = capsys.readouterr()
    quality = json.loads(out.splitlines()[-1])["quality"]
    warned = quality["equal"] < 0.9 * quality["samples"]
    assert ("mobilevlm: warning: " in err) == warned
    assert main([*command[:-1], "--overwrite"]) == 0
    assert ("mobilevlm: warning: " in capsys.readouterr().out) == warned
