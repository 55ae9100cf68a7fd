# SPDX-License-Identifier: Apache-2.0
"""`mobilevlm trace` writes the reference's arrays."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mobilevlm_ros.cli import main

PARITY = Path(__file__).parents[2] / "data" / "parity"
QUESTION = "Who is the author of this book?\nAnswer the question using a single word or phrase."
TOLERANCE = {"vision_features": 2e-4, "projector": 2e-4, "logits": 1e-3}


def trace(tmp_path: Path, *options: str, checkpoint: str = "tiny-ldpnetv2", image: str = "landscape") -> int:
    picture = PARITY / "images" / f"{image}.png"
    output = tmp_path / "out.npz"
    arguments = [str(PARITY / "ckpt" / checkpoint), str(picture), QUESTION, "-o", str(output), *options]
    return main(["trace", *arguments])


@pytest.mark.parametrize(("checkpoint", "outputs"), [("tiny-ldpnet", "v1.npz"), ("tiny-ldpnetv2", "v2.npz")])
@pytest.mark.parametrize("image", ["landscape", "portrait"])
def test_arrays_are_the_official_ones(tmp_path, checkpoint, outputs, image):
    assert trace(tmp_path, checkpoint=checkpoint, image=image) == 0
    written, expected = np.load(tmp_path / "out.npz"), np.load(PARITY / outputs)
    assert set(written) == {"pixel_values", "input_ids", "greedy", *TOLERANCE}
    np.testing.assert_allclose(written["pixel_values"], expected[f"{image}/pixel_values"], atol=1e-5, rtol=0)
    for name, tolerance in TOLERANCE.items():
        reference = expected[f"{image}/{name}"]
        assert written[name].dtype == np.float32
        np.testing.assert_allclose(written[name], reference, atol=tolerance * np.abs(reference).max(), rtol=0)
    for name in ("input_ids", "greedy"):
        assert written[name].dtype == np.int64
        np.testing.assert_array_equal(written[name], expected[f"{image}/{name}"])


def test_the_answer_is_printed_and_json_gives_shapes(tmp_path, capsys):
    assert trace(tmp_path, "--tokens", "3", checkpoint="tiny-ldpnet") == 0
    answer = capsys.readouterr().out
    assert answer.startswith("igr")
    assert trace(tmp_path, "--tokens", "3", "--json", checkpoint="tiny-ldpnet") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["answer"] == answer.removesuffix("\n")
    assert report["shapes"]["greedy"] == [1, 3]
    assert report["shapes"]["logits"] == [1, 257, 480]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--tokens", "0"], "--tokens is 0"),
        (["--tokens", "5000"], "context of 2048"),
        (["--template", "v9"], "unknown template 'v9'"),
    ],
)
def test_impossible_requests_get_one_line(tmp_path, capsys, options, complaint):
    assert trace(tmp_path, *options) == 1
    error = capsys.readouterr().err
    assert error.startswith("mobilevlm: error: ")
    assert complaint in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_picture_gets_one_line(tmp_path, capsys):
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    arguments = [str(PARITY / "ckpt" / "tiny-ldpnet"), str(picture), QUESTION, "-o", str(tmp_path / "o.npz")]
    assert main(["trace", *arguments]) == 1
    assert "picture.png" in capsys.readouterr().err
