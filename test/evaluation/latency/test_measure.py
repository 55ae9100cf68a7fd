# SPDX-License-Identifier: Apache-2.0
"""The latency table of nano: that its figures hang together, not what they are."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from mobilevlm_ros.cli import main
from mobilevlm_ros.engine.runtime import load_runtime, shipped_bundle
from mobilevlm_ros.errors import ContextOverflow, OptionError
from mobilevlm_ros.evaluation.latency import plot as latency_plot
from mobilevlm_ros.evaluation.latency.measure import LatencyReport, measure

EXAMPLE = LatencyReport(
    model="example",
    backend="onnxruntime-cpu",
    machine="a machine",
    threads=2,
    model_bytes=1_166_400_000,
    load=2.5,
    encode=1.0,
    prompt_tokens=190,
    prompt=1.9,
    tokens=256,
    decode=8.0,
    sample=0.128,
    peak_bytes=2 << 30,
)


def test_rates_and_total_follow_from_the_times():
    assert (EXAMPLE.prompt_rate, EXAMPLE.decode_rate, EXAMPLE.sample_rate) == (100, 32, 2000)
    assert EXAMPLE.total == pytest.approx(11.028)
    assert json.loads(json.dumps(EXAMPLE.as_dict()))["decode_rate"] == 32
    table = EXAMPLE.table()
    for text in (
        "1166.4 MB",
        "100.0 tokens/s (190 tokens)",
        "32.0 tokens/s",
        "11.03 s",
        "2048 MiB",
        "1000.0 ms",
    ):
        assert text in table


def test_nano_is_measured_stage_by_stage():
    stages: list[str] = []
    found = measure(lambda: load_runtime(threads=1), tokens=7, repeats=2, threads=1, progress=stages.append)
    assert stages == ["load", "encode", "prompt", "decode"]
    assert (found.model, found.tokens, found.threads) == ("nano", 7, 1)
    assert min(found.load, found.encode, found.prompt, found.decode, found.sample) > 0
    files = sum(file.stat().st_size for file in shipped_bundle().iterdir() if file.name != "bundle.json")
    assert found.model_bytes == files
    assert found.peak_bytes > files


@pytest.mark.parametrize("counts", [{"tokens": 0}, {"repeats": 0}])
def test_counts_below_one_are_refused(counts):
    with pytest.raises(OptionError, match="1 or more"):
        measure(load_runtime, **counts)


def test_an_answer_longer_than_the_context_is_refused():
    with pytest.raises(ContextOverflow, match="measure with at most"):
        measure(lambda: load_runtime(threads=1), tokens=100_000, repeats=1)


def test_the_plot_shows_each_part_in_its_share():
    image = latency_plot.draw(EXAMPLE)
    assert (image.dtype, image.shape) == (np.uint8, (320, 960, 3))
    row = image[160, 40:920]
    widths = [(row == colour).all(-1).mean() for colour in latency_plot.COLOURS.values()]
    parts = [EXAMPLE.encode, EXAMPLE.prompt, EXAMPLE.decode, EXAMPLE.sample]
    np.testing.assert_allclose(widths, np.array(parts) / EXAMPLE.total, atol=0.004)


def test_several_models_are_drawn_to_one_scale():
    half = dataclasses.replace(
        EXAMPLE, model="half", encode=0.5, prompt=0.95, decode=4.0, sample=EXAMPLE.sample / 2
    )
    image = latency_plot.draw_several([EXAMPLE, half])
    coloured = [
        np.logical_or.reduce([(image[row] == colour).all(-1) for colour in latency_plot.COLOURS.values()])
        for row in (90 + 22 + 10, 90 + 86 + 22 + 10)
    ]
    assert coloured[0].sum() == pytest.approx(880, abs=4)
    assert coloured[1].sum() == pytest.approx(440, abs=4)


def test_bench_compares_bundles(nano: Path, tmp_path: Path, capsys):
    other = Path(shutil.copytree(nano, tmp_path / "other"))
    plot = tmp_path / "bench.png"
    command = ["bench", "--bundle", "nano", str(other), "--tokens", "2", "--repeats", "1", "--json"]
    assert main([*command, "--plot", str(plot)]) == 0
    told = json.loads(capsys.readouterr().out)["models"]
    assert [model["tokens"] for model in told] == [2, 2] and all(model["peak_bytes"] for model in told)
    assert cv2.imread(str(plot)).shape[1] == 960
    assert main(["bench", "--bundle", "nano", str(tmp_path / "none"), "--tokens", "2"]) == 1
    assert str(tmp_path / "none") in capsys.readouterr().err


def test_bench_prints_json_and_draws(tmp_path: Path, capsys):
    plot = tmp_path / "bench.png"
    assert (
        main(["bench", "--tokens", "3", "--repeats", "1", "--threads", "1", "--json", "--plot", str(plot)])
        == 0
    )
    assert json.loads(capsys.readouterr().out)["tokens"] == 3
    assert cv2.imread(str(plot)).shape == (320, 960, 3)


def test_bench_prints_a_table_and_says_why_it_cannot(tmp_path: Path, capsys):
    assert main(["bench", "--tokens", "2", "--repeats", "1"]) == 0
    assert "prompt eval" in capsys.readouterr().out
    assert main(["bench", "--tokens", "2", "--repeats", "1", "--plot", str(tmp_path / "no" / "x.png")]) == 1
    assert "cannot write the plot" in capsys.readouterr().err
    assert main(["bench", "--tokens", "0"]) == 1
