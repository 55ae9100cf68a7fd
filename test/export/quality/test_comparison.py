# SPDX-License-Identifier: Apache-2.0
"""What a bundle says of itself is what a comparison from outside finds."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from mobilevlm_ros.cli import main
from mobilevlm_ros.engine.bundle import Bundle
from mobilevlm_ros.engine.runtime import load_runtime
from mobilevlm_ros.export.builder import build_bundle
from mobilevlm_ros.export.options import AUTO, BuildOptions
from mobilevlm_ros.export.quality.agreement import measure
from mobilevlm_ros.export.quality.comparison import MAX_TOKENS
from mobilevlm_ros.export.quantization.calibration_set import CalibrationSet
from mobilevlm_ros.export.quantization.precision import DecoderPrecision

ASKED = CalibrationSet(samples=4, seed=5)


def build(checkpoint, path, progress=None, **options):
    chosen = BuildOptions(quality=ASKED, **options)
    return build_bundle(checkpoint, path, chosen, progress=progress).manifest.quality


def test_an_exact_bundle_is_found_exact(tiny_checkpoint, tmp_path):
    quality = build(tiny_checkpoint, tmp_path / "b", precision=DecoderPrecision(bits=32), vision_store="fp32")
    assert (quality["samples"], quality["equal"], quality["pictures"]) == (4, 4, "simulated scenes")
    assert quality["worst_kl"] < 1e-6
    assert quality["image_cosine"] == pytest.approx(1, abs=1e-6)
    assert len(quality["answers"]) == 4
    assert Bundle.open(tmp_path / "b").manifest.quality == quality


@pytest.mark.parametrize(
    "precision", [DecoderPrecision(), DecoderPrecision(block_size=128)], ids=["32", "128"]
)
def test_it_is_what_asking_both_token_by_token_finds(tiny_checkpoint, tmp_path, precision):
    quality = build(tiny_checkpoint, tmp_path / "b", precision=precision)
    reference, candidate = load_runtime(tiny_checkpoint, "torch"), load_runtime(tmp_path / "b", threads=1)
    asked = [(turn.image, turn.question) for turn in ASKED.conversations()]
    found = measure(reference, candidate, asked, max_tokens=MAX_TOKENS)
    assert quality["equal"] == found.equal
    assert 0 < quality["mean_kl"] < 0.1
    if found.equal == found.samples:  # both then read the same answers
        assert quality["mean_kl"] == pytest.approx(found.mean_kl, rel=0.5)


def test_pictures_with_several_questions_are_encoded_once_each(tiny_checkpoint, tmp_path):
    import cv2

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(3):
        cv2.imwrite(str(pictures / f"{i}.png"), np.random.default_rng(i).integers(0, 256, (40, 60, 3)))
    asked = CalibrationSet(pictures, samples=7)
    built = build_bundle(
        tiny_checkpoint,
        tmp_path / "b",
        BuildOptions(precision=DecoderPrecision(bits=32), vision_store="fp32", quality=asked),
    )
    assert built.manifest.quality["pictures"] == "pictures"
    assert (built.manifest.quality["samples"], built.manifest.quality["equal"]) == (7, 7)
    assert built.manifest.quality["image_cosine"] == pytest.approx(1, abs=1e-6)


def test_auto_takes_eight_bits_where_they_keep_the_output(tiny_checkpoint, tmp_path, caplog, monkeypatch):
    precisions = []
    for least in (0.9, 0.9999, 1.1):
        monkeypatch.setattr("mobilevlm_ros.export.stages.LEAST_COSINE", least)
        with caplog.at_level(logging.WARNING):
            bundle = build_bundle(tiny_checkpoint, tmp_path / str(least), BuildOptions(vision_store=AUTO))
        precisions.append(bundle.manifest.precision["vision"])
        load_runtime(bundle.path, threads=1)
    assert precisions[0] == "int8"
    assert precisions[2] == "fp16"
    assert precisions[1] in ("int8-block", "fp16")
    assert "the encoder in int8 keeps a cosine of" in caplog.text


def test_the_bars_total_is_reached(tiny_checkpoint, tmp_path):
    seen: list[tuple[int, int]] = []
    build(
        tiny_checkpoint,
        tmp_path / "b",
        vision_store=AUTO,
        progress=lambda done, total, what: seen.append((done, total)),
    )
    assert [done for done, _ in seen] == list(range(seen[0][1] + 1))


def test_info_describes_a_bundle(tiny_checkpoint, tiny_bundle, tmp_path, capsys):
    assert main(["build", str(tiny_checkpoint), "-o", str(tmp_path / "b"), "--quality", "3", "--quiet"]) == 0
    assert (
        " of 3 answers equal the checkpoint's in 32-bit floats (simulated scenes); KL "
        in capsys.readouterr().out
    )
    assert main(["info", str(tmp_path / "b")]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"tiny ({tmp_path / 'b'})\n")
    for expected in (
        "4 bits in blocks of 32 by gptq",
        "encoder int8",
        " of 3 answers equal",
        "onnxruntime-cpu",
        "MB  vision.onnx",
    ):
        assert expected in text
    assert main(["info", str(tiny_bundle)]) == 0
    assert "quality    not measured" in capsys.readouterr().out
    assert main(["info", str(tiny_checkpoint)]) == 1
    assert "is a checkpoint, not a bundle" in capsys.readouterr().err


def test_auto_is_sixteen_bits_for_tensorrt(tiny_checkpoint, tmp_path):
    bundle = build_bundle(
        tiny_checkpoint, tmp_path / "b", BuildOptions(vision_store=AUTO, backends=("tensorrt",))
    )
    assert bundle.manifest.precision["vision"] == "fp16"
