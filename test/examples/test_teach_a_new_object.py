# SPDX-License-Identifier: Apache-2.0
"""The example's whole way at a small size: render, train, merge, build, examine."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mobilevlm_ros.simulation.render import observe
from mobilevlm_ros.simulation.scene import KINDS
from mobilevlm_ros.simulation.scene_sampler import sample_scene

ROOT = Path(__file__).parents[2]


def test_new_kinds_appear_only_where_they_are_asked_for() -> None:
    assert not any(t.kind == "barrier" for seed in range(200) for t in sample_scene(seed).things)
    assert sample_scene(11) == sample_scene(11, KINDS)
    scene = next(s for seed in range(20) if (s := sample_scene(seed, ("barrier",))).things)
    observation = observe(scene, 0.0, 320, 240)
    assert {seen.thing.kind for seen in observation.seen} == {"barrier"}
    assert np.unique(observation.labels).size == len(observation.seen) + 1


@pytest.mark.timeout(400)
def test_from_pictures_to_a_bundle(nano: Path, tmp_path: Path) -> None:
    out = tmp_path / "barrier"
    program = [sys.executable, "examples/teach_a_new_object/teach.py", "-o", str(out)]
    size = ["--pictures", "12", "--steps", "16", "--threads", "1", "--exam", "8"]
    result = subprocess.run(program + size, cwd=ROOT, capture_output=True, text=True, timeout=380)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in (out / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    marks = next(line for line in result.stdout.splitlines() if line.startswith("right about a barrier: "))
    assert set(json.loads(marks.partition(": ")[2])) == {"before", "after"}
    assert f"bundle: {out / 'bundle'}" in result.stdout
